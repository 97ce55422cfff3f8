"""Trades and order books are checked the same, however their days are cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import DAY
from tests.jobs.quality.test_chunks import (
    MINUTES,
    Damage,
    assert_cuts_change_nothing,
    damaged,
    damages,
    on_kraken,
    ticks,
    walk,
)

DAYS = 3
TRADES = DAYS * 4 * 1440
BOOKS = DAYS * 288
KINDS = ("gone", "thin", "twice", "far", "large", "moved", "unsided")
_TO = {
    "far": ("price", pl.col("price") * 1.03),
    "large": ("amount", pl.col("amount") * 1000),
    "moved": ("timestamp", pl.col("timestamp").dt.offset_by("20m")),
    "unsided": ("side", pl.lit(None, dtype=pl.String)),
}
_OF_BOOKS = {
    "bid": ("bid_prices", pl.col("bid_prices") * 0.98),
    "amount": ("bid_amounts", pl.col("bid_amounts") * 1000.0),
    "fixed": ("sequence", pl.lit(7, dtype=pl.Int64)),
}


def hurt(frame: pl.DataFrame, rows: Sequence[Damage]) -> pl.DataFrame:
    """Do what `damaged` does, and what is known of trades and books only, to few rows."""
    for kind, first, count in rows:
        if kind in ("gone", "thin", "twice"):
            frame = damaged(frame, [(kind, first, count)])
            continue
        name, value = {**_TO, **_OF_BOOKS}[kind]
        few = pl.int_range(pl.len()).is_between(first, first + min(count, 20) - 1)
        frame = frame.with_columns(pl.when(few).then(value).otherwise(name).alias(name))
    return frame.sort("timestamp")


def sided(frame: pl.DataFrame) -> pl.DataFrame:
    """Trades of binance with sides."""
    side = pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("buy")).otherwise(pl.lit("sell"))
    return frame.with_columns(exchange=pl.lit("binance"), symbol=pl.lit("BTC/USDT"), side=side)


@settings(max_examples=8)
@given(st.integers(0, 99), damages(TRADES, 4 * 1440, *KINDS), st.booleans())
def test_trades_are_checked_the_same_however_they_are_cut(
    seed: int, rows: list[Damage], barred: bool
) -> None:
    bars = walk(np.random.default_rng(seed), MINUTES, DAYS * 1440)
    tables = {"trades": hurt(sided(ticks(bars, MINUTES)), rows)}
    if barred:
        tables["bars_1m"] = bars
    assert_cuts_change_nothing(tables, "trades", DAY)


def snapshots(bars: pl.DataFrame) -> pl.DataFrame:
    """A book each five minutes around the closes."""
    near = bars.gather_every(5).with_columns(pl.col("timestamp").dt.offset_by("10s"))
    steps = (0.0, 1.0, 2.0)
    amount = pl.col("volume")
    return near.select(
        "exchange",
        "symbol",
        "timestamp",
        sequence=pl.int_range(pl.len()),
        bid_prices=pl.concat_list(pl.col("close") * (1 - (1 + n) / 1e4) for n in steps),
        ask_prices=pl.concat_list(pl.col("close") * (1 + (1 + n) / 1e4) for n in steps),
        bid_amounts=pl.concat_list(amount / 7 + n / 3 for n in steps),
        ask_amounts=pl.concat_list(amount / 11 + n / 3 for n in steps),
        received_at=pl.col("timestamp").dt.offset_by("50ms"),
    )


@settings(max_examples=8)
@given(
    st.integers(0, 99),
    damages(BOOKS, 288, "gone", "thin", "moved", *_OF_BOOKS),
    st.booleans(),
    st.booleans(),
)
def test_books_are_checked_the_same_however_they_are_cut(
    seed: int, rows: list[Damage], traded: bool, elsewhere: bool
) -> None:
    bars = walk(np.random.default_rng(seed), MINUTES, DAYS * 1440)
    clean = snapshots(bars)
    tables = {"orderbooks": hurt(clean, rows)}
    if elsewhere:
        tables["orderbooks"] = pl.concat([tables["orderbooks"], on_kraken(clean)])
    if traded:
        tables["trades"] = sided(ticks(bars, MINUTES))
    assert_cuts_change_nothing(tables, "orderbooks", DAY)
