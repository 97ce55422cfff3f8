"""Slots count the bars of a grid: forth and back, as `Timeframe` says in plain Python."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lake.model.slots import slot_at, slot_of, start_of
from lake.model.timeframe import Timeframe
from tests.conftest import TIME

TIMEFRAMES = ("1s", "1m", "5m", "7m", "1h", "4h", "1d", "3d", "1w", "2w", "1M", "3M", "5M", "12M")
timeframes = st.sampled_from(TIMEFRAMES).map(Timeframe.parse)
times = st.datetimes(datetime(1969, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(timeframes, times)
def test_a_slot_starts_where_its_bar_opens_and_ends_where_the_next_one_does(
    timeframe: Timeframe, time: datetime
) -> None:
    number = slot_at(time, timeframe)
    frame = pl.DataFrame({"time": [time]}, schema={"time": TIME}).select(
        slot=slot_of(pl.col("time"), timeframe),
        start=start_of(slot_of(pl.col("time"), timeframe), timeframe),
        end=start_of(slot_of(pl.col("time"), timeframe) + 1, timeframe),
    )
    start = timeframe.floor(time)
    assert frame.row(0) == (number, start, timeframe.after(start))
    assert frame.schema == {"slot": pl.Int64(), "start": TIME, "end": TIME}
