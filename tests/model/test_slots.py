"""Slots count the bars of a grid: forth and back, as `Timeframe` says in plain Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.model.grid import Grid, end_of, find_end, learn_grid
from lake.model.slots import slot_at, slot_of, start_of
from lake.model.timeframe import Timeframe
from tests.conftest import TIME

OFFSETS = st.sampled_from([0, 4, 72, -8]).map(lambda hours: timedelta(hours=hours))
TIMEFRAMES = ("1s", "1m", "5m", "7m", "1h", "4h", "1d", "3d", "1w", "2w", "1M", "3M", "5M", "12M")
timeframes = st.sampled_from(TIMEFRAMES).map(Timeframe.parse)
times = st.datetimes(datetime(1969, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(timeframes, OFFSETS, times)
def test_a_slot_starts_where_its_bar_opens_and_ends_where_the_next_one_does(
    timeframe: Timeframe, offset: timedelta, time: datetime
) -> None:
    grid = Grid(timeframe, offset)
    number = slot_at(time, grid)
    frame = pl.DataFrame({"time": [time]}, schema={"time": TIME}).select(
        slot=slot_of(pl.col("time"), grid),
        start=start_of(slot_of(pl.col("time"), grid), grid),
        end=start_of(slot_of(pl.col("time"), grid) + 1, grid),
    )
    start = grid.floor(time)
    assert frame.row(0) == (number, start, grid.after(start))
    assert start <= time < grid.after(start)
    assert frame.schema == {"slot": pl.Int64(), "start": TIME, "end": TIME}


T0 = datetime(2024, 1, 1, tzinfo=UTC)


def learn(name: str, *opens: datetime) -> Grid | None:
    return learn_grid(pl.Series(opens, dtype=TIME), Timeframe.parse(name))


@pytest.mark.parametrize(
    ("name", "first", "hours"),
    [
        ("1d", T0, 0),
        ("1d", T0 + timedelta(hours=16), 16),
        ("1w", T0 + timedelta(days=3), 72),
        ("4h", T0 + timedelta(hours=1), 1),
        ("1M", datetime(2024, 1, 31, 16, tzinfo=UTC), -8),
        ("3d", datetime(2024, 1, 2, tzinfo=UTC), 48),
    ],
)
def test_the_grid_of_a_venue_is_learned_from_its_bars(
    name: str, first: datetime, hours: float
) -> None:
    grid = Grid(Timeframe.parse(name), timedelta(hours=hours))
    opens = [grid.after(first, n) for n in range(30)]
    assert learn(name, *opens) == grid
    assert learn(name, *opens, first + timedelta(minutes=7)) == grid
    assert all(grid.floor(time) == grid.ceiling(time) == time for time in opens)


def test_bars_without_a_common_grid_and_odd_offsets_teach_none() -> None:
    days = [T0 + timedelta(days=n) for n in range(10)]
    assert learn("1d", *days, *(day + timedelta(hours=16) for day in days[5:])) is None
    assert learn("1d", *(day + timedelta(seconds=7) for day in days)) is None
    assert learn("1d") == Grid(Timeframe.parse("1d"))


def test_bars_up_to_an_hour_have_the_grid_of_their_timeframe() -> None:
    assert learn("1h", T0 + timedelta(minutes=30)) == Grid(Timeframe.parse("1h"))


@given(timeframes, OFFSETS, times)
def test_a_bar_ends_where_the_next_one_opens_on_any_grid(
    timeframe: Timeframe, offset: timedelta, time: datetime
) -> None:
    grid = Grid(timeframe, offset if abs(offset) < timedelta(hours=24) else timedelta(0))
    start = grid.floor(time)
    assert find_end(start, timeframe) == grid.after(start)
    frame = pl.DataFrame({"time": [start]}, schema={"time": TIME})
    assert frame.select(end_of(pl.col("time"), timeframe)).item() == grid.after(start)
