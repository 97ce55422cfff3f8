"""Rows that coverage counts and that a table does not hold.

Coverage says how many rows of an answer were stored. If fewer are there, rows were lost after it
was recorded, as with a commit that a power cut damaged.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from lake.model.dataset import Dataset
from lake.model.market import MARKET_COLUMNS
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, TimeRange
from lake.model.words import count
from lake.store.coverage import is_covered
from lake.store.reader import TIME_STEP
from lake.store.snapshot import Snapshot

if TYPE_CHECKING:
    import numpy as np

    _Integers: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
Market = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Shortage:
    """An interval in which a table holds fewer rows than coverage counts."""

    table: str
    exchange: str
    symbol: str
    range: TimeRange
    expected: int
    stored: int

    def __str__(self) -> str:
        return (
            f"{self.table} of {self.exchange} {self.symbol}: {self.range} has {self.stored:,} of "
            f"{count(self.expected, 'row')}"
        )


@dataclass(frozen=True, slots=True)
class _Short:
    range: TimeRange
    expected: int
    stored: int

    @property
    def missing(self) -> int:
        return self.expected - self.stored


@dataclass(frozen=True)
class _Counter:
    """Counts rows in intervals; of files, at most as many as those that overlap it hold.

    Attributes
    ----------
    firsts, lasts
        Sorted times of the first rows, and of the last rows plus the step of these times, in us.
    until_first, until_last
        Running sums of rows in these orders, with a zero before.
    """

    firsts: _Integers
    lasts: _Integers
    until_first: _Integers
    until_last: _Integers

    @classmethod
    def build(cls, pieces: pl.DataFrame, step: timedelta) -> _Counter:
        """Build it from pieces with `first`, `last`, `rows`; null: unknown, so they may hold any.

        Parameters
        ----------
        step
            To how much the times are exact.
        """
        return cls.of(*_to_arrays(pieces, step))

    @classmethod
    def of(cls, first: _Integers, last: _Integers, rows: _Integers) -> _Counter:
        """Build it from the arrays of pieces."""
        import numpy as np

        by_first, by_last = np.argsort(first, kind="stable"), np.argsort(last, kind="stable")
        return cls(first[by_first], last[by_last], _sum_up(rows[by_first]), _sum_up(rows[by_last]))

    def count(self, starts: _Integers, ends: _Integers) -> _Integers:
        """Count the rows in intervals `[start, end)`."""
        import numpy as np

        begun = np.searchsorted(self.firsts, ends, side="left")
        over = np.searchsorted(self.lasts, starts, side="right")
        counts: _Integers = self.until_first[begun] - self.until_last[over]
        return counts


@dataclass(frozen=True)
class _Pieces:
    """The pieces of many markets: sorted by market, and where those of each market are."""

    arrays: tuple[_Integers, _Integers, _Integers]
    places: Mapping[Market, slice]
    unknown: Collection[Market]

    @classmethod
    def of(cls, files: pl.DataFrame, step: timedelta) -> _Pieces:
        ordered = files.sort(MARKET_COLUMNS, maintain_order=True)
        unknown = ordered.filter(pl.col("rows").is_null()).select(MARKET_COLUMNS)
        known = ordered.with_columns(pl.col("rows").fill_null(0))
        return cls(_to_arrays(known, step), _find_places(ordered), set(unknown.iter_rows()))

    def count(self, market: Market) -> _Counter | None:
        """Return the counter of a market; None if the rows of some piece are unknown."""
        if market in self.unknown:
            return None
        place = self.places.get(market, slice(0, 0))
        first, last, rows = self.arrays
        return _Counter.of(first[place], last[place], rows[place])


def find_shortages(snapshot: Snapshot, coverage: pl.DataFrame) -> list[Shortage]:
    """Find the intervals of coverage with fewer rows than it counts; rows are read and counted.

    Filled rows do not count: no source gave them.

    Parameters
    ----------
    coverage
        Rows of the table `coverage`, of any tables.
    """
    dataset = snapshot.dataset

    def count_rows(market: Market, answers: pl.DataFrame) -> _Counter:
        start, end = answers.select(
            pl.col("timestamp").min() - dataset.reach,
            pl.col("end").max() + dataset.reach,
        ).row(0)
        selection = Selection(market[:1], market[1:], start, end)
        return _Counter.build(_read_times(snapshot, selection), MICROSECOND)

    return list(_find(dataset, coverage, count_rows))


def find_evident_shortages(
    dataset: Dataset, coverage: pl.DataFrame, files: pl.DataFrame
) -> list[Shortage]:
    """Find shortages by the statistics of data files alone: no false ones, but not all.

    Parameters
    ----------
    files
        As `Snapshot.files` gives them.
    """
    pieces = _Pieces.of(files, TIME_STEP)
    return list(_find(dataset, coverage, lambda market, _: pieces.count(market)))


def sum_missing(shortages: Iterable[Shortage]) -> dict[Market, int]:
    """Sum up the missing rows of a table by market."""
    missing: dict[Market, int] = {}
    for item in shortages:
        market = (item.exchange, item.symbol)
        missing[market] = missing.get(market, 0) + item.expected - item.stored
    return missing


def _find(
    dataset: Dataset,
    coverage: pl.DataFrame,
    build_counter: Callable[[Market, pl.DataFrame], _Counter | None],
) -> Iterator[Shortage]:
    answered = coverage.filter(
        is_covered() & (pl.col("dataset") == dataset.name) & (pl.col("rows") > 0)
    )
    ordered = answered.sort(*MARKET_COLUMNS, "timestamp", "end")
    starts = (ordered["timestamp"] - dataset.reach).to_physical().to_numpy()
    ends = (ordered["end"] + dataset.reach).to_physical().to_numpy()
    rows = ordered["rows"].to_numpy()
    for market, place in _find_places(ordered).items():
        answers = ordered[place]
        counter = build_counter(market, answers)
        if counter is None:
            continue
        is_short = counter.count(starts[place], ends[place]) < rows[place]
        if is_short.any() or _touch(starts[place], ends[place]):
            for item in _compare(answers, counter, dataset.reach):
                yield Shortage(dataset.name, *market, item.range, item.expected, item.stored)


def _find_places(ordered: pl.DataFrame) -> dict[Market, slice]:
    """Find where the rows of each market are in a frame that is sorted by market."""
    lengths = ordered.group_by(MARKET_COLUMNS, maintain_order=True).len()
    places, start = {}, 0
    for exchange, symbol, length in lengths.iter_rows():
        places[exchange, symbol] = slice(start, start + length)
        start += length
    return places


def _touch(starts: _Integers, ends: _Integers) -> bool:
    """Whether some of the sorted intervals, as wide as times may be off, touch each other."""
    import numpy as np

    return bool((starts[1:] <= np.maximum.accumulate(ends)[:-1]).any())


def _compare(answers: pl.DataFrame, counter: _Counter, tolerance: timedelta) -> Iterator[_Short]:
    """Compare each answer, and each run of answers that touch, with the rows in its interval.

    Rows may be stored with a time that differs by the tolerance, and so in the next interval.
    """
    groups = (answers["timestamp"] > answers["end"].cum_max().shift(1)).fill_null(value=False)
    numbered = answers.with_columns(group=groups.cum_sum())
    runs = numbered.group_by("group", maintain_order=True).agg(
        pl.col("timestamp").min(),
        pl.col("end").max(),
        parts=pl.struct("timestamp", "end", "rows"),
    )
    totals = runs["parts"].map_elements(_sum_disjoint, return_dtype=pl.Int64)
    short = _list_short(answers, counter, tolerance)
    for run in _list_short(runs.with_columns(rows=totals), counter, tolerance):
        inside = [item for item in short if _holds(run.range, item.range)]
        short = [item for item in short if not _holds(run.range, item.range)]
        apart = _select_disjoint(inside)
        yield from apart if sum(item.missing for item in apart) >= run.missing else [run]
    yield from _select_disjoint(short)


def _holds(outer: TimeRange, inner: TimeRange) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


def _select_disjoint(short: Iterable[_Short]) -> list[_Short]:
    """Select intervals that do not overlap, those that lack most rows first."""
    chosen: list[_Short] = []
    for item in sorted(short, key=lambda item: -item.missing):
        if all(item.range.end <= c.range.start or c.range.end <= item.range.start for c in chosen):
            chosen.append(item)
    return sorted(chosen, key=lambda item: item.range)


def _list_short(answers: pl.DataFrame, counter: _Counter, tolerance: timedelta) -> list[_Short]:
    starts = (answers["timestamp"] - tolerance).to_physical().to_numpy()
    ends = (answers["end"] + tolerance).to_physical().to_numpy()
    counts = counter.count(starts, ends)
    columns = answers.select("timestamp", "end", "rows").iter_rows()
    return [
        _Short(TimeRange(start, end), expected, int(stored))
        for (start, end, expected), stored in zip(columns, counts, strict=True)
        if stored < expected
    ]


def _sum_disjoint(parts: pl.Series) -> int:
    """Return the largest sum of rows of intervals that do not overlap."""
    frame = parts.struct.unnest().sort("end")
    starts, ends = frame["timestamp"].to_list(), frame["end"].to_list()
    rows = frame["rows"].to_list()
    if all(start >= end for start, end in zip(starts[1:], ends, strict=False)):
        return int(sum(rows))
    best = [0]
    for number, (start, own) in enumerate(zip(starts, rows, strict=True)):
        before = bisect_right(ends, start, hi=number)
        best.append(max(best[-1], best[before] + own))
    return best[-1]


def _read_times(snapshot: Snapshot, selection: Selection) -> pl.DataFrame:
    """Read the times of rows that a source gave, each as a piece of one row."""
    time = snapshot.dataset.time_column
    filled = ["fill"] if "fill" in snapshot.dataset.polars_schema else []
    rows = snapshot.collect(selection, columns=[time, *filled])
    if filled:
        rows = rows.filter(pl.col("fill").is_null())
    return rows.select(first=time, last=time, rows=pl.lit(1, pl.Int64))


def _to_arrays(pieces: pl.DataFrame, step: timedelta) -> tuple[_Integers, _Integers, _Integers]:
    """Return first and last times, and rows, of pieces; an unknown time may be any."""
    import numpy as np

    lowest, highest = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    first = pieces["first"].to_physical().fill_null(lowest).to_numpy()
    last = (pieces["last"] + step).to_physical().fill_null(highest).to_numpy()
    return first, last, pieces["rows"].to_numpy()


def _sum_up(rows: _Integers) -> _Integers:
    import numpy as np

    return np.concatenate([np.zeros(1, np.int64), np.cumsum(rows)])
