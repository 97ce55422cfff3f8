"""Compare prices of pools on a chain with the bars of exchanges."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.model.timeframe import Timeframe
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck
from lake.quality.checks.chain import has, sort_by_block
from lake.quality.checks.pools import pool_of
from lake.quality.slice import Reference, Slice

_INVERSE = 0.2
"""Largest relative difference at which a price counts as the inverse of another price."""


def dex_price(data: Slice, *, threshold_bps: float, duration: str, factor: float) -> pl.LazyFrame:
    """Report prices of a pool that are outside an exchange's bars for longer than `duration`.

    A price is compared with the low and the high of the bar of its time and the bar before,
    because blocks come some seconds late. `measured` is the largest distance from them, in basis
    points.

    `bad_data`: the price differs by more than `factor`, or is the inverse: wrong decimals, or
    swapped tokens. `arbitrage` (info): otherwise; fees and gas let prices differ.
    """
    price = next((n for n in ("pool_price_after", "price") if has(data, n)), None)
    references = [other for other in data.others if other.dataset.timeframe is not None]
    if price is None or not references:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    longest = timedelta(seconds=Timeframe.parse(duration).seconds)
    swaps = sort_by_block(data).select(*pool_of(data), _time=data.time, _price=pl.col(price))
    findings = [
        _group_outside(_add_bar_range(swaps, other), pool_of(data), threshold_bps, longest).select(
            **_describe(str(other.market), threshold_bps, factor)
        )
        for other in references
    ]
    # Several pools of one market may leave the bars at the same moment.
    return pl.concat(findings).unique(["start", "against"], keep="first", maintain_order=True)


def _add_bar_range(swaps: pl.LazyFrame, other: Reference) -> pl.LazyFrame:
    """Add `_low` and `_high` of the bars at the time of each swap."""
    timeframe = other.dataset.timeframe
    step = timedelta(seconds=timeframe.seconds) if timeframe else timedelta(0)
    adjacent = pl.col("_open").diff() == step
    bars = other.frame.filter("closed").select(
        pl.col(other.dataset.time_column).alias("_open"), "low", "high"
    )
    bars = bars.select(
        "_open",
        _low=pl.min_horizontal("low", pl.when(adjacent).then(pl.col("low").shift(1))),
        _high=pl.max_horizontal("high", pl.when(adjacent).then(pl.col("high").shift(1))),
    )
    joined = swaps.sort("_time", maintain_order=True).join_asof(
        bars.sort("_open"), left_on="_time", right_on="_open", coalesce=False
    )
    return joined.filter(pl.col("_time") < pl.col("_open") + step)


def _group_outside(
    frame: pl.LazyFrame, pool: list[str], threshold_bps: float, longest: timedelta
) -> pl.LazyFrame:
    """Group swaps of a pool outside the bars into runs of a minimum length, split by day."""
    price, low, high = (pl.col(name) for name in ("_price", "_low", "_high"))
    away = pl.when(price > high).then(price / high - 1).when(price < low).then(price / low - 1)
    frame = frame.sort(*pool, "_time", maintain_order=True) if pool else frame
    bad = pl.col("_away").abs() > threshold_bps
    keys = [bad, pl.col("_away").sign(), *map(pl.col, pool)]
    run = pl.struct(key.alias(str(n)) for n, key in enumerate(keys)).rle_id()
    length = pl.col("_time").max() - pl.col("_time").min()
    return (
        frame.with_columns(_away=away.fill_nan(None).fill_null(0.0) * 1e4)
        .with_columns(_run=run)
        .filter(bad)
        .with_columns(_length=length.over("_run"), _middle=(low + high) / 2)
        .filter(pl.col("_length") >= longest)
        .group_by("_run", pl.col("_time").dt.date().alias("_day"), maintain_order=True)
        .agg(
            pl.col("_length").first(),
            start=pl.col("_time").first(),
            end=pl.col("_time").last().dt.offset_by("1us"),
            rows=pl.len().cast(pl.Int64),
            measured=pl.col("_away").abs().max(),
            _ratio=(price / pl.col("_middle")).median(),
            _inverse=(price * pl.col("_middle")).median(),
        )
    )


def _describe(other: str, threshold_bps: float, factor: float) -> dict[str, pl.Expr]:
    """Return the columns of findings for runs of swaps outside the bars of a market."""
    bad = (pl.col("_ratio") > factor) | (pl.col("_ratio") < 1 / factor)
    inverse = bad & ((pl.col("_inverse") - 1).abs() < _INVERSE)
    why = (
        pl.when(inverse)
        .then(pl.lit("it is the inverse price"))
        .when(bad)
        .then(pl.format("it is wrong by a factor of {}", pl.col("_ratio").round_sig_figs(4)))
        .otherwise(pl.lit("neither price shows signs of an error"))
    )
    return {
        "start": pl.col("start"),
        "end": pl.col("end"),
        "rows": pl.col("rows"),
        "measured": pl.col("measured"),
        "expected": pl.lit(threshold_bps),
        "reason": pl.when(bad).then(pl.lit("bad_data")).otherwise(pl.lit("arbitrage")),
        "severity": pl.when(~bad).then(pl.lit("info")),
        "against": pl.lit(other),
        "message": pl.format(
            "The price of the pool is up to {} bps outside the bars of {} for {} minutes: {}",
            pl.col("measured").round(1),
            pl.lit(other),
            pl.col("_length").dt.total_minutes(),
            why,
        ),
    }


CHECKS: Mapping[str, BuiltinCheck] = {"dex_price": BuiltinCheck(dex_price, "consistency")}
