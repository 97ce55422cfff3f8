"""Repair of what checks found: from the source, from finer data, and on request by rule."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import polars as pl

from lake.errors import SourceUnavailableError
from lake.jobs.job import record_job
from lake.jobs.repairs.dry_run import preview
from lake.jobs.repairs.plan import Group, Plan, Planner
from lake.jobs.repairs.records import COMMAND, Records, describe_plan, recover
from lake.jobs.repairs.report import AppliedRepair, RepairReport, UndoReport
from lake.jobs.repairs.run import Connect, Run
from lake.jobs.repairs.undo import undo
from lake.model.progress import Progress
from lake.settings import Settings
from lake.store.ledger import Ledger
from lake.store.locks import repairing
from lake.store.store import Store

__all__ = ["Connect", "RepairReport", "Repairer", "UndoReport", "undo"]


class Repairer:
    """One run of `lake quality repair`.

    Parameters
    ----------
    connect
        Called once an exchange, and once more for its `fallback_url`; closed at the end.
    progress
        Counts markets.
    """

    def __init__(
        self, store: Store, settings: Settings, connect: Connect, progress: Progress
    ) -> None:
        self._store = store
        self._settings = settings
        self._connect = connect
        self._progress = progress

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
        """Repair what findings tell.

        Parameters
        ----------
        findings
            Rows of the table `findings`, those that are to be repaired.
        no_trade
            Intervals for flat bars, if `interpolate`: `dataset`, `exchange`, `symbol`, `start`,
            `end`, `reason`; only those whose reason is `no_trade` are filled in.
        dry_run
            Only tell what would be done: no source is asked, nothing is written.
        interpolate
            Fill in by the policy of the dataset what neither source nor finer data give.
        again
            Ask the source also for findings that were tried before.
        offline
            Ask no source: derive from finer data, and interpolate, at once.

        Raises
        ------
        SourceUnavailableError
            A source stays down, and so does its fallback. What was repaired before, and all of
            other exchanges, is stored and recorded; the same call goes on from there. Nothing is
            derived or interpolated meanwhile for what only the source could tell.
        StorageError
            What was repaired before is recorded.
        CommitConflictError
            The lake is being repaired by another, or others kept writing; likewise.
        """
        attempts = Records(self._store).attempts
        how = partial(Planner, self._store.catalog.dataset, again=again, interpolate=interpolate)
        if dry_run:
            plan = how(attempts()).plan(findings, no_trade)
            tell = partial(preview, self._store, offline=offline, interpolate=interpolate)
            planned = tuple(one for group in self._existing_groups(plan) for one in tell(group))
            return RepairReport(
                job_id=None,
                dry_run=True,
                planned=planned,
                failed=plan.failed,
                skipped=plan.skipped,
            )
        with repairing(self._store.root):
            recovered = recover(self._store)
            plan = how(attempts()).plan(findings, no_trade)
            run = Run(
                self._store, self._settings, self._connect, interpolate=interpolate, offline=offline
            )
            return await self._run_plan(run, plan, recovered)

    async def _run_plan(
        self, run: Run, plan: Plan, recovered: tuple[AppliedRepair, ...]
    ) -> RepairReport:
        started = self._store.now()
        groups = self._existing_groups(plan)
        job_id = await self._repair_groups(run, groups) if groups else None
        tables = run.tally.tables.values()
        return RepairReport(
            job_id=job_id,
            dry_run=False,
            applied=tuple(run.repairs),
            marked=tuple(run.marked),
            failed=(*plan.failed, *run.failed),
            skipped=plan.skipped,
            recovered=recovered,
            unchanged=sum(t.rows - t.inserted - t.updated - t.rejected for t in tables),
            requests=run.requests,
            seconds=(self._store.now() - started).total_seconds(),
        )

    def _existing_groups(self, plan: Plan) -> list[Group]:
        return [group for group in plan.groups if self._store.exists(group.dataset.name)]

    async def _repair_groups(self, run: Run, groups: list[Group]) -> str:
        versions = {g.dataset.name: self._store.version(g.dataset) for g in groups}
        said = describe_plan(groups, versions)
        down: dict[str, SourceUnavailableError] = {}
        try:
            with record_job(Ledger(self._store), COMMAND, said, run.tally) as job:
                self._progress.begin("repairing", len(groups))
                for group in groups:
                    self._progress.advance(0, what=f"repairing {group.dataset.name} {group.market}")
                    try:
                        await run.repair(job, group)
                    except SourceUnavailableError as failed:
                        down[group.market.exchange] = failed
                    self._progress.advance()
                if down:
                    raise _combine_errors(down, len(run.repairs))
        finally:
            self._progress.end()
            await run.close()
        return job.id


def _combine_errors(
    down: Mapping[str, SourceUnavailableError], made: int
) -> SourceUnavailableError:
    """One error for all exchanges that are down, after so many repairs of others."""
    hints = list(dict.fromkeys(error.hint for error in down.values() if error.hint))
    if made:
        hints.append(f"Repairs made all the same: {made}.")
    hints.append("What finer data give can be had without the source: --offline.")
    return SourceUnavailableError(
        "; ".join(error.message for error in down.values()), " ".join(hints)
    )
