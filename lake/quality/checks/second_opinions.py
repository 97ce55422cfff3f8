"""Compare prices that look wrong with trades, finer bars and other venues."""

from __future__ import annotations

import polars as pl

from lake.model.grid import Grid
from lake.model.ohlcv import OHLCV, PRICES
from lake.model.slots import slot_of, start_of
from lake.quality.checks.bars import filter_observed
from lake.quality.checks.references import aggregate_references
from lake.quality.slice import NEAR_BARS, Reference, Slice

_SEEN = 0.5  # share of a move that confirms it if another venue has it
NO_WITNESS = "no trades, finer bars or other venues testify"
WITNESSES = (
    pl.when(pl.col("_confirmed").is_null())
    .then(pl.lit(NO_WITNESS))
    .otherwise(pl.format("not shown by {}", "_against"))
)
"""Who testifies against a price, for messages; see `judge_jumps`."""


def aggregate_market(data: Slice, *more: str) -> list[tuple[pl.LazyFrame, str]]:
    """Aggregate the market's own trades and finer bars to bars, with the table that they come from.

    Only bars without missing parts: `start`, `_rows`, `_open`, `_high`, `_low`, `_close`, and the
    columns `more`, such as `volume`, as `_volume`.
    """
    grid = data.grid
    if grid is None:
        return []
    start = start_of(pl.col("_slot"), grid).alias("start")
    names = [f"_{name}" for name in ("rows", *PRICES, *more)]
    return [
        (bars.filter("_complete").select(start, *names), table)
        for bars, table in aggregate_references(data, grid)
    ]


def pair_bars(data: Slice, other: Reference) -> pl.LazyFrame:
    """Pair bars with those of another venue by time: `time`, `OHLCV`, and `close_other` and so on.

    Open and filled bars are left out. Of checks that run together, this is done once.
    """

    def join() -> pl.LazyFrame:
        time = pl.col(data.dataset.time_column).alias("time")
        own = filter_observed(data).select(time, *OHLCV)
        names = [pl.col(name).alias(f"{name}_other") for name in OHLCV]
        theirs = filter_observed(other).select(time, *names)
        return own.join(theirs, on="time", how="inner", maintain_order="left")

    return data.share(f"pair {data.others.index(other)}", join)


def judge_jumps(data: Slice, jumps: pl.LazyFrame) -> pl.LazyFrame:
    """Judge by witnesses whether the price really jumped between two bars.

    The market's own trades and finer bars decide where they are complete; otherwise half of the
    jump on another venue confirms it.

    Parameters
    ----------
    jumps
        `start` of the bar after the jump, its `open`, and `_away`: the size of the jump as a
        logarithm.

    Returns
    -------
    LazyFrame
        Jumps with `_confirmed` (null without a witness) and `_against` (the witness).
    """
    opinions = [
        jumps.join(bars, on="start").select(
            "start",
            _seen=1 - ((pl.col("open") / pl.col("_open")).log() / pl.col("_away")).abs(),
            _witness=pl.lit(table),
            _rank=pl.lit(0),
        )
        for bars, table in aggregate_market(data)
    ]
    grid = data.grid
    others = [other for other in data.others if other.grid == grid]
    opinions += [_measure_jump(data, jumps, other) for other in others]
    if not opinions:
        return jumps.with_columns(
            _confirmed=pl.lit(None, dtype=pl.Boolean), _against=pl.lit(None, dtype=pl.String)
        )
    verdicts = (
        pl.concat(opinions)
        .drop_nulls("_seen")
        .filter(pl.col("_rank") == pl.col("_rank").min().over("start"))
        .group_by("start", maintain_order=True)
        .agg(_confirmed=pl.col("_seen").max() >= _SEEN, _against=pl.col("_witness").first())
    )
    return jumps.join(verdicts, on="start", how="left", maintain_order="left")


def find_agreeing_bars(data: Slice, closes: pl.LazyFrame, most: float) -> pl.LazyFrame:
    """Find bars whose close is at most `most`, as a logarithm, from that of any witness.

    Parameters
    ----------
    closes
        `start` and `close` of a few bars.

    Returns
    -------
    LazyFrame
        `start`, each once.
    """
    theirs = [bars.select("start", "_close") for bars, _ in aggregate_market(data)]
    theirs += [
        filter_observed(other).select(start=data.time, _close="close")
        for other in data.others
        if other.grid == data.grid
    ]
    if not theirs:
        return closes.clear().select("start")
    near = (pl.col("close") / pl.col("_close")).log().abs() <= most
    agreeing = [closes.join(bars, on="start").filter(near).select("start") for bars in theirs]
    return pl.concat(agreeing).unique()


def name_witnesses(data: Slice) -> str:
    """Name the witnesses that a slice has, for messages about what none of them shows."""
    names = ["trades"] if data.trades is not None else []
    names += [finer.dataset.name for finer in data.finer[:1]]
    names += [str(other.market) for other in data.others]
    return f"not shown by {', '.join(names)}" if names else NO_WITNESS


def _measure_jump(data: Slice, jumps: pl.LazyFrame, other: Reference) -> pl.LazyFrame:
    """Measure the share of each jump that another venue shows, in the same bar or the one before.

    Its price may move within a bar, and may have begun a little earlier.
    """
    time = data.dataset.time_column
    moves = []
    for bars in (1, 2):
        beside = pl.col(time) - pl.col(time).shift(bars) <= NEAR_BARS * pl.lit(data.step)
        before = pl.when(beside).then(pl.col("close").shift(bars))
        moves.append((pl.col("close") / before).log())
    theirs = filter_observed(other).select(start=pl.col(time), _one=moves[0], _two=moves[1])
    return jumps.join(theirs, on="start").select(
        "start",
        _seen=pl.max_horizontal(pl.col(name) / pl.col("_away") for name in ("_one", "_two")),
        _witness=pl.lit(str(other.market)),
        _rank=pl.lit(1),
    )


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
