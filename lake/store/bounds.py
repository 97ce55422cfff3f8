"""Bounds of times: a lake holds times from 1970 to 2199.

A row needs a time column within them. Another time that may be null, such as an expiry in the year
3000 that means "never", becomes null, so that one such value does not cost the row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.time import EPOCH, MICROSECOND

LAST_TIME = datetime(2200, 1, 1, tzinfo=UTC)
"""The first time that is too late."""
_LAST_US = (LAST_TIME - EPOCH) // MICROSECOND


@dataclass(frozen=True, slots=True)
class ClearedTimes:
    """Times of a column that became null: their number, and market and value of the first.

    `microseconds`: the value since 1970, which may be beyond what Python's datetime holds.
    """

    column: str
    rows: int
    exchange: str
    symbol: str
    microseconds: int


def is_in_range(time: pl.Expr) -> pl.Expr:
    """Return an expression for whether a lake can hold a time; null for null."""
    return time.is_between(EPOCH, LAST_TIME, closed="left")


def is_usable(time: object) -> bool:
    """Return whether a value is a time that a lake can hold."""
    return isinstance(time, datetime) and EPOCH <= time < LAST_TIME


def clear_times(
    dataset: Dataset, frame: pl.DataFrame
) -> tuple[pl.DataFrame, tuple[ClearedTimes, ...]]:
    """Set times out of range to null where the column may be null; return what became null.

    Parameters
    ----------
    frame
        Has `exchange` and `symbol`; columns of the dataset may be missing.
    """
    cleared = tuple(_find_out_of_range(dataset, frame))
    times = [pl.col(item.column) for item in cleared]
    return frame.with_columns(pl.when(is_in_range(time)).then(time) for time in times), cleared


def _find_out_of_range(dataset: Dataset, frame: pl.DataFrame) -> Iterator[ClearedTimes]:
    names = (c.name for c in dataset.columns if c.nullable and c.type == "timestamp")
    for name in names:
        if frame.schema.get(name) != TIMESTAMP:
            continue
        values = frame[name].to_physical()
        low, high = values.min(), values.max()
        if low is None or (low >= 0 and high < _LAST_US):  # type: ignore[operator]
            continue
        outside = frame.filter((values < 0) | (values >= _LAST_US))
        first = outside.select("exchange", "symbol", pl.col(name).to_physical()).row(0)
        yield ClearedTimes(name, outside.height, *first)
