"""The page as text: its size, its security policy, and its content without JavaScript."""

from __future__ import annotations

import base64
import gzip
import hashlib
import math
import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from importlib.resources import files
from itertools import combinations

import pytest

from lake.quality.report.document import MissingSlots, Report, from_json
from lake.quality.report.page import draw_trend, format_score, format_share, render_page, write_lead
from tests.quality.report import sample

HOSTILE = "</script><script>window.stolen=1</script><!--<img src=x onerror=window.stolen=1>\u2028"


# How linear light is seen without one kind of cones: Machado, Oliveira and Fernandes 2009, table 1.
EYES = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
Light = tuple[float, ...]


class Elements(HTMLParser):
    """Start tags with their attributes, and the text of each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[tuple[str, str]] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag if tag in ("style", "script") and "type" not in dict(attrs) else ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.inline.append((self._inside, data))


def hostile() -> Report:
    """A report in which all foreign text tries to escape from its element."""
    report = sample.report(markets=2, days=3, findings=40, charts=2)
    return replace(
        report,
        title=HOSTILE,
        lake_id=HOSTILE,
        bundle_id=HOSTILE,
        markets=tuple(replace(market, symbol=HOSTILE) for market in report.markets),
        findings=tuple(
            replace(
                finding,
                symbol=HOSTILE,
                message=HOSTILE,
                check=HOSTILE,
                context=({HOSTILE: HOSTILE},),
            )
            for finding in report.findings
        ),
        charts=tuple(replace(chart, title=HOSTILE, kind=HOSTILE) for chart in report.charts),
        repairs=tuple(replace(repair, why=HOSTILE) for repair in report.repairs),
    )


def colours_of(theme: str) -> dict[str, Light]:
    """Colours of a theme by name, as linear light."""
    text = (files("lake.quality.report") / "style" / f"{theme}.css").read_text(encoding="utf-8")
    colours = re.findall(r"--([\w-]+): #([0-9a-f]{6});", text)
    return {name: tuple(map(linear, bytes.fromhex(value))) for name, value in colours}


def linear(value: int) -> float:
    part = value / 255
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)


def luminance(light: Light) -> float:
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), light, strict=True))


def seen(light: Light, eyes: str) -> Light:
    if eyes not in EYES:
        return light
    sums = (sum(a * b for a, b in zip(row, light, strict=True)) for row in EYES[eyes])
    return tuple(min(1.0, max(0.0, value)) for value in sums)


def lab(light: Light) -> Light:
    """CIE L*a*b*, in which a distance of 2.3 is just noticed."""
    matrix = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    x, y, z = (
        cube_root(sum(a * b for a, b in zip(row, light, strict=True)) / whole)
        for row, whole in zip(matrix, white, strict=True)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def cube_root(value: float) -> float:
    return value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116


def embedded(page: str) -> Report:
    match = re.search(r'id="document">([^<]*)</script>', page)
    assert match is not None
    return from_json(gzip.decompress(base64.b64decode(match[1])))


def test_fifty_markets_of_a_year_with_everything_are_under_a_megabyte() -> None:
    report = sample.report(markets=50, days=365, findings=2000, charts=40)
    page = render_page(report)

    assert len(report.charts) == 40
    assert len(page.encode()) < 1_000_000
    assert embedded(page) == report


def test_the_same_report_gives_the_same_page() -> None:
    assert render_page(sample.report()) == render_page(sample.report())


def test_text_of_others_stays_text() -> None:
    page = render_page(hostile())
    plain = Elements(render_page(sample.report(markets=2, days=3, findings=40, charts=2)))

    assert "window.stolen=1</script>" not in page
    tags = [tag for tag, _ in Elements(page).found if tag in ("script", "img", "style")]
    assert tags == [tag for tag, _ in plain.found if tag in ("script", "img", "style")]
    assert embedded(page) == hostile()


def test_nothing_in_the_page_points_out_of_it() -> None:
    for tag, attributes in Elements(render_page(sample.report())).found:
        assert "src" not in attributes
        assert "style" not in attributes, "the policy would drop it"
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith(("#", "data:")), tag


def test_the_policy_lets_in_what_is_in_the_page_and_nothing_else() -> None:
    elements = Elements(render_page(sample.report()))
    policy = next(
        attributes["content"]
        for tag, attributes in elements.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    directives = {name: set(rest) for name, *rest in map(str.split, policy.split(";"))}
    hashes: dict[str, set[str]] = {"script": set(), "style": set()}
    for tag, text in elements.inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[tag].add(f"'sha256-{digest}'")

    assert directives["default-src"] == {"'none'"}
    assert directives["script-src"] == hashes["script"]
    assert len(hashes["script"]) == 2
    assert directives["style-src"] == hashes["style"]


def test_the_totals_are_in_the_page_without_javascript() -> None:
    page = render_page(sample.report(markets=50, days=365, findings=20))
    totals = sample.report(markets=50, days=365, findings=20).totals

    assert f"{totals.rows:,}" in page
    assert f"{totals.missing.losses:,}" in page
    assert format_score(totals.scores.score) in page
    assert re.search("<noscript>.*need JavaScript.*</noscript>", page)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (1.0, "1"),
        (0.99999, "0.9999"),
        (0.5, "0.5000"),
        (0.0, "0.0000"),
        (0.0003, "0.0003"),  # times 10,000 it is a little less than 3
    ],
)
def test_only_a_perfect_score_reads_one(value: float | None, text: str) -> None:
    assert format_score(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 10, "0 %"), (1, 4, "25.0 %"), (1, 3000, "0.033 %"), (1, 25_000_000, "0.0000040 %")],
)
def test_a_small_share_keeps_its_digits(part: int, whole: int, text: str) -> None:
    assert format_share(part, whole) == text


def test_the_lead_says_what_matters() -> None:
    report = sample.perfect()
    few = replace(report.totals, missing=MissingSlots(unknown=1, no_trade=7))

    assert write_lead(report) == (
        "4,320 rows in 1 series were checked. No expected row is missing. No finding is open."
    )
    assert "1 row is missing" in write_lead(replace(report, totals=few))


def test_the_trend_names_the_worst_day() -> None:
    market = sample.perfect().markets[0]
    days = replace(market.days, score=(10_000, None, 9_000))
    went = draw_trend(replace(sample.perfect(), markets=(replace(market, days=days),)))

    assert went is not None
    assert (went.lowest, str(went.lowest_day), went.highest) == (0.9, "2025-01-03", 1.0)
    assert (went.path, went.width) == ("M0 0.00H1M2 40.00H3", 3)
    assert draw_trend(replace(sample.perfect(), markets=())) is None


def test_a_long_pause_is_short_in_the_trend() -> None:
    market = sample.perfect().markets[0]
    scores = (10_000, 9_000, *(None,) * 700, 10_000)
    long = replace(sample.perfect(), end=sample.START + timedelta(days=len(scores)))
    days = replace(market.days, score=scores)
    went = draw_trend(replace(long, markets=(replace(market, days=days),)))

    assert went is not None
    assert (went.path, went.width) == ("M0 0.00H1V40.00H2M4 0.00H5", 5)


@pytest.mark.parametrize("theme", ["base", "dark"])
@pytest.mark.parametrize("eyes", [*EYES, "all"])
def test_colours_of_a_scale_are_distinct_for_all_eyes(theme: str, eyes: str) -> None:
    colours = colours_of(theme)
    grades = ["none", *(f"grade-{place}" for place in range(6))]
    reasons = ["none", "whole", "no_trade", "venue_outage", "unknown", "not_fetched", "lost"]

    for scale in (grades, reasons, ["up", "down", "second"]):
        for first, other in combinations(scale, 2):
            apart = math.dist(lab(seen(colours[first], eyes)), lab(seen(colours[other], eyes)))
            assert apart > 11, (first, other)


@pytest.mark.parametrize("theme", ["base", "dark"])
def test_days_can_be_read_on_the_colours_of_the_calendar(theme: str) -> None:
    colours = colours_of(theme)
    for name in ("none", "whole", "no_trade", "venue_outage", "unknown", "not_fetched", "lost"):
        text = luminance(colours.get(f"on-{name}", colours["ink"]))
        ground = luminance(colours[name])
        ratio = (max(text, ground) + 0.05) / (min(text, ground) + 0.05)
        assert ratio >= 4.5, name
