"""Quality of what a lake holds: check, look at findings, repair, score, report."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from lake.api.alerting import Alerting
from lake.api.opened import Names
from lake.api.reads import Reads
from lake.bundles.bundle import as_tuple
from lake.jobs.quality.check import CheckReport, check
from lake.jobs.quality.lake_report import report_lake
from lake.jobs.quality.lookup import FindingFilter, find_finding, read_findings, read_scores
from lake.jobs.quality.run import missing, open_inputs
from lake.model.progress import NoProgress, Progress
from lake.model.selection import Selection
from lake.quality.configure import Own
from lake.quality.report.document import Report


class Quality(Reads, Alerting):
    """What looks for defects."""

    def check(
        self,
        tables: Names = (),
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: datetime | None = None,
        until: datetime | None = None,
        own: Own | None = None,
        progress: Progress | None = None,
    ) -> CheckReport:
        """Look for defects in stored rows, and record findings and scores.

        Whole UTC days are checked. What is not found any more is closed; a check that finds what
        the one before found changes nothing.

        Parameters
        ----------
        tables
            All by default.
        own
            Checks of one's own by name, beside those of the dataset files and of the settings:
            `function(slice)` gets a `lake.quality.slice.Slice`, whose `rows` is a LazyFrame of one
            market, and gives a LazyFrame with at least `start`.

        Raises
        ------
        UnknownNameError
            A table does not exist, or nothing is in the selection.
        ConfigError
            A check of the settings is wrong.
        """
        selection = Selection(as_tuple(exchange), as_tuple(symbol), since, until)
        return check(
            self._store,
            self.settings,
            as_tuple(tables),
            selection,
            own=own,
            progress=progress or NoProgress(),
        )

    def findings(
        self,
        table: str | None = None,
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: datetime | None = None,
        until: datetime | None = None,
        check: Names = (),
        severity: str | None = None,
        status: str | None = "open",
    ) -> pl.DataFrame:
        """Rows of `findings`, worst first; `severity` is the least, `status` None gives all."""
        selection = Selection(as_tuple(exchange), as_tuple(symbol), since, until)
        wanted = FindingFilter(table, selection, as_tuple(check), severity, status)
        return read_findings(self._store, wanted)

    def finding(self, finding_id: str) -> dict[str, object]:
        """One finding by its id, or by the beginning of it.

        Raises
        ------
        UnknownNameError
            There is none, or there are several.
        """
        return find_finding(self._store, finding_id)

    def gaps(
        self,
        table: str,
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> pl.DataFrame:
        """Missing bars that open in a range, and why, as it is now: also those without a trade.

        Returns
        -------
        DataFrame
            `dataset`, `exchange`, `symbol`, `start`, `end`, `slots`, `reason`.
        """
        selection = Selection(as_tuple(exchange), as_tuple(symbol), since, until)
        return missing(open_inputs(self._store, self.settings, self._now()), table, selection)

    def scores(
        self,
        table: str | None = None,
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> pl.DataFrame:
        """Rows of `scores`: the quality of each market-day that was checked."""
        selection = Selection(as_tuple(exchange), as_tuple(symbol), since, until)
        return read_scores(self._store, table, selection)

    def quality_report(
        self,
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Report:
        """What was checked in a selection, as a report; of a bundle see `Bundle.quality`.

        `lake.quality.report.page.html` makes a page of it, `document.to_json` JSON.

        Raises
        ------
        QualityError
            No check has run over the selection.
        """
        selection = Selection(as_tuple(exchange), as_tuple(symbol), since, until)
        return report_lake(self._store, self.settings, selection)
