"""Chunks: the rows of one market in parts of whole UTC days, so that memory stays bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import polars as pl

from lake.model.literals import time_literal
from lake.model.market import MARKET_COLUMNS
from lake.model.selection import Selection
from lake.model.time import FIRST_TIME, MICROSECOND, TimeRange
from lake.store.reader import TIME_STEP, TableReader

AHEAD = timedelta(minutes=1)
"""Largest difference of clocks: rows that are farther ahead of the present are wrong."""
_READ_ROWS = 500_000
_CHECK_ROWS = 1_000_000


def chunk_selection(
    reader: TableReader, files: pl.DataFrame, selection: Selection, chunk_rows: int = _READ_ROWS
) -> Iterator[Selection]:
    """Cut a selection into chunks of one market and about `chunk_rows` rows, in order.

    Each row of the selection is in exactly one of them. They are cut at midnights (UTC).

    Parameters
    ----------
    files
        The data files of the selection, as `reader.files` gives them.
    """
    if files["first"].null_count() or files["last"].null_count():
        files = _fill_times(reader, files, selection)
    for (exchange, symbol), group in files.group_by(MARKET_COLUMNS, maintain_order=True):
        start, end = _find_bounds(group, selection)
        days = range(to_day_number(start), to_day_number(end - MICROSECOND) + 1)
        for chunk in _cut_days(days, _count_rows([group]), chunk_rows):
            until = end if chunk.stop == days.stop else to_midnight(chunk.stop)
            yield Selection((exchange,), (symbol,), max(start, to_midnight(chunk.start)), until)


def chunk_days(
    files: pl.DataFrame,
    references: Iterable[pl.DataFrame],
    more_days: Iterable[int],
    selection: Selection,
    now: datetime,
) -> Iterator[tuple[TimeRange, int]]:
    """Cut the days of a market's rows in a selection into chunks of whole days, in order.

    Each comes with the number of its rows, those of the references included.

    Parameters
    ----------
    files, references
        Data files of the market's table, and of the tables that are read beside it: `first`,
        `last`, `rows`. One that holds rows of impossible times holds those of one day.
    more_days
        Numbers of further days.
    """
    counts = _count_rows([files, *references])
    for days in _find_days(files, more_days, now):
        for chunk in _cut_days(_clip_days(days, selection), counts, _CHECK_ROWS):
            rows = sum(counts[day] for day in chunk)
            yield TimeRange(to_midnight(chunk.start), to_midnight(chunk.stop)), rows


def has_possible_times(now: datetime) -> pl.Expr:
    """Whether the times of a data file are possible; null where they are not known."""
    first, last = time_literal(FIRST_TIME), time_literal(now + AHEAD)
    return (pl.col("first") >= first) & (pl.col("last") <= last)


def widen_to_days(selection: Selection) -> Selection:
    """Widen the bounds of a selection to whole UTC days."""
    start, end = selection.start, selection.end
    return Selection(
        selection.exchanges,
        selection.symbols,
        None if start is None else to_midnight(to_day_number(start)),
        None if end is None else to_midnight(to_day_number(end - MICROSECOND) + 1),
    )


def to_day_number(time: datetime) -> int:
    """Return the number of the UTC day of a time."""
    return time.astimezone(UTC).toordinal()


def to_midnight(day: int) -> datetime:
    """Return the start of a numbered day."""
    return datetime.fromordinal(day).replace(tzinfo=UTC)


def _count_rows(listings: Iterable[pl.DataFrame]) -> Counter[int]:
    """Count rows by day: rows of a file are spread evenly over the days that it covers."""
    counts: Counter[int] = Counter()
    for files in listings:
        for first, last, rows in files.select("first", "last", "rows").iter_rows():
            days = range(to_day_number(first), to_day_number(last) + 1)
            for day in days:
                counts[day] += rows // len(days) + 1
    return counts


def _cut_days(days: range, counts: Counter[int], chunk_rows: int) -> Iterator[range]:
    """Cut consecutive days into chunks of at least `chunk_rows` rows; the last may have fewer."""
    start, rows = days.start, 0
    for day in days:
        rows += counts[day]
        if rows >= chunk_rows or day + 1 == days.stop:
            yield range(start, day + 1)
            start, rows = day + 1, 0


def _find_bounds(files: pl.DataFrame, selection: Selection) -> tuple[datetime, datetime]:
    first: datetime = files["first"].min()  # type: ignore[assignment]
    last: datetime = files["last"].max()  # type: ignore[assignment]
    start = max(filter(None, (selection.start, first)))
    return start, min(filter(None, (selection.end, last + TIME_STEP)))


def _fill_times(reader: TableReader, files: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Replace the times of files by those of their market's rows: some files have no statistics."""
    time = pl.col(reader.dataset.time_column)
    times = (
        reader.scan(selection)
        .group_by(MARKET_COLUMNS)
        .agg(time.min(), time.max().alias("last"))
        .rename({reader.dataset.time_column: "first"})
        .collect()
    )
    timeless = files.drop("first", "last").with_columns(pl.col("rows").fill_null(0))
    return timeless.join(times, on=MARKET_COLUMNS, maintain_order="left")


def _find_days(files: pl.DataFrame, more_days: Iterable[int], now: datetime) -> list[range]:
    """List the days from the first to the last row, and other days: those in a row together.

    Days of rows with impossible times stand by themselves.
    """
    odd = set(map(to_day_number, files.filter(~has_possible_times(now))["first"]))
    sound = files.filter(has_possible_times(now))
    possible = range(0)
    if sound.height:
        first, last = sound.select(pl.col("first").min(), pl.col("last").max()).row(0)
        possible = range(to_day_number(first), to_day_number(last) + 1)
    days = [range(day, day + 1) for day in odd if day not in possible]
    days += _join_days(day for day in set(more_days) - odd if day not in possible)
    return sorted([*days, *([possible] if possible else [])], key=lambda part: part.start)


def _join_days(days: Iterable[int]) -> list[range]:
    """Join days that follow each other."""
    joined: list[range] = []
    for day in sorted(days):
        if joined and joined[-1].stop == day:
            joined[-1] = range(joined[-1].start, day + 1)
        else:
            joined.append(range(day, day + 1))
    return joined


def _clip_days(days: range, selection: Selection) -> range:
    """Keep the days that a selection touches."""
    first, after = days.start, days.stop
    if selection.start is not None:
        first = max(first, to_day_number(selection.start))
    if selection.end is not None:
        after = min(after, to_day_number(selection.end - MICROSECOND) + 1)
    return range(first, after)
