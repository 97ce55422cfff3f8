"""Place one source on a grid: its value at each point, and whether that is observed or filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from lake.align.asof import as_of_join
from lake.align.policies import Aggregate, AsOf, How, Resample
from lake.errors import UsageError
from lake.model.ohlcv import PRICES, aggregate_price, sum_all
from lake.model.visibility import AVAILABLE_AT
from lake.model.words import count

# The method by which a repair filled a row; null if the source sent the row.
STORED = "stored fill"
_KNOWN_AT = "known at"
_STEP_END = "end of step"
_BEFORE = "before "


@dataclass(frozen=True, slots=True)
class Grid:
    """Times, the grid time before the first, and the points: each time, or each time and market."""

    times: pl.Series
    before: datetime
    points: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Source:
    """Rows with `available_at` and `STORED`, the policy to apply, and the columns to place."""

    name: str
    rows: pl.LazyFrame
    how: How
    columns: tuple[str, ...]
    by: tuple[str, ...]

    @property
    def prefix(self) -> str:
        return f"{self.name}_"

    @property
    def added_columns(self) -> tuple[str, ...]:
        """The columns that the source adds to the points."""
        count = ("rows",) if isinstance(self.how, Resample) else ()
        return tuple(self.prefix + name for name in (*self.columns, "age", *count, "fill"))


def place_on_grid(source: Source, grid: Grid) -> pl.DataFrame:
    """Return the columns that a source adds, one row per point: see `Aligned`."""
    rows = _read_rows(source, grid)
    if isinstance(source.how, AsOf):
        return _join_as_of(source, source.how, rows, grid)
    return _resample(source, source.how, rows, grid)


def _read_rows(source: Source, grid: Grid) -> pl.DataFrame:
    """Read the rows that can count at a point, in the order in which they became known."""
    available_at = pl.col(AVAILABLE_AT)
    inside = available_at <= grid.times[-1]
    oldest = source.how.oldest(grid.times[0], grid.before)
    if oldest is not None:
        inside &= available_at >= oldest
    extra = ("close",) if source.how.fill == "flat" else ()
    wanted = dict.fromkeys([*source.by, AVAILABLE_AT, *source.columns, *extra, STORED])
    rows = source.rows.filter(inside | available_at.is_null()).select(list(wanted)).collect()
    nulls = rows[AVAILABLE_AT].null_count()
    if nulls:
        raise UsageError(
            f"source {source.name!r}: column {AVAILABLE_AT!r} is null in {count(nulls, 'row')}",
            "Set the column in those rows, or leave the rows out.",
        )
    return rows.sort(AVAILABLE_AT, maintain_order=True)


def _join_as_of(source: Source, how: AsOf, rows: pl.DataFrame, grid: Grid) -> pl.DataFrame:
    joined = _join_newest(source, rows, grid, how.reach, [*source.columns, STORED])
    age = pl.col(f"{source.prefix}age")
    has_value = age.is_not_null()
    fresh = has_value if how.fresh is None else has_value & (age <= how.fresh)
    values = [pl.col(source.prefix + name) for name in source.columns]
    if how.fill == "zero":
        values = [_fill_zero(has_value, value, joined.schema) for value in values]
    return joined.select(*values, age, _mark_fill(source, fresh, has_value))


def _resample(source: Source, how: Resample, rows: pl.DataFrame, grid: Grid) -> pl.DataFrame:
    prefix = source.prefix
    steps = _aggregate_steps(source, how, rows, grid)
    count, age = pl.col(f"{prefix}rows"), pl.col(f"{prefix}age")
    fresh, carried = count.is_not_null(), pl.lit(value=False)
    values = [pl.col(prefix + name) for name in source.columns]
    if how.carries:
        last = ["close"] if how.fill == "flat" else source.columns
        newest = _join_newest(source, rows, grid, how.reach, last).rename(_BEFORE.__add__)
        steps = steps.hstack(newest)
        carried = pl.col(f"{_BEFORE}{prefix}age").is_not_null()
        values = [_fill_carried(source, how, name, steps.schema) for name in source.columns]
        age = pl.coalesce(age, f"{_BEFORE}{prefix}age")
    elif how.fill == "zero":
        values = [_fill_zero(fresh, value, steps.schema) for value in values]
    row_count = count.fill_null(0).cast(pl.Int64)
    return steps.select(*values, age, row_count, _mark_fill(source, fresh, carried))


def _join_newest(
    source: Source,
    rows: pl.DataFrame,
    grid: Grid,
    staleness: timedelta | None,
    columns: Sequence[str],
) -> pl.DataFrame:
    """Return columns and age of the newest row that was known at each point."""
    prefix = source.prefix
    joined = as_of_join(
        grid.points, rows, staleness=staleness, by=source.by, columns=columns, prefix=prefix
    )
    return joined.drop(grid.points.columns)


def _aggregate_steps(source: Source, how: Resample, rows: pl.DataFrame, grid: Grid) -> pl.DataFrame:
    """Aggregate the rows that became known in the step up to each point; else nulls."""
    inside = rows.filter(pl.col(AVAILABLE_AT) > grid.before)
    step = grid.times.search_sorted(inside[AVAILABLE_AT], side="left")
    prefix = source.prefix
    aggregated = (
        inside.with_columns(grid.times.gather(step).alias(_STEP_END))
        .group_by(_STEP_END, *source.by)
        .agg(
            *(
                _build_aggregate(how.aggregate, name, rows.schema[name]).alias(prefix + name)
                for name in source.columns
            ),
            pl.len().alias(f"{prefix}rows"),
            pl.col(AVAILABLE_AT).last().alias(_KNOWN_AT),
            pl.col(STORED).drop_nulls().last().alias(prefix + STORED),
        )
    )
    steps = grid.points.join(
        aggregated,
        left_on=["time", *source.by],
        right_on=[_STEP_END, *source.by],
        how="left",
        maintain_order="left",
    )
    return steps.with_columns((pl.col("time") - pl.col(_KNOWN_AT)).alias(f"{prefix}age"))


def _build_aggregate(aggregate: Aggregate, name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if aggregate == "ohlcv" and name in PRICES:
        return aggregate_price(name, column)
    if aggregate == "mean":
        return column.mean()
    if aggregate == "last":
        return column.last()
    # A sum of 32-bit integers would overflow silently.
    return sum_all(column.cast(pl.Int64) if dtype in (pl.Int32, pl.UInt32) else column)


def _fill_zero(has_value: pl.Expr, value: pl.Expr, schema: pl.Schema) -> pl.Expr:
    name = value.meta.output_name()
    return pl.when(has_value).then(value).otherwise(pl.lit(0, schema[name])).alias(name)


def _fill_carried(source: Source, how: Resample, name: str, schema: pl.Schema) -> pl.Expr:
    """Take the value of a step, or the carried value if the step has no rows."""
    prefix = source.prefix
    carried = pl.col(f"{_BEFORE}{prefix}age").is_not_null()
    last = pl.col(_BEFORE + prefix + name)
    if how.fill == "flat":
        price = pl.col(f"{_BEFORE}{prefix}close")
        last = price if name in PRICES else pl.lit(0, schema[prefix + name])
    observed = pl.when(pl.col(f"{prefix}rows").is_not_null()).then(pl.col(prefix + name))
    return observed.when(carried).then(last).alias(prefix + name)


def _mark_fill(source: Source, fresh: pl.Expr, carried: pl.Expr) -> pl.Expr:
    """Mark how each value was filled; null if the value is observed."""
    fill = source.how.fill
    stored = pl.lit("stored:") + pl.col(source.prefix + STORED)
    rest = "zero" if fill == "zero" else "none"
    mark = pl.when(fresh).then(stored).when(carried).then(pl.lit(fill)).otherwise(pl.lit(rest))
    return mark.alias(f"{source.prefix}fill")
