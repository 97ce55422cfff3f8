"""Bars open where the calendar says."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.sandbox.intervals import INTERVALS

TIMES = st.integers(0, 2**42)


@pytest.mark.parametrize("name", INTERVALS)
@given(time_ms=TIMES)
def test_every_moment_is_in_exactly_one_bar(name: str, time_ms: int) -> None:
    interval = INTERVALS[name]
    index = interval.index(time_ms)
    assert interval.opens(index) <= time_ms < interval.opens(index + 1)
    assert interval.indices(np.array([time_ms], dtype=np.int64)).tolist() == [index]


@given(time_ms=TIMES)
def test_weeks_begin_on_monday_and_months_on_the_first(time_ms: int) -> None:
    week = datetime.fromtimestamp(INTERVALS["1w"].floor(time_ms) / 1000, UTC)
    month = datetime.fromtimestamp(INTERVALS["1M"].floor(time_ms) / 1000, UTC)
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    assert (week.weekday(), week.hour, week.minute) == (0, 0, 0)
    assert month == datetime(moment.year, moment.month, 1, tzinfo=UTC)
