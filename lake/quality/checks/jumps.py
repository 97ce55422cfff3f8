"""Measure how prices jump from bar to bar, in deviations.

A deviation is the median absolute return of the bars around, or, if that is larger, the 90th
percentile of the jumps from a close to the next open (in thin markets prices alternate between bid
and ask, so that the median means little). The centre is zero, because the median return of short
bars is.
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from lake.model.grid import Grid
from lake.model.ohlcv import PRICES
from lake.model.slots import slot_of
from lake.quality.checks.bars import filter_observed, previous_value
from lake.quality.slice import Slice

EDGE = 0.9  # quantile of jumps between bars: the least size of a deviation
MIN_BARS = 20  # bars around a price that are needed to call it far away without a witness
_WICKS = 0.97  # quantile of wicks: prices as far away as these are usual for the market
_UNSURE = 0.5  # deviations of blocks and of the window around a row differ by less than this factor


def measure_jumps(data: Slice, grid: Grid, window_rows: int) -> pl.LazyFrame:
    """As `_measure_jumps`, once for all checks."""
    return data.share(f"jumps {window_rows}", lambda: _measure_jumps(data, grid, window_rows))


def _measure_jumps(data: Slice, grid: Grid, window_rows: int) -> pl.LazyFrame:
    """Measure the jump of each bar from the previous bar, and its own change, as logarithms.

    `_far` is the larger one of the jumps beside a bar, `_tail` its longer wick.

    A block is half a window of slots, so that blocks do not depend on the checked range. So far
    back the previous bar may be, too: a block, its neighbours and what they are measured by are
    within a window and a half of each row.
    """
    half = window_rows // 2
    before = previous_value(data, "close", half * (data.step or timedelta(0)))
    return (
        filter_observed(data)
        .select(
            *PRICES,
            start=data.time,
            _last=data.time.shift(1),
            _in=(pl.col("open") / before).log(),
            _body=(pl.col("close") / pl.col("open")).log(),
            _block=(slot_of(data.time, grid) // half).set_sorted(),
        )
        .with_row_index("_row")
        .with_columns(
            _far=pl.max_horizontal(pl.col("_in").abs(), pl.col("_in").shift(-1).abs()),
            _tail=pl.max_horizontal(_measure_wicks().values()),
        )
    )


def _measure_wicks() -> dict[str, pl.Expr]:
    """Measure how far high and low are beyond open and close."""
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    return {"high": pl.col("high") / top - 1, "low": bottom / pl.col("low") - 1}


def add_neighbours(few: pl.LazyFrame, path: pl.LazyFrame) -> pl.LazyFrame:
    """Add how prices move before and after few bars, and whether the high is the longer wick.

    `_out`, `_out_after`: jumps into the next bar and the one after it; `_in_before`: into the bar
    before; `_earlier`, `_later`: changes of the bars before and after.
    """
    columns = {-1: {"_in": "_in_before", "_body": "_earlier"},
               1: {"_in": "_out", "_body": "_later"},
               2: {"_in": "_out_after"}}  # fmt: skip
    row, wicks = pl.col("_row").cast(pl.Int64), _measure_wicks()
    rows = pl.concat(few.select(_at=row + step) for step in columns).unique()
    near = path.select(_at=row, _in="_in", _body="_body").join(rows, on="_at", how="semi")
    beside = few.with_columns(_at=row, _is_up=wicks["high"] >= wicks["low"])
    for step, names in columns.items():
        other = near.select(pl.col("_at") - step, *(pl.col(n).alias(to) for n, to in names.items()))
        beside = beside.join(other, on="_at", how="left", maintain_order="left")
    return beside.drop("_at")


def measure_blocks(data: Slice, path: pl.LazyFrame, min_return: float) -> pl.LazyFrame:
    """As `_measure_blocks`, once for all checks."""
    return data.share(f"blocks {min_return}", lambda: _measure_blocks(path, min_return))


def _measure_blocks(path: pl.LazyFrame, min_return: float) -> pl.LazyFrame:
    """Measure the size of a deviation in each block of rows.

    `_least`: the smallest one of the block and its neighbours, reduced by its uncertainty; `_most`:
    the largest one; `_near`: by returns alone; `_wick`: the 97th percentile of wicks around;
    `_bars`: the number of bars of the block and its neighbours.
    """
    jump, change = pl.col("_in").abs(), (pl.col("_in") + pl.col("_body")).abs()
    blocks = (
        path.group_by("_block")
        .agg(
            _first=pl.col("_row").first(),
            _median=change.median(),
            _edge=jump.quantile(EDGE),
            _tails=pl.col("_tail").quantile(_WICKS),
            _count=pl.len().cast(pl.Int64),
            _farthest=pl.col("_far").max(),
            _longest=pl.col("_tail").max(),
        )
        .sort("_block")
        .with_columns(
            _deviation=pl.max_horizontal("_median", "_edge", pl.lit(min_return)),
            _near=pl.max_horizontal("_median", pl.lit(min_return)),
        )
    )
    sizes, wicks, counts = (
        [_neighbour_value(name, step) for step in (-1, 0, 1)]
        for name in ("_deviation", "_tails", "_count")
    )
    return blocks.with_columns(
        _least=pl.min_horizontal(sizes) * _UNSURE,
        _most=pl.max_horizontal(sizes),
        _wick=pl.max_horizontal(wicks),
        _bars=pl.sum_horizontal(counts),
    )


def _neighbour_value(name: str, step: int) -> pl.Expr:
    """Return the value of the block `step` blocks later; null if that block has no bars."""
    other = pl.col("_block").shift(-step)
    return pl.when(other == pl.col("_block") + step).then(pl.col(name).shift(-step))


def filter_beyond(
    path: pl.LazyFrame, blocks: pl.LazyFrame, far: pl.Expr, tail: pl.Expr
) -> pl.LazyFrame:
    """Keep bars with a jump beside them, or a wick, beyond a bound of their block.

    Almost all blocks have no such bar, and are left out before bars are compared.
    """
    bounds = blocks.with_columns(_far_bound=far, _tail_bound=tail).filter(
        (pl.col("_farthest") >= pl.col("_far_bound"))
        | (pl.col("_longest") >= pl.col("_tail_bound"))
    )
    beyond = (pl.col("_far") >= pl.col("_far_bound")) | (pl.col("_tail") >= pl.col("_tail_bound"))
    names = ("_block", "_near", "_far_bound", "_tail_bound")
    return path.join(bounds.select(names), on="_block", maintain_order="left").filter(beyond)
