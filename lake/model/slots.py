"""Slots: the intervals of a grid as whole numbers, counted from the epoch."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.grid import Grid
from lake.model.time import EPOCH, MICROSECOND

_MONTHS_A_YEAR = 12
_MONDAY_US = 4 * 86_400_000_000
_MICROSECONDS = 1_000_000


def slot_of(time: pl.Expr, grid: Grid) -> pl.Expr:
    """Return the number (Int64) of the slot that contains a time."""
    timeframe = grid.timeframe
    if timeframe.unit == "M":
        moved = time - pl.lit(grid.offset) if grid.offset else time
        months = moved.dt.year().cast(pl.Int64) * _MONTHS_A_YEAR + moved.dt.month() - 1
        return months // timeframe.count
    since = time.dt.timestamp("us") - _origin_us(grid)
    return since // (timeframe.seconds * _MICROSECONDS)


def start_of(slot: pl.Expr, grid: Grid) -> pl.Expr:
    """Return the open time of a slot."""
    timeframe = grid.timeframe
    if timeframe.unit == "M":
        months = slot * timeframe.count
        year, month = months // _MONTHS_A_YEAR, months % _MONTHS_A_YEAR + 1
        start = pl.datetime(year, month, 1, time_unit="us", time_zone="UTC")
        return start + pl.lit(grid.offset) if grid.offset else start
    microseconds = slot * (timeframe.seconds * _MICROSECONDS) + _origin_us(grid)
    return microseconds.cast(TIMESTAMP)


def slot_at(time: datetime, grid: Grid) -> int:
    """Return the number of the slot that contains a time."""
    timeframe = grid.timeframe
    if timeframe.unit == "M":
        moved = time - grid.offset
        return (moved.year * _MONTHS_A_YEAR + moved.month - 1) // timeframe.count
    since = (time - EPOCH) // MICROSECOND - _origin_us(grid)
    return since // (timeframe.seconds * _MICROSECONDS)


def _origin_us(grid: Grid) -> int:
    own = _MONDAY_US if grid.timeframe.unit == "w" else 0
    return own + grid.offset // MICROSECOND
