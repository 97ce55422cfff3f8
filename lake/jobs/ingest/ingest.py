"""Ingest ranges: fetch what is missing from several exchanges at once, store and record it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from lake.jobs.ingest import plan
from lake.jobs.ingest.batch import BatchWriter
from lake.jobs.ingest.instruments import record_instruments
from lake.jobs.ingest.pipeline import Pipeline
from lake.jobs.ingest.plan import Task
from lake.jobs.ingest.report import NOTHING_TO_DO, IngestReport, Unanswered
from lake.jobs.ingest.request import IngestRequest
from lake.jobs.job import Status, WriteCounts, record_job
from lake.model.intervals import RangeSet, subtract, union
from lake.model.market import Market
from lake.model.progress import Progress
from lake.model.time import TimeRange, iso
from lake.settings import Settings
from lake.sources.base import FetchRequest, Page, RangeSource, Source, require_ranges
from lake.store.ledger import Job, Ledger
from lake.store.store import Origin, Store

Connect = Callable[[str], Source]


class Ingestion:
    """One run of `lake ingest` over a range.

    Parameters
    ----------
    connect
        Returns the source of an exchange; it is closed at the end.

    Attributes
    ----------
    job_id
        ID of the job; None until it begins.
    """

    def __init__(
        self, store: Store, settings: Settings, connect: Connect, progress: Progress
    ) -> None:
        self.job_id: str | None = None
        self._store = store
        self._ledger = Ledger(store)
        self._settings = settings
        self._connect = connect
        self._progress = progress
        self._counts = WriteCounts()
        self._settled: dict[tuple[FetchRequest, TimeRange], list[TimeRange]] = defaultdict(list)
        self._complete: list[Task] = []

    async def run(self, requests: Sequence[IngestRequest]) -> IngestReport:
        """Fetch the parts of the requests that are not covered.

        Raises
        ------
        UnknownNameError, UsageError
            A request cannot be served; nothing was fetched.
        SourceError
            A source failed. What it gave before, and all that other exchanges gave, is stored
            and covered, so that the same call continues from there.
        StorageError, CommitConflictError
            What was fetched after the last commit is not stored, and not covered.
        """
        started = self._store.now()
        gaps = self._find_gaps(requests, started)
        exchanges = dict.fromkeys(request.market.exchange for request in gaps)
        if not exchanges:
            self._progress.end(NOTHING_TO_DO)
            return NOTHING_TO_DO
        connected = {exchange: self._connect(exchange) for exchange in exchanges}
        try:
            sources = {exchange: require_ranges(source) for exchange, source in connected.items()}
            tasks = await self._plan_tasks(gaps, sources)
            return await self._run_job(requests, tasks, sources, started)
        finally:
            await asyncio.gather(*(source.close() for source in connected.values()))

    def _find_gaps(
        self, requests: Sequence[IngestRequest], now: datetime
    ) -> dict[FetchRequest, RangeSet]:
        """Find what is missing of each dataset and market; what is complete is left out."""
        gaps: dict[FetchRequest, RangeSet] = {}
        for request in requests:
            missing = self._find_missing(request, now)
            if missing:
                key = FetchRequest(request.dataset, request.market)
                gaps[key] = union([*gaps.get(key, ()), *missing])
        return gaps

    def _find_missing(self, request: IngestRequest, now: datetime) -> RangeSet:
        covered = self._ledger.read_covered(request.dataset.name, request.market)
        requested = plan.resolve_range(
            request.dataset, request.market, covered, request.since, request.until, now
        )
        return subtract([requested] if requested else [], () if request.refetch else covered)

    async def _plan_tasks(
        self, gaps: dict[FetchRequest, RangeSet], sources: dict[str, RangeSource]
    ) -> dict[str, list[Task]]:
        """Plan the tasks of each exchange."""
        for request in gaps:
            source = sources[request.market.exchange]
            await source.market(request.market.symbol)
            await source.require(request.dataset, request.market)
        tasks = {}
        for exchange, source in sources.items():
            own = {r: missing for r, missing in gaps.items() if r.market.exchange == exchange}
            tasks[exchange] = plan.plan_tasks(own, source.window, source.batch_size)
        return tasks

    async def _run_job(
        self,
        requests: Sequence[IngestRequest],
        tasks: dict[str, list[Task]],
        sources: dict[str, RangeSource],
        started: datetime,
    ) -> IngestReport:
        planned = [task for listed in tasks.values() for task in listed]
        seconds = (task.window.duration.total_seconds() * len(task.requests) for task in planned)
        self._progress.begin("ingesting", sum(seconds))
        command, arguments = describe_job(requests)
        status: Status = "failed"
        with record_job(self._ledger, command, arguments, self._counts) as job:
            self.job_id = job.id
            try:
                await self._fetch(job, tasks, sources)
                status = "ok"
            finally:
                report = self._build_report(job.id, status, sources, started)
                self._progress.end(report)
        return report

    async def _fetch(
        self, job: Job, tasks: dict[str, list[Task]], sources: dict[str, RangeSource]
    ) -> None:
        lock = threading.Lock()
        runs = []
        for exchange, source in sources.items():
            symbols = dict.fromkeys(
                r.market.symbol for task in tasks[exchange] for r in task.requests
            )
            written = await record_instruments(self._store, source, exchange, symbols, job.id)
            if written is not None:
                self._counts.add("instruments", written)
            runs.append(self._open_pipeline(job, source, lock).run(tasks[exchange]))
        with _freeze_heap():
            outcomes = await asyncio.gather(*runs, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _open_pipeline(self, job: Job, source: RangeSource, lock: threading.Lock) -> Pipeline:
        origin = Origin(job.id, source.name)
        writer = BatchWriter(self._store, origin, self._counts, lock)
        return Pipeline(
            source,
            writer.write,
            self._on_page,
            self._complete.append,
            concurrency=self._settings.http.concurrency,
            batch_rows=self._settings.ingest.batch_rows,
        )

    def _on_page(self, task: Task, request: FetchRequest, page: Page) -> None:
        span = page.settled.duration.total_seconds() if page.settled else 0.0
        self._progress.advance(span, rows=page.records)
        if page.settled:
            self._settled[request, task.window].append(page.settled)

    def _build_report(
        self, job_id: str, status: Status, sources: dict[str, RangeSource], started: datetime
    ) -> IngestReport:
        now = self._store.now()
        return IngestReport(
            job_id=job_id,
            status=status,
            tables=tuple(self._counts.tables.values()),
            unanswered=self._find_unanswered(started),
            windows=len(self._complete),
            requests=sum(source.requests for source in sources.values()),
            seconds=(now - started).total_seconds(),
        )

    def _find_unanswered(self, started: datetime) -> tuple[Unanswered, ...]:
        """Find what complete windows left open in the past; the present is always open."""
        unanswered: dict[tuple[str, Market], list[TimeRange]] = defaultdict(list)
        for task in self._complete:
            for request in task.requests:
                open_ranges = subtract([task.window], self._settled[request, task.window])
                past = [gap for gap in open_ranges if gap.end < started]
                unanswered[request.dataset.name, request.market].extend(past)
        return tuple(
            Unanswered(table, market, union(ranges))
            for (table, market), ranges in unanswered.items()
            if ranges
        )


@contextmanager
def _freeze_heap() -> Iterator[None]:
    """Keep the garbage collector off what is loaded already.

    Pages make many short-lived objects; to collect them need not walk all of ccxt each time.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def describe_job(requests: Sequence[IngestRequest]) -> tuple[str, dict[str, Any]]:
    """Return the command and arguments of a job, as the ledger records them."""
    tables = dict.fromkeys(request.dataset.name for request in requests)
    first = requests[0]
    return f"ingest {' '.join(tables)}", {
        "markets": [
            str(market) for market in dict.fromkeys(request.market for request in requests)
        ],
        "since": iso(first.since) if first.since else None,
        "until": iso(first.until) if first.until else None,
        "refetch": first.refetch,
    }
