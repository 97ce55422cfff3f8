"""The grid of the bars of one market: a timeframe, and where the venue's days or weeks begin."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from lake.model.time import EPOCH, MICROSECOND
from lake.model.timeframe import Timeframe

_NO_OFFSET = timedelta(0)
_LONG_SECONDS = 3600
_ZONE_STEP = timedelta(minutes=15)
_MIN_SHARE = 0.9
_HALF_A_MONTH = "14d"


@dataclass(frozen=True, slots=True)
class Grid:
    """Open times of bars: those of the timeframe, moved by an offset.

    Days of HTX begin at 16:00 UTC (offset 16 h), weeks of KuCoin on Thursday (offset 3 d after
    Monday). Offsets of months may be negative, since months differ in length: a month that begins
    at 16:00 UTC on the last day of the month before has the offset -8 h.
    """

    timeframe: Timeframe
    offset: timedelta = _NO_OFFSET

    def __str__(self) -> str:
        if not self.offset:
            return str(self.timeframe)
        return f"{self.timeframe} with an offset of {self.offset / timedelta(hours=1):g} h"

    def floor(self, time: datetime) -> datetime:
        """Return the open time of the bar that contains `time`."""
        return self.timeframe.floor(time - self.offset) + self.offset

    def ceiling(self, time: datetime) -> datetime:
        """Return the first open time at or after `time`."""
        return self.timeframe.ceiling(time - self.offset) + self.offset

    def after(self, open_time: datetime, bars: int = 1) -> datetime:
        """Return the open time of the bar that is `bars` later; for 1, the end of this bar."""
        return self.timeframe.after(open_time - self.offset, bars) + self.offset


def find_end(open_time: datetime, timeframe: Timeframe) -> datetime:
    """Return the end of a bar that opens at any time, also off the timeframe's own grid.

    A month that opens at 16:00 UTC on 31 January ends at 16:00 UTC on the last day of February.
    """
    if timeframe.unit != "M":
        return timeframe.after(open_time)
    month = _nearest_month(open_time)
    return timeframe.after(month) + (open_time - month)


def end_of(open_time: pl.Expr, timeframe: Timeframe) -> pl.Expr:
    """Return an expression for the end of bars: `find_end` of their open times."""
    if timeframe.unit != "M":
        return open_time + pl.duration(seconds=timeframe.seconds)
    month = open_time.dt.offset_by(_HALF_A_MONTH).dt.truncate("1mo")
    return month.dt.offset_by(f"{timeframe.count}mo") + (open_time - month)


def is_long(timeframe: Timeframe) -> bool:
    """Whether venues disagree about the grid: bars longer than an hour.

    All time zones of venues differ by whole hours, and shorter bars begin at their multiples.
    """
    return timeframe.seconds > _LONG_SECONDS


def learn_grid(opens: pl.Series, timeframe: Timeframe) -> Grid | None:
    """Learn the grid from the open times of observed bars of one market.

    Returns
    -------
    Grid or None
        The offset that at least nine of ten bars share, if it can be that of a time zone or
        weekday. None if there is none: then it is unclear which bars are off the grid. Short bars
        (`is_long`) always have the offset 0.
    """
    if not is_long(timeframe) or opens.is_empty():
        return Grid(timeframe)
    offsets = _measure_offsets(opens, timeframe)
    microseconds, rows = offsets.value_counts(sort=True, name="rows").row(0)
    offset = microseconds * MICROSECOND
    is_zone = not offset % _ZONE_STEP
    return Grid(timeframe, offset) if is_zone and rows >= _MIN_SHARE * len(opens) else None


def _measure_offsets(opens: pl.Series, timeframe: Timeframe) -> pl.Series:
    """Measure the distance of open times from the timeframe's own grid, in microseconds."""
    if timeframe.unit != "M":
        origin = (timeframe.floor(EPOCH) - EPOCH) // MICROSECOND
        return ((opens.to_physical() - origin) % (timeframe.seconds * 1_000_000)).alias("offset")
    distances = [(time - _nearest_month(time)) // MICROSECOND for time in opens]
    return pl.Series("offset", distances, dtype=pl.Int64)


def _nearest_month(time: datetime) -> datetime:
    """Return the first of the month that begins at most half a month before or after a time."""
    return (time + timedelta(days=14)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
