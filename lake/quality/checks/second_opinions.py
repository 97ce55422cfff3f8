"""Compare prices that look wrong with trades, finer bars and other venues."""

from __future__ import annotations

import polars as pl

from lake.model.grid import Grid
from lake.model.ohlcv import PRICES
from lake.model.slots import slot_of, start_of
from lake.quality.checks.bars import filter_observed
from lake.quality.checks.references import aggregate_references
from lake.quality.slice import NEAR_BARS, Reference, Slice

_SEEN = 0.5  # share of a move that confirms it if another venue has it


def aggregate_market(data: Slice) -> list[tuple[pl.LazyFrame, str]]:
    """Aggregate the market's own trades and finer bars to bars, with the table that they come from.

    Only bars without missing parts: `start`, `_open`, `_high`, `_low`, `_close`.
    """
    grid = data.grid
    if grid is None:
        return []
    start = start_of(pl.col("_slot"), grid).alias("start")
    prices = [f"_{name}" for name in PRICES]
    return [
        (bars.filter("_complete").select(start, *prices), table)
        for bars, table in aggregate_references(data, grid)
    ]


def compare_with_venues(data: Slice, candidates: pl.LazyFrame) -> pl.LazyFrame:
    """Compare candidates with other venues: half the move on another venue confirms it.

    Parameters
    ----------
    candidates
        `_row`, `start`, `_shape` (whole, close, open, high, low), and `_away`: the logarithm of the
        suspicious price divided by the normal price.

    Returns
    -------
    LazyFrame
        Candidates with `_confirmed` (null without a reference), `_against` (the reference), and
        `_own`: false.
    """
    grid = data.grid
    others = [other for other in data.others if other.grid == grid]
    own = pl.lit(value=False).alias("_own")
    if grid is None or not others:
        unknown = pl.lit(None, dtype=pl.Boolean).alias("_confirmed")
        return candidates.with_columns(unknown, own, _against=pl.lit(None, dtype=pl.String))
    moves = candidates.select("_row", "_shape", "_away", _slot=slot_of(pl.col("start"), grid))
    verdicts = (
        pl.concat(_measure_move(moves, other, grid) for other in others)
        .filter(pl.col("_seen").is_not_null())
        .group_by("_row", maintain_order=True)
        .agg(_confirmed=pl.col("_seen").max() >= _SEEN, _against=pl.col("_venue").first())
    )
    return candidates.join(verdicts, on="_row", how="left").with_columns(own)


def _measure_move(candidates: pl.LazyFrame, other: Reference, grid: Grid) -> pl.LazyFrame:
    """Measure the share of each move that another venue shows, at its own price."""
    slot = pl.col("_slot")
    beside = slot.shift(-1) - slot.shift(1) <= NEAR_BARS
    usual = (pl.col("close").shift(1) * pl.col("open").shift(-1)).sqrt()
    bars = (
        filter_observed(other)
        .select(*PRICES, _slot=slot_of(pl.col("timestamp"), grid))
        .with_columns(_usual=pl.when(beside).then(usual))
    )
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    moves = {
        "whole": pl.col("close") / pl.col("_usual"),
        "close": pl.col("close") / pl.col("_usual"),
        "open": pl.col("open") / pl.col("_usual"),
        "high": pl.col("high") / top,
        "low": pl.col("low") / bottom,
    }
    move = pl.coalesce(pl.when(pl.col("_shape") == name).then(moves[name]) for name in moves)
    return candidates.join(bars, on="_slot").select(
        "_row", _seen=move.log() / pl.col("_away"), _venue=pl.lit(str(other.market))
    )
