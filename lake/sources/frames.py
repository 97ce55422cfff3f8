"""Helpers for the frames of all venues: times, closed bars, complete ranges, derived ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.grid import Grid, end_of, find_end, is_long, learn_grid
from lake.model.ohlcv import OHLCV
from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe

_MOST_MS = (2**63 - 1) // 1000
REQUIRED = {
    "bars": ("timestamp", *OHLCV),
    "trades": ("timestamp", "price", "amount"),
    "funding": ("timestamp", "funding_rate"),
}


def to_timestamps(milliseconds: Sequence[int | None]) -> pl.Series:
    """Convert Unix times in milliseconds to UTC timestamps.

    Times that do not fit, such as nanoseconds sent as milliseconds, become the first or last time
    of the type: multiplied, they would overflow to a time that looks right.

    Raises
    ------
    TypeError
        A value is not an integer.
    """
    times = pl.Series("timestamp", milliseconds, dtype=pl.Int64)
    low, high = times.min(), times.max()
    if low is not None and (low < -_MOST_MS or high > _MOST_MS):  # type: ignore[operator]
        times = times.clip(-_MOST_MS, _MOST_MS)
    return (times * 1000).cast(TIMESTAMP)


def range_or_none(start: datetime, end: datetime) -> TimeRange | None:
    """Return the range, or None if it is empty."""
    return TimeRange(start, end) if start < end else None


def add_closed(bars: pl.DataFrame, timeframe: Timeframe, reached: datetime) -> pl.DataFrame:
    """Add `closed`: whether a bar had ended at `reached`, the time of the venue."""
    times = bars["timestamp"]
    last = times.max()
    if (
        isinstance(last, datetime)
        and not times.null_count()
        and find_end(last, timeframe) <= reached
    ):
        return bars.hstack([pl.Series("closed", [True]).new_from_index(0, bars.height)])
    has_ended = end_of(pl.col("timestamp"), timeframe) <= reached
    return bars.with_columns(closed=has_ended.fill_null(value=False))


def find_complete_until(
    bars: pl.DataFrame, timeframe: Timeframe, reached: datetime, grid: Grid | None = None
) -> datetime:
    """Return the open time up to which an answer has all bars, given the time of the venue.

    Bars that are still open, or that end after `reached`, are not final yet.

    Parameters
    ----------
    grid
        Where the bars open; by default where those of the answer do.
    """
    grid = grid or _learn_grid(bars, timeframe)
    until = reached - timeframe.longest if grid is None else grid.floor(reached)
    if bars.is_empty():
        return until
    last = bars["timestamp"].max()
    if bars["closed"].all() and isinstance(last, datetime):
        return max(until, find_end(last, timeframe))
    last_closed = bars.filter("closed")["timestamp"].max()
    if isinstance(last_closed, datetime):
        until = max(until, find_end(last_closed, timeframe))
    still_open = bars.filter(~pl.col("closed"))["timestamp"].min()
    return min(until, still_open) if isinstance(still_open, datetime) else until


def _learn_grid(bars: pl.DataFrame, timeframe: Timeframe) -> Grid | None:
    """Learn where bars open; None if that is unclear: venues disagree about long bars."""
    opens = bars["timestamp"].drop_nulls()
    return None if is_long(timeframe) and opens.is_empty() else learn_grid(opens, timeframe)


def find_unreadable_columns(frame: pl.DataFrame, columns: Iterable[str]) -> str | None:
    """Return the columns with nulls if every row of a page has a null in one of them.

    Values that cannot be parsed become nulls. A single row with a null is refused when it is
    stored; if every row has one, the format has changed.
    """
    missing = [name for name in columns if frame[name].null_count()]
    if not missing or frame.is_empty() or frame.drop_nulls(missing).height:
        return None
    return ", ".join(missing)


def sorted_by(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Sort rows by a column, equal ones in their order; return the same frame if it is sorted."""
    return frame if frame[column].is_sorted() else frame.sort(column, maintain_order=True)


def to_floats(values: Sequence[Any]) -> pl.Series:
    """Convert numbers to doubles; other values become null."""
    if not set(map(type, values)) <= {float, int, type(None)}:
        values = [value if type(value) in (float, int) else None for value in values]
    return pl.Series(values, dtype=pl.Float64)


def to_integers(values: Sequence[Any]) -> pl.Series:
    """Convert integers of a column that may be null; other values become null.

    One bad value there costs neither its row nor the page.
    """
    try:
        return pl.Series(values, dtype=pl.Int64)
    except TypeError:
        fits = (type(value) is int and -(2**63) <= value < 2**63 for value in values)
        pairs = zip(values, fits, strict=True)
        return pl.Series([value if fit else None for value, fit in pairs], dtype=pl.Int64)


def derive_ids(
    timestamps_us: Sequence[int | None],
    sides: Sequence[str | None],
    prices: Sequence[float | None],
    amounts: Sequence[float | None],
) -> list[str | None]:
    """Derive trade ids for venues without ids, `time:side:price:amount:ordinal`.

    The ordinal counts equal trades within one answer. Overlapping answers therefore give equal
    trades equal ids, and the union of their ids is the multiset maximum of their trades: distinct
    trades with equal values (up to 8 % on some venues) are all kept, and none is counted twice.
    Trades without time, price or amount get no id.

    Parameters
    ----------
    timestamps_us
        Unix times in microseconds.
    sides, prices, amounts
        Columns of the same length; a side may be null.
    """
    counts: Counter[tuple[int, str, float, float]] = Counter()
    ids: list[str | None] = []
    for time, side, price, amount in zip(timestamps_us, sides, prices, amounts, strict=True):
        if time is None or price is None or amount is None:
            ids.append(None)
            continue
        key = (time, side or "", price, amount)
        ids.append(f"{time}:{key[1]}:{price!r}:{amount!r}:{counts[key]}")
        counts[key] += 1
    return ids
