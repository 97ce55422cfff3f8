"""Bars that were fetched before their end, and never again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from lake.model.catalog import builtin
from lake.model.time import TimeRange
from lake.quality.checks.open_bars import CHECKS
from tests.quality.slices import collect_findings, slice_of

T0 = datetime(2024, 1, 1, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
THRESHOLDS = {check.name: check.thresholds for check in builtin().dataset("bars_1m").checks}


def walk(closed: list[bool]) -> pl.DataFrame:
    """Bars with one price."""
    times = [T0 + n * MINUTE for n in range(len(closed))]
    prices = {name: [100.0] * len(closed) for name in ("open", "high", "low", "close", "volume")}
    return pl.DataFrame({"timestamp": times, **prices, "closed": closed})


def run(closed: list[bool], now: datetime, table: str = "bars_1m", **more: Any) -> pl.DataFrame:
    data = slice_of(table, walk(closed), now=now, **more)
    return collect_findings(CHECKS["left_open"].function(data, **THRESHOLDS["left_open"]))


def test_the_last_bar_of_a_market_that_is_gone_is_found() -> None:
    [row] = run([True, True, False], T0 + 3 * MINUTE + 2 * DAY).rows(named=True)
    assert (row["start"], row["end"], row["rows"]) == (T0 + 2 * MINUTE, T0 + 3 * MINUTE, 1)
    assert (row["reason"], row["measured"], row["expected"]) == ("last", 172_800.0, 86_400.0)
    assert "1 bar is still open 48.0 h after the end" in row["message"]


def test_an_open_bar_between_closed_ones_is_found_with_its_neighbours() -> None:
    found = run([True, False, False, True, False], T0 + 3 * DAY)
    assert found.select("start", "rows", "reason").rows() == [
        (T0 + MINUTE, 2, "not_last"),
        (T0 + 4 * MINUTE, 1, "last"),
    ]


def test_the_last_bar_of_a_day_is_not_the_last_of_the_market() -> None:
    span = TimeRange(T0, T0 + 2 * DAY)
    assert run([True, False], T0 + 4 * DAY, span=span)["reason"].to_list() == ["not_last"]


def test_the_present_bar_and_that_of_the_last_ingestion_are_not_reported() -> None:
    for now in (T0 + 2 * MINUTE + MINUTE / 2, T0 + 3 * MINUTE + DAY):
        assert run([True, True, False], now).is_empty()


def test_a_month_is_open_until_its_end() -> None:
    assert run([False], T0 + 31 * DAY, "bars_1M").is_empty()
    assert run([False], T0 + 33 * DAY, "bars_1M").height == 1
    assert run([True], T0 + 33 * DAY, "bars_1M").is_empty()
