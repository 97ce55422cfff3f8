"""Pages on their way to a commit: collect them, write them together, record their coverage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from lake.errors import DamagedError
from lake.jobs.ingest.refused import quarantine_rows
from lake.jobs.job import WriteCounts
from lake.jobs.touched import TouchedRanges
from lake.log import get_logger
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.market import Market
from lake.model.time import MICROSECOND, TimeRange
from lake.sources.base import FetchRequest, Page, Refused
from lake.store.coverage import NOT_GIVEN, CoveredRange, part_of
from lake.store.coverage import Part as CoveredPart
from lake.store.ledger import Ledger
from lake.store.store import Origin, Store, WriteResult

_log = get_logger(__name__)
Part = tuple[str, Market]


@dataclass
class Batch:
    """Pages of several requests. A merge of many windows costs little more than one of a few."""

    rows: int = 0
    frames: dict[Part, list[pl.DataFrame]] = field(default_factory=lambda: defaultdict(list))
    settled: dict[Part, list[CoveredRange]] = field(default_factory=lambda: defaultdict(list))
    not_given: dict[Part, list[TimeRange]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[FetchRequest, list[Refused]] = field(default_factory=lambda: defaultdict(list))
    datasets: dict[str, Dataset] = field(default_factory=dict)

    def add(self, request: FetchRequest, page: Page) -> None:
        name, market = request.dataset.name, request.market
        self.datasets[name] = request.dataset
        if not page.frame.is_empty():
            self.frames[name, market].append(page.frame)
        if page.refused:
            self.refused[request].extend(page.refused)
        self.rows += page.records
        if page.settled is not None:
            # An answer whose records are all rejected is not empty; rows are counted once stored.
            status = "fetched" if page.records else None
            self.settled[name, market].append(CoveredRange(page.settled, 0, status))
        if page.not_given is not None:
            self.not_given[name, market].append(page.not_given)

    def rows_of(self, table: str) -> pl.DataFrame | None:
        """Return the rows of a table with their markets; None where there are none."""
        parts = [
            add_market(pl.concat(frames, how="diagonal"), market)
            for (name, market), frames in self.frames.items()
            if name == table
        ]
        return pl.concat(parts, how="diagonal") if parts else None

    def answers_of(self, table: str) -> pl.Series:
        """Return the number of the page that each row of a table came in."""
        pages = [
            frame.height
            for (name, _), frames in self.frames.items()
            if name == table
            for frame in frames
        ]
        numbers = pl.DataFrame({"page": range(len(pages)), "rows": pages})
        return numbers.select(pl.col("page").repeat_by("rows").explode())["page"]


class BatchWriter:
    """Commits batches: where their rows go, and in whose name.

    Parameters
    ----------
    counts
        Adds up what became of the rows.
    touched
        Collects where rows were written and answers recorded.
    lock
        Held while a batch is written, so that pipelines that share it write in turn.
    damaged
        By name, the tables that turned out to be damaged: nothing more is written to them.
    """

    def __init__(
        self,
        store: Store,
        origin: Origin,
        counts: WriteCounts,
        touched: TouchedRanges | None = None,
        lock: AbstractContextManager[Any] | None = None,
        damaged: dict[str, DamagedError] | None = None,
    ) -> None:
        self.origin = origin
        self._store = store
        self._ledger = Ledger(store)
        self._counts = counts
        self._touched = touched or TouchedRanges()
        self._lock = lock or nullcontext()
        self._damaged: dict[str, DamagedError] = {} if damaged is None else damaged

    def write(self, batch: Batch) -> None:
        """Commit the rows, and only then their coverage: a crash between costs a repeated fetch.

        A damaged table stops no other one.
        """
        with self._lock:
            answers: dict[CoveredPart, list[CoveredRange]] = {}
            for name, dataset in batch.datasets.items():
                if name in self._damaged:
                    continue
                try:
                    answers |= self._write_table(dataset, batch)
                except DamagedError as error:
                    _log.error("table is damaged", table=name, reason=error.message)
                    self._damaged[name] = error
            self._ledger.record_coverage(answers, self.origin)

    def _write_table(self, dataset: Dataset, batch: Batch) -> dict[CoveredPart, list[CoveredRange]]:
        """Write what a batch has for a table; return the answers to record."""
        # Also without rows: checks and overviews are to show the table.
        self._store.create(dataset)
        for request, records in batch.refused.items():
            if request.dataset.name == dataset.name:
                self._quarantine(request, records)
        kept = self._write_rows(dataset, batch)
        answers: dict[CoveredPart, list[CoveredRange]] = defaultdict(list)
        for (name, market), settled in batch.settled.items():
            if name == dataset.name:
                counted = _count_rows(settled, _find_times(kept, market))
                answers[part_of(name, market)] += counted
                self._touched.add(name, market, [item.range for item in counted])
        for (name, market), ranges in batch.not_given.items():
            if name == dataset.name:
                lost = [CoveredRange(item, 0, NOT_GIVEN) for item in ranges]
                answers[part_of(name, market)] += lost
                self._touched.add(name, market, ranges)
        return answers

    def _write_rows(self, dataset: Dataset, batch: Batch) -> pl.DataFrame | None:
        """Write the rows of a table; return the times of those that it holds, with their market."""
        rows = batch.rows_of(dataset.name)
        if rows is None:
            return None
        for (name, market), frames in batch.frames.items():
            if name == dataset.name:
                times = pl.concat([frame[dataset.time_column] for frame in frames])
                self._touched.add(name, market, find_spans(times))
        answers = batch.answers_of(dataset.name)
        written = self._store.write(dataset, rows, self.origin, answers)
        self._counts.add(dataset.name, written)
        return written.kept.rename({dataset.time_column: "time"})

    def _quarantine(self, request: FetchRequest, records: Sequence[Refused]) -> None:
        store, dataset = self._store, request.dataset
        rows = quarantine_rows(request, records, self.origin.job_id, store.now())
        self._touched.add(dataset.name, request.market, find_spans(rows["timestamp"]))
        store.write(store.catalog.dataset("quarantine"), rows, self.origin)
        version = store.version(dataset)
        self._counts.add(dataset.name, WriteResult(len(records), 0, 0, len(records), version))


def find_spans(times: pl.Series) -> list[TimeRange]:
    """Return the range from the first to the last time of each day: one may be impossible."""
    frame = times.drop_nulls().rename("time").to_frame()
    days = frame.group_by(pl.col("time").dt.date().alias("day")).agg(
        first=pl.col("time").min(), last=pl.col("time").max()
    )
    spans = days.select("first", "last").iter_rows()
    return [TimeRange(first, last + MICROSECOND) for first, last in spans]


def _find_times(kept: pl.DataFrame | None, market: Market) -> pl.Series:
    """Return the sorted times of a market's rows."""
    if kept is None:
        return pl.Series("time", dtype=TIMESTAMP)
    own = (pl.col("exchange") == market.exchange) & (pl.col("symbol") == market.symbol)
    return kept.filter(own)["time"].sort()


def _count_rows(settled: Sequence[CoveredRange], times: pl.Series) -> list[CoveredRange]:
    """Return settled ranges with the rows that the table holds in each."""
    bounds = pl.DataFrame(
        {
            "start": [item.range.start for item in settled],
            "end": [item.range.end for item in settled],
        },
        schema={"start": TIMESTAMP, "end": TIMESTAMP},
    )
    first, last = (times.search_sorted(bounds[name], side="left") for name in ("start", "end"))
    return [
        replace(item, rows=rows, times=times)
        for item, rows in zip(settled, (last - first).to_list(), strict=True)
    ]


def add_market(frame: pl.DataFrame, market: Market) -> pl.DataFrame:
    """Return the rows with columns for their market."""
    return frame.with_columns(exchange=pl.lit(market.exchange), symbol=pl.lit(market.symbol))
