"""What brings rows into a lake: sources, and the user's own frames."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

import polars as pl

from lake.api.opened import Names
from lake.api.quality import Quality
from lake.bundles.bundle import as_tuple
from lake.errors import UsageError
from lake.jobs.ingest.ingest import IngestRequest
from lake.jobs.ingest.report import IngestReport
from lake.jobs.ingest.run import fetch_instruments, fetch_order_books, ingest_and_check
from lake.jobs.job import WriteCounts, record_job
from lake.model.market import Market
from lake.model.progress import NoProgress, Progress
from lake.query.overview import RECORD
from lake.store.store import Origin, Written

_Result = TypeVar("_Result")


class Writes(Quality):
    """What writes into a lake."""

    def write(self, table: str, rows: pl.DataFrame, source: str = "python") -> Written:
        """Put rows of one's own into a table, by the same way as all others: checked, merged once.

        Parameters
        ----------
        rows
            `exchange`, `symbol` and the columns of the dataset, with exactly their types; nullable
            ones may be missing. Rows that break a rule go to the table `quarantine`.
        source
            Where they come from, for the audit.

        Returns
        -------
        Written
            Counts of rows that were new, replaced another, were refused, or were there already.

        Raises
        ------
        SchemaError
            The frame as a whole does not fit the dataset.
        UsageError
            The table is the lake's own record.
        """
        if table in RECORD:
            raise UsageError(
                f"{table} is the lake's own record, and written by itself only",
                f"Nobody else writes {', '.join(RECORD)}.",
            )
        tally = WriteCounts()
        with record_job(self._ledger, f"write {table}", {"source": source}, tally) as job:
            written = self._store.write(self.dataset(table), rows, Origin(job.id, source))
            tally.add(table, written)
        return written

    def ingest(
        self,
        table: str,
        *,
        exchange: str,
        symbol: Names,
        since: datetime | None = None,
        until: datetime | None = None,
        refetch: bool = False,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Fetch what of a range is not covered yet, and store it.

        Parameters
        ----------
        table
            `trades`, `funding`, or bars with their timeframe: `bars_1m`.
        since, until
            The range; without `since` it goes on from what is covered, without `until` up to now.
        refetch
            Ask again for what is covered: a venue's revisions replace bars that differ.

        Raises
        ------
        SourceUnavailableError
            The venue stays down; what it gave is stored, and the same call goes on from there.
        UnknownNameError, UsageError
            The exchange, market, timeframe or range cannot be met.
        """
        wishes = [
            IngestRequest(self.dataset(table), Market(exchange, one), since, until, refetch)
            for one in as_tuple(symbol)
        ]
        return self.ingest_all(wishes, progress)

    def ingest_all(
        self, wishes: Sequence[IngestRequest], progress: Progress | None = None
    ) -> IngestReport:
        """Several datasets, markets and exchanges in one job; then check what it touched."""
        return run(ingest_and_check(self._store, self.settings, wishes, progress or NoProgress()))

    def covered_markets(self) -> list[tuple[str, Market]]:
        """Tables and markets of which something is covered: what `lake ingest` goes on with."""
        rows = self.coverage().select("table", "exchange", "symbol").unique(maintain_order=True)
        return [(table, Market(exchange, symbol)) for table, exchange, symbol in rows.iter_rows()]

    def ingest_order_books(
        self, exchange: str, symbol: Names, depth: int | None = None
    ) -> IngestReport:
        """Store the order books as they are now, to a depth in levels (None: the venue's own)."""
        symbols = as_tuple(symbol)
        return run(fetch_order_books(self._store, self.settings, exchange, symbols, depth))

    def ingest_instruments(self, exchange: str, symbol: Names = ()) -> IngestReport:
        """Store the specifications that changed; of all markets by default."""
        return run(fetch_instruments(self._store, self.settings, exchange, as_tuple(symbol)))


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of a coroutine, also where an event loop runs already, as in a notebook."""
    if not _inside_event_loop():
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _inside_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
