"""Record findings and scores: open, keep and close findings, and log the changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from lake.log import FINDINGS, get_logger
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.intervals import union
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, TimeRange, iso
from lake.quality.findings import as_rows
from lake.store.store import Origin, Store

_log = get_logger(__name__)
_findings_log = get_logger(FINDINGS)
_LOUD_FINDINGS = 5
"""Findings of a market and run that are logged at their own level; the others as info."""
_KEPT = ("job_id", "found_at")
_JOB_COLUMNS = ("job_id", "checked_at")


@dataclass(frozen=True, slots=True)
class FindingCounts:
    """Numbers of findings that are new, still open, or closed."""

    opened: int = 0
    kept: int = 0
    closed: int = 0

    def __add__(self, other: FindingCounts) -> FindingCounts:
        return FindingCounts(
            self.opened + other.opened, self.kept + other.kept, self.closed + other.closed
        )


def record_findings(
    store: Store, table: str, market: Market, judged: TimeRange, findings: pl.DataFrame, job_id: str
) -> FindingCounts:
    """Record the findings of a market in a range, and close those that checks no longer report.

    Unchanged findings stay as they are: repeating a check changes nothing.

    Parameters
    ----------
    findings
        All findings of the checks, in columns of `lake.quality.run.FINDINGS`.
    """
    dataset = store.catalog.dataset("findings")
    now = pl.lit(store.now(), dtype=TIMESTAMP)
    current = as_rows(table, market, findings).with_columns(
        status=pl.lit("open"), job_id=pl.lit(job_id), found_at=now
    )
    selection = Selection((market.exchange,), (market.symbol,), judged.start, judged.end)
    stored = store.read(dataset, selection).filter(
        (pl.col("dataset") == table) & (pl.col("status") == "open")
    )
    before = stored.select("finding_id", *(pl.col(name).alias(f"_{name}") for name in _KEPT))
    joined = current.join(before, on="finding_id", how="left", maintain_order="left")
    opened = joined.filter(pl.col("_job_id").is_null()).select(current.columns)
    kept = joined.filter(pl.col("_job_id").is_not_null()).select(
        pl.exclude(*_KEPT, *(f"_{name}" for name in _KEPT)),
        *(pl.col(f"_{name}").alias(name) for name in _KEPT),
    )
    closed = _mark_closed(store, stored.join(current, on="finding_id", how="anti"), job_id)
    # Unchanged findings need not be written.
    columns = [name for name in dataset.polars_schema if name != "date"]
    updated = kept.join(stored.drop("date"), on=kept.columns, how="anti", nulls_equal=True)
    changed = pl.concat(
        [frame.select(_complete_columns(dataset, frame)) for frame in (opened, updated, closed)]
    )
    if changed.height:
        written = store.write(dataset, changed.select(columns), Origin(job_id, "lake"))
        if written.rejected:
            _log.error(
                "findings cannot be recorded, and are in quarantine",
                findings=written.rejected,
                table=table,
                exchange=market.exchange,
                symbol=market.symbol,
                start=iso(judged.start),
                end=iso(judged.end),
            )
    for number, row in enumerate(opened.iter_rows(named=True)):
        _log_finding("finding", row, quietly=number >= _LOUD_FINDINGS)
    _log_closed(closed)
    return FindingCounts(opened.height, kept.height, closed.height)


def close_findings(
    store: Store,
    table: str,
    selection: Selection,
    judged: Mapping[Market, Sequence[TimeRange]],
    job_id: str,
) -> FindingCounts:
    """Close the findings of a selection on days that no longer have rows to check.

    Parameters
    ----------
    judged
        By market, the ranges that were checked.
    """
    dataset = store.catalog.dataset("findings")
    stored = store.read(dataset, selection).filter(
        (pl.col("dataset") == table) & (pl.col("status") == "open")
    )
    is_judged = pl.any_horizontal(
        pl.lit(value=False),
        *(
            (pl.col("exchange") == market.exchange)
            & (pl.col("symbol") == market.symbol)
            & pl.any_horizontal(
                pl.col("timestamp").is_between(item.start, item.end, closed="left")
                for item in union(ranges)
            )
            for market, ranges in judged.items()
        ),
    )
    closed = _mark_closed(store, stored.filter(~is_judged), job_id)
    if closed.height:
        store.write(dataset, closed.drop("date"), Origin(job_id, "lake"))
    _log_closed(closed)
    return FindingCounts(closed=closed.height)


def record_scores(store: Store, days: pl.DataFrame, job_id: str) -> None:
    """Record the scores of market-days in one commit, except those that did not change.

    Parameters
    ----------
    days
        Rows of `lake.quality.score.score_days`, with `dataset`, `exchange` and `symbol`.
    """
    if days.is_empty():
        return
    dataset = store.catalog.dataset("scores")
    rows = days.with_columns(job_id=pl.lit(job_id), checked_at=pl.lit(store.now(), dtype=TIMESTAMP))
    times = rows.select(first=pl.col("timestamp").min(), last=pl.col("timestamp").max()).row(0)
    exchanges, symbols = (tuple(rows[name].unique()) for name in ("exchange", "symbol"))
    selection = Selection(exchanges, symbols, times[0], times[1] + MICROSECOND)
    stored = store.read(dataset, selection)
    same = [name for name in rows.columns if name not in _JOB_COLUMNS]
    changed = rows.join(stored, on=same, how="anti", nulls_equal=True)
    if changed.height:
        store.write(dataset, changed, Origin(job_id, "lake"))


def _mark_closed(store: Store, findings: pl.DataFrame, job_id: str) -> pl.DataFrame:
    return findings.with_columns(
        status=pl.lit("closed"),
        closed_by=pl.lit(job_id),
        closed_at=pl.lit(store.now(), dtype=TIMESTAMP),
    )


def _log_closed(findings: pl.DataFrame) -> None:
    for row in findings.iter_rows(named=True):
        _findings_log.info("finding closed", **_build_log_fields(row))


def _complete_columns(dataset: Dataset, frame: pl.DataFrame) -> list[pl.Expr]:
    return [
        pl.col(name) if name in frame.columns else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in dataset.polars_schema.items()
        if name != "date"
    ]


def _log_finding(event: str, row: Mapping[str, object], *, quietly: bool) -> None:
    """Log a finding as one structured line: errors as warnings, critical ones as errors."""
    levels = {} if quietly else {"critical": _findings_log.error, "error": _findings_log.warning}
    levels.get(str(row["severity"]), _findings_log.info)(event, **_build_log_fields(row))


def _build_log_fields(row: Mapping[str, object]) -> dict[str, object]:
    skipped = {"date", "status", "closed_by", "closed_at"}
    # A log line has its own timestamp: when it was written.
    return {
        "start" if name == "timestamp" else name: iso(value)
        if isinstance(value, datetime)
        else value
        for name, value in row.items()
        if name not in skipped and value is not None
    }
