"""Recorded bars, and what may testify beside them: a second venue, or trades of the same market.

The second venue of a market is made from its own bars: another price by a slow basis and a little
noise, and another volume. Trades are the recorded ones where there are such, and otherwise four of
each bar that agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from lake.model.intervals import RangeSet
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.quality.slice import Slice
from tests.quality.real import PERPETUAL, UNITTEST, XRP, recorded_bars, recorded_trades
from tests.quality.slices import reference_of, slice_of

FILES: Mapping[str, Market] = {
    "ftx_BTC-PERP_1m": PERPETUAL,
    "binance_UNITTEST-BTC_1m": UNITTEST,
    "binance_XRP-ETH_1m": XRP,
}
PRICES = ("open", "high", "low", "close")
WITNESSES = ("alone", "venue", "trades")
MINUTE = timedelta(minutes=1)
BASIS, MEMORY, NOISE = 3e-4, 0.995, 5e-5  # of the second venue: basis, its memory, noise of a price
VOLUME_SHARE, VOLUME_NOISE = 0.4, 0.6
TRADES_A_BAR = 4


@cache
def clean_bars(name: str) -> pl.DataFrame:
    """Bars of a file, in order of time."""
    return recorded_bars(name, FILES[name]).sort("timestamp")


@cache
def venue_bars(name: str) -> pl.DataFrame:
    """Bars of the same asset on a second venue."""
    frame = clean_bars(name)
    random = np.random.default_rng(len(name))
    basis = _slow_walk(frame.height, random)
    moved = {
        price: frame[price].to_numpy()
        * np.exp(basis + NOISE * random.standard_normal(frame.height))
        for price in PRICES
    }
    ends = np.stack([moved["open"], moved["close"]])
    moved["high"] = np.maximum(moved["high"], ends.max(axis=0))
    moved["low"] = np.minimum(moved["low"], ends.min(axis=0))
    noise = VOLUME_NOISE * random.standard_normal(frame.height)
    moved["volume"] = frame["volume"].to_numpy() * VOLUME_SHARE * np.exp(noise)
    return frame.with_columns(
        **{column: pl.Series(values) for column, values in moved.items()},
        exchange=pl.lit("other"),
    )


def _slow_walk(count: int, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """An autoregressive series of the size of the basis."""
    steps = random.standard_normal(count) * BASIS * np.sqrt(1 - MEMORY**2)
    values, value = np.empty(count), 0.0
    for row, step in enumerate(steps.tolist()):
        value = MEMORY * value + step
        values[row] = value
    return values


@cache
def bar_trades(name: str) -> pl.DataFrame:
    """Trades that agree with the bars exactly: the recorded ones, or four of each bar."""
    if FILES[name] == XRP:
        return recorded_trades()
    frame = clean_bars(name).filter(pl.col("volume") > 0)
    count, random = frame.height, np.random.default_rng(7)
    shares = random.dirichlet(np.ones(TRADES_A_BAR), count)
    offsets = np.sort(random.integers(0, 60_000_000, (count, TRADES_A_BAR)), axis=1)
    times = frame["timestamp"].dt.timestamp("us").to_numpy()[:, None] + offsets
    high_first = random.random(count) < 0.5
    high, low = frame["high"].to_numpy(), frame["low"].to_numpy()
    second, third = np.where(high_first, high, low), np.where(high_first, low, high)
    prices = np.stack([frame["open"], second, third, frame["close"]], axis=1)
    return pl.DataFrame(
        {
            "timestamp": pl.Series(times.ravel()).cast(pl.Datetime("us", "UTC")),
            "trade_id": pl.int_range(1, prices.size + 1, eager=True).cast(pl.String),
            "price": prices.ravel(),
            "amount": (frame["volume"].to_numpy()[:, None] * shares).ravel(),
            "side": pl.Series(random.choice(["buy", "sell"], prices.size)),
        }
    )


def bars_slice(name: str, frame: pl.DataFrame, witness: str) -> Slice:
    """Return the slice of some bars of a file with a witness of `WITNESSES`."""
    more: dict[str, Any] = {}
    if witness == "venue":
        other = Market("other", FILES[name].symbol)
        more["others"] = (reference_of("bars_1m", venue_bars(name), market=other),)
    if witness == "trades":
        more["trades"] = reference_of("trades", bar_trades(name), market=FILES[name])
    if FILES[name] == XRP:
        more |= {"omits_empty_bars": True, "coverage": _whole_range(clean_bars(name))}
    return slice_of("bars_1m", frame, market=FILES[name], **more)


def _whole_range(frame: pl.DataFrame) -> RangeSet:
    first, last = frame["timestamp"].min(), frame["timestamp"].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    return (TimeRange(first, last + MINUTE),)
