"""Bars and trades as venues recorded them, which lie beside the project."""

from __future__ import annotations

import polars as pl
import pytest

from lake.model.market import Market
from tests.paths import SHARED

DATA = SHARED / "cex"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"recorded data are not at {DATA}")

UNITTEST = Market("binance", "UNITTEST/BTC")
XRP = Market("binance", "XRP/ETH")
PERPETUAL = Market("ftx", "BTC/PERP")


def recorded_bars(name: str, market: Market) -> pl.DataFrame:
    """Bars of a file, as rows of a market."""
    return _of(pl.read_parquet(DATA / "bars" / f"{name}.parquet"), market).with_columns(
        closed=pl.lit(value=True)
    )


def recorded_trades() -> pl.DataFrame:
    """The trades of XRP/ETH."""
    frame = _of(pl.read_parquet(DATA / "trades" / "binance_XRP-ETH.parquet"), XRP)
    return frame.rename({"id": "trade_id"}, strict=False)


def _of(frame: pl.DataFrame, market: Market) -> pl.DataFrame:
    return frame.with_columns(
        pl.col("timestamp").cast(pl.Datetime("us", "UTC")),
        exchange=pl.lit(market.exchange),
        symbol=pl.lit(market.symbol),
    )
