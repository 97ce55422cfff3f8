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

_MARGIN = 4
_GROWTH = 16


def latest(rows: TableReader, exchange: str, symbol: str, count: int) -> pl.DataFrame:
    """The last rows of a market in order of time; fewer where there are fewer.

    Raises
    ------
    UsageError
        `count` is not positive.
    """
    if count < 1:
        raise UsageError(f"{count} is not a number of rows", "Give 1 or more.")
    found = rows.dataset.empty()
    for part in _stretches(rows, exchange, symbol, None, count):
        found = rows.collect(part)
        if found.height >= count:
            break
    return found.tail(count)


def row_at(rows: TableReader, exchange: str, symbol: str, time: datetime) -> pl.DataFrame:
    """The row of the greatest time at or before `time` that was known then; none where none was.

    A row is known from its `available_at` on: a bar from its end.
    """
    time = in_utc(time)
    found = rows.dataset.empty()
    for part in _stretches(rows, exchange, symbol, time + MICROSECOND, 1):
        found = rows.collect(part).filter(rows.dataset.availability() <= time)
        if found.height:
            break
    return found.tail(1)


def _stretches(
    rows: TableReader, exchange: str, symbol: str, end: datetime | None, count: int
) -> Iterator[Selection]:
    """Selections up to `end`, each longer than the one before; the last is all there is."""
    market = Selection((exchange,), (symbol,), None, end)
    files = rows.files(market)
    if files.is_empty():
        return
    span = files.select(pl.col("first").min(), pl.col("last").max()).row(0)
    if not files["first"].null_count() and not files["last"].null_count():
        yield from _longer(market, span, _step(files) * count * _MARGIN)
    yield market


def _longer(
    market: Selection, span: tuple[datetime, datetime], back: timedelta
) -> Iterator[Selection]:
    """The end of the market's rows, as long as they reach back."""
    first, last = span
    stop = min(last + TIME_STEP, market.end) if market.end else last + TIME_STEP
    while stop - back > first:
        yield replace(market, start=stop - back)
        back *= _GROWTH


def _step(files: pl.DataFrame) -> timedelta:
    """The mean time between the rows of the newest file."""
    first, last, rows = files.sort("last").select("first", "last", "rows").row(-1)
    step: timedelta = (last - first + TIME_STEP) / max(1, rows)
    return max(step, MICROSECOND)
