"""Repair and undo as users do: what changes is checked again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import polars as pl

from lake.jobs.quality.check import check_or_log
from lake.jobs.quality.run import GAPS, find_gaps, open_inputs
from lake.jobs.repairs.repair import Repairer, RepairReport, UndoReport, undo
from lake.model.progress import Progress
from lake.model.selection import Selection
from lake.settings import ExchangeSettings, Settings
from lake.sources import registry
from lake.sources.base import Source
from lake.store.store import Store

_CLOSE = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class RepairRequest:
    """What to repair, with options.

    Attributes
    ----------
    tables, selection
        Open findings of these tables, all by default, that begin in the selection.
    dry_run
        Only list what would be done; ask no source, write nothing.
    interpolate
        Fill in by the policy of the dataset what neither source nor finer data give.
    again
        Ask the source also for what it confirmed before.
    offline
        Ask no source.
    """

    tables: tuple[str, ...]
    selection: Selection
    dry_run: bool = False
    interpolate: bool = False
    again: bool = False
    offline: bool = False


async def repair_and_check(
    store: Store, settings: Settings, request: RepairRequest, progress: Progress
) -> RepairReport:
    """Repair open findings, then check what was repaired, so that these are closed.

    Raises
    ------
    SourceUnavailableError
        A source stays down, and its fallback, too. What was repaired before, and of other
        exchanges, is recorded and checked; the same call continues from there.
    """
    tables = [store.catalog.dataset(name).name for name in request.tables]
    findings = store.read(store.catalog.dataset("findings"), request.selection).filter(
        pl.col("status") == "open"
    )
    if tables:
        findings = findings.filter(pl.col("dataset").is_in(tables))
    quiet = _without_trades(store, settings, request) if request.interpolate else None
    repairer = Repairer(store, settings, partial(_connect, store, settings), progress)
    started = store.now()
    try:
        return await repairer.run(
            findings,
            quiet,
            dry_run=request.dry_run,
            interpolate=request.interpolate,
            again=request.again,
            offline=request.offline,
        )
    finally:  # also where a source failed in the middle
        _check_repaired(store, settings, pl.col("repaired_at") >= started)


def undo_and_check(store: Store, settings: Settings, repair_id: str) -> UndoReport:
    """Restore the rows that a repair changed, and check them again.

    Raises
    ------
    UnknownNameError
        There is no such repair.
    """
    report = undo(store, repair_id)
    _check_repaired(store, settings, pl.col("repair_id") == repair_id)
    return report


def read_repairs(store: Store) -> pl.DataFrame:
    """Read the rows of `repairs`, newest first."""
    return store.read(store.catalog.dataset("repairs")).sort("repaired_at", descending=True)


def _connect(
    store: Store, settings: Settings, exchange: str, exchange_settings: ExchangeSettings | None
) -> Source:
    return registry.connect(
        exchange, settings=settings, now=store.now, exchange_settings=exchange_settings
    )


def _without_trades(store: Store, settings: Settings, request: RepairRequest) -> pl.DataFrame:
    """Find intervals without trades, in tables of bars that allow to fill in flat ones."""
    inputs = open_inputs(store, settings, store.now())
    flat = [
        name for name, rows in inputs.tables.items() if rows.dataset.repair.interpolate == "flat"
    ]
    tables = [name for name in flat if not request.tables or name in request.tables]
    gaps = [find_gaps(inputs, name, request.selection) for name in tables]
    return pl.concat([pl.DataFrame(schema=GAPS), *gaps])


def _check_repaired(store: Store, settings: Settings, which: pl.Expr) -> None:
    """Check what some repairs changed, and where the findings were because of which they ran."""
    repairs = read_repairs(store).filter(which, pl.col("method") != "mark")
    reasons = repairs.select(finding_id=pl.col("findings").explode()).drop_nulls()
    findings = store.read(store.catalog.dataset("findings")).join(
        reasons, on="finding_id", how="semi"
    )
    place = ["dataset", "exchange", "symbol", "timestamp", "end"]
    places = pl.concat([repairs.select(place), findings.select(place)]).unique()
    selections = [
        (table, Selection((exchange,), (symbol,), *span))
        for (table, exchange, symbol), rows in places.group_by(place[:3], maintain_order=True)
        for span in _join_close(rows.select("timestamp", "end").sort("timestamp"))
    ]
    if selections:
        check_or_log(store, settings, sorted(selections, key=str))


def _join_close(spans: pl.DataFrame) -> list[tuple[datetime, datetime]]:
    """Join spans that are close to each other: a check reads whole days."""
    joined: list[tuple[datetime, datetime]] = []
    for start, end in spans.iter_rows():
        if joined and start - joined[-1][1] <= _CLOSE:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined
