"""Pages on their way to a commit: collected, written together, then recorded as covered."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import polars as pl

from lake.jobs.ingest.plan import Task
from lake.jobs.job import WriteCounts
from lake.model.dataset import Dataset
from lake.model.market import Market
from lake.sources.base import Page
from lake.store.ledger import Covered, Ledger
from lake.store.store import Origin, Store

Part = tuple[str, Market]


@dataclass
class Batch:
    """Pages of several tasks. A merge of many windows costs little more than one of a few."""

    rows: int = 0
    frames: dict[Part, list[pl.DataFrame]] = field(default_factory=lambda: defaultdict(list))
    settled: dict[Part, list[Covered]] = field(default_factory=lambda: defaultdict(list))
    datasets: dict[str, Dataset] = field(default_factory=dict)

    def add(self, task: Task, page: Page) -> None:
        name = task.dataset.name
        self.datasets[name] = task.dataset
        if not page.frame.is_empty():
            self.frames[name, task.market].append(page.frame)
            self.rows += page.frame.height
        if page.settled is not None:
            rows = page.frame.height
            self.settled[name, task.market].append(Covered(page.settled, rows))

    def write(self, store: Store, ledger: Ledger, origin: Origin, tally: WriteCounts) -> None:
        """Commit the rows, and only then their coverage: a crash between costs a repeated fetch."""
        for name, dataset in self.datasets.items():
            parts = [
                of_market(pl.concat(frames, how="diagonal"), market)
                for (of, market), frames in self.frames.items()
                if of == name
            ]
            if parts:
                rows = pl.concat(parts, how="diagonal")
                tally.add(name, store.write(dataset, rows, origin))
        for (name, market), settled in self.settled.items():
            ledger.record_coverage(name, market, settled, origin)


def of_market(frame: pl.DataFrame, market: Market) -> pl.DataFrame:
    """The rows, said to be of a market."""
    return frame.with_columns(exchange=pl.lit(market.exchange), symbol=pl.lit(market.symbol))
