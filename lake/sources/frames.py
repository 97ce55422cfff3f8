"""What frames of different venues share: times, closed bars, what a page settles, derived ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.ohlcv import OHLCV
from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe

REQUIRED = {
    "bars": ("timestamp", *OHLCV),
    "trades": ("timestamp", "price", "amount"),
    "funding": ("timestamp", "funding_rate"),
}


def to_timestamps(milliseconds: Sequence[int | None]) -> pl.Series:
    """UTC timestamps of Unix times in milliseconds.

    Raises
    ------
    TypeError
        One is no integer.
    """
    return (pl.Series("timestamp", milliseconds, dtype=pl.Int64) * 1000).cast(TIMESTAMP)


def range_or_none(start: datetime, end: datetime) -> TimeRange | None:
    """The range, None where it is empty."""
    return TimeRange(start, end) if start < end else None


def bar_end(timeframe: Timeframe, column: str = "timestamp") -> pl.Expr:
    """When a bar ends, by its open time."""
    if timeframe.unit == "M":
        return pl.col(column).dt.offset_by(f"{timeframe.count}mo")
    return pl.col(column) + pl.duration(seconds=timeframe.seconds)


def add_closed(bars: pl.DataFrame, timeframe: Timeframe, reached: datetime) -> pl.DataFrame:
    """Bars with `closed`: whether they had ended by the time that the venue had reached."""
    times = bars["timestamp"]
    last = times.max()
    if isinstance(last, datetime) and not times.null_count() and timeframe.after(last) <= reached:
        return bars.hstack([pl.Series("closed", [True]).new_from_index(0, bars.height)])
    return bars.with_columns((bar_end(timeframe) <= reached).fill_null(value=False).alias("closed"))


def find_complete_until(bars: pl.DataFrame, timeframe: Timeframe, reached: datetime) -> datetime:
    """Up to which open time an answer can tell all bars, given the time that the venue reached.

    A bar that is still open, or that may open and end later than `reached`, is not known yet.
    """
    until = reached - timeframe.longest
    if bars.is_empty():
        return until
    last = bars["timestamp"].max()
    if bars["closed"].all() and isinstance(last, datetime):
        return max(until, timeframe.after(last))
    last_closed = bars.filter("closed")["timestamp"].max()
    if isinstance(last_closed, datetime):
        until = max(until, timeframe.after(last_closed))
    still_open = bars.filter(~pl.col("closed"))["timestamp"].min()
    return min(until, still_open) if isinstance(still_open, datetime) else until


def find_unreadable_columns(frame: pl.DataFrame, columns: Iterable[str]) -> str | None:
    """Which columns have nulls, if not one row of a page has values in all of them.

    Values that cannot be read become nulls. A row with one is refused when it is stored; where
    no row is without, it is the format that changed.
    """
    missing = [name for name in columns if frame[name].null_count()]
    if not missing or frame.is_empty() or frame.drop_nulls(missing).height:
        return None
    return ", ".join(missing)


def sorted_by(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """The rows in order; nothing is copied where they are in order already."""
    return frame if frame[column].is_sorted() else frame.sort(column)


def to_floats(values: Sequence[Any]) -> pl.Series:
    """Numbers as doubles; what is not a number becomes null."""
    if not set(map(type, values)) <= {float, int, type(None)}:
        values = [value if type(value) in (float, int) else None for value in values]
    return pl.Series(values, dtype=pl.Float64)


def derive_ids(
    timestamps_us: Sequence[int | None],
    sides: Sequence[str | None],
    prices: Sequence[float | None],
    amounts: Sequence[float | None],
) -> list[str | None]:
    """Trade ids where the venue has none, `time:side:price:amount:ordinal`.

    The ordinal counts equal trades within one answer, so that answers that overlap give equal
    trades equal ids, and the union of their ids is the multiset maximum of their trades: real
    trades that look alike (up to 8 % on some venues) are all kept, and none is counted twice.
    Trades without time, price or amount get none.

    Parameters
    ----------
    timestamps_us
        Unix times in microseconds.
    sides, prices, amounts
        Of the same length; a side may be null.
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
