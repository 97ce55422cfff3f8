"""Point look-ups: the newest rows of a market, and the row that was known at a time.

A look-up reads only the end of the market's history: first a range that should hold enough rows by
the statistics of its files, then longer ranges until it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl

from lake.errors import UsageError
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, in_utc
from lake.model.visibility import Visibility
from lake.store.reader import TIME_STEP, TableReader

_SAFETY_FACTOR = 4
_GROWTH_FACTOR = 16


def read_latest(reader: TableReader, exchange: str, symbol: str, count: int) -> pl.DataFrame:
    """Read the last `count` rows of a market, or all if it has fewer, in order of time.

    Raises
    ------
    UsageError
        `count` is not positive.
    """
    if count < 1:
        raise UsageError(f"{count} is not a number of rows", "Use 1 or more.")
    rows = reader.dataset.empty()
    for part in _list_selections(reader, Selection((exchange,), (symbol,)), count):
        rows = reader.collect(part)
        if rows.height >= count:
            break
    return rows.tail(count)


def read_row_at(reader: TableReader, exchange: str, symbol: str, time: datetime) -> pl.DataFrame:
    """Read the newest row of a market that was known at a time; no row if none was known.

    A row is known from its `available_at` on, a bar from its end. No row is known before its time;
    of announcements, which are, the newest is the one that was announced last.
    """
    visible = Visibility.at(reader.dataset, in_utc(time))
    selection = visible.select(Selection((exchange,), (symbol,)))
    if reader.dataset.announcement_column is not None:
        rows = reader.collect(selection).filter(visible.includes())
        return rows.sort(reader.dataset.availability(), maintain_order=True).tail(1)
    rows = reader.dataset.empty()
    for part in _list_selections(reader, selection, 1):
        rows = reader.collect(part).filter(visible.includes())
        if rows.height:
            break
    return rows.tail(1)


def _list_selections(reader: TableReader, selection: Selection, count: int) -> Iterator[Selection]:
    """Yield selections of a market up to an end, each longer than the last; finally everything."""
    market = reader.clip(selection)
    if market is None:
        return
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
    """Yield selections of growing length at the end of the market, as long as older rows exist."""
    first, last = span
    stop = min(last + TIME_STEP, market.end) if market.end else last + TIME_STEP
    while stop - length > first:
        yield replace(market, start=stop - length)
        length *= _GROWTH_FACTOR


def _measure_step(files: pl.DataFrame) -> timedelta:
    """Return the mean time between the rows of the newest file."""
    first, last, rows = files.sort("last").select("first", "last", "rows").row(-1)
    step: timedelta = (last - first + TIME_STEP) / max(1, rows)
    return max(step, MICROSECOND)
