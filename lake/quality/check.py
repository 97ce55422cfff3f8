"""The contract of a check, and what checks share: columns of findings, runs of rows, words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from lake.model.dataset import TIMESTAMP, Dimension

CHECK_COLUMNS = pl.Schema(
    {
        "start": TIMESTAMP,
        "end": TIMESTAMP,
        "rows": pl.Int64(),
        "measured": pl.Float64(),
        "expected": pl.Float64(),
        "reason": pl.String(),
        "against": pl.String(),
        "severity": pl.String(),
        "message": pl.String(),
    }
)
"""What a check gives; only `start` is needed, the others are null by default.

- `start`, `end`: the interval `[start, end)`, within one UTC day; `end` defaults to just after.
- `rows`: how many rows (or, of gaps, missing slots) are concerned; 1 by default.
- `measured`, `expected`: the value that is wrong, and the value or bound that it should keep.
- `reason`: the class within the check, as `no_trade`; null where there is only one.
- `against`: what testifies, as `trades` or `kraken BTC/USDT`; null where nothing does.
- `severity`: where it differs from that of the check.
- `message`: one sentence for people, without the market and the time.
"""

CheckFunction = Callable[..., pl.LazyFrame]
"""A check: `function(slice, **thresholds)` returns columns of `CHECK_COLUMNS`, at least `start`.

It is pure, and is given exactly the thresholds that it names, by keyword. What it finds outside the
judged range is not counted.
"""


@dataclass(frozen=True, slots=True)
class BuiltinCheck:
    """A check of the product, and the part of the score that its findings lower."""

    function: CheckFunction
    dimension: Dimension


def group_runs(
    frame: pl.LazyFrame,
    bad: pl.Expr,
    *,
    time: str,
    end: pl.Expr | None = None,
    **facts: pl.Expr,
) -> pl.LazyFrame:
    """Neighbouring bad rows as one finding each: `start`, `end`, `rows` and `facts`.

    Runs are cut at midnight (UTC), so that what is found of a day depends on no other day.

    Parameters
    ----------
    frame
        Rows in order of `time`.
    bad
        Whether a row is; null counts as no.
    end
        Where a row ends; a microsecond after its time by default.
    facts
        Aggregations over the rows of a run, as `measured=pl.col("x").max()`.
    """
    last = pl.col(time).dt.offset_by("1us") if end is None else end
    day = pl.col(time).dt.date()
    return (
        frame.with_columns(_bad=bad.fill_null(value=False))
        .with_columns(_run=pl.col("_bad").rle_id())
        .filter("_bad")
        .with_columns(_end=last, _day=day)
        .group_by("_run", "_day", maintain_order=True)
        .agg(
            start=pl.col(time).first(),
            end=pl.col("_end").last(),
            rows=pl.len().cast(pl.Int64),
            **facts,
        )
        .drop("_run", "_day")
    )


def count_phrase(number: pl.Expr, one: str, many: str) -> pl.Expr:
    """A number with its words: `1 row is`, `2 rows are`."""
    return pl.format(
        "{} {}", number, pl.when(number == 1).then(pl.lit(one)).otherwise(pl.lit(many))
    )


def complete_columns(frame: pl.LazyFrame) -> pl.LazyFrame:
    """What a check gave, with all columns of `CHECK_COLUMNS`."""
    there = frame.collect_schema().names()
    absent = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in CHECK_COLUMNS.items()]
    full = frame.with_columns(column for column in absent if column.meta.output_name() not in there)
    return (
        full.select(list(CHECK_COLUMNS))
        .cast(CHECK_COLUMNS)
        .with_columns(
            pl.coalesce("end", pl.col("start").dt.offset_by("1us")).alias("end"),
            pl.col("rows").fill_null(1),
            # No table of a lake holds what is no number.
            *(pl.when(pl.col(name).is_finite()).then(name) for name in ("measured", "expected")),
        )
    )
