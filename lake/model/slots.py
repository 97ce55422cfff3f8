"""Slots: the intervals of a timeframe's grid as whole numbers, counted from the epoch."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.time import EPOCH, MICROSECOND
from lake.model.timeframe import Timeframe

_MONTHS_A_YEAR = 12
_MONDAY_US = 4 * 86_400_000_000
_MICROSECONDS = 1_000_000


def slot_of(time: pl.Expr, timeframe: Timeframe) -> pl.Expr:
    """Return the number (Int64) of the slot that contains a time."""
    if timeframe.unit == "M":
        months = time.dt.year().cast(pl.Int64) * _MONTHS_A_YEAR + time.dt.month() - 1
        return months // timeframe.count
    since = time.dt.timestamp("us") - _origin_us(timeframe)
    return since // (timeframe.seconds * _MICROSECONDS)


def start_of(slot: pl.Expr, timeframe: Timeframe) -> pl.Expr:
    """Return the open time of a slot."""
    if timeframe.unit == "M":
        months = slot * timeframe.count
        year, month = months // _MONTHS_A_YEAR, months % _MONTHS_A_YEAR + 1
        return pl.datetime(year, month, 1, time_unit="us", time_zone="UTC")
    microseconds = slot * (timeframe.seconds * _MICROSECONDS) + _origin_us(timeframe)
    return microseconds.cast(TIMESTAMP)


def slot_at(time: datetime, timeframe: Timeframe) -> int:
    """Return the number of the slot that contains a time."""
    if timeframe.unit == "M":
        return (time.year * _MONTHS_A_YEAR + time.month - 1) // timeframe.count
    since = (time - EPOCH) // MICROSECOND - _origin_us(timeframe)
    return since // (timeframe.seconds * _MICROSECONDS)


def _origin_us(timeframe: Timeframe) -> int:
    return _MONDAY_US if timeframe.unit == "w" else 0
