"""Define what a check returns, and what checks share: columns, runs of rows, phrases."""

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
"""Columns that a check returns. Only `start` is required; the others are null by default.

- `start`, `end`: the interval `[start, end)`, within one UTC day; `end` is `start` plus 1 us by
  default.
- `rows`: number of affected rows (for gaps: missing slots); 1 by default.
- `measured`, `expected`: the value in the table, and the expected value or limit.
- `reason`: the kind of defect, such as `no_trade`; null if the check has only one.
- `against`: the reference, such as `trades` or `kraken BTC/USDT`; null if there is none.
- `severity`: null for the severity of the check.
- `message`: one sentence, without the market and the time.
"""

CheckFunction = Callable[..., pl.LazyFrame]
"""A check: `function(slice, **thresholds)` returns columns of `CHECK_COLUMNS`, at least `start`.

It is pure, and gets the thresholds that it names, by keyword. Findings outside the checked range
are ignored.
"""


@dataclass(frozen=True, slots=True)
class BuiltinCheck:
    """A built-in check, and the dimension of the score that its findings lower."""

    function: CheckFunction
    dimension: Dimension


def select_few(frame: pl.LazyFrame) -> pl.LazyFrame | None:
    """Compute the rows that a check is about, mostly none: then None, and no plan is made of them.

    What follows is joined with rows that are known to be few, which is much cheaper.
    """
    rows = frame.collect()
    return None if rows.is_empty() else rows.lazy()


def group_runs(
    frame: pl.LazyFrame,
    bad: pl.Expr,
    *,
    time: str,
    end: pl.Expr | None = None,
    place: pl.Expr | None = None,
    **facts: pl.Expr,
) -> pl.LazyFrame:
    """Group neighbouring bad rows into one finding each: `start`, `end`, `rows` and `facts`.

    Runs are cut at midnight (UTC), so that the findings of a day do not depend on other days.

    Parameters
    ----------
    frame
        Rows, ordered by `time`.
    bad
        Whether a row is bad; null means no.
    end
        End of a row; 1 us after its time by default.
    place
        Number of each row, if some rows that are not bad are left out of `frame`.
    facts
        Aggregations over the rows of a run, such as `measured=pl.col("x").max()`.
    """
    last = pl.col(time).dt.offset_by("1us") if end is None else end
    day = pl.col(time).dt.date()
    numbered = frame.with_row_index("_place") if place is None else frame.with_columns(_place=place)
    is_cut = pl.col("_place").diff() != 1
    return (
        numbered.filter(bad)
        # Mostly no row is left here: whatever follows costs nothing.
        .with_columns(_run=is_cut.fill_null(value=True).cum_sum(), _end=last, _day=day)
        .group_by("_run", "_day", maintain_order=True)
        .agg(
            start=pl.col(time).first(),
            end=pl.col("_end").last(),
            rows=pl.len().cast(pl.Int64),
            **facts,
        )
        .drop("_run", "_day")
    )


def count_phrase(number: pl.Expr, singular: str, plural: str) -> pl.Expr:
    """Format a number with its words: `1 row is`, `2 rows are`."""
    words = pl.when(number == 1).then(pl.lit(singular)).otherwise(pl.lit(plural))
    return pl.format("{} {}", number, words)


def complete_columns(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Add the missing columns of `CHECK_COLUMNS` to the result of a check, and fill defaults."""
    names = frame.collect_schema().names()
    missing = {name: dtype for name, dtype in CHECK_COLUMNS.items() if name not in names}
    full = frame.with_columns(pl.lit(None, dtype=dtype).alias(n) for n, dtype in missing.items())
    return (
        full.select(list(CHECK_COLUMNS))
        .cast(CHECK_COLUMNS)
        .with_columns(
            pl.coalesce("end", pl.col("start").dt.offset_by("1us")).alias("end"),
            pl.col("rows").fill_null(1),
            # Tables of a lake hold no NaN and no infinity.
            *(pl.when(pl.col(name).is_finite()).then(name) for name in ("measured", "expected")),
        )
    )
