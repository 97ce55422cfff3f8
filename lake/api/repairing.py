"""Repair of what checks found, and its undoing."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from lake.api.opened import Names
from lake.api.writes import Writes, run
from lake.bundles.bundle import as_tuple
from lake.jobs.quality.run import GAPS, missing, open_inputs
from lake.jobs.repairs.repair import Repairer, RepairReport, UndoReport, undo
from lake.model.progress import NoProgress, Progress
from lake.model.selection import Selection

_CLOSE = timedelta(days=3)


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
        selection = Selection(as_tuple(exchange), as_tuple(symbol), since, until)
        named = [self.dataset(name).name for name in as_tuple(tables)]
        rows = self._store.read(self.dataset("findings"), selection).filter(
            pl.col("status") == "open"
        )
        if named:
            rows = rows.filter(pl.col("dataset").is_in(named))
        quiet = self._without_trades(named, selection) if interpolate else None
        repairer = Repairer(self._store, self.settings, self._connect_as, progress or NoProgress())
        work = repairer.run(
            rows, quiet, dry_run=dry_run, interpolate=interpolate, again=again, offline=offline
        )
        started = self._now()
        try:
            return run(work)
        finally:  # also where a source gave up in the middle
            made = pl.col("repaired_at") >= started
            self._check_repaired(self.repairs().filter(made, pl.col("method") != "mark"))

    def undo(self, repair_id: str) -> UndoReport:
        """Restore the rows that a repair changed, and check them anew.

        Rows that were changed again since stay as they are, and are told.

        Raises
        ------
        UnknownNameError
            There is no such repair.
        """
        report = undo(self._store, repair_id)
        undone = self.repairs().filter(pl.col("repair_id") == repair_id)
        self._check_repaired(undone.filter(pl.col("method") != "mark"))
        return report

    def repairs(self) -> pl.DataFrame:
        """Rows of `repairs`, newest first: what was changed, why, and from what to what."""
        return self._store.read(self.dataset("repairs")).sort("repaired_at", descending=True)

    def _without_trades(self, named: list[str], selection: Selection) -> pl.DataFrame:
        """Intervals of bars in which nothing was traded, of tables that may be filled in there."""
        known = open_inputs(self._store, self.settings, self._now())
        flat = [name for name, rows in known.tables.items() if rows.dataset.interpolate == "flat"]
        parts = [missing(known, name, selection) for name in flat if not named or name in named]
        return pl.concat([pl.DataFrame(schema=GAPS), *parts])

    def _check_repaired(self, repairs: pl.DataFrame) -> None:
        """Check what repairs have changed, and what was found in other tables because of it."""
        reasons = repairs.select(finding_id=pl.col("findings").explode()).drop_nulls()
        found = self._store.read(self.dataset("findings")).join(
            reasons, on="finding_id", how="semi"
        )
        place = ["dataset", "exchange", "symbol", "timestamp", "end"]
        places = pl.concat([repairs.select(place), found.select(place)]).unique()
        wanted = [
            (table, Selection((exchange,), (symbol,), *span))
            for (table, exchange, symbol), rows in places.group_by(place[:3], maintain_order=True)
            for span in _joined(rows.select("timestamp", "end").sort("timestamp"))
        ]
        if wanted:
            self._check_or_tell(sorted(wanted, key=str))


def _joined(spans: pl.DataFrame) -> list[tuple[datetime, datetime]]:
    """Spans of days that are close to each other as one: a check reads and judges whole days."""
    joined: list[tuple[datetime, datetime]] = []
    for start, end in spans.iter_rows():
        if joined and start - joined[-1][1] <= _CLOSE:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined
