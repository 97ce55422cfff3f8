"""Runs checks over a slice: what they find, with the rows around it, and what the days hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from lake.model.dataset import Dataset
from lake.model.interpolate import is_guess
from lake.model.time import DAY, iso
from lake.quality.check import CHECK_COLUMNS, complete_columns
from lake.quality.configure import ConfiguredCheck
from lake.quality.score import DAYS, DELAYS
from lake.quality.slice import Slice

FINDINGS = pl.Schema(
    {
        **CHECK_COLUMNS,
        "check": pl.String(),
        "dimension": pl.String(),
        "context": pl.String(),
    }
)
FOLDED_PATTERN = r"^\d+ more like this: "
"""How the message of a finding begins that stands for many of a day: a pattern."""

_SAME = ("check", "reason", "against")
_ORDER = ("start", *_SAME, "end", "measured", "message")  # of what else is the same, too
_A_DAY = 100  # findings of one kind; what is more is told as one
_WITH_CONTEXT = 20  # findings of one check and day
_ROWS_AROUND = 3
_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class CheckResult:
    """What checks say of a slice.

    Attributes
    ----------
    findings
        `FINDINGS`, in order of time; intervals without a trade are among them.
    days
        `lake.quality.score.DAYS`.
    """

    findings: pl.DataFrame
    days: pl.DataFrame


def run_checks(data: Slice, checks: Sequence[ConfiguredCheck]) -> CheckResult:
    """Run the checks over a slice."""
    lazy = [_run_check(check, data) for check in checks]
    *told, days = pl.collect_all([*lazy, _measure_days(data)])
    found = [_fold(frame) for frame in told if not frame.is_empty()]
    if not found:
        return CheckResult(pl.DataFrame(schema=FINDINGS), days)
    frame = data.frame.collect()
    shown = [_add_context(one, frame, data.dataset) for one in found]
    return CheckResult(pl.concat(shown).select(list(FINDINGS)).sort(_ORDER), days)


def format_context(frame: pl.DataFrame, times: pl.Series, start: datetime, end: datetime) -> str:
    """The rows around an interval as JSON: up to three before, the first three in it, three after.

    Parameters
    ----------
    frame, times
        Rows in order of time, and their times.
    """
    first = int(times.search_sorted(start, side="left"))
    last = max(first, int(times.search_sorted(end, side="left")))
    low, high = max(0, first - _ROWS_AROUND), min(frame.height, last + _ROWS_AROUND)
    if last - first > _ROWS_AROUND:
        parts = [frame[low : first + _ROWS_AROUND], frame[last:high]]
        around = pl.concat(parts)
    else:
        around = frame[low:high]
    skipped = {"exchange", "symbol", "date"}
    rows = [
        {name: _to_json_value(value) for name, value in row.items() if value is not None}
        for row in around.drop(skipped & set(around.columns)).iter_rows(named=True)
    ]
    return json.dumps(rows, separators=(",", ":"))


def _run_check(check: ConfiguredCheck, data: Slice) -> pl.LazyFrame:
    start = pl.col("start")
    return (
        complete_columns(check(data))
        .filter(start.is_between(data.range.start, data.range.end, closed="left"))
        .with_columns(
            pl.col("reason", "against").fill_null(""),
            pl.col("severity").fill_null(check.severity),
            pl.col("message").fill_null(f"found by {check.name}"),
            check=pl.lit(check.name),
            dimension=pl.lit(check.dimension),
        )
    )


def _measure_days(data: Slice) -> pl.LazyFrame:
    """Rows a day, and how late they came where that is known."""
    inside = data.frame.filter(data.is_inside())
    # What nobody has is not there.
    filled = "fill" in data.dataset.polars_schema
    there = (~is_guess(pl.col("fill"))).sum() if filled else pl.len()
    aggregates = [there.cast(pl.Int64).alias("rows")]
    if "received_at" in data.dataset.polars_schema:
        delay_ms = (pl.col("received_at") - data.time).dt.total_microseconds() / 1e3
        quantiles = zip(DELAYS, _QUANTILES, strict=True)
        aggregates += [delay_ms.quantile(q).alias(name) for name, q in quantiles]
    else:
        aggregates += [pl.lit(None, dtype=pl.Float64).alias(name) for name in DELAYS]
    return (
        inside.group_by(data.time.dt.truncate("1d").alias("timestamp"))
        .agg(aggregates)
        .select(list(DAYS))
        .sort("timestamp")
    )


def _fold(found: pl.DataFrame) -> pl.DataFrame:
    """At most a hundred findings of a kind and day: what is more becomes one."""
    day = pl.col("start").dt.date()
    number = pl.int_range(pl.len()).over(day, *_SAME)
    found = found.sort(_ORDER).with_columns(_number=number)
    kept = found.filter(pl.col("_number") < _A_DAY).drop("_number")
    rest = found.filter(pl.col("_number") >= _A_DAY)
    if rest.is_empty():
        return kept
    folded = (
        rest.group_by(day.alias("_day"), *_SAME, "severity", "dimension", maintain_order=True)
        .agg(
            pl.col("start").min(),
            pl.col("end").max(),
            pl.col("rows").sum(),
            pl.col("measured", "expected").first(),
            message=pl.format("{} more like this: {}", pl.len(), pl.col("message").first()),
        )
        .select(kept.columns)
    )
    return pl.concat([kept, folded])


def _add_context(found: pl.DataFrame, frame: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    times = frame[dataset.time_column]
    number = pl.int_range(pl.len()).over(pl.col("start").dt.date())
    shown = found.sort("start", maintain_order=True).with_columns(_number=number)
    texts = [
        _format_day_context(frame, times, dataset, start, end) if number < _WITH_CONTEXT else "[]"
        for start, end, number in shown.select("start", "end", "_number").iter_rows()
    ]
    return shown.drop("_number").with_columns(context=pl.Series(texts, dtype=pl.String))


def _format_day_context(
    frame: pl.DataFrame, times: pl.Series, dataset: Dataset, start: datetime, end: datetime
) -> str:
    """The context as it is seen whatever else is judged beside the day."""
    day, margin = start.replace(hour=0, minute=0, second=0, microsecond=0), dataset.margin
    low = int(times.search_sorted(day - margin, side="left"))
    high = int(times.search_sorted(day + DAY + margin, side="left"))
    return format_context(frame[low:high], times[low:high], start, end)


def _to_json_value(value: object) -> object:
    return iso(value.astimezone(UTC)) if isinstance(value, datetime) else value
