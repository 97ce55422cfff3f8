"""Times within spans: what a naive loop gives."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lake.jobs.repairs.spans import Moments, Windows, select_starting
from lake.model.dataset import TIMESTAMP
from lake.model.intervals import union
from lake.model.time import TimeRange
from tests.conftest import MINUTE, T0

TIMES = st.lists(st.integers(0, 60))
SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 9)).map(
        lambda pair: TimeRange(T0 + pair[0] * MINUTE, T0 + sum(pair) * MINUTE)
    )
)


def _times(minutes: list[int]) -> pl.Series:
    return pl.Series([T0 + n * MINUTE for n in minutes], dtype=TIMESTAMP)


@given(TIMES, SPANS)
def test_moments_within_spans(minutes: list[int], spans: list[TimeRange]) -> None:
    times = _times(minutes)
    moments = Moments(times)
    inside = [t for t in sorted(times) if any(s.start <= t < s.end for s in spans)]
    assert moments.select(spans).to_list() == inside
    rows = times.sort().to_frame("time")
    for span in spans:
        within = [t for t in sorted(times) if span.start <= t < span.end]
        assert moments.has_within(span) == bool(within)
        assert moments.select_rows(rows, span)["time"].to_list() == within


@given(TIMES, SPANS)
def test_the_window_of_each_time(minutes: list[int], spans: list[TimeRange]) -> None:
    windows, times = union(spans), _times(minutes)
    expected = [
        next((n for n, one in enumerate(windows) if one.start <= time < one.end), None)
        for time in times
    ]
    assert Windows(windows).locate(times).to_list() == expected


@given(SPANS, SPANS.filter(bool))
def test_spans_that_start_within_a_window(spans: list[TimeRange], windows: list[TimeRange]) -> None:
    ordered = sorted(spans)
    for window in windows:
        expected = [span for span in ordered if window.start <= span.start < window.end]
        assert list(select_starting(ordered, window)) == expected
