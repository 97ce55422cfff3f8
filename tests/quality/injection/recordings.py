"""Trades and order books of ETH/USDT, spot and perpetual, recorded at once on one venue."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import cache
from typing import Any

import orjson
import polars as pl
import pytest

from lake.model.market import Market
from lake.model.time import from_ms
from tests.paths import SHARED
from tests.quality.checks.recorded_books import Levels

FOLDER = SHARED / "peers" / "01_binance_eth"
needs_recordings = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recorded data at {FOLDER}")
MARKETS = {"spot": Market("binance", "ETH/USDT"), "usdm": Market("binanceusdm", "ETH/USDT:USDT")}
DEPTH = 20
EVERY = 4  # of the changes of a book that are kept as snapshots


def _frames(name: str) -> Iterator[tuple[int, Any]]:
    """Frames of a recording with the time of reception in microseconds."""
    with gzip.open(FOLDER / f"{name}_ethusdt_20240808.gz") as lines:
        for received_ns, text in (line.split(b" ", 1) for line in lines):
            if b"bookTicker" not in text:
                frame = orjson.loads(text)
                yield int(received_ns) // 1000, frame.get("data", frame)


@cache
def recorded_trades(name: str) -> pl.DataFrame:
    """Trades of `spot` or `usdm`; orders of the venue's own at no price are no trades."""
    rows = [
        {
            "timestamp": trade["T"] * 1000,
            "trade_id": str(trade["t"]),
            "price": float(trade["p"]),
            "amount": float(trade["q"]),
            "side": "sell" if trade["m"] else "buy",
        }
        for _, trade in _frames(name)
        if trade.get("e") == "trade" and float(trade["p"]) > 0
    ]
    frame = pl.DataFrame(rows).unique("trade_id", keep="first", maintain_order=True)
    return frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))


@cache
def recorded_books(name: str) -> pl.DataFrame:
    """Books of `spot` or `usdm`: every few changes after the snapshot."""
    levels: Levels | None = None
    books, changes, last = [], 0, 0
    for _, frame in _frames(name):
        if "lastUpdateId" in frame:
            levels, last = Levels(frame["bids"], frame["asks"]), frame["lastUpdateId"]
        elif frame.get("e") == "depthUpdate" and levels is not None and frame["u"] > last:
            levels.change(frame["b"], frame["a"])
            changes += 1
            if changes % EVERY == 0:
                books.append(levels.row(from_ms(frame.get("T", frame["E"])), frame["u"], DEPTH))
    return pl.DataFrame(books).unique(["timestamp", "sequence"], keep="last", maintain_order=True)
