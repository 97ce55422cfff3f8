"""`ASOF JOIN` over many rows, files and markets finds what `as_of_join` finds."""

from __future__ import annotations

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.align.asof import as_of_join
from lake.api import Lake
from tests.conftest import MINUTE, T0, NewLake, bars, trades, write

JOIN = """
    SELECT t.exchange, t.symbol, t.timestamp, t.trade_id, b.close, b.timestamp AS open
    FROM trades t ASOF LEFT JOIN bars_1m b
    ON {keys} AND t.timestamp >= b.available_at
    ORDER BY ALL
"""
MARKET = "t.exchange = b.exchange AND t.symbol = b.symbol"


@pytest.fixture(scope="module")
def filled(new_lake: NewLake) -> Lake:
    """Write two days of two venues and two symbols; a day has several files."""
    lake = new_lake()
    for exchange in ("binance", "kraken"):
        for number, symbol in enumerate(("BTC/USDT", "ETH/USDT")):
            names = {"exchange": exchange, "symbol": symbol}
            start = T0 + 20 * number * MINUTE
            rows = bars(90, step=30 * MINUTE, start=start, **names)
            close = 100.0 + pl.int_range(pl.len()) % 7 / 10
            write(lake, "bars_1m", rows.with_columns(close=close, high=pl.lit(101.0)))
            for part in range(2):
                start = T0 + part * 7 * MINUTE
                some = trades(100, first=100 * part, start=start - 100 * part * 17 * MINUTE,
                              step=17 * MINUTE, **names)  # fmt: skip
                write(lake, "trades", some)
    return lake


@pytest.mark.parametrize("keys", [MARKET, f"{MARKET} AND t.date = b.date"])
def test_a_join_equals_that_of_frames(filled: Lake, keys: str) -> None:
    bundle = filled.bundles.pin("b", table=("bars_1m", "trades"), check=False)
    by = [name for name in ("exchange", "symbol", "date") if f"t.{name} = b.{name}" in keys]
    columns = ["close", "timestamp"]
    times = filled.scan("trades").sort("timestamp").collect()
    rows = filled.available("bars_1m").collect()
    joined = as_of_join(
        times, rows, staleness=None, by=by, on="timestamp", columns=columns, prefix="b_"
    )
    names = {"b_close": "close", "b_timestamp": "open"}
    expected = joined.rename(names).select(
        "exchange", "symbol", "timestamp", "trade_id", "close", "open"
    )
    assert expected.height == 800
    for reader in (filled, bundle):
        found = reader.sql(JOIN.format(keys=keys)).pl()
        assert_frame_equal(found, expected.sort(expected.columns))
