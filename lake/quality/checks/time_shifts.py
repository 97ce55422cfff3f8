"""Find days whose times are those of another time zone, by other venues and by trades."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.time import DAY, MICROSECOND
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck
from lake.quality.checks.returns import compute_returns
from lake.quality.slice import Slice

_HALF_HOUR = timedelta(minutes=30)
_FARTHEST_HOURS = 14
_MIN_POINTS = 20
"""Half hours of a day that both sides must have: fewer can correlate by chance."""


def time_shift(data: Slice, *, poor: float, excellent: float) -> pl.LazyFrame:
    """Report days that fit a reference only if they are shifted by some hours: a wrong time zone.

    Compared is the rank correlation of half-hour returns with those of other venues and of the
    market's trades. The reason is the shift, such as `+8h`: the times of these rows are 8 hours too
    late. Bars of an hour and longer are compared by their own length, if a day has enough of them.

    Parameters
    ----------
    poor
        Only days whose correlation without a shift is below this are examined.
    excellent
        Smallest correlation with a shift at which the shift is reported.
    """
    length = max(data.step or _HALF_HOUR, _HALF_HOUR)
    others = [(other, str(other.market)) for other in data.others]
    references = [*others, *([(data.trades, "trades")] if data.trades else [])]
    if not references or DAY / length < _MIN_POINTS:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    own = compute_returns(data, length)
    findings = []
    for reference, name in references:
        theirs = compute_returns(reference, length)
        near = min(data.dataset.margin, DAY)
        shifts = _find_shifts(own, theirs, length, near, poor=poor, excellent=excellent)
        findings.append(shifts.select(**_shift_columns(data, name, length)))
    return pl.concat(findings)


def _shift_columns(data: Slice, reference: str, length: timedelta) -> dict[str, pl.Expr]:
    """Return the columns of findings of shifted days."""
    hours = _format_hours(pl.col("_lag") * (length / timedelta(hours=1)))
    return {
        "start": pl.col("_day"),
        "end": pl.min_horizontal(pl.col("_day").dt.offset_by("1d"), pl.lit(data.range.end)),
        "rows": pl.col("_rows"),
        "measured": pl.col("_zero"),
        "expected": pl.col("_best"),
        "reason": hours,
        "against": pl.lit(reference),
        "message": pl.format(
            "Times differ by {} from those of {}: returns correlate by {} with this shift, and "
            "by {} without it",
            hours,
            pl.lit(reference),
            pl.col("_best").round(2),
            pl.col("_zero").round(2),
        ),
    }


def _find_shifts(
    own: pl.LazyFrame,
    other: pl.LazyFrame,
    length: timedelta,
    near: timedelta,
    *,
    poor: float,
    excellent: float,
) -> pl.LazyFrame:
    """Find days (`_day`) that fit only with a shift: `_lag` in slots, `_zero`, `_best`, `_rows`.

    `_zero` is the correlation without a shift, `_best` the one with it. The reference is compared
    with as far as it lies completely within `near` around a day.
    """
    microseconds = length // MICROSECOND
    most = int(timedelta(hours=_FARTHEST_HOURS) / length)
    correlation = pl.corr("_return", "_return_other", method="spearman").fill_nan(None)
    enough = pl.len() >= _MIN_POINTS
    theirs = other.select(pl.col("_slot").alias("_at"), pl.col("_return").alias("_return_other"))
    days = own.with_columns(_day=(pl.col("_slot") * microseconds).cast(TIMESTAMP).dt.truncate("1d"))
    suspects = (
        days.join(theirs, left_on="_slot", right_on="_at")
        .group_by("_day")
        .agg(_zero=pl.when(enough).then(correlation), _rows=pl.col("_rows").sum())
        .filter(pl.col("_zero") < poor)
    )
    # The first slot has no return if the one before is not there.
    opens = (pl.col("_at") * microseconds).cast(TIMESTAMP)
    is_near = opens.is_between(
        pl.col("_day") - near + 2 * length, pl.col("_day") + DAY + near - length
    )
    lags = pl.lit(pl.Series(range(-most, most + 1), dtype=pl.Int64)).implode()
    return (
        days.drop("_rows")
        .join(suspects, on="_day")
        .with_columns(_lag=lags)
        .explode("_lag")
        .with_columns(_at=pl.col("_slot") - pl.col("_lag"))
        .filter(is_near)
        .join(theirs, on="_at")
        .group_by("_day", "_zero", "_rows", "_lag")
        .agg(_fit=pl.when(enough).then(correlation))
        .sort("_day", "_lag")
        .group_by("_day", "_zero", "_rows", maintain_order=True)
        .agg(_lag=pl.col("_lag").get(pl.col("_fit").arg_max()), _best=pl.col("_fit").max())
        .filter(pl.col("_best") >= excellent)
    )


def _format_hours(hours: pl.Expr) -> pl.Expr:
    """Format hours with a sign: `+8h`, `-5h30m`."""
    sign = pl.when(hours < 0).then(pl.lit("-")).otherwise(pl.lit("+"))
    minutes = (hours.abs() * 60).round().cast(pl.Int64)
    rest = pl.when(minutes % 60 == 0).then(pl.lit("")).otherwise(pl.format("{}m", minutes % 60))
    return pl.format("{}{}h{}", sign, minutes // 60, rest)


CHECKS: Mapping[str, BuiltinCheck] = {"time_shift": BuiltinCheck(time_shift, "accuracy")}
