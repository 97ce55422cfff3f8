"""The page as text: its size, what it lets in, and what it says without JavaScript."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lake.quality.report.document import Missing, Report, from_json
from lake.quality.report.page import html, lead, score, share, trend
from tests.quality.report import sample

HOSTILE = "</script><script>window.stolen=1</script><!--<img src=x onerror=window.stolen=1>\u2028"


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
    """A report in which all text of others tries to get out of its place."""
    report = sample.report(markets=2, days=3, findings=40, charts=2)
    return replace(
        report,
        title=HOSTILE,
        lake_id=HOSTILE,
        bundle_id=HOSTILE,
        markets=tuple(replace(market, symbol=HOSTILE) for market in report.markets),
        findings=tuple(
            replace(
                found, symbol=HOSTILE, message=HOSTILE, check=HOSTILE, context=({HOSTILE: HOSTILE},)
            )
            for found in report.findings
        ),
        charts=tuple(replace(chart, title=HOSTILE, kind=HOSTILE) for chart in report.charts),
        repairs=tuple(replace(repair, why=HOSTILE) for repair in report.repairs),
    )


def embedded(page: str) -> Report:
    found = re.search(r'id="document">([^<]*)</script>', page)
    assert found is not None
    return from_json(gzip.decompress(base64.b64decode(found[1])))


def test_fifty_markets_of_a_year_with_everything_are_under_a_megabyte() -> None:
    report = sample.report(markets=50, days=365, findings=2000, charts=40)
    page = html(report)

    assert len(report.charts) == 40
    assert len(page.encode()) < 1_000_000
    assert embedded(page) == report


def test_the_same_report_gives_the_same_page() -> None:
    assert html(sample.report()) == html(sample.report())


def test_text_of_others_stays_text() -> None:
    page = html(hostile())
    plain = Elements(html(sample.report(markets=2, days=3, findings=40, charts=2)))

    assert "window.stolen=1</script>" not in page
    tags = [tag for tag, _ in Elements(page).found if tag in ("script", "img", "style")]
    assert tags == [tag for tag, _ in plain.found if tag in ("script", "img", "style")]
    assert embedded(page) == hostile()


def test_nothing_in_the_page_points_out_of_it() -> None:
    for tag, attributes in Elements(html(sample.report())).found:
        assert "src" not in attributes
        assert "style" not in attributes, "the policy would drop it"
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith(("#", "data:")), tag


def test_the_policy_lets_in_what_is_in_the_page_and_nothing_else() -> None:
    elements = Elements(html(sample.report()))
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
    page = html(sample.report(markets=50, days=365, findings=20))
    totals = sample.report(markets=50, days=365, findings=20).totals

    assert f"{totals.rows:,}" in page
    assert f"{totals.missing.losses:,}" in page
    assert score(totals.scores.score) in page
    assert re.search("<noscript>.*need JavaScript.*</noscript>", page)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\N{EN DASH}"), (1.0, "1"), (0.99999, "0.9999"), (0.5, "0.5000"), (0.0, "0.0000")],
)
def test_only_a_perfect_score_reads_one(value: float | None, text: str) -> None:
    assert score(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 10, "0 %"), (1, 4, "25.0 %"), (1, 3000, "0.033 %"), (1, 25_000_000, "0.0000040 %")],
)
def test_a_small_share_keeps_its_digits(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_the_lead_says_what_matters() -> None:
    report = sample.perfect()
    few = replace(report.totals, missing=Missing(unknown=1, no_trade=7))

    assert lead(report) == (
        "4,320 rows in 1 series were checked. No row that should be there is missing. "
        "No finding is open."
    )
    assert "1 row is really missing" in lead(replace(report, totals=few))


def test_the_trend_names_the_worst_day() -> None:
    market = sample.perfect().markets[0]
    days = replace(market.days, score=(10_000, None, 9_000))
    went = trend(replace(sample.perfect(), markets=(replace(market, days=days),)))

    assert went is not None
    assert (went.lowest, str(went.lowest_day), went.highest) == (0.9, "2025-01-03", 1.0)
    assert went.path == "M0 0.00H1M2 40.00H3"
    assert trend(replace(sample.perfect(), markets=())) is None
