"""What the oldest row of a market proves about the time before it. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from lake.model.time import TimeRange
from lake.sources.base import Page
from lake.sources.frames import range_or_none

DAY = timedelta(days=1)


def find_beginning(
    oldest: datetime, first_day: datetime | None, slack: timedelta = DAY
) -> datetime | None:
    """Return the time before which a market provably had no rows; None if nothing proves it.

    Parameters
    ----------
    oldest
        The time of the oldest row that the venue serves.
    first_day
        The open time of the first daily bar that the venue serves: venues drop old trades and old
        short bars, and keep daily bars. None if unknown.
    slack
        How long after the beginning of its first day the first row of a market may be.
    """
    if first_day is not None and oldest < first_day + slack:
        return oldest
    return first_day


def is_history(time: datetime, now: datetime) -> bool:
    """Return whether a venue may have dropped rows of this time: venues serve the last day.

    Where the newest hours of a quiet market are fetched again and again, its oldest row is not
    asked for each time.
    """
    return time < now - DAY


def build_page_before(
    window: TimeRange, oldest: datetime, began: datetime | None, no_rows: pl.DataFrame
) -> Page | None:
    """Build the page of the time before the oldest row; None if the window has no such part.

    What lies before the beginning of the market is settled: it is empty. What lies between it and
    the oldest row is not given: there may have been rows.

    Parameters
    ----------
    oldest
        The time of the oldest row that the venue serves.
    began
        The time before which the market provably had no rows; None if unknown.
    no_rows
        A frame without rows.
    """
    end = min(oldest, window.end)
    if end <= window.start:
        return None
    known = window.start if began is None else min(max(began, window.start), end)
    return Page(no_rows, range_or_none(window.start, known), not_given=range_or_none(known, end))
