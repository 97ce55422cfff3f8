"""Kinds of defects of trades."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache, partial
from typing import Any

import numpy as np
import polars as pl

from lake.model.market import Market
from lake.quality.slice import Slice
from tests.quality.injection import recordings
from tests.quality.injection.count import Defect, Kind, Trial, find_all, pick_places, share_out
from tests.quality.real import XRP, recorded_trades
from tests.quality.slices import reference_of, slice_of

SOURCES: Mapping[str, tuple[Market, Callable[[], pl.DataFrame]]] = {
    "xrp": (XRP, lambda: recorded_trades().drop("cost")),
    "spot": (recordings.MARKETS["spot"], partial(recordings.recorded_trades, "spot")),
    "usdm": (recordings.MARKETS["usdm"], partial(recordings.recorded_trades, "usdm")),
}
SHARES = {"usdm": 15, "spot": 15, "xrp": 20}
BARS = {"xrp": "bars_1m", "spot": "bars_1s", "usdm": "bars_1s"}  # the short ones: of seconds
MOST = 5  # defects of a run
EDGE_ROWS = 200

Change = Callable[[pl.Expr, np.random.Generator], dict[str, pl.Expr]]


@cache
def clean_trades(name: str) -> pl.DataFrame:
    """Trades of a source, in order of time."""
    frame = SOURCES[name][1]()
    return frame.sort("timestamp", maintain_order=True)


@cache
def bars_of_trades(name: str) -> pl.DataFrame:
    """Bars of the trades of a source, of the table of `BARS`."""
    price, amount = pl.col("price"), pl.col("amount")
    return (
        clean_trades(name)
        .group_by(
            pl.col("timestamp").dt.truncate(BARS[name].removeprefix("bars_")), maintain_order=True
        )
        .agg(
            open=price.first(),
            high=price.max(),
            low=price.min(),
            close=price.last(),
            volume=amount.sum(),
        )
    )


def trades_slice(name: str, frame: pl.DataFrame, witness: str) -> Slice:
    """Return the slice of some trades of a source; the witness `bars` has the market's bars."""
    market = SOURCES[name][0]
    more: dict[str, Any] = {"has_consecutive_ids": True}
    if witness == "bars":
        more["bars"] = reference_of(BARS[name], bars_of_trades(name), market=market)
    return slice_of("trades", frame, market=market, **more)


@cache
def find_in_clean(name: str, witness: str) -> pl.DataFrame:
    """Findings of the trades as they were recorded."""
    return find_all(trades_slice(name, clean_trades(name), witness))


def multiply_amount(is_moved: pl.Expr, _: np.random.Generator) -> dict[str, pl.Expr]:
    """Multiply the amount by a thousand."""
    amount = pl.col("amount")
    return {"amount": pl.when(is_moved).then(amount * 1000).otherwise(amount)}


def move_time(is_moved: pl.Expr, random: np.random.Generator) -> dict[str, pl.Expr]:
    """Move the time by an hour, forwards or backwards."""
    time = pl.col("timestamp")
    hour = timedelta(hours=1) * (1 if random.random() < 0.5 else -1)
    return {"timestamp": pl.when(is_moved).then(time + hour).otherwise(time)}


def make_trials(
    random: np.random.Generator, count: int, witness: str, *, change: Change
) -> list[Trial]:
    """Make trials of all sources."""
    trials = []
    for name, number in share_out(count, SHARES, dict.fromkeys(SHARES, MOST)):
        clean = clean_trades(name)
        places = pick_places(random, range(clean.height), number, edge=EDGE_ROWS)
        is_moved = pl.int_range(pl.len()).is_in(places)
        wrong = clean.with_columns(**change(is_moved, random))
        defects = [Defect((wrong["timestamp"][place],)) for place in places]
        trials.append(
            Trial(find_in_clean(name, witness), trades_slice(name, wrong, witness), defects)
        )
    return trials


TRADE_KINDS = (
    Kind(
        "amount of a trade x1000",
        partial(make_trials, change=multiply_amount),
        {"alone": 0, "bars": 48},
        {"bars": "error"},
    ),
    Kind("trade moved by an hour", partial(make_trials, change=move_time), {"alone": 48}),
)
"""Kinds of defects of trades, with the least number of 50 that must be found."""
