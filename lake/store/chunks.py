"""Rows of one market in chunks of whole UTC days, so that memory stays bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import polars as pl

from lake.model.selection import Selection
from lake.model.time import DAY, FIRST_TIME, MICROSECOND, TimeRange
from lake.store.reader import TIME_STEP, TableReader

AHEAD = timedelta(minutes=1)
"""How far clocks may disagree: rows that are farther ahead of the present are wrong."""
_CHECK_ROWS = 1_000_000


def chunk_selection(
    rows: TableReader, files: pl.DataFrame, selection: Selection, piece_rows: int = 500_000
) -> Iterator[Selection]:
    """Selections of one market and about `piece_rows` rows; each row is in exactly one of them.

    Parameters
    ----------
    files
        The data files of the selection, as `rows.files` gives them.
    """
    if files["first"].null_count() or files["last"].null_count():
        files = _timed(rows, files, selection)
    for (exchange, symbol), group in files.group_by("exchange", "symbol", maintain_order=True):
        start, end = _bounds(group, selection)
        for cut in [*_cuts(group, start, end, piece_rows), end]:
            yield Selection((exchange,), (symbol,), start, cut)
            start = cut


def is_sound(now: datetime) -> pl.Expr:
    """Whether the times of a data file are possible; null where they are not known."""
    return (pl.col("first") >= FIRST_TIME) & (pl.col("last") <= now + AHEAD)


def chunk_days(
    files: pl.DataFrame,
    witnesses: Iterable[pl.DataFrame],
    more: Iterable[int],
    selection: Selection,
    now: datetime,
) -> Iterator[TimeRange]:
    """Ranges of whole days that cover a market's rows in a selection, in order.

    Parameters
    ----------
    files, witnesses
        Data files of the market's table, and of the tables that are read beside it: `first`,
        `last`, `rows`. One that holds rows of impossible times holds those of one day.
    more
        Further days.
    """
    counts: Counter[int] = Counter()
    for listed in (files, *witnesses):
        for first, last, rows in listed.select("first", "last", "rows").iter_rows():
            days = range(day_of(first), day_of(last) + 1)
            for day in days:
                counts[day] += rows // len(days) + 1
    for held in _held(files, more, now):
        yield from _cut(held, counts, selection)


def whole_days(selection: Selection) -> Selection:
    """A selection with bounds within a day widened to all of it."""
    start, end = selection.start, selection.end
    return Selection(
        selection.exchanges,
        selection.symbols,
        None if start is None else midnight(day_of(start)),
        None if end is None else midnight(day_of(end - MICROSECOND) + 1),
    )


def day_of(time: datetime) -> int:
    """Number of a UTC day."""
    return time.astimezone(UTC).toordinal()


def midnight(day: int) -> datetime:
    """Start of a numbered day."""
    return datetime.fromordinal(day).replace(tzinfo=UTC)


def _bounds(files: pl.DataFrame, selection: Selection) -> tuple[datetime, datetime]:
    first: datetime = files["first"].min()  # type: ignore[assignment]
    last: datetime = files["last"].max()  # type: ignore[assignment]
    start = max(filter(None, (selection.start, first)))
    return start, min(filter(None, (selection.end, last + TIME_STEP)))


def _cuts(
    files: pl.DataFrame, start: datetime, end: datetime, piece_rows: int
) -> Iterator[datetime]:
    """Midnights at which enough rows have gathered; a file's rows are spread over its days."""
    held, cut = 0, start
    for first, last, count in files.select("first", "last", "rows").iter_rows():
        days = max(1, (last - first) // DAY + 1)
        for number in range(days):
            midnight = _midnight(first + number * DAY)
            if held >= piece_rows and cut < midnight < end:
                yield midnight
                held, cut = 0, midnight
            held += count // days


def _midnight(time: datetime) -> datetime:
    return datetime(time.year, time.month, time.day, tzinfo=UTC)


def _timed(rows: TableReader, files: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Files with the times of their market's rows: for files without statistics."""
    time = pl.col(rows.dataset.time_column)
    found = (
        rows.scan(selection)
        .group_by("exchange", "symbol")
        .agg(time.min(), time.max().alias("last"))
    )
    spans = found.rename({rows.dataset.time_column: "first"}).collect()
    named = files.drop("first", "last").with_columns(pl.col("rows").fill_null(0))
    return named.join(spans, on=["exchange", "symbol"], maintain_order="left")


def _held(files: pl.DataFrame, more: Iterable[int], now: datetime) -> Iterator[TimeRange]:
    """The days from the first to the last row; days of impossible times each by itself."""
    odd = {*more, *map(day_of, files.filter(~is_sound(now))["first"])}
    sound = files.filter(is_sound(now))
    held = range(0)
    if sound.height:
        first, last = sound.select(pl.col("first").min(), pl.col("last").max()).row(0)
        held = range(day_of(first), day_of(last) + 1)
    days = [range(day, day + 1) for day in odd if day not in held]
    for part in sorted([*days, *([held] if held else [])], key=lambda part: part.start):
        yield TimeRange(midnight(part.start), midnight(part.stop))


def _cut(held: TimeRange, counts: Counter[int], selection: Selection) -> Iterator[TimeRange]:
    wanted = whole_days(selection)
    first, after = day_of(held.start), day_of(held.end)
    if wanted.start is not None:
        first = max(first, day_of(wanted.start))
    if wanted.end is not None:
        after = min(after, day_of(wanted.end))
    start, rows = first, 0
    for day in range(first, after):
        rows += counts[day]
        if rows >= _CHECK_ROWS or day + 1 == after:
            yield TimeRange(midnight(start), midnight(day + 1))
            start, rows = day + 1, 0
