"""Point look-ups: the newest rows of a market, and what was known of it at a time.

Only the end of the market's history is read: a stretch that should hold enough rows by the
statistics of its files, and a longer one where it did not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl

from lake.errors import UsageError
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, in_utc
from lake.store.reader import TIME_STEP, TableReader

_SAFETY_FACTOR = 4
_GROWTH_FACTOR = 16


def read_latest(reader: TableReader, exchange: str, symbol: str, count: int) -> pl.DataFrame:
    """The last rows of a market in order of time; fewer where there are fewer.

    Raises
    ------
    UsageError
        `count` is not positive.
    """
    if count < 1:
        raise UsageError(f"{count} is not a number of rows", "Give 1 or more.")
    rows = reader.dataset.empty()
    for part in _list_selections(reader, exchange, symbol, None, count):
        rows = reader.collect(part)
        if rows.height >= count:
            break
    return rows.tail(count)


def read_row_at(reader: TableReader, exchange: str, symbol: str, time: datetime) -> pl.DataFrame:
    """The row of the greatest time at or before `time` that was known then; none where none was.

    A row is known from its `available_at` on: a bar from its end.
    """
    time = in_utc(time)
    rows = reader.dataset.empty()
    for part in _list_selections(reader, exchange, symbol, time + MICROSECOND, 1):
        rows = reader.collect(part).filter(reader.dataset.availability() <= time)
        if rows.height:
            break
    return rows.tail(1)


def _list_selections(
    reader: TableReader, exchange: str, symbol: str, end: datetime | None, count: int
) -> Iterator[Selection]:
    """Selections up to `end`, each longer than the one before; the last is all there is."""
    market = Selection((exchange,), (symbol,), None, end)
    files = reader.files(market)
    if files.is_empty():
        return
    span = files.select(pl.col("first").min(), pl.col("last").max()).row(0)
    if not files["first"].null_count() and not files["last"].null_count():
        yield from _list_longer(market, span, _measure_step(files) * count * _SAFETY_FACTOR)
    yield market


def _list_longer(
    market: Selection, span: tuple[datetime, datetime], length: timedelta
) -> Iterator[Selection]:
    """The end of the market's rows, as long as they reach back."""
    first, last = span
    stop = min(last + TIME_STEP, market.end) if market.end else last + TIME_STEP
    while stop - length > first:
        yield replace(market, start=stop - length)
        length *= _GROWTH_FACTOR


def _measure_step(files: pl.DataFrame) -> timedelta:
    """The mean time between the rows of the newest file."""
    first, last, rows = files.sort("last").select("first", "last", "rows").row(-1)
    step: timedelta = (last - first + TIME_STEP) / max(1, rows)
    return max(step, MICROSECOND)
