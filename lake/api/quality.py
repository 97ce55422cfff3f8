"""Quality of what a lake holds: check, look at findings, repair, score, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from lake.api.alerting import Alerting
from lake.api.opened import Names
from lake.api.reads import Reads
from lake.bundles.bundle import as_tuple
from lake.errors import LakeError, UnknownNameError, UsageError
from lake.jobs.job import WriteCounts, record_job
from lake.jobs.quality.days import whole_days
from lake.jobs.quality.findings import FindingCounts, close_findings, record_findings, record_scores
from lake.jobs.quality.report import Facts, report
from lake.jobs.quality.run import check_tables, missing, open_inputs
from lake.jobs.quality.slices import CheckInputs
from lake.log import get_logger
from lake.model.market import Market
from lake.model.progress import NoProgress, Progress
from lake.model.selection import Selection
from lake.model.severity import SEVERITIES
from lake.model.time import MICROSECOND, TimeRange, iso
from lake.quality.configure import Own
from lake.quality.findings import worst_first
from lake.quality.report.document import Report
from lake.quality.score import combine_scores
from lake.query.overview import OWN_RECORD

_log = get_logger(__name__)


@dataclass(frozen=True)
class CheckReport:
    """What a check did.

    Attributes
    ----------
    findings
        Rows of `findings` that are open now in what was checked.
    scores
        The five measures over all that was checked; None each where nothing was.
    rows
        Rows that were checked.
    """

    job_id: str
    findings: pl.DataFrame
    recorded: FindingCounts
    scores: dict[str, float | None]
    rows: int

    def worst(self, least: str) -> int:
        """How many open findings are of a severity, or worse."""
        return self.findings.filter(pl.col("severity").is_in(_from(least))).height


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
        known = open_inputs(self._store, self.settings, self._now())
        names = as_tuple(tables) or tuple(known.tables)
        _require_rows(known, [name for name in names if name in known.tables], selection)
        done = self._checked(known, [(name, selection) for name in names], own, progress)
        self._alert()
        return done

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
        rows = self._store.read(self.dataset("findings"), selection)
        if table is not None:
            rows = rows.filter(pl.col("dataset") == self.dataset(table).name)
        if check:
            rows = rows.filter(pl.col("check").is_in(list(as_tuple(check))))
        if status is not None:
            rows = rows.filter(pl.col("status") == status)
        if severity is not None:
            rows = rows.filter(pl.col("severity").is_in(_from(severity)))
        return worst_first(rows)

    def finding(self, finding_id: str) -> dict[str, object]:
        """One finding by its id, or by the beginning of it.

        Raises
        ------
        UnknownNameError
            There is none, or there are several.
        """
        rows = self._store.read(self.dataset("findings"))
        found = rows.filter(pl.col("finding_id").str.starts_with(finding_id))
        if found.height != 1:
            what = "means several findings" if found.height else "is no finding"
            raise UnknownNameError(f"{finding_id!r} {what}", "`lake quality findings` lists ids.")
        return found.row(0, named=True)

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
        rows = self._store.read(self.dataset("scores"), whole_days(selection))
        if table is not None:
            rows = rows.filter(pl.col("dataset") == self.dataset(table).name)
        return rows.sort("dataset", "exchange", "symbol", "timestamp")

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
        selection = whole_days(Selection(as_tuple(exchange), as_tuple(symbol), since, until))
        known = open_inputs(self._store, self.settings, self._now())
        facts = Facts(
            title=f"Lake {self.root.path.name}",
            lake_id=self.root.id,
            made_at=self._now(),
            scores=self._store.read(self.dataset("scores"), selection),
            findings=self._store.read(self.dataset("findings"), selection).filter(
                pl.col("status") == "open"
            ),
            repairs=self._store.read(self.dataset("repairs"), selection),
            jobs=self._ledger.jobs(),
        )
        return report(facts, known, self.settings.quality.checks)

    def _check_what_came(self, job_id: str) -> CheckReport | None:
        """Check what an ingestion touched."""
        return self._check_or_tell(self._touched(job_id))

    def _check_books(self, exchange: str, symbols: tuple[str, ...]) -> CheckReport | None:
        """Check the order books of today."""
        now = self._now()
        return self._check_or_tell(
            [("orderbooks", Selection((exchange,), symbols, now, now + MICROSECOND))]
        )

    def _check_or_tell(self, wanted: Sequence[tuple[str, Selection]]) -> CheckReport | None:
        """Check what came; whatever goes wrong is told, for the rows are stored all the same."""
        try:
            done = self._checked(open_inputs(self._store, self.settings, self._now()), wanted)
        except LakeError as error:
            _log.error("check after ingestion failed", reason=error.message, hint=error.hint)
            return None
        self._alert()
        return done

    def _alert(self) -> None:
        """Tell the channels; what goes wrong with that is told, and stops nothing."""
        try:
            self.run_alerts()
        except LakeError as error:
            _log.error("alerts failed", reason=error.message, hint=error.hint)

    def _checked(
        self,
        known: CheckInputs,
        wanted: Sequence[tuple[str, Selection]],
        own: Own | None = None,
        progress: Progress | None = None,
    ) -> CheckReport:
        """Check selections of tables as one job, a market and some days at a time."""
        tally, recorded_so_far, days = WriteCounts(), FindingCounts(), []
        with record_job(self._ledger, f"check {_listed(wanted)}", _arguments(wanted), tally) as job:
            for table, selection in wanted:
                judged: dict[Market, list[TimeRange]] = {}
                for seen in check_tables(
                    known,
                    [table],
                    selection,
                    self.settings.quality.checks,
                    progress or NoProgress(),
                    own,
                ):
                    place = (self._store, seen.table, seen.market)
                    recorded_so_far += record_findings(*place, seen.range, seen.findings, job.id)
                    judged.setdefault(seen.market, []).append(seen.range)
                    days.append(seen.named_scores)
                left = (self._store, table, whole_days(selection), judged)
                recorded_so_far += close_findings(*left, job.id)
            scores = pl.concat(days) if days else self.dataset("scores").empty()
            record_scores(self._store, scores, job.id)
        return CheckReport(
            job_id=job.id,
            findings=self._open(wanted),
            recorded=recorded_so_far,
            scores=combine_scores(scores),
            rows=int(scores["rows"].sum()),
        )

    def _open(self, wanted: Sequence[tuple[str, Selection]]) -> pl.DataFrame:
        parts = [
            self.findings(
                table,
                exchange=chosen.exchanges,
                symbol=chosen.symbols,
                since=whole_days(chosen).start,
                until=whole_days(chosen).end,
            )
            for table, chosen in wanted
            if table not in OWN_RECORD
        ]
        return pl.concat(parts) if parts else self.dataset("findings").empty()

    def _touched(self, job_id: str) -> list[tuple[str, Selection]]:
        """What an ingestion has to have checked: what it fetched, and bars that depend on it."""
        rows = self._ledger.coverage(Selection()).filter(pl.col("job_id") == job_id)
        tables = [name for name in self._store.tables() if name not in OWN_RECORD]
        bars = [name for name in tables if self.dataset(name).family == "bars"]
        spans = rows.group_by("dataset", "exchange", "symbol").agg(
            pl.col("timestamp").min(), pl.col("end").max()
        )
        wanted: dict[tuple[str, Market], tuple[datetime, datetime]] = {}
        for table, exchange, symbol, start, end in spans.iter_rows():
            for name in {table, *bars} & set(tables):
                key = (name, Market(exchange, symbol))
                first, last = wanted.get(key, (start, end))
                wanted[key] = (min(first, start), max(last, end))
        return [
            (table, Selection((market.exchange,), (market.symbol,), start, end))
            for (table, market), (start, end) in sorted(wanted.items())
        ]


def _from(least: str) -> tuple[str, ...]:
    """Severities from one on."""
    if least not in SEVERITIES:
        raise UsageError(f"{least!r} is no severity", f"There are {', '.join(SEVERITIES)}.")
    return SEVERITIES[SEVERITIES.index(least) :]


def _require_rows(known: CheckInputs, tables: Sequence[str], selection: Selection) -> None:
    """Refuse a selection in which nothing is: it would look as if all were well."""
    markets = {market for table in tables for market in known.checked(table, selection)}
    there = {name for market in markets for name in (market.exchange, market.symbol)}
    missing = [name for name in (*selection.exchanges, *selection.symbols) if name not in there]
    if missing or (tables and not markets):
        what = " of " + ", ".join(missing) if missing else ""
        raise UnknownNameError(
            f"there are no rows{what} in the selection, so there is nothing to check",
            "`lake status` shows what is there.",
        )


def _listed(wanted: Sequence[tuple[str, Selection]]) -> str:
    return " ".join(dict.fromkeys(table for table, _ in wanted))


def _arguments(wanted: Sequence[tuple[str, Selection]]) -> dict[str, object]:
    chosen = [selection for _, selection in wanted]
    starts = [one.start for one in chosen]
    ends = [one.end for one in chosen]
    return {
        "exchanges": sorted({name for one in chosen for name in one.exchanges}),
        "symbols": sorted({name for one in chosen for name in one.symbols}),
        "since": iso(min(filter(None, starts))) if starts and all(starts) else None,
        "until": iso(max(filter(None, ends))) if ends and all(ends) else None,
    }
