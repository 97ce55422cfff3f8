"""Rows filled in by rule: flagged, never over another, and none where the rule has no ground."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.model.catalog import builtin
from lake.model.dataset import TIMESTAMP, Interpolation, RepairPolicy
from lake.model.derive import BARS, INTERPOLATED, list_slots
from lake.model.grid import Grid
from lake.model.interpolate import build_flat_bars, find_due_times, find_obstacle, interpolate_rows
from lake.model.time import EPOCH, TimeRange
from lake.model.timeframe import Timeframe
from tests.conftest import DAY, MINUTE, T0

M1 = Grid(Timeframe.parse("1m"))
HOUR = timedelta(hours=1)
FUNDING = builtin().dataset("funding")


def _bars(minutes: list[int], closed: bool = True) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "timestamp": [T0 + n * MINUTE for n in minutes],
            "close": [100.0 + n for n in minutes],
            "closed": [closed] * len(minutes),
        },
        schema_overrides={"timestamp": TIMESTAMP, "close": pl.Float64, "closed": pl.Boolean},
    )


def _opens(minutes: list[int]) -> pl.Series:
    return pl.Series("timestamp", [T0 + n * MINUTE for n in minutes], dtype=TIMESTAMP)


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_flat_bars_go_on_from_the_bar_right_before(stored: set[int], quiet: set[int]) -> None:
    filled = build_flat_bars(_bars(sorted(stored)), _opens(sorted(quiet)), M1)
    expected = {}
    for minute in sorted(quiet - stored):
        before = minute - 1
        if before in stored:
            expected[minute] = 100.0 + before
        elif before in expected:
            expected[minute] = expected[before]
    assert filled["timestamp"].to_list() == [T0 + n * MINUTE for n in expected]
    assert filled["close"].to_list() == list(expected.values())
    assert filled.schema == BARS


def test_a_flat_bar_has_one_price_no_volume_and_says_what_it_is() -> None:
    [bar] = build_flat_bars(_bars([0]), _opens([1]), M1).rows(named=True)
    assert {bar[name] for name in ("open", "high", "low", "close")} == {100.0}
    assert bar["volume"] == bar["quote_volume"] == bar["trade_count"] == 0
    assert bar["taker_buy_volume"] == bar["taker_buy_quote_volume"] == 0
    assert bar["closed"] is True
    assert bar["fill"] == f"{INTERPOLATED}flat"


def test_a_bar_that_is_still_open_has_no_last_price() -> None:
    assert build_flat_bars(_bars([0], closed=False), _opens([1]), M1).is_empty()


def _times(hours: list[float]) -> pl.Series:
    return pl.Series("timestamp", [T0 + h * HOUR for h in hours], dtype=TIMESTAMP)


@pytest.mark.parametrize("late", [0, 4, 20])
def test_what_is_due_follows_the_schedule_of_the_rows_around(late: int) -> None:
    """Venues send times some milliseconds off."""
    off = timedelta(milliseconds=late)
    times = pl.Series(
        "timestamp",
        [T0 + n * 8 * HOUR + off for n in range(12) if n not in (3, 4, 9)],
        dtype=TIMESTAMP,
    )
    window = TimeRange(T0 + 20 * HOUR, T0 + 36 * HOUR)
    assert find_due_times(times, window).to_list() == [T0 + 24 * HOUR, T0 + 32 * HOUR]
    assert find_due_times(times, TimeRange(T0, T0 + 16 * HOUR)).is_empty()


def test_one_row_off_the_schedule_does_not_shift_it() -> None:
    times = _times([0.5, *(8.0 * n for n in range(1, 9) if n != 4)])
    window = TimeRange(T0 + 31 * HOUR, T0 + 33 * HOUR)
    assert find_due_times(times, window).to_list() == [T0 + 32 * HOUR]


@given(st.sets(st.integers(0, 300), min_size=2), st.integers(0, 290), st.integers(1, 60))
def test_due_times_are_those_of_a_naive_loop(stored: set[int], start: int, length: int) -> None:
    minutes = sorted(stored)
    steps = [b - a for a, b in pairwise(minutes)]
    step = min(set(steps), key=lambda step: (-steps.count(step), step))
    origin = int((T0 - EPOCH) / MINUTE)
    phases = [(origin + minute) % step for minute in minutes]
    phase = min(set(phases), key=lambda phase: (-phases.count(phase), phase))
    window = TimeRange(T0 + start * MINUTE, T0 + (start + length) * MINUTE)
    expected = [
        T0 + minute * MINUTE
        for minute in range(start, start + length)
        if (origin + minute) % step == phase and minute not in stored
    ]
    assert find_due_times(_opens(minutes), window).to_list() == expected


CHANGED = {
    "no policy": ({"repair": RepairPolicy()}, "repair.interpolate"),
    "a longer key": ({"key": ("timestamp", "funding_rate")}, "more columns than the time"),
    "immutable rows": ({"rows": "immutable", "keep_when": None}, "immutable"),
    "nothing is kept": ({"keep_when": None}, "keep_when"),
    "observed rows are not kept": ({"keep_when": "t.fill IS NOT NULL"}, "keep_when"),
    "all rows are kept": ({"keep_when": "t.fill IS NULL OR s.fill IS NULL"}, "keep_when"),
    "no column that says so": (
        {"columns": tuple(c for c in FUNDING.columns if c.name != "fill"), "keep_when": None},
        "column `fill`",
    ),
}


@pytest.mark.parametrize(("changed", "message"), CHANGED.values(), ids=CHANGED)
def test_no_row_is_filled_in_that_could_be_taken_for_an_observed_one(
    changed: dict[str, Any], message: str
) -> None:
    assert message in find_obstacle(replace(FUNDING, **changed))


def test_the_datasets_of_the_product_keep_what_was_observed() -> None:
    catalog = builtin()
    policies = [catalog.dataset(name) for name in ("bars_1m", "funding")]
    assert [find_obstacle(dataset) for dataset in policies] == ["", ""]


def test_without_a_schedule_nothing_is_due() -> None:
    for hours in ([], [8.0]):
        assert find_due_times(_times(hours), TimeRange(T0, T0 + DAY)).is_empty()


def _rates(hours: list[int], fill: str | None = None, **columns: Any) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "timestamp": [T0 + h * HOUR for h in hours],
            "funding_rate": [h / 1000 for h in hours],
            "mark_price": [7.0] * len(hours),
            "fill": [fill] * len(hours),
            **columns,
        },
        schema_overrides={"timestamp": TIMESTAMP, "fill": pl.String},
    )


@pytest.mark.parametrize(("how", "rates"), [("last", [0.0, 0.0]), ("linear", [0.008, 0.012])])
def test_rates_between_two_that_the_venue_sent(how: Interpolation, rates: list[float]) -> None:
    filled = interpolate_rows(FUNDING, _rates([0, 16]), _times([8, 12]), how)
    assert filled["funding_rate"].to_list() == pytest.approx(rates)
    assert set(filled["fill"]) == {f"{INTERPOLATED}{how}"}
    assert "mark_price" not in filled.columns
    assert filled["timestamp"].to_list() == [T0 + 8 * HOUR, T0 + 12 * HOUR]


@pytest.mark.parametrize(
    ("how", "hours", "filled"),
    [("last", [-1.0], 0), ("last", [99.0], 1), ("linear", [-1.0], 0), ("linear", [99.0], 0)],
)
def test_without_the_rows_that_a_rule_needs_none_is_made(
    how: Interpolation, hours: list[float], filled: int
) -> None:
    assert interpolate_rows(FUNDING, _rates([0, 16]), _times(hours), how).height == filled


def test_what_was_filled_in_is_no_ground_for_more() -> None:
    rows = pl.concat([_rates([0]), _rates([8], fill="interpolated:last")])
    filled = interpolate_rows(FUNDING, rows, _times([16]), "last")
    assert filled["funding_rate"].to_list() == [0.0]


def test_slots_and_times_are_of_one_type() -> None:
    window = TimeRange(T0, T0 + HOUR)
    first: datetime = list_slots(window, M1)[0]
    assert first == T0
    assert find_due_times(_times([0, 8]), window).dtype == list_slots(window, M1).dtype
