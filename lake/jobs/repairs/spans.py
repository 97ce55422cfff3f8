"""Find which of many times and rows lie within which of many spans, without comparing each."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl

from lake.model.dataset import Dataset
from lake.model.intervals import split, union
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import DAY, EPOCH, MICROSECOND, TimeRange
from lake.store.faults import translate_errors
from lake.store.reader import may_hold_rows
from lake.store.store import Store


class Moments:
    """Times, in order."""

    def __init__(self, times: pl.Series) -> None:
        self.times = times.sort()
        self._numbers = self.times.to_physical().to_numpy()

    def has_within(self, span: TimeRange) -> bool:
        """Whether a time lies within a span."""
        start, end = self._bounds(span)
        return start < end

    def select(self, spans: Iterable[TimeRange]) -> pl.Series:
        """Return the times that lie within one of the spans, each once."""
        bounds = [self._bounds(span) for span in union(spans)]
        slices = [self.times[start:end] for start, end in bounds if start < end]
        return pl.concat(slices) if slices else self.times.clear()

    def select_rows(self, rows: pl.DataFrame, span: TimeRange) -> pl.DataFrame:
        """Return the rows within a span, of the rows whose times these are, in order."""
        start, end = self._bounds(span)
        return rows.slice(start, end - start)

    def _bounds(self, span: TimeRange) -> tuple[int, int]:
        start, end = np.searchsorted(self._numbers, [_to_number(span.start), _to_number(span.end)])
        return int(start), int(end)


def select_starting(spans: Sequence[TimeRange], window: TimeRange) -> Sequence[TimeRange]:
    """Return the spans that begin in a window, of spans in order."""
    start, end = (
        bisect_left(spans, time, key=lambda span: span.start) for time in (window.start, window.end)
    )
    return spans[start:end]


class Windows:
    """Spans, in order, of which none overlaps another."""

    def __init__(self, spans: Sequence[TimeRange]) -> None:
        self._starts = np.array([_to_number(span.start) for span in spans], dtype=np.int64)
        self._ends = np.array([_to_number(span.end) for span in spans], dtype=np.int64)

    def locate(self, times: pl.Series) -> pl.Series:
        """Return for each time the number of the span that holds it; null where none does."""
        if not len(self._starts):
            return pl.Series([None] * len(times), dtype=pl.Int64)
        moments = times.to_physical().to_numpy()
        last = np.searchsorted(self._starts, moments, side="right") - 1
        is_inside = (last >= 0) & (moments < self._ends[np.maximum(last, 0)])
        numbers = pl.Series(np.where(is_inside, last, -1).astype(np.int64))
        return numbers.set(numbers < 0, None)


def tile(spans: Iterable[TimeRange], step: timedelta = DAY) -> list[TimeRange]:
    """Cut spans into parts that are short enough to be read at once."""
    return [part for span in spans for part in split(span, step)]


def read_each(
    store: Store,
    dataset: Dataset,
    market: Market,
    spans: Sequence[TimeRange],
    columns: Sequence[str] | None = None,
) -> Iterator[tuple[TimeRange, pl.DataFrame]]:
    """Yield the rows of a market in each of many spans.

    Parameters
    ----------
    spans
        Spans in order of their start.
    """
    time, names = dataset.time_column, list(columns or dataset.polars_schema)
    needed = list(dict.fromkeys([*names, time]))
    for stretch, rows in read_together(store, dataset, market, spans, needed):
        moments = Moments(rows[time])
        for span in stretch:
            yield span, moments.select_rows(rows, span).select(names)


def read_together(
    store: Store,
    dataset: Dataset,
    market: Market,
    spans: Sequence[TimeRange],
    columns: Sequence[str],
) -> Iterator[tuple[Sequence[TimeRange], pl.DataFrame]]:
    """Yield spans that lie close to each other, and the rows of a market in and between them.

    Spans within one partition of the table are read at once: one read per finding would open the
    same files again and again, and one for all could need more memory than the machine has.
    """
    snapshot = store.snapshot(dataset)
    files = snapshot.files(Selection((market.exchange,), (market.symbol,)))
    for stretch in _cut_stretches(dataset, spans):
        end = max(span.end for span in stretch)
        selection = Selection((market.exchange,), (market.symbol,), stretch[0].start, end)
        with translate_errors(f"table {dataset.name}"):
            touched = snapshot.scan_files(files.filter(may_hold_rows(selection)), selection)
            rows = snapshot.sort_rows(touched, selection, columns)
        yield stretch, rows.sort(dataset.time_column, maintain_order=True)


def _cut_stretches(dataset: Dataset, spans: Sequence[TimeRange]) -> Iterator[Sequence[TimeRange]]:
    longest = dataset.partitioning.longest
    first = 0
    for number, (_, span) in enumerate(pairwise(spans), 1):
        if span.end - spans[first].start > longest:
            yield spans[first:number]
            first = number
    if spans:
        yield spans[first:]


def _to_number(time: datetime) -> int:
    return (time - EPOCH) // MICROSECOND
