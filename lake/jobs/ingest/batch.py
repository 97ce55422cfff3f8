"""Pages on their way to a commit: collect them, write them together, record their coverage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from lake.jobs.ingest.refused import quarantine_rows
from lake.jobs.job import WriteCounts
from lake.model.dataset import Dataset
from lake.model.market import Market
from lake.sources.base import FetchRequest, Page, Refused
from lake.store.ledger import CoveredRange, Ledger
from lake.store.store import Origin, Store, WriteResult

Part = tuple[str, Market]


@dataclass
class Batch:
    """Pages of several requests. A merge of many windows costs little more than one of a few."""

    rows: int = 0
    frames: dict[Part, list[pl.DataFrame]] = field(default_factory=lambda: defaultdict(list))
    settled: dict[Part, list[CoveredRange]] = field(default_factory=lambda: defaultdict(list))
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
            self.settled[name, market].append(CoveredRange(page.settled, page.records))

    def rows_of(self, table: str) -> pl.DataFrame | None:
        """Return the rows of a table with their markets; None where there are none."""
        parts = [
            add_market(pl.concat(frames, how="diagonal"), market)
            for (name, market), frames in self.frames.items()
            if name == table
        ]
        return pl.concat(parts, how="diagonal") if parts else None


class BatchWriter:
    """Commits batches: where their rows go, and in whose name.

    Parameters
    ----------
    counts
        Adds up what became of the rows.
    lock
        Held while a batch is written, so that pipelines that share it write in turn.
    """

    def __init__(
        self,
        store: Store,
        origin: Origin,
        counts: WriteCounts,
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.origin = origin
        self._store = store
        self._ledger = Ledger(store)
        self._counts = counts
        self._lock = lock or nullcontext()

    def write(self, batch: Batch) -> None:
        """Commit the rows, and only then their coverage: a crash between costs a repeated fetch."""
        with self._lock:
            for request, records in batch.refused.items():
                self._quarantine(request, records)
            for name, dataset in batch.datasets.items():
                rows = batch.rows_of(name)
                if rows is not None:
                    self._counts.add(name, self._store.write(dataset, rows, self.origin))
            for (name, market), settled in batch.settled.items():
                self._ledger.record_coverage(name, market, settled, self.origin)

    def _quarantine(self, request: FetchRequest, records: Sequence[Refused]) -> None:
        store, dataset = self._store, request.dataset
        rows = quarantine_rows(request, records, self.origin.job_id, store.now())
        store.write(store.catalog.dataset("quarantine"), rows, self.origin)
        version = store.version(dataset) if store.exists(dataset.name) else None
        self._counts.add(dataset.name, WriteResult(len(records), 0, 0, len(records), version))


def add_market(frame: pl.DataFrame, market: Market) -> pl.DataFrame:
    """Return the rows with columns for their market."""
    return frame.with_columns(exchange=pl.lit(market.exchange), symbol=pl.lit(market.symbol))
