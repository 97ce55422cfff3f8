"""Repair of what checks found, and its undoing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import polars as pl

from lake.api.opened import Names
from lake.api.writes import Writes, run
from lake.jobs.repair import Advanced, Repairer, RepairReport, UndoReport, nobody, undo
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.read.bundles.bundle import as_tuple
from lake.read.inspection import GAPS, evidence, missing


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
        advanced: Advanced = nobody,
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

        Raises
        ------
        SourceUnavailableError
            A source stays down; what was repaired before is recorded, and the same call goes on.
        """
        selection = Selection(as_tuple(exchange), as_tuple(symbol), since, until)
        named = [self.dataset(name).name for name in as_tuple(tables)]
        rows = self._store.known(self.dataset("findings"), selection).filter(
            pl.col("status") == "open"
        )
        if named:
            rows = rows.filter(pl.col("dataset").is_in(named))
        quiet = self._without_trades(named, selection) if interpolate else None
        repairer = Repairer(self._store, self.settings, self._connect_as, advanced)
        work = repairer.run(rows, quiet, dry_run=dry_run, interpolate=interpolate, again=again)
        started = self._now()
        try:
            return run(work)
        finally:  # also where a source gave up in the middle
            self._check_windows(self._repaired_since(started))

    def undo(self, repair_id: str) -> UndoReport:
        """Restore the rows that a repair changed, and check them anew.

        Rows that were changed again since stay as they are, and are told.

        Raises
        ------
        UnknownNameError
            There is no such repair.
        """
        report = undo(self._store, repair_id)
        self._check_windows([(report.table, report.market, report.window)])
        return report

    def repairs(self) -> pl.DataFrame:
        """Rows of `repairs`, newest first: what was changed, why, and from what to what."""
        return self._store.known(self.dataset("repairs")).sort("repaired_at", descending=True)

    def _without_trades(self, named: list[str], selection: Selection) -> pl.DataFrame:
        """Intervals of bars in which nothing was traded, of tables that may be filled in there."""
        known = evidence(self._store, self.settings, self._now())
        flat = [name for name, rows in known.tables.items() if rows.dataset.interpolate == "flat"]
        parts = [missing(known, name, selection) for name in flat if not named or name in named]
        return pl.concat([pl.DataFrame(schema=GAPS), *parts])

    def _repaired_since(self, time: datetime) -> list[tuple[str, Market, TimeRange]]:
        rows = self._store.known(self.dataset("repairs")).filter(
            (pl.col("repaired_at") >= time) & (pl.col("method") != "mark")
        )
        places = rows.select("dataset", "exchange", "symbol", "timestamp", "end").iter_rows()
        return [(row[0], Market(row[1], row[2]), TimeRange(row[3], row[4])) for row in places]

    def _check_windows(self, windows: Iterable[tuple[str, Market, TimeRange]]) -> None:
        wanted = [
            (table, Selection((market.exchange,), (market.symbol,), window.start, window.end))
            for table, market, window in windows
        ]
        if wanted:
            self._check_or_tell(wanted)
