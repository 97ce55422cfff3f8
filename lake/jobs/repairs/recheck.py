"""Repair and undo as users do: what changes is checked again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from lake.jobs.quality.check import check_selections
from lake.jobs.quality.run import GAPS, find_gaps, open_inputs
from lake.jobs.repairs.records import Records, read_repair
from lake.jobs.repairs.repair import Repairer, RepairReport, UndoReport, undo
from lake.jobs.repairs.report import AppliedRepair
from lake.jobs.touched import join_close
from lake.model.progress import Progress
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.settings import ExchangeSettings, Settings
from lake.sources import registry
from lake.sources.base import Source
from lake.store.store import Store


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
        if not request.dry_run:
            _check_repaired(store, settings, repairer.changed)


def undo_and_check(store: Store, settings: Settings, repair_id: str) -> UndoReport:
    """Restore the rows that a repair changed, and check them again.

    Raises
    ------
    UnknownNameError
        There is no such repair.
    """
    report = undo(store, repair_id)
    repairs = (
        Records(store).rows().filter(pl.col("repair_id") == repair_id, pl.col("method") != "mark")
    )
    _check_repaired(store, settings, list(map(read_repair, repairs.iter_rows(named=True))))
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


def _check_repaired(store: Store, settings: Settings, repairs: Sequence[AppliedRepair]) -> None:
    """Check what repairs changed, and where the findings were because of which they ran."""
    ids = {finding_id for repair in repairs for finding_id in repair.findings}
    findings = store.read(store.catalog.dataset("findings")).filter(
        pl.col("finding_id").is_in(list(ids))
    )
    ranges: dict[tuple[str, str, str], list[TimeRange]] = defaultdict(list)
    for repair in repairs:
        market = repair.market
        ranges[repair.table, market.exchange, market.symbol].append(repair.window)
    places = findings.select("dataset", "exchange", "symbol", "timestamp", "end")
    for table, exchange, symbol, start, end in places.iter_rows():
        ranges[table, exchange, symbol].append(TimeRange(start, end))
    selections = [
        (table, Selection((exchange,), (symbol,), item.start, item.end))
        for (table, exchange, symbol), items in sorted(ranges.items())
        for item in join_close(items)
    ]
    check_selections(store, settings, selections)
