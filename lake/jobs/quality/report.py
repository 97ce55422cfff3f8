"""The report on quality of a lake, or of what is pinned, out of scores, findings and repairs."""

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
from lake.quality.configure import Overrides, configure
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
from lake.store.snapshot import Snapshot
from lake.version import VERSION

_REASONS: tuple[Reason, ...] = get_args(Reason)
_FINDINGS, _CONTEXT, _REPAIRS, _JOBS = 1_000, 9, 500, 100  # of context, all that is kept
_DEVIATION_BPS = 50.0


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made of.

    Attributes
    ----------
    scores, findings, repairs, jobs
        Rows of those tables; of findings, the open ones.
    """

    title: str
    lake_id: str
    made_at: datetime
    scores: pl.DataFrame
    findings: pl.DataFrame
    repairs: pl.DataFrame
    jobs: pl.DataFrame
    bundle_id: str | None = None


def build_report(facts: ReportInputs, inputs: CheckInputs, overrides: Overrides) -> Report:
    """The report on what was checked.

    Raises
    ------
    QualityError
        Nothing was.
    """
    if facts.scores.is_empty():
        raise QualityError(
            "there is nothing to report: no check has run over this selection",
            "Run `lake quality check` first.",
        )
    first, last = facts.scores.select(
        pl.col("timestamp").min(), last=pl.col("timestamp").max()
    ).row(0)
    start, end = first.date(), last.date() + DAY
    found = sort_by_severity(facts.findings)
    selection = Selection(start=first, end=last + DAY)
    return Report(
        title=facts.title,
        made_at=facts.made_at,
        made_by=f"lake {VERSION}",
        lake_id=facts.lake_id,
        bundle_id=facts.bundle_id,
        start=start,
        end=end,
        totals=_sum_totals(facts.scores, found),
        markets=tuple(_summarize_markets(facts.scores, found, start, end)),
        findings=tuple(_to_finding(row) for row in found.head(_FINDINGS).iter_rows(named=True)),
        findings_total=found.height,
        charts=build_charts(inputs, found),
        deviations=build_deviations(inputs, selection, found, partial(_find_threshold, overrides)),
        repairs=tuple(
            _to_repair(row) for row in facts.repairs.head(_REPAIRS).iter_rows(named=True)
        ),
        latency=tuple(_list_latencies(facts.scores, start)),
        provenance=_build_provenance(facts, inputs),
    )


def build_summary(made: Report) -> pl.DataFrame:
    """The report's figures a market."""
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
            for market in made.markets
        ]
    )


def build_overview(made: Report) -> pl.DataFrame:
    """The same in few columns, the worst market first: `weakest` is the part that costs most."""
    score = pl.col("score")
    parts = pl.concat_list(DIMENSIONS)
    weakest = parts.list.arg_min().replace_strict(dict(enumerate(DIMENSIONS)), default=None)
    return (
        build_summary(made)
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
    scores: pl.DataFrame, found: pl.DataFrame, start: date, end: date
) -> Sequence[MarketFigures]:
    by_market = found.partition_by(DATASET_MARKET, as_dict=True)
    nothing = found.clear()
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


def _sum_totals(scores: pl.DataFrame, found: pl.DataFrame) -> Totals:
    return Totals(
        _combine_scores(scores), *_count_rows(scores), _count_missing(scores), _count_open(found)
    )


def _list_days(days: pl.DataFrame, start: date, end: date) -> Days:
    count = (end - start).days
    shown: list[int | None] = [None] * count
    rows = [0] * count
    missing: list[tuple[int, Reason, int]] = []
    for row in days.iter_rows(named=True):
        number = (row["timestamp"].date() - start).days
        shown[number] = int(
            row["score"] * 10_000 + 1e-7
        )  # rounded down: a loss never looks like none
        rows[number] = row["rows"]
        missing.extend((number, reason, row[reason]) for reason in _REASONS if row[reason])
    return Days(tuple(shown), tuple(rows), tuple(missing))


def _combine_scores(days: pl.DataFrame) -> Scores:
    return Scores(**combine_scores(days))


def _count_rows(days: pl.DataFrame) -> tuple[int, int]:
    return int(days["rows"].sum()), int(days["expected"].sum())


def _count_missing(days: pl.DataFrame) -> MissingSlots:
    return MissingSlots(**{reason: int(days[reason].sum()) for reason in REASONS})


def _count_open(found: pl.DataFrame) -> OpenFindings:
    counts = dict(found.group_by("severity").len().iter_rows())
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
    inputs = scores.filter(pl.col(DELAYS[0]).is_not_null()).sort(*DATASET_MARKET, "timestamp")
    number = (pl.col("timestamp").dt.date() - start).dt.total_days().alias("number")
    return [
        Latency(
            **dict(zip(DATASET_MARKET, (str(part) for part in key), strict=True)),
            days=tuple(days.select(number).to_series()),
            p50_ms=tuple(days["delay_p50_ms"].round(3)),
            p90_ms=tuple(days["delay_p90_ms"].round(3)),
            p99_ms=tuple(days["delay_p99_ms"].round(3)),
        )
        for key, days in inputs.group_by(DATASET_MARKET, maintain_order=True)
    ]


def _build_provenance(facts: ReportInputs, inputs: CheckInputs) -> Provenance:
    rows = dict(facts.scores.group_by("dataset").agg(pl.col("rows").sum()).iter_rows())
    tables = tuple(
        TableVersion(name, table.table_id, table.version, rows[name])
        for name, table in sorted(inputs.tables.items())
        if name in rows and isinstance(table, Snapshot)
    )
    jobs = facts.jobs.sort("timestamp", descending=True).head(_JOBS)
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
        facts.jobs.height,
    )


def _find_threshold(overrides: Overrides, dataset: Dataset) -> float:
    """What counts as apart, as the check across venues has it."""
    for check in configure(dataset, overrides):
        bound = check.thresholds.get("threshold_bps")
        if check.name == "venue_deviation" and isinstance(bound, (int, float)):
            return float(bound)
    return _DEVIATION_BPS
