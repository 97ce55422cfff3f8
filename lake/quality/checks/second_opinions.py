"""Second opinions on prices that look wrong: of trades, finer bars, and other venues."""

from __future__ import annotations

import polars as pl

from lake.model.ohlcv import PRICES
from lake.model.slots import slot_of, start_of
from lake.model.timeframe import Timeframe
from lake.quality.checks.bars import filter_observed
from lake.quality.checks.reconciliation import aggregate_references
from lake.quality.slice import NEAR_BARS, Reference, Slice

_SEEN = 0.5  # share of a move that another venue must have seen, to confirm it


def aggregate_market(data: Slice) -> list[tuple[pl.LazyFrame, str]]:
    """Bars by the market's own trades and finer bars: `start`, `_open`, `_high`, `_low`, `_close`.

    Only those below which nothing is missing.
    """
    timeframe = data.dataset.timeframe
    if timeframe is None:
        return []
    start = start_of(pl.col("_slot"), timeframe).alias("start")
    prices = [f"_{name}" for name in PRICES]
    return [
        (bars.select(start, *prices), who) for bars, who in aggregate_references(data, timeframe)
    ]


def compare_with_venues(data: Slice, candidates: pl.LazyFrame) -> pl.LazyFrame:
    """Candidates with what other venues say of them: one that saw half the move confirms it.

    Parameters
    ----------
    candidates
        `_row`, `start`, `_shape` (whole, close, open, high, low), and `_away`: the logarithm of the
        price in question over the normal one.

    Returns
    -------
    LazyFrame
        With `_confirmed` (null where nobody testifies), `_against` (who does), and `_own`: false.
    """
    timeframe = data.dataset.timeframe
    own = pl.lit(value=False).alias("_own")
    if timeframe is None or not data.others:
        nobody = pl.lit(None, dtype=pl.Boolean).alias("_confirmed")
        return candidates.with_columns(nobody, own, _against=pl.lit(None, dtype=pl.String))
    asked = candidates.select("_row", "_shape", "_away", _slot=slot_of(pl.col("start"), timeframe))
    verdicts = (
        pl.concat(_measure_move(asked, other, timeframe) for other in data.others)
        .filter(pl.col("_seen").is_not_null())
        .group_by("_row", maintain_order=True)
        .agg(_confirmed=pl.col("_seen").max() >= _SEEN, _against=pl.col("_who").first())
    )
    return candidates.join(verdicts, on="_row", how="left").with_columns(own)


def _measure_move(asked: pl.LazyFrame, other: Reference, timeframe: Timeframe) -> pl.LazyFrame:
    """Which share of its move each asked bar shows on another venue, whatever its price level."""
    slot = pl.col("_slot")
    beside = slot.shift(-1) - slot.shift(1) <= NEAR_BARS
    usual = (pl.col("close").shift(1) * pl.col("open").shift(-1)).sqrt()
    bars = (
        filter_observed(other)
        .select(*PRICES, _slot=slot_of(pl.col("timestamp"), timeframe))
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
    return asked.join(bars, on="_slot").select(
        "_row", _seen=move.log() / pl.col("_away"), _who=pl.lit(str(other.market))
    )
