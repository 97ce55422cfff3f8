"""Days that are checked together: whole ones, with about a million rows at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import polars as pl

from lake.model.selection import Selection
from lake.model.time import FIRST_TIME, MICROSECOND, TimeRange

AHEAD = timedelta(minutes=1)
"""How far clocks may disagree: rows that are farther ahead of the present are wrong."""
_PIECE_ROWS = 1_000_000


def is_sound(now: datetime) -> pl.Expr:
    """Whether the times of a data file are possible; null where they are not known."""
    return (pl.col("first") >= FIRST_TIME) & (pl.col("last") <= now + AHEAD)


def pieces(
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
        if rows >= _PIECE_ROWS or day + 1 == after:
            yield TimeRange(midnight(start), midnight(day + 1))
            start, rows = day + 1, 0
