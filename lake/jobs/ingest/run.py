"""Ingest as users do: fetch and store, then check the rows that were touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lake.errors import LakeError, SourceError, UsageError
from lake.jobs.ingest.current import ingest_instruments, ingest_order_books
from lake.jobs.ingest.ingest import Ingestion
from lake.jobs.ingest.report import IngestReport
from lake.jobs.ingest.request import IngestRequest
from lake.jobs.quality.check import CheckReport, check_touched
from lake.jobs.touched import Touched
from lake.model.market import Market
from lake.model.progress import Progress
from lake.settings import Settings
from lake.sources import registry
from lake.sources.base import Source
from lake.store.store import Store


async def ingest_and_check(
    store: Store, settings: Settings, requests: Sequence[IngestRequest], progress: Progress
) -> IngestReport:
    """Fetch the parts of the requests that are not covered, as one job; then check the rows.

    Raises
    ------
    SourceError
        Something that was asked for could not be fetched. All else is stored and checked, the
        error has the report, and the same call continues.
    DamagedError
        A requested table is damaged; as `SourceError` otherwise.
    UnknownNameError, UsageError
        A request cannot be served; nothing was fetched.
    """

    def connect(exchange: str) -> Source:
        return registry.connect(exchange, settings=settings, now=store.now)

    ingestion = Ingestion(store, settings, connect, progress)
    try:
        report = await ingestion.run(requests)
    except LakeError as error:
        if ingestion.job_id is None:
            raise
        # What came before it failed is stored, and must not go unchecked.
        checked = _check(store, settings, ingestion.touched, ingestion.job_id)
        if isinstance(error.report, IngestReport):
            error.report = _with_quality(error.report, checked)
        raise
    return _with_quality(report, _check(store, settings, report.touched, report.job_id))


async def fetch_order_books(
    store: Store, settings: Settings, exchange: str, symbols: tuple[str, ...], depth: int | None
) -> IngestReport:
    """Store the order books of now, and check them.

    Raises
    ------
    UsageError
        `depth` is not a number of levels.
    SourceError
        Some book could not be fetched; all others are stored and checked.
    """
    if depth is not None and depth < 1:
        raise UsageError(f"depth {depth} is not a number of levels", "Give 1 or more.")
    markets = [Market(exchange, symbol) for symbol in symbols]
    source = registry.connect(exchange, settings=settings, now=store.now)
    try:
        report = await ingest_order_books(store, source, markets, depth)
    except SourceError as error:
        if isinstance(error.report, IngestReport):
            checked = _check(store, settings, error.report.touched, error.report.job_id)
            error.report = _with_quality(error.report, checked)
        raise
    return _with_quality(report, _check(store, settings, report.touched, report.job_id))


async def fetch_instruments(
    store: Store, settings: Settings, exchange: str, symbols: tuple[str, ...]
) -> IngestReport:
    """Store the specifications that changed; of all markets where no symbol is given."""
    source = registry.connect(exchange, settings=settings, now=store.now)
    return await ingest_instruments(store, source, exchange, symbols or None)


def _check(
    store: Store, settings: Settings, touched: Sequence[Touched], job_id: str | None
) -> CheckReport | None:
    """Check what a job touched and what earlier ones left unchecked, if the settings want that."""
    if not settings.quality.after_ingest:
        return None
    return check_touched(store, settings, touched, job_id or "")


def _with_quality(report: IngestReport, checked: CheckReport | None) -> IngestReport:
    if checked is None:
        return report
    return replace(report, findings=checked.worst("warning"), score=checked.scores["score"])
