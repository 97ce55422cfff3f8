"""What is read of a table to find out which rows are stored."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.store.conform import check_rows
from lake.store.prepare import StoredRows, find_bounds, find_spans
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, store_of, trades, write

minutes = st.lists(st.integers(0, 3) | st.integers(0, 100_000), min_size=1, max_size=60)


@given(minutes)
@settings(max_examples=60)
def test_spans_hold_all_times_and_are_few_and_apart(minutes: list[int]) -> None:
    times = pl.Series([T0 + n * MINUTE for n in minutes], dtype=TIME)
    spans = find_spans(times)
    assert len(spans) <= 16
    assert spans == sorted(spans)
    assert all(any(start <= time <= end for start, end in spans) for time in times)
    assert {bound for span in spans for bound in span} <= set(times)


def test_pages_of_far_windows_read_nothing_between(lake: Lake) -> None:
    write(lake, "trades", trades(2000, step=MINUTE))
    store = store_of(lake)
    dataset = store.catalog.dataset("trades")
    pages = pl.concat([trades(5, first=first, step=MINUTE) for first in (10, 900, 1990)])
    stored = StoredRows.find(store.snapshot(dataset), check_rows(dataset, pages).rows)
    assert stored.places.height == 15
    values = stored.read(pl.Series([0, 14], dtype=pl.UInt32), ["price"])
    assert values["price"].to_list() == [110.0, 2094.0]


def test_files_of_other_dates_times_and_ids_are_not_read(lake: Lake) -> None:
    store = store_of(lake)
    dataset = store.catalog.dataset("trades")
    for first in (1000, 2000, 3000):
        write(store, "trades", trades(10, first=first))
    for rows in (
        trades(10, first=5000),  # another day
        trades(1, first=2500),  # between two files
        trades(1, first=9000, start=T0 - 7000 * SECOND),  # at the times of a file, a later id
    ):
        stored = StoredRows.find(store.snapshot(dataset), check_rows(dataset, rows).rows)
        assert stored.places.is_empty()


def test_bounds_reach_over_midnight_as_far_as_times_are_close(lake: Lake) -> None:
    dataset = lake.dataset("trades")
    rows = check_rows(dataset, trades(1, start=T0 + DAY - timedelta(milliseconds=1))).rows
    bounds = find_bounds(dataset, rows).sort("date")
    assert bounds["date"].to_list() == [T0.date(), (T0 + DAY).date()]
    assert bounds["high"].to_list() == [T0 + DAY + SECOND - timedelta(milliseconds=1)] * 2
