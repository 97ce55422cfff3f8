"""The page in a real browser: drawing, filters, sorting, keyboard, and no network requests."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.quality.report import sample
from tests.quality.report.conftest import Opened, Scheme
from tests.quality.report.test_page import hostile

PROBES = (Path(__file__).parent / "probes.js").read_text(encoding="utf-8").split("\n", 1)[1].strip()


def ask(page: Page, probe: str) -> list[object]:
    """An answer of `probes.js`."""
    answer: list[object] = page.evaluate(f"() => {PROBES}.{probe}()")
    return answer


def measure(canvas: Locator, probe: str) -> float:
    """A figure of `probes.js` for a canvas."""
    return float(canvas.evaluate(f"canvas => {PROBES}.{probe}(canvas)"))


def findings(page: Page) -> Locator:
    return page.locator("#findings tr[data-id]")


def severities(page: Page) -> list[str]:
    return page.locator("#findings tr[data-id] .severity").all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_charts_are_drawn(opened: Opened, scheme: Scheme) -> None:
    page = opened(sample.report(markets=5, days=60, findings=80, charts=4), scheme=scheme)

    assert measure(page.locator("#score canvas"), "colours") >= 3
    assert measure(page.locator("#completeness canvas").first, "colours") >= 3
    for name, amount in (("charts", 4), ("deviations", 4), ("latency", 1)):
        plots = page.locator(f"#{name} .plot")
        assert plots.count() == amount
        for place in range(amount):
            plots.nth(place).scroll_into_view_if_needed()
            canvas = plots.nth(place).locator("canvas")
            canvas.wait_for()
            page.wait_for_timeout(50)
            assert measure(canvas, "colours") >= 4


def test_a_candle_chart_shades_its_gap_and_shows_its_times(opened: Opened) -> None:
    page = opened(sample.report(markets=3, days=30, findings=60, charts=6))
    card = page.locator("#charts .card").filter(has_text="gap").first
    card.scroll_into_view_if_needed()
    canvas = card.locator("canvas")
    canvas.wait_for()
    page.wait_for_timeout(50)
    assert measure(canvas, "marked") > 0.005
    assert re.search(r"Volume\s*\d", card.inner_text()), "of the candle after the gap"


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("symbol", ["BTC/USDT", 130 * "X" + "/USDT"])
def test_what_is_wrong_is_seen_without_scrolling_sideways(
    opened: Opened, width: int, symbol: str
) -> None:
    report = sample.report(markets=3, days=30, findings=60)
    report = replace(
        report,
        findings=tuple(replace(finding, symbol=symbol) for finding in report.findings),
        repairs=tuple(replace(repair, symbol=symbol) for repair in report.repairs),
    )
    page = opened(report, width=width)
    cell = findings(page).first.locator(".prose")
    repair = page.locator("#repairs tbody tr").first.locator(".prose")

    for shown in (cell, repair):
        box = shown.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    assert report.findings[0].message == cell.inner_text()
    findings(page).first.get_by_role("button").click()
    assert symbol in page.locator("#findings .detail").inner_text()
    sort = page.locator("#findings").get_by_role("columnheader", name="Rows")
    assert sort.get_by_role("button").is_visible()


def test_filters_keep_what_fits_and_say_how_many(opened: Opened) -> None:
    report = sample.report(markets=4, days=30, findings=120)
    page = opened(report)
    shown = page.locator("#findings .shown")
    assert shown.inner_text() == "120 of 120 findings. This page has the worst of 157."

    page.get_by_label("Severity", exact=True).select_option("error")
    errors = [finding for finding in report.findings if finding.severity == "error"]
    assert shown.inner_text().startswith(f"{len(errors)} of 120 findings.")
    assert set(severities(page)) == {"error"}

    page.get_by_label("Check", exact=True).select_option("gaps")
    gaps = [finding for finding in errors if finding.check == "gaps"]
    assert findings(page).count() == len(gaps) < len(errors)
    page.get_by_label("Search").fill("UNKNOWN   gaps")
    kept = [finding for finding in gaps if finding.reason == "unknown"]
    assert findings(page).count() == len(kept) > 0

    page.get_by_label("Search").fill("no such words")
    assert "No finding matches the filters" in shown.inner_text()
    page.get_by_role("button", name="Clear filters").click()
    assert shown.inner_text().startswith("120 of 120")

    first = report.markets[0]
    name = f"{first.exchange} {first.symbol}"
    page.locator("#findings").get_by_label("Market").select_option(f"{name} · {first.dataset}")
    of_first = sum(
        f.exchange == first.exchange and f.symbol == first.symbol for f in report.findings
    )
    assert findings(page).count() == of_first > 0


def test_columns_sort_both_ways(opened: Opened) -> None:
    report = sample.report(markets=4, days=30, findings=40)
    page = opened(report)
    heading = page.locator("#findings").get_by_role("columnheader", name="Rows")
    cells = page.locator("#findings tr[data-id] td:nth-child(6)")  # Rows
    rows = sorted(finding.rows for finding in report.findings)

    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert [int(text) for text in cells.all_inner_texts()] == rows[::-1]
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [int(text) for text in cells.all_inner_texts()] == rows


def test_the_worst_findings_come_first_and_more_are_shown_on_demand(opened: Opened) -> None:
    page = opened(sample.report(markets=4, days=30, findings=120))
    order = ["critical", "error", "warning", "info"]

    ranks = [order.index(severity) for severity in severities(page)]
    assert (ranks == sorted(ranks), len(ranks)) == (True, 50)
    page.locator("#findings").get_by_role("button", name="Show 70 more").click()
    assert findings(page).count() == 120


def test_a_finding_opens_by_keyboard_with_the_rows_around_it(opened: Opened) -> None:
    report = sample.report(markets=2, days=10, findings=10)
    page = opened(report)
    button = findings(page).first.get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    detail = page.locator("#findings .detail")

    assert button.get_attribute("aria-expanded") == "true"
    assert report.findings[0].finding_id in detail.inner_text()
    assert detail.locator(".context tbody tr").count() == 5
    page.keyboard.press("Enter")
    assert detail.count() == 0


def test_arrow_keys_move_in_the_heat_map_and_enter_shows_the_findings(opened: Opened) -> None:
    report = sample.report(markets=3, days=30, findings=200)
    page = opened(report)
    page.locator("#score canvas").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    spoken = page.locator("#score [aria-live]").inner_text()
    assert page.locator("#score .grid-ring").is_visible()
    worst = sorted(report.markets, key=lambda market: market.scores.score or 0)[1]
    assert f"{worst.exchange} {worst.symbol}" in spoken
    assert "2 Jan 2025" in spoken

    page.keyboard.press("Enter")
    kept = [f for f in report.findings if f.symbol == worst.symbol and f.exchange == worst.exchange]
    kept = [f for f in kept if f.start.day == 2 and f.start.month == 1]
    assert findings(page).count() == len(kept) > 0
    assert page.locator("#findings .shown").evaluate("text => text === document.activeElement")
    page.get_by_role("button", name="Only 2 Jan 2025").click()
    assert findings(page).count() > len(kept)


def test_a_click_in_the_calendar_filters_by_day(opened: Opened) -> None:
    report = sample.report(markets=3, days=7, findings=70)
    page = opened(report)
    # The first of January 2025 is a Wednesday: the third cell of the first week.
    canvas = page.locator("#completeness canvas")
    height = canvas.evaluate("canvas => canvas.clientHeight")
    canvas.click(position={"x": 8, "y": height / 7 * 2.5})

    assert findings(page).count() == sum(finding.start.day == 1 for finding in report.findings) > 0


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_moves_when_a_chart_is_drawn(opened: Opened, width: int) -> None:
    page = opened(sample.report(markets=3, days=30, findings=60), width=width)
    height = "document.documentElement.scrollHeight"
    before = page.evaluate(height)
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator("canvas").wait_for()
    assert page.evaluate(height) == before


def test_a_chart_leads_to_its_finding(opened: Opened) -> None:
    report = sample.report(markets=3, days=30, findings=60)
    page = opened(report)
    page.get_by_role("button", name="Show the finding").first.click()

    expect(findings(page)).to_have_count(1)
    assert report.charts[0].finding_id in page.locator("#findings .detail").inner_text()


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("size", ["large", "small"])
def test_the_page_never_scrolls_sideways(opened: Opened, width: int, size: str) -> None:
    large = size == "large"
    page = opened(sample.report(50, 365, 60) if large else sample.perfect(), width=width)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    if large:
        findings(page).first.get_by_role("button").click()

    room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert room[0] <= room[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(opened: Opened, scheme: Scheme) -> None:
    page = opened(sample.report(markets=2, days=10, findings=40), scheme=scheme)
    assert ask(page, "poor") == []


def test_the_theme_follows_the_system_until_it_is_chosen(opened: Opened) -> None:
    page = opened(sample.report(markets=2, days=10, findings=4), scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    before = page.locator("#score canvas").evaluate("canvas => canvas.toDataURL()")
    page.get_by_role("button", name="Light theme").click()

    assert page.evaluate(ground) != dark
    assert page.locator("#score canvas").evaluate("canvas => canvas.toDataURL()") != before
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate(ground) == dark


def test_everything_that_can_be_used_has_a_name(opened: Opened) -> None:
    page = opened(sample.report(markets=3, days=20, findings=60))
    levels = [int(str(level)) for level in ask(page, "levels")]

    assert ask(page, "unnamed") == []
    assert ask(page, "doubled") == []
    assert page.evaluate("document.documentElement.lang") == "en"
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_empty_sections_say_so_in_words(opened: Opened) -> None:
    page = opened(sample.perfect())
    text = page.locator("main").inner_text()

    assert "No findings: every check passed." in text
    assert "No repairs" in text
    assert "No gaps and no spikes" in text
    assert page.locator("#score canvas").is_visible()


def test_text_of_others_does_nothing_in_the_page(opened: Opened) -> None:
    page = opened(hostile())
    page.get_by_role("button", name="Show the finding").first.click()

    assert page.evaluate("window.stolen") is None
    assert page.locator("img").count() == 0
    assert "<img src=x" in findings(page).first.inner_text()


def test_without_javascript_the_totals_are_there(opened: Opened) -> None:
    report = sample.report(markets=3, days=20, findings=60)
    page = opened(report, javascript=False)

    assert f"{report.totals.rows:,}" in page.locator("#summary").inner_text()
    assert not page.locator("#details").is_visible()


def test_on_paper_it_is_light_and_without_what_only_a_screen_can_use(opened: Opened) -> None:
    page = opened(sample.report(markets=2, days=10, findings=20), scheme="dark")
    page.pdf()
    page.emulate_media(media="print")

    assert not page.locator("nav").is_visible()
    assert not page.locator("#findings .controls").is_visible()
    assert page.locator("#findings table").is_visible()


def test_no_two_buttons_of_a_list_have_one_name(opened: Opened) -> None:
    page = opened(sample.report(markets=3, days=30, findings=60, charts=4))
    for part in ("#findings .expand", "#charts .card button"):
        buttons = page.locator(part).evaluate_all(
            "buttons => buttons.map(button => button.getAttribute('aria-label'))"
        )
        assert len(set(buttons)) == len(buttons) >= 4
