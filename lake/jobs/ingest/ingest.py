"""Ingest ranges: fetch what is missing from several exchanges at once, store and record it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from lake.errors import DamagedError
from lake.jobs.ingest import plan
from lake.jobs.ingest.agenda import Agenda
from lake.jobs.ingest.batch import BatchWriter
from lake.jobs.ingest.instruments import try_to_record_instruments
from lake.jobs.ingest.pipeline import Pipeline
from lake.jobs.ingest.plan import Task
from lake.jobs.ingest.report import NOTHING_TO_DO, Failure, IngestReport, Unrecorded
from lake.jobs.ingest.request import IngestRequest
from lake.jobs.ingest.results import Results, build_error, build_failures, build_refusals
from lake.jobs.ingest.survey import Connect, ExchangePlan, History, Surveyor
from lake.jobs.job import Status, WriteCounts, record_job
from lake.jobs.touched import Touched, TouchedRanges
from lake.log import get_logger
from lake.model.grid import is_long
from lake.model.intervals import RangeSet, subtract, union
from lake.model.progress import Progress
from lake.model.time import iso
from lake.query.grids import find_grid
from lake.settings import Settings
from lake.sources.base import FetchRequest, Page, RangeSource, require_ranges
from lake.store.ledger import Job, Ledger
from lake.store.refusals import Refusals
from lake.store.store import Origin, Store

_log = get_logger(__name__)


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
        self._touched = TouchedRanges()
        self._results = Results()
        self._unrecorded: tuple[Unrecorded, ...] = ()

    @property
    def touched(self) -> tuple[Touched, ...]:
        """What the run wrote or settled so far, also where it failed."""
        return self._touched.list()

    async def run(self, requests: Sequence[IngestRequest]) -> IngestReport:
        """Fetch the parts of the requests that are not covered.

        What a source refuses or cannot give stops nothing else, and is raised at the end; neither
        does a damaged table.

        Raises
        ------
        UnknownNameError, UsageError
            A request cannot be served; nothing was fetched.
        SourceError
            Something that was asked for could not be fetched; the error has the report. All else
            is stored and covered, so that the same call continues from there.
        DamagedError
            A requested table is damaged: its coverage counts rows that may be lost, and nothing is
            stored in it. As `SourceError` otherwise.
        StorageError, CommitConflictError
            What was fetched after the last commit is not stored, and not covered.
        """
        started = self._store.now()
        self._store.heal()
        sound = self._leave_out_damaged(requests)
        history = History.read(self._store, sound)
        gaps = self._find_gaps(sound, history, started)
        if not gaps and not self._results.damaged:
            self._progress.end(NOTHING_TO_DO)
            return NOTHING_TO_DO
        surveyor = Surveyor(history, self._connect, started, again=_find_refetched(requests))
        plans: dict[str, ExchangePlan] = {}
        try:
            surveyor.open(gaps, plans)
            await surveyor.plan(gaps, plans)
            has_work = any(own.tasks or own.failed for own in plans.values())
            if has_work or self._results.damaged:
                return await self._run_job(requests, gaps, plans, started)
            report = replace(NOTHING_TO_DO, failures=_list_known(plans))
            self._progress.end(report)
            return report
        finally:
            await asyncio.gather(*(own.close() for own in plans.values()))

    async def _run_job(
        self,
        requests: Sequence[IngestRequest],
        gaps: Mapping[FetchRequest, RangeSet],
        plans: Mapping[str, ExchangePlan],
        started: datetime,
    ) -> IngestReport:
        self._results.failed.extend(item for own in plans.values() for item in own.failed)
        self._progress.begin("ingesting", sum(own.seconds for own in plans.values()))
        command, arguments = describe_job(requests)
        status: Status | None = "interrupted"
        with record_job(self._ledger, command, arguments, self._counts) as job:
            self.job_id = job.id
            try:
                await self._fetch(job, plans)
                self._remember(job, requests, gaps, plans)
                status = None
            except Exception:
                status = "failed"
                raise
            finally:
                report = self._build_report(job.id, requests, gaps, plans, started)
                report = replace(report, status=status or report.status)
                self._progress.end(report)
            errors = [error for _, error, _ in self._results.list_failures()]
            if errors or self._results.damaged:
                raise build_error(report, errors, self._results.damaged.values())
        return report

    def _leave_out_damaged(self, requests: Sequence[IngestRequest]) -> list[IngestRequest]:
        """Return the requests of tables that can be written to; note the others."""
        damaged = self._results.damaged
        for dataset in {request.dataset.name: request.dataset for request in requests}.values():
            try:
                self._store.require_writable(dataset)
            except DamagedError as error:
                _log.error("table is damaged", table=dataset.name, reason=error.message)
                damaged[dataset.name] = error
        return [request for request in requests if request.dataset.name not in damaged]

    def _find_gaps(
        self, requests: Sequence[IngestRequest], history: History, now: datetime
    ) -> dict[FetchRequest, RangeSet]:
        """Find what is missing; note tables whose rows cannot be read, and leave them out."""
        gaps: dict[FetchRequest, RangeSet] = {}
        for request in requests:
            if request.dataset.name in self._results.damaged:
                continue
            try:
                gaps.update(_find_gap(self._store, request, history, now, gaps))
            except DamagedError as error:
                _log.error("table is damaged", table=request.dataset.name, reason=error.message)
                self._results.damaged[request.dataset.name] = error
        return {r: g for r, g in gaps.items() if r.dataset.name not in self._results.damaged}

    async def _fetch(self, job: Job, plans: Mapping[str, ExchangePlan]) -> None:
        lock = threading.Lock()
        agendas, runs = [], []
        for exchange, own in plans.items():
            if own.source is None or not own.tasks:
                continue
            await self._record_instruments(job, exchange, own)
            agendas.append(Agenda(own.tasks))
            pipeline = self._open_pipeline(job, require_ranges(own.source), lock)
            runs.append(pipeline.run(agendas[-1]))
        with _freeze_heap():
            outcomes = await asyncio.gather(*runs, return_exceptions=True)
        self._results.failed.extend(item for agenda in agendas for item in agenda.failures)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _record_instruments(self, job: Job, exchange: str, own: ExchangePlan) -> None:
        """Record the specifications of markets, as far as the source gives them."""
        if own.source is None:
            return
        requests = dict.fromkeys(request for task in own.tasks for request in task.requests)
        symbols = dict.fromkeys(request.market.symbol for request in requests)
        try:
            written, unrecorded = await try_to_record_instruments(
                self._store, own.source, exchange, symbols, job.id
            )
        except DamagedError as error:
            _log.error("table is damaged", table="instruments", reason=error.message)
            self._results.damaged["instruments"] = error
            return
        self._unrecorded += unrecorded
        if written is not None:
            self._counts.add("instruments", written)

    def _open_pipeline(self, job: Job, source: RangeSource, lock: threading.Lock) -> Pipeline:
        origin = Origin(job.id, source.name)
        writer = BatchWriter(
            self._store, origin, self._counts, self._touched, lock, self._results.damaged
        )
        return Pipeline(
            source,
            writer.write,
            self._on_page,
            self._results.complete.append,
            batch_rows=self._settings.ingest.batch_rows,
        )

    def _on_page(self, _: Task, request: FetchRequest, page: Page) -> None:
        span = page.settled.duration.total_seconds() if page.settled else 0.0
        self._progress.advance(span, rows=page.records)
        self._results.add_page(request, page)

    def _remember(
        self,
        job: Job,
        requests: Sequence[IngestRequest],
        gaps: Mapping[FetchRequest, RangeSet],
        plans: Mapping[str, ExchangePlan],
    ) -> None:
        """Record what was refused, so that it is not asked again in each run."""
        to_present = {FetchRequest(r.dataset, r.market) for r in requests if r.until is None}
        ends = {request: gaps[request][-1].end for request in to_present if request in gaps}
        refusals = list(build_refusals(self._results, ends))
        for exchange, own in plans.items():
            new = [item for item in refusals if item.market.exchange == exchange]
            Refusals(self._store).record(new, Origin(job.id, own.name))

    def _build_report(
        self,
        job_id: str,
        requests: Sequence[IngestRequest],
        gaps: Mapping[FetchRequest, RangeSet],
        plans: Mapping[str, ExchangePlan],
        started: datetime,
    ) -> IngestReport:
        requested = [FetchRequest(request.dataset, request.market) for request in requests]
        failures = build_failures(self._results, requested, gaps)
        return IngestReport(
            job_id=job_id,
            status="failed" if failures else "ok",
            tables=tuple(self._counts.tables.values()),
            unanswered=self._results.find_unanswered(started),
            windows=len(self._results.complete),
            requests=sum(own.requests for own in plans.values()),
            seconds=(self._store.now() - started).total_seconds(),
            touched=self.touched,
            failures=(*failures, *_list_known(plans)),
            unrecorded=self._unrecorded,
        )


def _find_refetched(requests: Sequence[IngestRequest]) -> frozenset[FetchRequest]:
    return frozenset(FetchRequest(r.dataset, r.market) for r in requests if r.refetch)


def _list_known(plans: Mapping[str, ExchangePlan]) -> tuple[Failure, ...]:
    """List what was refused in earlier runs, and not asked again in this one."""
    return tuple(item for own in plans.values() for item in own.known)


def _find_gap(
    store: Store,
    request: IngestRequest,
    history: History,
    now: datetime,
    before: Mapping[FetchRequest, RangeSet],
) -> dict[FetchRequest, RangeSet]:
    """Find what is missing of a dataset and market, with what was before; nothing if complete."""
    key = FetchRequest(request.dataset, request.market)
    covered = history.covered.get((request.dataset.name, request.market), ())
    grid = find_grid(store, request.dataset, request.market)
    requested = plan.resolve_range(
        request.dataset,
        request.market,
        history.find_begun(key),
        request.since,
        request.until,
        now,
        grid,
    )
    missing = subtract([requested] if requested else [], () if request.refetch else covered)
    if grid is not None and not is_long(grid.timeframe):  # where long bars open may be unclear
        missing = plan.select_holding_bars(missing, grid)
    return {key: union([*before.get(key, ()), *missing])} if missing else {}


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
        "requests": len({(request.dataset.name, request.market) for request in requests}),
    }
