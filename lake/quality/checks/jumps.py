"""Measure how prices jump from bar to bar, in deviations.

A deviation is the median absolute return of the bars around, or, if that is larger, the 90th
percentile of the jumps from a close to the next open (in thin markets prices alternate between bid
and ask, so that the median means little). The centre is zero, because the median return of short
bars is.
"""

from __future__ import annotations

import polars as pl

from lake.model.grid import Grid
from lake.model.ohlcv import PRICES
from lake.model.slots import slot_of
from lake.quality.checks.bars import filter_observed, previous_value
from lake.quality.slice import Slice

EDGE = 0.9  # quantile of jumps between bars: the least size of a deviation
_UNSURE = 0.5  # deviations of blocks and of the window around a row differ by less than this factor


def measure_jumps(data: Slice, grid: Grid, window_rows: int) -> pl.LazyFrame:
    """Measure the jump of each bar from the previous bar, and its own change, as logarithms.

    A block is half a window of slots, so that blocks do not depend on the checked range.
    """
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    up, down = pl.col("high") / top - 1, bottom / pl.col("low") - 1
    return (
        filter_observed(data)
        .select(
            *PRICES,
            start=data.time,
            _in=(pl.col("open") / previous_value(data, "close")).log(),
            _body=(pl.col("close") / pl.col("open")).log(),
            _block=slot_of(data.time, grid) // (window_rows // 2),
        )
        .with_row_index("_row")
        .with_columns(
            _out=pl.col("_in").shift(-1),
            _earlier=pl.col("_body").shift(1),
            _later=pl.col("_body").shift(-1),
            _in_before=pl.col("_in").shift(1),
            _out_after=pl.col("_in").shift(-2),
            _far=pl.max_horizontal(pl.col("_in").abs(), pl.col("_in").shift(-1).abs()),
            _tail=pl.max_horizontal(up, down),
            _is_up=up >= down,
        )
    )


def measure_blocks(path: pl.LazyFrame, min_return: float) -> pl.LazyFrame:
    """Measure the size of a deviation in each block of rows.

    `_least`: the smallest one of the block and its neighbours, reduced by its uncertainty; `_near`:
    by returns alone.
    """
    jump, change = pl.col("_in").abs(), (pl.col("_in") + pl.col("_body")).abs()
    blocks = (
        path.group_by("_block")
        .agg(
            _first=pl.col("_row").first(),
            _median=change.median(),
            _edge=jump.quantile(EDGE),
            _returns=change,
            _jumps=jump,
        )
        .sort("_block")
        .with_columns(
            _deviation=pl.max_horizontal("_median", "_edge", pl.lit(min_return)),
            _near=pl.max_horizontal("_median", pl.lit(min_return)),
        )
    )
    around = [_neighbour_value("_deviation", step) for step in (-1, 0, 1)]
    return blocks.with_columns(_least=pl.min_horizontal(around) * _UNSURE)


def _neighbour_value(name: str, step: int) -> pl.Expr:
    """Return the value of the block `step` blocks later; null if that block has no bars."""
    other = pl.col("_block").shift(-step)
    return pl.when(other == pl.col("_block") + step).then(pl.col(name).shift(-step))


def filter_beyond(
    path: pl.LazyFrame, blocks: pl.LazyFrame, far: pl.Expr, tail: pl.Expr
) -> pl.LazyFrame:
    """Keep bars with a jump beside them, or a wick, beyond a bound of their block.

    The smallest bound of all blocks excludes almost all bars before the bounds are joined.
    """
    bounds = blocks.select("_block", "_near", _far_bound=far, _tail_bound=tail)
    least = bounds.select(pl.col("_far_bound", "_tail_bound").min())
    beyond = (pl.col("_far") >= pl.col("_far_bound")) | (pl.col("_tail") >= pl.col("_tail_bound"))
    few = path.join(least, how="cross").filter(beyond).drop("_far_bound", "_tail_bound")
    return few.join(bounds, on="_block").filter(beyond)
