"""Check bars by themselves: rules, zero volume; and measure long runs of bars."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase, select_few
from lake.quality.slice import Reference, Slice

_RUNS = {name: CHECK_COLUMNS[name] for name in ("start", "end", "rows", "measured", "expected")}


def filter_observed(bars: Slice | Reference) -> pl.LazyFrame:
    """Keep the closed bars of a venue: no open and no filled bars."""
    names = bars.dataset.polars_schema
    conditions = [pl.col("closed")] if "closed" in names else []
    conditions += [pl.col("fill").is_null()] if "fill" in names else []
    return bars.frame.filter(*conditions) if conditions else bars.frame


def broken_rules(data: Slice) -> pl.LazyFrame:
    """Report stored rows that break a rule of their dataset; the reason is the first such rule.

    Rows that `lake` stored obey the rules; rows that other engines wrote may not.
    """
    if not data.dataset.rules:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    broken = [(rule.name, ~rule.expression) for rule in data.dataset.rules]
    names = [pl.when(wrong).then(pl.lit(name)) for name, wrong in broken]
    bad = pl.any_horizontal(wrong for _, wrong in broken).fill_null(value=False)
    # Almost always no row is left here, so that grouping the rest is cheap.
    few = data.frame.with_row_index("_row").filter(bad).with_columns(_rule=pl.coalesce(names))
    follows = (pl.col("_row").diff() == 1) & (pl.col("_rule") == pl.col("_rule").shift(1))
    rule = pl.col("_rule").first()
    return (
        few.with_columns(_run=(~follows.fill_null(value=False)).cum_sum(), _day=data.time.dt.date())
        .group_by("_run", "_day", maintain_order=True)
        .agg(
            start=data.time.first(),
            end=end_of_row(data).last(),
            rows=pl.len().cast(pl.Int64),
            reason=rule,
            measured=pl.len().cast(pl.Float64),
            expected=pl.lit(0.0),
            message=pl.format(
                "{} the rule {}", count_phrase(pl.len(), "row breaks", "rows break"), rule
            ),
        )
        .drop("_run", "_day")
    )


def zero_volume(data: Slice, *, min_rows: int, times: float) -> pl.LazyFrame:
    """Report runs of bars without volume that are much longer than usual for the market."""
    bad = pl.col("volume") == 0
    text = "{} consecutive bars have no volume; {} would be usual"
    count, usual = pl.col("measured").cast(pl.Int64), pl.col("expected").round(1)
    runs = find_long_runs(data, bad, min_rows=min_rows, times=times)
    return runs.with_columns(message=pl.format(text, count, usual))


def previous_value(data: Slice, name: str, most: timedelta | None = None) -> pl.Expr:
    """Return the value of the previous bar; null if that is too far away, or has the same time.

    `most`: the largest distance, by default `Slice.reach`.
    """
    distance = data.time - data.time.shift(1)
    is_near = (distance > timedelta(0)) & (distance <= (data.reach if most is None else most))
    return pl.when(is_near).then(pl.col(name).shift(1))


def find_long_runs(data: Slice, bad: pl.Expr, *, min_rows: int, times: float) -> pl.LazyFrame:
    """Find runs of at least `min_rows` bars that are `times` longer than expected by chance.

    Columns as `measure_runs`.
    """
    least = pl.max_horizontal(min_rows, times * pl.col("expected"))
    return measure_runs(data, bad, min_rows).filter(pl.col("measured") >= least)


def measure_runs(data: Slice, bad: pl.Expr, min_rows: int) -> pl.LazyFrame:
    """Measure runs of at least `min_rows` bars: `start`, `end`, `rows`, `measured`, `expected`.

    If a share p of all bars is bad, independently of each other, runs have 1 / (1 - p) bars on
    average (`expected`), and one run in exp(n) is n times longer. Each day of a run gets the length
    of the whole run (`measured`); p is the share in the day and `Slice.reach` around it.
    """
    bars = filter_observed(data).select(data.time.alias("_time"), _bad=bad).with_row_index("_row")
    places = bars.select("_time", "_row")
    # Mostly few bars are left here.
    follows = pl.col("_row").diff() == 1
    rows = (
        bars.filter(pl.col("_bad").fill_null(value=False))
        .select("_time", "_row", _run=(~follows).fill_null(value=True).cum_sum())
        .with_row_index("_nth")
    )
    parts = select_few(_split_by_day(rows, data, min_rows))
    if parts is None:
        return pl.LazyFrame(schema=_RUNS)
    length = pl.min_horizontal("_last", "_high") - pl.max_horizontal("_first", "_low") + 1
    usual = 1 / (1 - pl.col("_bad") / pl.col("_all")).clip(1e-6)
    return (
        _add_day_counts(parts, places, rows, data)
        .with_columns(measured=length.cast(pl.Float64), expected=usual)
        .filter(pl.col("measured") >= min_rows)
        .select("start", "end", "rows", "measured", "expected")
    )


def _split_by_day(rows: pl.LazyFrame, data: Slice, min_rows: int) -> pl.LazyFrame:
    """Split runs that are long enough by day, with `_first` and `_last` row of the whole run."""
    return (
        rows.filter(pl.len().over("_run") >= min_rows)
        .with_columns(
            _first=pl.col("_row").min().over("_run"), _last=pl.col("_row").max().over("_run")
        )
        .group_by("_run", pl.col("_time").dt.truncate("1d").alias("_day"), maintain_order=True)
        .agg(
            pl.col("_first", "_last").first(),
            start=pl.col("_time").first(),
            end=end_of_row(data, "_time").last(),
            rows=pl.len().cast(pl.Int64),
        )
    )


def _add_day_counts(
    parts: pl.LazyFrame, places: pl.LazyFrame, rows: pl.LazyFrame, data: Slice
) -> pl.LazyFrame:
    """Add the first and last row of the day and its surroundings, and the number of bad rows."""
    around = parts.with_columns(
        _from=pl.col("_day") - data.reach, _to=pl.col("_day").dt.offset_by("1d") + data.reach
    )
    time = pl.col("_time")
    for frame, place, first, after in (
        (places, "_row", "_low", "_high"),
        (rows, "_nth", "_first_bad", "_last_bad"),
    ):
        number = pl.col(place).cast(pl.Int64)
        around = around.join_asof(
            frame.select(time.alias(f"_at{first}"), number.alias(first)),
            left_on="_from",
            right_on=f"_at{first}",
            strategy="forward",
        ).join_asof(
            frame.select(time.alias(f"_at{after}"), number.alias(after)),
            left_on="_to",
            right_on=f"_at{after}",
            strategy="backward",
            allow_exact_matches=False,
        )
    return around.with_columns(
        _bad=pl.col("_last_bad") - pl.col("_first_bad") + 1,
        _all=pl.col("_high") - pl.col("_low") + 1,
    )


def end_of_row(data: Slice, time: str | None = None) -> pl.Expr:
    """Return the end of a row."""
    start = pl.col(time or data.dataset.time_column)
    return start + pl.lit(data.step) if data.step else start.dt.offset_by("1us")


CHECKS: Mapping[str, BuiltinCheck] = {
    "broken_rules": BuiltinCheck(broken_rules, "accuracy"),
    "zero_volume": BuiltinCheck(zero_volume, "accuracy"),
}
