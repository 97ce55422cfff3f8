"""What the oldest row proves about the time before it: `lake.sources.venues.beginnings`."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lake.model.time import TimeRange
from lake.sources.venues.beginnings import build_page_before, find_beginning

T0 = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NO_ROWS = pl.DataFrame()
WINDOW = TimeRange(T0, T0 + 10 * DAY)


def test_a_first_day_that_holds_the_oldest_row_proves_the_beginning() -> None:
    assert find_beginning(T0 + 5 * HOUR, T0) == T0 + 5 * HOUR
    assert find_beginning(T0 + 5 * DAY, T0) == T0
    assert find_beginning(T0, None) is None


def test_time_before_the_listing_is_empty() -> None:
    oldest = T0 + 3 * DAY
    page = build_page_before(WINDOW, oldest, oldest, NO_ROWS)
    assert page is not None
    assert page.settled == TimeRange(T0, oldest)
    assert page.not_given is None


def test_time_that_a_venue_dropped_is_not_given() -> None:
    oldest = T0 + 3 * DAY
    page = build_page_before(WINDOW, oldest, None, NO_ROWS)
    assert page is not None
    assert page.settled is None
    assert page.not_given == TimeRange(T0, oldest)
    page = build_page_before(WINDOW, oldest, T0 + DAY, NO_ROWS)
    assert page is not None
    assert page.settled == TimeRange(T0, T0 + DAY)
    assert page.not_given == TimeRange(T0 + DAY, oldest)


def test_a_window_after_the_oldest_row_has_no_such_part() -> None:
    assert build_page_before(WINDOW, T0, None, NO_ROWS) is None
    assert build_page_before(WINDOW, T0 - DAY, T0 - 9 * DAY, NO_ROWS) is None


@given(st.integers(-100, 400), st.none() | st.integers(-100, 400))
def test_the_parts_tile_the_time_before_the_oldest_row(oldest: int, began: int | None) -> None:
    first = T0 + oldest * HOUR
    beginning = None if began is None else T0 + began * HOUR
    page = build_page_before(WINDOW, first, beginning, NO_ROWS)
    expected = max(timedelta(0), min(first, WINDOW.end) - WINDOW.start)
    parts = [] if page is None else [page.settled, page.not_given]
    assert sum((part.duration for part in parts if part), timedelta(0)) == expected
    if page is not None and page.settled is not None and beginning is not None:
        assert page.settled.end <= max(beginning, WINDOW.start)
    if beginning is None and page is not None:
        assert page.settled is None
