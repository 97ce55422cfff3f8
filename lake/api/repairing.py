"""Repair of what checks found, and its undoing."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from lake.api.opened import Names
from lake.api.writes import Writes, run
from lake.bundles.bundle import as_tuple
from lake.jobs.repairs.recheck import (
    RepairRequest,
    read_repairs,
    repair_and_check,
    undo_and_check,
)
from lake.jobs.repairs.repair import RepairReport, UndoReport
from lake.model.progress import NoProgress, Progress
from lake.model.selection import Selection


class Repairing(Writes):
    """What mends rows, and can take it back."""

    def repair(
        self,
        tables: Names = (),
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
        interpolate: bool = False,
        again: bool = False,
        offline: bool = False,
        progress: Progress | None = None,
    ) -> RepairReport:
        """Repair what is found and open: ask the source again, then derive from finer data.

        What was repaired is checked anew, so that its findings are closed.

        Parameters
        ----------
        dry_run
            Only tell what would be done: no source is asked, nothing is written.
        interpolate
            Fill in by the policy of the dataset what neither gives: flat bars where nothing was
            traded, the last funding rate. The column `fill` says so, and no observed row is
            replaced.
        again
            Ask the source also for what it confirmed before.
        offline
            Ask no source: derive, and fill in, what can be at once. What was derived is not asked
            for by later repairs; to ingest it again brings the venue's own.

        Raises
        ------
        SourceUnavailableError
            A source stays down, and its fallback too; what was repaired before, and of other
            exchanges, is recorded, and the same call goes on.
        """
        request = RepairRequest(
            as_tuple(tables),
            Selection(as_tuple(exchange), as_tuple(symbol), since, until),
            dry_run=dry_run,
            interpolate=interpolate,
            again=again,
            offline=offline,
        )
        return run(repair_and_check(self._store, self.settings, request, progress or NoProgress()))

    def undo(self, repair_id: str) -> UndoReport:
        """Restore the rows that a repair changed, and check them anew.

        Rows that were changed again since stay as they are, and are told.

        Raises
        ------
        UnknownNameError
            There is no such repair.
        """
        return undo_and_check(self._store, self.settings, repair_id)

    def repairs(self) -> pl.DataFrame:
        """Rows of `repairs`, newest first: what was changed, why, and from what to what."""
        return read_repairs(self._store)
