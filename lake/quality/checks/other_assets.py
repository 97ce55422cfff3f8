"""Tell venues with the same asset from venues where another asset has the same symbol."""

from __future__ import annotations

import math
from datetime import timedelta

import polars as pl

from lake.model.time import DAY
from lake.quality.checks.returns import compute_returns
from lake.quality.slice import Reference, Slice

FACTOR = 1.5
"""Prices of one asset never differ by this factor for long; no market has such a premium."""
_HALF_HOUR = timedelta(minutes=30)
_MIN_POINTS = 20
"""Intervals that both sides must have: fewer can be uncorrelated by chance."""
_RELATED = 0.7
"""Correlation of returns from which two prices are of one asset. Coins move with the market."""


def split_assets(data: Slice) -> tuple[tuple[Reference, ...], tuple[Reference, ...]]:
    """Split `others` of a slice into those of the same asset and those of another.

    Another asset has prices that differ by a factor all the time, and returns that do not follow
    those of the market. A price that is wrong by a factor, or for a part of the time, is of the
    same asset.
    """
    if data.dataset.event != "bar" or not data.others:
        return data.others, ()
    own = _select_closes(data)
    same: list[Reference] = []
    strangers: list[Reference] = []
    for other in data.others:
        (strangers if _is_stranger(data, own, other) else same).append(other)
    return tuple(same), tuple(strangers)


def find_agreeing(venues: tuple[Reference, ...]) -> tuple[Reference, ...]:
    """Find the venues whose prices are those of another one of them, but for a premium."""
    return tuple(
        one for one in venues if any(_agree(one, other) for other in venues if other is not one)
    )


def _agree(one: Reference, other: Reference) -> bool:
    theirs = _select_closes(other).rename({"close": "_other"})
    apart = (pl.col("close") / pl.col("_other")).log().abs().median()
    pair = _select_closes(one).join(theirs, on="time").select(pl.len(), apart=apart).collect()
    points, distance = pair.row(0)
    return bool(points >= _MIN_POINTS and distance < math.log(FACTOR))


def _select_closes(bars: Slice | Reference) -> pl.LazyFrame:
    observed = pl.col("closed") & pl.col("fill").is_null()
    time = pl.col(bars.dataset.time_column).alias("time")
    return bars.frame.filter(observed).select(time, "close")


def _is_stranger(data: Slice, own: pl.LazyFrame, other: Reference) -> bool:
    theirs = _select_closes(other).rename({"close": "_other"})
    apart = (pl.col("close") / pl.col("_other")).log().abs()
    nearest = own.join(theirs, on="time").select(apart.min()).collect().item()
    if nearest is None or not nearest > math.log(FACTOR):
        return False
    return _moves_alone(data, other)


def _moves_alone(data: Slice, other: Reference) -> bool:
    """Whether returns of enough intervals do not follow each other."""
    length = max(data.step or _HALF_HOUR, _HALF_HOUR)
    if length > DAY:
        return False
    theirs = compute_returns(other, length).select("_slot", _theirs="_return")
    correlation = pl.corr("_return", "_theirs", method="spearman").fill_nan(None)
    facts = (
        compute_returns(data, length)
        .join(theirs, on="_slot")
        .select(_points=pl.len(), _correlation=correlation)
        .collect()
    )
    points, value = facts.row(0)
    return bool(points >= _MIN_POINTS and value is not None and value < _RELATED)
