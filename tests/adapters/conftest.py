"""A bundle for the tests of all adapters: three markets, a gap, a bar that is still open."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from lake.api import Lake
from lake.bundles.bundle import Bundle
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, NewLake, bars, funding, trades, write

BTC, ETH, SWAP = "BTC/USDT", "ETH/USDT", "BTC/USDT:USDT"
BARS = 50
MISSING = 7
TABLES = ("bars_1m", "trades", "funding")


def varied_bars(symbol: str, count: int = BARS, **more: Any) -> pl.DataFrame:
    """Build bars with prices of two decimal places and volumes of five."""
    close = [round(100 + (7 * n) % 23 + n / 100, 2) for n in range(count)]
    return bars(
        count,
        symbol=symbol,
        open=[100.0, *close[:-1]],
        high=[round(one + 40.01, 2) for one in close],
        low=[round(one - 40.01, 2) for one in close],
        close=close,
        volume=[round(1 + n * 1.00001, 5) for n in range(count)],
        **more,
    )


def specification(symbol: str = BTC, **changes: Any) -> pl.DataFrame:
    """Build a row of `instruments`."""
    swap = ":" in symbol
    row: dict[str, Any] = {
        "exchange": "binance",
        "symbol": symbol,
        "valid_from": T0,
        "venue_symbol": symbol.partition(":")[0].replace("/", ""),
        "type": "swap" if swap else "spot",
        "base": symbol.partition("/")[0],
        "quote": "USDT",
        "settle": "USDT" if swap else None,
        "linear": True if swap else None,
        "active": True,
        "tick_size": 0.01,
        "lot_size": 0.00001,
        "contract_size": 1.0 if swap else None,
        "maker_fee": 0.001,
        "taker_fee": 0.002,
    }
    schema: dict[str, Any] = {"valid_from": TIME, "settle": pl.String, "linear": pl.Boolean}
    schema |= dict.fromkeys(("tick_size", "lot_size", "contract_size"), pl.Float64)
    return pl.DataFrame([row | changes], schema_overrides=schema)


def fill(lake: Lake) -> None:
    """Write bars without the one at `MISSING` and with an open one, trades and funding."""
    for symbol in (BTC, ETH, SWAP):
        rows = varied_bars(symbol)
        write(lake, "bars_1m", pl.concat([rows[:MISSING], rows[MISSING + 1 :]]))
        write(lake, "instruments", specification(symbol))
    write(lake, "bars_1m", bars(1, start=T0 + BARS * MINUTE, symbol=ETH, closed=[False]))
    sides = ["buy", "sell", None] * 4
    received = [None, None, T0 + DAY, None] * 3
    write(
        lake,
        "trades",
        trades(12, side=sides, received_at=pl.Series(received, dtype=TIME), amount=[0.25] * 12),
    )
    write(lake, "funding", funding([T0 + n * timedelta(hours=8) + SECOND / 250 for n in range(3)]))


@pytest.fixture(scope="module")
def filled(new_lake: NewLake) -> Lake:
    """A lake with the rows that the bundle pins."""
    lake = new_lake()
    fill(lake)
    return lake


@pytest.fixture(scope="module")
def bundle(filled: Lake) -> Bundle:
    """A bundle of all rows in the lake."""
    return filled.bundles.pin("b", table=TABLES)


def expected_bars(bundle: Bundle, symbol: str = BTC) -> pl.DataFrame:
    """Read the closed bars of a symbol from the bundle itself."""
    return bundle.scan("bars_1m", symbol=symbol).filter("closed").collect()
