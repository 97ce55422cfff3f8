"""Find prices that jump to another level for some bars and jump back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.model.time import DAY
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, select_few
from lake.quality.checks.jumps import MIN_BARS, measure_blocks, measure_jumps
from lake.quality.checks.second_opinions import WITNESSES, judge_jumps
from lake.quality.slice import Slice

_NEXT = 4  # jumps after a jump of which one may be the way back
_RETURNED = 0.25  # share of a jump by which the prices before and after an excursion may differ
_LEAST = 2  # bars of an excursion; a single bar is a spike


def excursions(
    data: Slice,
    *,
    deviations: float,
    alone_deviations: float,
    most_rows: int,
    window_rows: int,
    min_return: float,
) -> pl.LazyFrame:
    """Report some bars whose prices jump away between two bars, stay there, and jump back.

    `contradicted`: trades, finer bars or other venues do not show the first jump. `suspect`: there
    is no witness, and the jumps are far. If a witness shows the jump, the prices are real. Single
    bars are reported by `spikes`. A day has its part of an excursion that began before it if its
    witnesses reach back to the jump.

    Parameters
    ----------
    deviations, alone_deviations
        Smallest jump, with a witness and without one; a jump over missing bars must be larger by
        the square root of the number of bars.
    most_rows
        Largest length of an excursion, in bars: at most half of `window_rows`.
    window_rows, min_return
        As in `spikes`.
    """
    grid, step = data.grid, data.step
    if grid is None or step is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    path = measure_jumps(data, grid, window_rows)
    blocks = measure_blocks(data, path, min_return)
    edges = select_few(_find_edges(path, blocks, step, deviations))
    if edges is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    by_day = _spread_over_days(edges, window_rows // 2 * step)
    judged = judge_jumps(data, _match_edges(by_day, most_rows * step))
    alone = pl.col("_confirmed").is_null()
    far = (pl.col("_score") >= alone_deviations) & (pl.col("_bars") >= MIN_BARS)
    bad = judged.filter(~pl.col("_confirmed").fill_null(value=False), ~alone | far)
    return _split_by_day(bad, data, path).select(
        *("start", "end", "rows"),
        measured="_level",
        expected="_before",
        reason=pl.when(alone).then(pl.lit("suspect")).otherwise(pl.lit("contradicted")),
        severity=pl.when(alone).then(pl.lit("warning")),
        against="_against",
        message=pl.format(
            "Prices jump from {} to {}, by {} deviations, and {} bars later back to {}; {}",
            pl.col("_before").round_sig_figs(8),
            pl.col("_level").round_sig_figs(8),
            pl.col("_score").round(1),
            "_length",
            pl.col("_after").round_sig_figs(8),
            WITNESSES,
        ),
    )


def _find_edges(
    path: pl.LazyFrame, blocks: pl.LazyFrame, step: timedelta, deviations: float
) -> pl.LazyFrame:
    """Find bars that open far from the last close, and the size of that in deviations."""
    bounds = blocks.filter(pl.col("_farthest") >= deviations * pl.col("_most"))
    slots = (pl.col("start") - pl.col("_last")) / pl.lit(step)
    return (
        path.join(bounds.select("_block", "_most", "_bars"), on="_block", maintain_order="left")
        .filter(pl.col("_in").abs() >= deviations * pl.col("_most"))
        .with_columns(
            _score=pl.col("_in").abs() / pl.col("_most") / slots.clip(1.0).sqrt(),
            _before=pl.col("open") * (-pl.col("_in")).exp(),
        )
        .filter(pl.col("_score") >= deviations)
        .sort("_row")
    )


def _spread_over_days(edges: pl.LazyFrame, around: timedelta) -> pl.LazyFrame:
    """Repeat jumps for each `_day` that they are in, or not farther than this from."""
    time = pl.col("start")
    first, last = ((time + reach).dt.truncate("1d") for reach in (-around, around))
    days = pl.datetime_ranges(first, last, "1d").alias("_day")
    return edges.with_columns(days).explode("_day").sort("_day", "_row")


def _match_edges(edges: pl.LazyFrame, longest: timedelta) -> pl.LazyFrame:
    """Match each jump away with the next jump back: `_length`, `_level`, `_after`.

    Each day is looked at by itself: whether a jump is one back depends on those before it.
    """
    back = []
    row, before = pl.col("_row").cast(pl.Int64), pl.col("_before")
    for ahead in range(1, _NEXT + 1):
        there, jump, later, score, time = (
            pl.col(name).shift(-ahead).over("_day")
            for name in ("open", "_in", "_row", "_score", "start")
        )
        left = (there / before).log().abs()
        size = pl.min_horizontal(pl.col("_in").abs(), jump.abs())
        is_back = (time - pl.col("start") <= longest) & (left <= _RETURNED * size)
        is_back &= pl.col("_in") * jump < 0
        match = pl.struct(_length=later.cast(pl.Int64) - row, _after=there, _end=later, _back=score)
        back.append(pl.when(is_back).then(match))
    last_end = pl.col("_end").shift(1).over("_day").fill_null(0)
    return (
        edges.with_columns(_match=pl.coalesce(back))
        .filter(pl.col("_match").is_not_null())
        .unnest("_match")
        # A jump back is not the first jump of another excursion: in a chain, every second one is.
        .filter(pl.col("_row") >= last_end.cum_max().over("_day"))
        .with_columns(_chain=(pl.col("_row") != last_end).cum_sum())
        .filter(pl.int_range(pl.len()).over("_day", "_chain") % 2 == 0)
        .filter(pl.col("_length") >= _LEAST)
        .with_columns(
            _away=pl.col("_in"),
            _level="open",
            _score=pl.min_horizontal("_score", "_back"),
        )
    )


def _split_by_day(excursions: pl.LazyFrame, data: Slice, path: pl.LazyFrame) -> pl.LazyFrame:
    """Return the part of excursions in their `_day`, with the times of their bars."""
    row = pl.col("_row").cast(pl.Int64)
    rows = pl.int_ranges(row, row + pl.col("_length")).alias("_row")
    times = path.select(row, _time="start")
    facts = ("_before", "_level", "_after", "_score", "_length", "_confirmed", "_against")
    begins = pl.col("start") >= pl.col("_day") - _reach_of_witnesses(data)
    return (
        excursions.filter(begins)
        .with_columns(rows, _number=pl.col("_row"))
        .explode("_row")
        .join(times, on="_row")
        .filter(pl.col("_time").dt.truncate("1d") == pl.col("_day"))
        .sort("_row")
        .group_by("_number", "_day", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in facts),
            start=pl.col("_time").first(),
            end=pl.col("_time").last() + pl.lit(data.step),
            rows=pl.len().cast(pl.Int64),
        )
    )


def _reach_of_witnesses(data: Slice) -> timedelta:
    """Return how long before a day all witnesses are there: trades and finer bars about a day."""
    has_parts = data.trades is not None or data.finer
    step = data.step or timedelta(0)
    return max(DAY - step, timedelta(0)) if has_parts else data.reach


CHECKS: Mapping[str, BuiltinCheck] = {"excursions": BuiltinCheck(excursions, "accuracy")}
