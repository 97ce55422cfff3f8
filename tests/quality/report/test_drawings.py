"""Drawings: true labels of axes, and long gaps and pauses that are shortened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from playwright.sync_api import Locator, Page

from lake.quality.report.document import Chart, Report
from tests.quality.report import sample
from tests.quality.report.conftest import Opened
from tests.quality.report.test_browser import measure


def written(page: Page, part: Locator) -> list[str]:
    """Return the texts that are drawn on the canvas of a plot."""
    page.evaluate("window.written.length = 0")
    part.scroll_into_view_if_needed()
    part.locator("canvas").wait_for()
    page.wait_for_timeout(100)
    return [str(text) for text in page.evaluate("window.written")]


def with_chart(chart: Chart) -> Report:
    return replace(sample.perfect(), charts=(chart,))


def candles(times: Sequence[int], price: float, mark: tuple[int, int]) -> Chart:
    prices = [price * (1 + 0.01 * (place % 7)) for place in range(len(times))]
    column = tuple(prices)
    volume = (1.0,) * len(times)
    return Chart("id", "gap", "a b", tuple(times), column, column, column, column, volume, *mark)


def test_prices_of_small_coins_differ_on_the_axis(opened: Opened) -> None:
    times = [sample.T0_S + 300 * place for place in range(80)]
    page = opened(with_chart(candles(times, 5.9e-5, (times[40], times[41]))))
    labels = [text for text in written(page, page.locator("#charts .plot")) if ":" not in text]

    values = [float(text) for text in labels if re.fullmatch(r"[\d.]+", text)]
    assert len(set(values)) == len(values) >= 3
    steps = {round((b - a) * 1e9) for a, b in pairwise(values)}
    assert len(steps) == 1, "no label is rounded to another place than its line"


def test_the_middle_of_a_long_gap_is_cut_out_and_times_stay_true(opened: Opened) -> None:
    start = sample.T0_S + 3600
    end = start + 50 * 3600 + 600
    times = [*range(start - 2400, start, 60), *range(end, end + 2400, 60)]
    page = opened(with_chart(candles(times, 100.0, (start, end))))
    card = page.locator("#charts .card")
    labels = written(page, card.locator(".plot"))

    assert "2025-01-01 01:00, 2 d 2 h, without its middle" in card.inner_text()
    assert "Time2025-01-03 03:10" in card.inner_text()
    assert any(text.startswith("3 Jan 0") for text in labels), "the day is said after the cut"
    assert measure(card.locator("canvas"), "marked") < 0.6, "candles have room"


def test_latency_by_day_has_days_on_its_axis(opened: Opened) -> None:
    page = opened(sample.report(markets=1, days=5, findings=0, charts=0))
    labels = written(page, page.locator("#latency .plot"))

    assert "3 Jan" in labels
    assert not [text for text in labels if ":" in text]


def test_long_pauses_are_left_out_of_heat_map_and_calendar(opened: Opened) -> None:
    report = sample.perfect(days=900)
    (market,) = report.markets
    checked = [*range(3), *range(890, 900)]
    scores = tuple(10_000 if day in checked else None for day in range(900))
    rows = tuple(1440 if day in checked else 0 for day in range(900))
    paused = replace(market, days=replace(market.days, score=scores, rows=rows))
    page = opened(replace(report, markets=(paused,)), width=390)

    assert page.locator("#score canvas").evaluate("canvas => canvas.clientWidth") < 300
    assert page.locator("#completeness canvas").count() == 2
    assert "Pauses of more than 31 days are omitted." in page.locator("#score").inner_text()
    page.locator("#score canvas").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    spoken = page.locator("#score [aria-live]").inner_text()
    assert "10 Jun 2027" in spoken, "the day after the pause"
