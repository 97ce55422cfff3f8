"""Check selections of tables as a job: record findings and scores, evaluate alert rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain

import polars as pl

from lake.errors import LakeError, UnknownNameError
from lake.jobs.alerts import run_alerts
from lake.jobs.job import WriteCounts, record_job
from lake.jobs.quality.findings import (
    FindingCounts,
    list_judged,
    read_open,
    record_findings,
    record_scores,
)
from lake.jobs.quality.lookup import severities_from
from lake.jobs.quality.owed import TableSelection, record_marks, select_touched
from lake.jobs.quality.run import MarketResult, check_tables, open_inputs
from lake.jobs.quality.slices import CheckInputs
from lake.jobs.touched import Touched
from lake.log import get_logger
from lake.model.market import DATASET_MARKET
from lake.model.progress import NoProgress, Progress
from lake.model.selection import Selection
from lake.model.time import iso
from lake.model.words import count
from lake.quality.configure import OwnChecks
from lake.quality.findings import sort_by_severity
from lake.quality.score import combine_scores
from lake.query.unchecked import find_unchecked, read_versions
from lake.settings import QualitySettings, Settings
from lake.store.chunks import widen_to_days
from lake.store.damages import UNREADABLE, Damages
from lake.store.ledger import Ledger
from lake.store.store import Store

_log = get_logger(__name__)
_SHOWN = 3
_MOST_WAITING = 50_000
"""Findings that a check collects before it records them."""


@dataclass(frozen=True)
class CheckReport:
    """Result of a check.

    Attributes
    ----------
    findings
        Open rows of `findings` in the checked selections.
    scores
        The five scores over all checked rows; None if no rows were checked.
    rows
        Number of checked rows.
    owed
        Result of the check of what earlier jobs left unchecked, outside these selections; None if
        that was nothing, or its check failed.
    damaged
        Tables that were not checked completely: they, or tables to compare them with, are damaged.
    """

    job_id: str
    findings: pl.DataFrame
    recorded: FindingCounts
    scores: dict[str, float | None]
    rows: int
    owed: CheckReport | None = None
    damaged: tuple[str, ...] = ()

    def __repr__(self) -> str:
        summary = count(self.findings.height, "open finding")
        owed = self.describe_owed()
        more = f"; {owed[0].lower()}{owed[1:]}" if owed else ""
        return f"<CheckReport {self.job_id}: {count(self.rows, 'row')}, {summary}{more}>"

    @property
    def new_findings(self) -> pl.DataFrame:
        """Those of the findings that this check opened."""
        return self.findings.filter(pl.col("job_id") == self.job_id)

    def describe_owed(self) -> str | None:
        """Say where the check of what was owed opened findings; None if it opened none."""
        new = None if self.owed is None else self.owed.new_findings
        if new is None or new.is_empty():
            return None
        days = new.group_by(*DATASET_MARKET).agg(
            first=pl.col("timestamp").min().dt.date(), last=pl.col("timestamp").max().dt.date()
        )
        places = [
            f"{table} of {exchange} {symbol} on {first}" + (f" to {last}" if last > first else "")
            for table, exchange, symbol, first, last in days.sort(*DATASET_MARKET).iter_rows()
        ]
        more = f" and {len(places) - _SHOWN:,} more markets" if len(places) > _SHOWN else ""
        count = f"{new.height:,} new finding{'' if new.height == 1 else 's'}"
        return f"Also checked what was owed: {count} in {', '.join(places[:_SHOWN])}{more}"

    def worst(self, least: str) -> int:
        """Return the number of open findings of a severity, or worse."""
        return self.findings.filter(pl.col("severity").is_in(severities_from(least))).height


def check(
    store: Store,
    settings: Settings,
    tables: Sequence[str],
    selection: Selection,
    *,
    own: OwnChecks | None,
    progress: Progress,
) -> CheckReport:
    """Check tables, all by default, as one job; then evaluate alert rules.

    What earlier jobs left unchecked elsewhere is checked, too, as a job of its own: `owed` of the
    report.

    Raises
    ------
    UnknownNameError
        A table does not exist, or the selection has no rows.
    ConfigError
        A check in the settings is invalid.
    DamagedError
        A table, or one to compare it with, is damaged. All others are checked, and the error has
        the report.
    """
    store.heal()
    versions = read_versions(store)
    inputs = open_inputs(store, settings, store.now())
    names = tables or tuple(inputs.tables)
    _require_rows(inputs, [name for name in names if name in inputs.tables], selection)
    wanted = [(name, selection) for name in names]
    report, error = _run(store, settings, inputs, wanted, own=own, progress=progress)
    record_marks(store, versions, _leave_out_damaged(wanted, report), report.job_id)
    report = replace(report, owed=check_owed(store, settings))
    _alert_or_log(store, settings)
    if error is not None:
        error.report = report
        raise error
    return report


def check_touched(
    store: Store, settings: Settings, touched: Sequence[Touched], job_id: str
) -> CheckReport | None:
    """Check what a job touched, and bars that depend on it, then what earlier jobs left unchecked.

    A failure is logged, and what is not checked stays owed: the rows are stored.

    Returns
    -------
    CheckReport or None
        Of what the job touched; None if that is nothing, or its check failed.
    """
    selections = select_touched(store, touched)
    return check_selections(store, settings, selections, checked_jobs=(job_id,))


def check_selections(
    store: Store,
    settings: Settings,
    wanted: Sequence[TableSelection],
    checked_jobs: Collection[str] = (),
) -> CheckReport | None:
    """Check selections, then what earlier jobs left unchecked; log failures.

    Parameters
    ----------
    checked_jobs
        Jobs whose changes are all within the selections.
    """
    report = None
    if wanted:
        report = _check_or_log(store, settings, wanted, checked_jobs)
        if report is None:
            return None  # the next run checks it: another try now would fail, too
    owed = check_owed(store, settings)
    if report is not None or owed is not None:
        _alert_or_log(store, settings)
    return None if report is None else replace(report, owed=owed)


def check_owed(store: Store, settings: Settings) -> CheckReport | None:
    """Check what commits changed after the last check of their tables; log a failure."""
    try:
        wanted = select_touched(store, find_unchecked(store))
    except LakeError as error:
        _log.error("unchecked rows not found", reason=error.message, hint=error.hint)
        return None
    if not wanted:
        return None
    _log.info("checking what earlier jobs left unchecked", tables=sorted({t for t, _ in wanted}))
    return _check_or_log(store, settings, wanted)


def _check_or_log(
    store: Store,
    settings: Settings,
    wanted: Sequence[TableSelection],
    checked_jobs: Collection[str] = (),
) -> CheckReport | None:
    """Check stored rows; log a failure, and return None, because the rows stay stored."""
    try:
        versions = read_versions(store)
        inputs = open_inputs(store, settings, store.now())
        report, error = _run(store, settings, inputs, wanted)
        if error is not None:
            _log.error("check is not complete", reason=error.message, hint=error.hint)
        jobs = () if error is not None else checked_jobs
        record_marks(store, versions, _leave_out_damaged(wanted, report), report.job_id, jobs)
    except LakeError as error:
        _log.error("check after ingestion failed", reason=error.message, hint=error.hint)
        return None
    return report


def _alert_or_log(store: Store, settings: Settings) -> None:
    """Evaluate alert rules and notify channels; log a failure."""
    try:
        run_alerts(store, settings)
    except LakeError as error:
        _log.error("alerts failed", reason=error.message, hint=error.hint)


def _run(
    store: Store,
    settings: Settings,
    inputs: CheckInputs,
    wanted: Sequence[TableSelection],
    *,
    own: OwnChecks | None = None,
    progress: Progress | None = None,
) -> tuple[CheckReport, LakeError | None]:
    """Check selections of tables as one job, one market and some days at a time.

    Damage stops the table, or the selection, that it concerns; it is returned with the report.
    """
    run = _Run(store, inputs, settings.quality, own, progress or NoProgress())
    command = f"check {' '.join(dict.fromkeys(table for table, _ in wanted))}"
    failure: LakeError | None = None
    job_id, scores = "", store.catalog.dataset("scores").empty()
    try:
        with record_job(Ledger(store), command, _build_arguments(wanted), WriteCounts()) as job:
            job_id = job.id
            try:
                for table, selection in wanted:
                    with run.damages.collect(table):
                        run.check(table, selection, job_id)
            finally:  # whatever ended it: what was judged is right
                run.record(job_id)
            scores = pl.concat(run.days) if run.days else scores
            record_scores(store, scores, job_id)
            run.damages.raise_if_any()
    except UNREADABLE as error:
        if not run.damages.errors:
            raise
        failure = error
    report = CheckReport(
        job_id=job_id,
        findings=_read_open_findings(store, wanted),
        recorded=run.recorded,
        scores=combine_scores(scores),
        rows=int(scores["rows"].sum()),
        damaged=tuple(run.damages.errors),
    )
    return report, failure


@dataclass
class _Run:
    """Checks selections one by one, and collects what they give."""

    store: Store
    inputs: CheckInputs
    quality: QualitySettings
    own: OwnChecks | None
    progress: Progress
    recorded: FindingCounts = field(default_factory=FindingCounts)
    days: list[pl.DataFrame] = field(default_factory=list)
    damages: Damages = field(default_factory=Damages)
    _results: list[MarketResult] = field(default_factory=list)
    _complete: list[TableSelection] = field(default_factory=list)
    _earlier: list[TableSelection] = field(default_factory=list)
    _waiting: int = 0

    def check(self, table: str, selection: Selection, job_id: str) -> None:
        """Check a selection of a table; where damage ends that, no finding is closed for it."""
        results = check_tables(
            self.inputs, [table], selection, self.quality, self.progress, self.own, self.damages
        )
        before = set(self.damages.errors)
        for result in results:
            self._results.append(result)
            self.days.append(result.named_scores)
            self._waiting += result.findings.height
            if self._waiting >= _MOST_WAITING:
                self.record(job_id)
        if not self.damages.errors.keys() - before and table not in before:
            # Otherwise days that were not judged may have rows.
            self._complete.append((table, widen_to_days(selection)))

    def record(self, job_id: str) -> None:
        """Record what was found since the last record."""
        self.recorded += record_findings(
            self.store, self._results, self._complete, job_id, self._earlier
        )
        self._earlier += list_judged(self._results)
        self._results, self._complete, self._waiting = [], [], 0


def _leave_out_damaged(
    wanted: Sequence[TableSelection], report: CheckReport
) -> list[TableSelection]:
    return [(table, selection) for table, selection in wanted if table not in report.damaged]


def _read_open_findings(store: Store, wanted: Sequence[TableSelection]) -> pl.DataFrame:
    """Read the open findings of selections, the worst first."""
    return sort_by_severity(read_open(store, [(t, widen_to_days(s)) for t, s in wanted]))


def _require_rows(inputs: CheckInputs, tables: Sequence[str], selection: Selection) -> None:
    """Refuse a selection without rows and answers: its check would look like a success."""
    markets: set[tuple[str, str]] = set()
    damages = Damages()
    for table in tables:
        with damages.collect(table):
            found = inputs.find_checked_markets(table, selection)
            markets.update((market.exchange, market.symbol) for market in found)
    if damages.errors:
        return  # what the damaged tables hold is not known
    covered = inputs.coverage.filter(pl.col("table").is_in(list(tables)))
    markets.update(covered.select("exchange", "symbol").iter_rows())
    stored = set(chain.from_iterable(markets))
    missing = [name for name in (*selection.exchanges, *selection.symbols) if name not in stored]
    if missing or (tables and not markets):
        what = f" of {', '.join(missing)}" if missing else ""
        raise UnknownNameError(
            f"there are no rows{what} in the selection, so there is nothing to check",
            "`lake status` lists tables and markets.",
        )


def _build_arguments(wanted: Sequence[TableSelection]) -> dict[str, object]:
    """Return the job's arguments for the ledger; a bound that a selection lacks is None."""
    selections = [selection for _, selection in wanted]
    starts = [selection.start for selection in selections]
    ends = [selection.end for selection in selections]
    return {
        "exchanges": sorted(set(chain.from_iterable(chosen.exchanges for chosen in selections))),
        "symbols": sorted(set(chain.from_iterable(chosen.symbols for chosen in selections))),
        "since": _format_bound(min, starts),
        "until": _format_bound(max, ends),
    }


def _format_bound(
    pick: Callable[[Iterable[datetime]], datetime], times: Sequence[datetime | None]
) -> str | None:
    bounds = [time for time in times if time is not None]
    return iso(pick(bounds)) if bounds and len(bounds) == len(times) else None
