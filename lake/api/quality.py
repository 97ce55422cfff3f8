"""`Lake.quality`: check, look at findings and scores, repair, report."""

from __future__ import annotations

import polars as pl

from lake.api.blocking import run
from lake.api.context import Context, Names
from lake.jobs.quality.check import CheckReport, check
from lake.jobs.quality.lake_report import report_lake
from lake.jobs.quality.lookup import (
    FindingFilter,
    find_finding,
    read_findings,
    read_gaps,
    read_scores,
)
from lake.jobs.repairs.recheck import (
    RepairRequest,
    read_repairs,
    repair_and_check,
    undo_and_check,
)
from lake.jobs.repairs.report import RepairReport, UndoReport
from lake.model.progress import NoProgress, Progress
from lake.model.selection import as_tuple
from lake.model.time import Time
from lake.quality.configure import OwnChecks
from lake.quality.report.document import Report
from lake.query.names import Missing, find_table


class Quality:
    """Quality of what a lake holds."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __repr__(self) -> str:
        return f"<Lake.quality of {self._context.root.path}>"

    def check(
        self,
        table: Names = (),
        *,
        timeframe: Names = (),
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
        own: OwnChecks | None = None,
        progress: Progress | None = None,
    ) -> CheckReport:
        """Look for defects in stored rows, and record findings and scores.

        Whole UTC days are checked. What is not found any more is closed; a check that finds what
        the one before found changes nothing.

        Parameters
        ----------
        table
            One or several; all by default.
        own
            Checks of one's own by name, beside those of the dataset files and of the settings:
            `function(slice)` gets a `lake.quality.slice.Slice`, whose `rows` is a LazyFrame of one
            market, and gives a LazyFrame with at least `start`.

        Raises
        ------
        UnknownNameError
            A table does not exist, or nothing is in the selection: names the closest.
        ConfigError
            A check of the settings is wrong.
        """
        selection = self._context.select(exchange, symbol, since, until)
        return check(
            self._context.store,
            self._context.settings,
            self._context.tables(table, timeframe),
            selection,
            own=own,
            progress=progress or NoProgress(),
        )

    def findings(
        self,
        table: Names = (),
        *,
        timeframe: Names = (),
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
        check: Names = (),
        severity: str | None = None,
        status: str | None = "open",
        missing: Missing = "error",
    ) -> pl.DataFrame:
        """Rows of `findings`, worst first.

        Parameters
        ----------
        table
            One or several; all by default.
        since, until
            They begin in `[since, until)`.
        severity
            The least: `info`, `warning`, `error` or `critical`.
        status
            `open` or `closed`; None: both.
        missing
            What to do about a market that no table holds: `error`, or `empty` to give no rows.

        Raises
        ------
        UnknownNameError
            There is no such table or market: names the closest.
        """
        tables = self._context.tables(table, timeframe)
        selection = self._context.select(exchange, symbol, since, until)
        self._context.require_markets(tables, selection, missing)
        wanted = FindingFilter(tables, selection, as_tuple(check), severity, status)
        return read_findings(self._context.store, wanted)

    def finding(self, finding_id: str) -> dict[str, object]:
        """One finding by its id, or by the beginning of it.

        Raises
        ------
        UnknownNameError
            There is none, or there are several.
        """
        return find_finding(self._context.store, finding_id)

    def gaps(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
        missing: Missing = "error",
    ) -> pl.DataFrame:
        """Missing bars that open in a range, and why, as it is now: also those without a trade.

        Returns
        -------
        DataFrame
            `dataset`, `exchange`, `symbol`, `start`, `end`, `slots`, `reason`.

        Raises
        ------
        UnknownNameError
            There is no such table or market: names the closest.
        UsageError
            The table holds no bars.
        """
        context = self._context
        name = find_table(context.store, table, timeframe).name
        selection = context.select(exchange, symbol, since, until)
        context.require_markets([name], selection, missing)
        return read_gaps(context.store, context.settings, name, selection)

    def scores(
        self,
        table: Names = (),
        *,
        timeframe: Names = (),
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
        missing: Missing = "error",
    ) -> pl.DataFrame:
        """Rows of `scores`: the quality of each market-day that was checked.

        Parameters are those of `findings`.
        """
        tables = self._context.tables(table, timeframe)
        selection = self._context.select(exchange, symbol, since, until)
        self._context.require_markets(tables, selection, missing)
        return read_scores(self._context.store, tables, selection)

    def report(
        self,
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
    ) -> Report:
        """What was checked in a selection, as a report; of a bundle see `Bundle.quality`.

        `lake.quality.report.page.html` makes a page of it, `document.to_json` JSON.

        Raises
        ------
        QualityError
            No check has run over the selection.
        """
        selection = self._context.select(exchange, symbol, since, until)
        return report_lake(self._context.store, self._context.settings, selection)

    def repair(
        self,
        table: Names = (),
        *,
        timeframe: Names = (),
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
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
        tables = self._context.tables(table, timeframe)
        selection = self._context.select(exchange, symbol, since, until)
        self._context.require_markets(tables, selection)
        request = RepairRequest(
            tables,
            selection,
            dry_run=dry_run,
            interpolate=interpolate,
            again=again,
            offline=offline,
        )
        return run(
            repair_and_check(
                self._context.store, self._context.settings, request, progress or NoProgress()
            )
        )

    def undo(self, repair_id: str) -> UndoReport:
        """Restore the rows that a repair changed, and check them anew.

        Rows that were changed again since stay as they are, and are told.

        Raises
        ------
        UnknownNameError
            There is no such repair.
        """
        return undo_and_check(self._context.store, self._context.settings, repair_id)

    def repairs(self) -> pl.DataFrame:
        """Rows of `repairs`, newest first: what was changed, why, and from what to what."""
        return read_repairs(self._context.store)
