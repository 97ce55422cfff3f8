"""Build the quality report of a lake, or of a bundle, from scores, findings and repairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any, get_args

import polars as pl

from lake.errors import QualityError
from lake.jobs.quality.charts import build_charts, build_deviations
from lake.jobs.quality.slices import CheckInputs
from lake.model.dataset import Dataset
from lake.model.market import DATASET_MARKET
from lake.model.selection import Selection
from lake.model.severity import SEVERITIES
from lake.model.time import DAY
from lake.quality.checks.completeness import REASONS
from lake.quality.configure import configure
from lake.quality.findings import sort_by_severity
from lake.quality.report.document import (
    Days,
    Finding,
    JobRecord,
    Latency,
    MarketFigures,
    MissingSlots,
    OpenFindings,
    Provenance,
    Reason,
    Repair,
    Report,
    Scores,
    TableVersion,
    Totals,
)
from lake.quality.score import DELAYS, DIMENSIONS, MEASURES, combine_scores
from lake.settings import QualitySettings
from lake.store.damages import Damages
from lake.store.snapshot import Snapshot
from lake.version import VERSION

_REASONS: tuple[Reason, ...] = get_args(Reason)
_FINDINGS, _CONTEXT, _REPAIRS, _JOBS = 1_000, 9, 500, 100  # findings keep at most 9 context rows
_DEVIATION_BPS = 50.0


@dataclass(frozen=True)
class ReportData:
    """The rows of the lake's own tables that a report shows.

    Attributes
    ----------
    scores, findings, repairs, jobs
        Rows of these tables; only open findings.
    """

    title: str
    lake_id: str
    made_at: datetime
    scores: pl.DataFrame
    findings: pl.DataFrame
    repairs: pl.DataFrame
    jobs: pl.DataFrame
    bundle_id: str | None = None


def build_report(data: ReportData, inputs: CheckInputs, quality: QualitySettings) -> Report:
    """Build the report on the checked tables; charts whose rows cannot be read are left out.

    Raises
    ------
    QualityError
        Nothing was checked.
    """
    if data.scores.is_empty():
        raise QualityError(
            "there is nothing to report: no check has run over this selection",
            "Run `lake quality check` first.",
        )
    times = pl.col("timestamp")
    first, last = data.scores.select(times.min(), last=times.max()).row(0)
    start, end = first.date(), last.date() + DAY
    findings = sort_by_severity(data.findings)
    selection = Selection(start=first, end=last + DAY)
    threshold, damages = partial(_find_threshold, quality), Damages()
    return Report(
        title=data.title,
        made_at=data.made_at,
        made_by=f"lake {VERSION}",
        lake_id=data.lake_id,
        bundle_id=data.bundle_id,
        start=start,
        end=end,
        totals=_sum_totals(data.scores, findings),
        markets=tuple(_summarize_markets(data.scores, findings, start, end)),
        findings=tuple(_to_finding(row) for row in findings.head(_FINDINGS).iter_rows(named=True)),
        findings_total=findings.height,
        charts=build_charts(inputs, findings, damages),
        deviations=build_deviations(inputs, selection, findings, threshold, damages),
        repairs=tuple(_to_repair(row) for row in data.repairs.head(_REPAIRS).iter_rows(named=True)),
        latency=tuple(_list_latencies(data.scores, start)),
        provenance=_build_provenance(data, inputs),
    )


def build_summary(report: Report) -> pl.DataFrame:
    """Return the figures of each market of a report."""
    return pl.DataFrame(
        [
            {
                "dataset": market.dataset,
                "exchange": market.exchange,
                "symbol": market.symbol,
                "rows": market.rows,
                "lost": market.missing.losses,
                "no_trade": market.missing.no_trade,
                "outage": market.missing.venue_outage,
                "findings": market.findings.total,
                **{name: getattr(market.scores, name) for name in MEASURES},
            }
            for market in report.markets
        ]
    )


def build_overview(report: Report) -> pl.DataFrame:
    """Return the main figures of each market, the worst first; `weakest`: its lowest dimension."""
    score = pl.col("score")
    parts = pl.concat_list(DIMENSIONS)
    weakest = parts.list.arg_min().replace_strict(dict(enumerate(DIMENSIONS)), default=None)
    return (
        build_summary(report)
        .sort("score", maintain_order=True)
        .select(
            pl.concat_str("exchange", "symbol", separator=" ").alias("market"),
            "dataset",
            # Rounded down: only a perfect score reads 1.
            ((score * 1e4 + 1e-7).floor() / 1e4),
            pl.when(score < 1).then(weakest).alias("weakest"),
            "rows",
            "lost",
            "findings",
        )
    )


def _summarize_markets(
    scores: pl.DataFrame, findings: pl.DataFrame, start: date, end: date
) -> Sequence[MarketFigures]:
    by_market = findings.partition_by(DATASET_MARKET, as_dict=True)
    nothing = findings.clear()
    figures = []
    for key, days in scores.sort(*DATASET_MARKET, "timestamp").group_by(
        DATASET_MARKET, maintain_order=True
    ):
        dataset, exchange, symbol = (str(part) for part in key)
        figures.append(
            MarketFigures(
                dataset,
                exchange,
                symbol,
                _combine_scores(days),
                *_count_rows(days),
                _count_missing(days),
                _count_open(by_market.get(key, nothing)),
                _list_days(days, start, end),
            )
        )
    return figures


def _sum_totals(scores: pl.DataFrame, findings: pl.DataFrame) -> Totals:
    missing, open_findings = _count_missing(scores), _count_open(findings)
    return Totals(_combine_scores(scores), *_count_rows(scores), missing, open_findings)


def _list_days(days: pl.DataFrame, start: date, end: date) -> Days:
    count = (end - start).days
    scores: list[int | None] = [None] * count
    rows = [0] * count
    missing: list[tuple[int, Reason, int]] = []
    for row in days.iter_rows(named=True):
        number = (row["timestamp"].date() - start).days
        # Rounded down, so that a small loss does not disappear.
        scores[number] = int(row["score"] * 10_000 + 1e-7)
        rows[number] = row["rows"]
        missing.extend((number, reason, row[reason]) for reason in _REASONS if row[reason])
    return Days(tuple(scores), tuple(rows), tuple(missing))


def _combine_scores(days: pl.DataFrame) -> Scores:
    return Scores(**combine_scores(days))


def _count_rows(days: pl.DataFrame) -> tuple[int, int]:
    return int(days["rows"].sum()), int(days["expected"].sum())


def _count_missing(days: pl.DataFrame) -> MissingSlots:
    return MissingSlots(**{reason: int(days[reason].sum()) for reason in REASONS})


def _count_open(findings: pl.DataFrame) -> OpenFindings:
    counts = dict(findings.group_by("severity").len().iter_rows())
    return OpenFindings(**{name: counts.get(name, 0) for name in SEVERITIES})


def _to_finding(row: Mapping[str, Any]) -> Finding:
    names = Finding.__dataclass_fields__.keys() & row.keys()
    values = {name: row[name] for name in names - {"context", "against"}}
    return Finding(
        **values,
        start=row["timestamp"],
        against=row["against"] or "",
        context=tuple(json.loads(row["context"])[:_CONTEXT]),
    )


def _to_repair(row: Mapping[str, Any]) -> Repair:
    names = Repair.__dataclass_fields__.keys() & row.keys()
    return Repair(start=row["timestamp"], **{name: row[name] for name in names})


def _list_latencies(scores: pl.DataFrame, start: date) -> Sequence[Latency]:
    measured = scores.filter(pl.col(DELAYS[0]).is_not_null()).sort(*DATASET_MARKET, "timestamp")
    number = (pl.col("timestamp").dt.date() - start).dt.total_days().alias("number")
    return [
        Latency(
            **dict(zip(DATASET_MARKET, (str(part) for part in key), strict=True)),
            days=tuple(days.select(number).to_series()),
            p50_ms=tuple(days["delay_p50_ms"].round(3)),
            p90_ms=tuple(days["delay_p90_ms"].round(3)),
            p99_ms=tuple(days["delay_p99_ms"].round(3)),
        )
        for key, days in measured.group_by(DATASET_MARKET, maintain_order=True)
    ]


def _build_provenance(data: ReportData, inputs: CheckInputs) -> Provenance:
    rows = dict(data.scores.group_by("dataset").agg(pl.col("rows").sum()).iter_rows())
    tables = tuple(
        TableVersion(name, table.table_id, table.version, rows[name])
        for name, table in sorted(inputs.tables.items())
        if name in rows and isinstance(table, Snapshot)
    )
    jobs = data.jobs.sort("timestamp", descending=True).head(_JOBS)
    return Provenance(
        tables,
        tuple(
            JobRecord(
                job_id=row["job_id"],
                command=row["command"],
                started_at=row["timestamp"],
                status=row["status"],
                rows=row["rows"] or 0,
            )
            for row in jobs.iter_rows(named=True)
        ),
        data.jobs.height,
    )


def _find_threshold(quality: QualitySettings, dataset: Dataset) -> float:
    """Find the threshold of the check `venue_deviation` for a table."""
    for check in configure(dataset, quality.checks, modules=quality.python_modules):
        bound = check.thresholds.get("threshold_bps")
        if check.name == "venue_deviation" and isinstance(bound, (int, float)):
            return float(bound)
    return _DEVIATION_BPS
