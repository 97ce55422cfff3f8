"""`Lake.quality`: check tables, read findings and scores, repair, report."""

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
    """Quality of the rows of a lake."""

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
        """Check stored rows, and record findings and scores.

        Whole UTC days are checked. Findings are closed when resolved; a check with the same results
        as the previous one changes nothing.

        Parameters
        ----------
        table
            One or several; all by default.
        own
            Custom checks by name, in addition to those of dataset files and settings:
            `function(slice)` takes a `lake.quality.slice.Slice`, whose `rows` is a LazyFrame of one
            market, and returns a LazyFrame with at least `start`.

        Raises
        ------
        UnknownNameError
            A table does not exist, or the selection has no rows; the hint suggests similar names.
        ConfigError
            A check in the settings is invalid.
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
        """Return rows of `findings`, worst first.

        Parameters
        ----------
        table
            One or several; all by default.
        since, until
            Findings that begin in `[since, until)`.
        severity
            Minimum severity: `info`, `warning`, `error` or `critical`.
        status
            `open` or `closed`; None: both.
        missing
            For a market that no table holds: `error` raises, `empty` returns no rows.

        Raises
        ------
        UnknownNameError
            A table or market does not exist; the hint suggests similar names.
        """
        tables = self._context.tables(table, timeframe)
        selection = self._context.select(exchange, symbol, since, until)
        self._context.require_markets(tables, selection, missing)
        wanted = FindingFilter(tables, selection, as_tuple(check), severity, status)
        return read_findings(self._context.store, wanted)

    def finding(self, finding_id: str) -> dict[str, object]:
        """Return a finding by its id, or by a prefix of it.

        Raises
        ------
        UnknownNameError
            No finding matches, or several do.
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
        """Return bars that are now missing in a range, with reasons, also those without trades.

        Returns
        -------
        DataFrame
            `dataset`, `exchange`, `symbol`, `start`, `end`, `slots`, `reason`, and `proof`:
            `conservation` where the volume of a longer bar proves the reason, else null.

        Raises
        ------
        UnknownNameError
            A table or market does not exist; the hint suggests similar names.
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
        """Return rows of `scores`: the quality of each checked market-day.

        The parameters are those of `findings`.
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
        """Build a report on the checked rows of a selection; for bundles, see `Bundle.quality`.

        `lake.quality.report.page.html` renders it as a page, `document.to_json` as JSON.

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
        """Repair open findings: fetch again from the source, then derive from finer data.

        Repaired rows are checked again, which closes their findings.

        Parameters
        ----------
        dry_run
            Only return the plan: no source is queried, nothing is written.
        interpolate
            Fill rows that neither provides, by the policy of the dataset: flat bars for intervals
            without trades, the last funding rate. The column `fill` marks them, and no observed row
            is replaced.
        again
            Also query the source for findings that it confirmed before.
        offline
            Query no source; only derive and fill. Later repairs do not query the source for derived
            rows; ingest them again with `refetch` to get the venue's rows.

        Raises
        ------
        SourceUnavailableError
            A source and its fallback stay down. Finished repairs, also of other exchanges, are
            recorded, and the same call continues.
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
        """Restore the rows that a repair changed and their coverage, and check them again.

        Rows that changed again since the repair stay as they are, and are reported. Time that only
        the repair had covered is fetched by the next ingestion.

        Raises
        ------
        UnknownNameError
            The repair does not exist.
        """
        return undo_and_check(self._context.store, self._context.settings, repair_id)

    def repairs(self) -> pl.DataFrame:
        """Return rows of `repairs`, newest first: what changed, why, old and new values."""
        return read_repairs(self._context.store)
