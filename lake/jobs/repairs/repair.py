"""Repair findings: fetch again, derive from finer data, and on request interpolate."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lake.errors import SourceUnavailableError
from lake.jobs.job import record_job
from lake.jobs.repairs.connections import Connect, Connections
from lake.jobs.repairs.dry_run import preview
from lake.jobs.repairs.plan import Group, Plan, Planner
from lake.jobs.repairs.records import COMMAND, Records, describe_plan, recover
from lake.jobs.repairs.report import AppliedRepair, PlannedRepair, RepairReport, UndoReport
from lake.jobs.repairs.run import Run
from lake.jobs.repairs.state import GroupState
from lake.jobs.repairs.steps import Options
from lake.jobs.repairs.undo import undo
from lake.model.dataset import Dataset
from lake.model.grid import Grid
from lake.model.market import Market
from lake.model.progress import Progress
from lake.query.grids import find_grid
from lake.settings import Settings
from lake.store.damages import UNREADABLE, Damages
from lake.store.ledger import Ledger
from lake.store.locks import lock_for_repair
from lake.store.store import Store

__all__ = ["Connect", "RepairReport", "Repairer", "UndoReport", "undo"]


class Repairer:
    """One run of `lake quality repair`.

    Parameters
    ----------
    connect
        Called once per exchange, and once more for its `fallback_url`; its sources are closed at
        the end.
    progress
        Counts markets.

    Attributes
    ----------
    changed
        Repairs that changed rows, also where the run failed: its own, and those of killed ones.
    """

    def __init__(
        self, store: Store, settings: Settings, connect: Connect, progress: Progress
    ) -> None:
        self._store = store
        self._settings = settings
        self._connect = connect
        self._progress = progress
        self.changed: list[AppliedRepair] = []
        self._damages = Damages()

    async def run(
        self,
        findings: pl.DataFrame,
        no_trade: pl.DataFrame | None = None,
        *,
        dry_run: bool = False,
        interpolate: bool = False,
        again: bool = False,
        offline: bool = False,
    ) -> RepairReport:
        """Repair findings.

        Parameters
        ----------
        findings
            Rows of the table `findings` to repair.
        no_trade
            Intervals for flat bars, if `interpolate`: `dataset`, `exchange`, `symbol`, `start`,
            `end`, `reason`; only those whose reason is `no_trade` are filled in.
        dry_run
            Only list what would be done; ask no source, write nothing.
        interpolate
            Fill in by the policy of the dataset what neither source nor finer data give.
        again
            Ask the source also for findings that it confirmed, or that were repaired, before.
        offline
            Ask no source: derive from finer data, and interpolate, at once.

        Raises
        ------
        SourceUnavailableError
            A source stays down, and so does its fallback. What was repaired before, and all of
            other exchanges, is stored and recorded; the same call continues from there. Nothing
            is derived or interpolated in the meantime where the source may have the rows.
        DamagedError
            A table, or one that its rows are derived from, is damaged: its repairs were left out,
            and all others are recorded.
        StorageError
            The storage failed; what was repaired before is recorded.
        CommitConflictError
            Another process is repairing the lake, or others kept writing; likewise.
        """
        options = Options(interpolate=interpolate, offline=offline)
        if dry_run:
            plan = self._plan(findings, no_trade, again=again, interpolate=interpolate)
            return self._preview(plan, options)
        self._store.heal()
        with lock_for_repair(self._store.root):
            recovered = recover(self._store)
            self.changed.extend(recovered)
            plan = self._plan(findings, no_trade, again=again, interpolate=interpolate)
            return await self._apply(plan, options, recovered)

    def _plan(
        self,
        findings: pl.DataFrame,
        no_trade: pl.DataFrame | None,
        *,
        again: bool,
        interpolate: bool,
    ) -> Plan:
        attempts = Records(self._store).attempts()
        dataset = self._store.catalog.dataset
        planner = Planner(
            dataset,
            attempts,
            again=again,
            interpolate=interpolate,
            grid=self._find_grid,
        )
        return planner.plan(findings, no_trade)

    def _find_grid(self, dataset: Dataset, market: Market) -> Grid | None:
        try:
            return find_grid(self._store, dataset, market)
        except UNREADABLE as error:
            self._damages.add(dataset.name, error)
            return None  # its groups are left out

    def _preview(self, plan: Plan, options: Options) -> RepairReport:
        planned: list[PlannedRepair] = []
        for group in self._existing_groups(plan):
            with self._damages.collect(group.dataset.name):
                planned += preview(
                    self._store, group, offline=options.offline, interpolate=options.interpolate
                )
        report = RepairReport(
            job_id=None,
            dry_run=True,
            planned=tuple(planned),
            failed=plan.failed,
            skipped=plan.skipped,
        )
        self._damages.raise_if_any(report)
        return report

    async def _apply(
        self, plan: Plan, options: Options, recovered: tuple[AppliedRepair, ...]
    ) -> RepairReport:
        started = self._store.now()
        groups = self._existing_groups(plan)
        connections = Connections(self._connect, self._settings)
        run = Run(self._store, self._settings, connections, options)
        try:
            job_id, states = await self._repair_groups(run, groups) if groups else (None, [])
        finally:
            await connections.close()
        tables = run.counts.tables.values()
        return RepairReport(
            job_id=job_id,
            dry_run=False,
            applied=tuple(repair for state in states for repair in state.applied),
            marked=tuple(repair for state in states for repair in state.marked),
            failed=(*plan.failed, *(repair for state in states for repair in state.failed)),
            skipped=plan.skipped,
            recovered=recovered,
            unchanged=sum(t.rows - t.inserted - t.updated - t.rejected for t in tables),
            requests=connections.requests,
            seconds=(self._store.now() - started).total_seconds(),
        )

    def _existing_groups(self, plan: Plan) -> list[Group]:
        return [group for group in plan.groups if self._store.exists(group.dataset.name)]

    async def _repair_groups(self, run: Run, groups: list[Group]) -> tuple[str, list[GroupState]]:
        """Repair all groups in one job; return its ID and the last state of each group."""
        damages, versions = self._damages, dict[str, int]()
        for dataset in {group.dataset.name: group.dataset for group in groups}.values():
            with damages.collect(dataset.name):
                versions[dataset.name] = self._store.version(dataset)
        groups = [group for group in groups if group.dataset.name in versions]
        arguments = describe_plan(groups, versions)
        states: list[GroupState] = []
        try:
            with record_job(Ledger(self._store), COMMAND, arguments, run.counts) as job:
                self._progress.begin("repairing", len(groups))
                for group in groups:
                    self._progress.advance(0, what=f"repairing {group.dataset.name} {group.market}")
                    with damages.collect(group.dataset.name):
                        states.append(await run.repair(job, group))
                        self.changed.extend(states[-1].applied)
                    self._progress.advance()
                damages.raise_if_any()
                _require_available(states)
        finally:
            self._progress.end()
        return job.id, states


def _require_available(states: Sequence[GroupState]) -> None:
    """Raise one error for all exchanges that are down, if any is."""
    down = {s.group.market.exchange: s.unavailable for s in states if s.unavailable is not None}
    if not down:
        return
    hints = list(dict.fromkeys(error.hint for error in down.values() if error.hint))
    count = sum(len(state.applied) for state in states)
    if count:
        hints.append(f"Repairs applied all the same: {count}.")
    hints.append("Derive from finer data without asking the source: --offline.")
    raise SourceUnavailableError(
        "; ".join(error.message for error in down.values()), " ".join(hints)
    )
