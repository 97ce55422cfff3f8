"""Compute the quality of a market-day as numbers from 0 to 1.

R is the number of stored rows of the day, without interpolated rows (`fill` is `interpolated:last`
or `interpolated:linear`). `weight` is 1 for errors and critical findings, 0.1 for warnings and 0
for info. Over the findings of the day:

- completeness = R / (R + L), where L is the number of lost rows: missing slots that are
  `not_given`, `not_fetched`, `unknown`, `lost` or `refused`, time that a source no longer serves,
  skipped ids, missing funding events, and interpolated rows. Slots without a trade and outages of a
  whole venue are not losses. It is 1 if no row is expected.
- accuracy, consistency, timeliness = 1 - sum(weight x affected rows) / R over the findings of that
  dimension, and at least 0. Rejected rows count as affected, unless they count as missing bars.
- score = completeness x accuracy x consistency x timeliness, so that one bad dimension cannot be
  outweighed by the others.

Over several market-days, each of the five is the mean, weighted by R + L, but by at least 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.quality.checks.completeness import NO_LOSSES, REASONS

DIMENSIONS = ("completeness", "accuracy", "consistency", "timeliness")
_TENTHS: Mapping[str, int] = {"info": 0, "warning": 1, "error": 10, "critical": 10}
"""Weights in tenths: sums of whole numbers, and so the score, do not depend on the order."""
MEASURES = (*DIMENSIONS, "score")
DELAYS = ("delay_p50_ms", "delay_p90_ms", "delay_p99_ms")
_MEASURED = DIMENSIONS[1:]


DAYS = pl.Schema(
    {"timestamp": TIMESTAMP, "rows": pl.Int64(), **dict.fromkeys(DELAYS, pl.Float64())}
)
"""Columns per day that `score_days` needs."""


def score_days(days: pl.DataFrame, findings: pl.DataFrame) -> pl.DataFrame:
    """Compute the scores of the days of one market.

    Parameters
    ----------
    days
        `DAYS`: `timestamp` is the start of the day; `DELAYS` are null without receive times.
    findings
        With `start`, `rows`, `reason`, `severity`, `dimension`.

    Returns
    -------
    DataFrame
        One row per day with rows or findings, ordered by time: `timestamp`, `rows`, `expected`,
        missing slots by reason, `DIMENSIONS`, `score`, `DELAYS`.
    """
    sums = _sum_findings(findings)
    joined = days.join(sums, on="timestamp", how="full", coalesce=True).with_columns(
        pl.col("rows", *REASONS, "_losses", *(f"_{name}" for name in _MEASURED)).fill_null(0)
    )
    expected = (pl.col("rows") + pl.col("_losses")).alias("expected")
    whole = 10 * pl.max_horizontal(pl.col("rows"), 1)
    return (
        joined.with_columns(expected)
        .with_columns(
            pl.when(pl.col("expected") > 0)
            .then(pl.col("rows") / pl.col("expected"))
            .otherwise(1.0)
            .alias("completeness"),
            *((1.0 - pl.col(f"_{name}") / whole).clip(0.0, 1.0).alias(name) for name in _MEASURED),
        )
        .with_columns(score=pl.reduce(lambda a, b: a * b, [pl.col(n) for n in DIMENSIONS]))
        .select("timestamp", "rows", "expected", *REASONS, *MEASURES, *DELAYS)
        .sort("timestamp")
    )


def _sum_findings(findings: pl.DataFrame) -> pl.DataFrame:
    """Sum per day: missing slots by reason, `_losses`, and affected rows by dimension, weighted."""
    day = pl.col("start").dt.truncate("1d").alias("timestamp")
    missing = pl.col("dimension") == "completeness"
    reason = pl.when(pl.col("reason").is_in(REASONS)).then("reason").otherwise(pl.lit("lost"))
    is_loss = missing & ~reason.is_in(NO_LOSSES)
    tenths = pl.col("severity").replace_strict(_TENTHS, return_dtype=pl.Int64)
    return findings.group_by(day).agg(
        *(pl.col("rows").filter(missing & (reason == name)).sum().alias(name) for name in REASONS),
        pl.col("rows").filter(is_loss & (pl.col("severity") != "info")).sum().alias("_losses"),
        *(
            (tenths * pl.col("rows")).filter(pl.col("dimension") == name).sum().alias(f"_{name}")
            for name in _MEASURED
        ),
    )


def combine_scores(frame: pl.DataFrame) -> dict[str, float | None]:
    """Combine the five measures of several market-days; None without any day."""
    weight = pl.max_horizontal(pl.col("expected"), 1).cast(pl.Float64)
    if frame.is_empty():
        return dict.fromkeys(MEASURES)
    means = ((pl.col(name) * weight).sum() / weight.sum() for name in MEASURES)
    row = frame.select(mean.alias(name) for mean, name in zip(means, MEASURES, strict=True))
    return {name: float(value) for name, value in row.row(0, named=True).items()}
