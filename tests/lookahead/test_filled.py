"""Rows that are derived or interpolated are not known before the rows that they were made from."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl

from lake.api import Lake
from lake.model.derive import derive_from_bars, derive_from_trades
from lake.model.grid import Grid
from lake.model.interpolate import interpolate_rows
from lake.model.timeframe import Timeframe
from tests.conftest import MINUTE, SECOND, T0, TIME, NewLake, bars, trades, write
from tests.lookahead.pairs import HOUR, SPOT

TIME_T = T0 + 20 * MINUTE
MARKET: dict[str, Any] = {"exchange": "binance", "symbol": SPOT}
RATES = """name = "rates"
title = "Rates"
description = "Rates that are known at their time."
rows = "revisable"
date = "year"
time_column = "timestamp"
key = ["timestamp"]
keep_when = "t.fill IS NULL AND s.fill IS NOT NULL"

[repair]
interpolate = "linear"

[columns]
timestamp = { type = "timestamp", unit = "UTC", meaning = "When it applies." }
rate = { type = "float64", unit = "fraction", meaning = "The rate." }
fill = { type = "string", nullable = true, meaning = "How it was filled." }

[columns.received_at]
type = "timestamp"
unit = "UTC"
nullable = true
digest = false
meaning = "When this machine received it."
"""


def fill(lake: Lake, table: str, rows: pl.DataFrame) -> None:
    """Store filled rows of the market."""
    names = {name: pl.lit(value) for name, value in MARKET.items()}
    written = write(lake, table, rows.with_columns(**names))
    assert written.inserted == rows.height > 0


def read_known(lake: Lake, table: str, time: datetime) -> list[pl.DataFrame]:
    """Read what was available at a time: all rows, and the newest."""
    rows = lake.available(table).filter(pl.col("available_at") <= time).collect()
    return [rows, lake.at(table, **MARKET, time=time)]


def assert_same(lakes: list[Lake], table: str) -> None:
    first, second = (read_known(lake, table, TIME_T) for lake in lakes)
    assert all(one.equals(other) for one, other in zip(first, second, strict=True))


def test_a_bar_of_trades_that_were_received_later(new_lake: NewLake) -> None:
    lakes = [new_lake(), new_lake()]
    for lake, price in zip(lakes, (100.0, 105.0), strict=True):
        received = pl.Series([TIME_T + HOUR] * 60, dtype=TIME)
        rows = trades(60, step=2 * SECOND, price=[price] * 60, received_at=received)
        write(lake, "trades", rows)
        stored = lake.scan("trades").collect()
        fill(lake, "bars_1m", derive_from_trades(stored, Grid(Timeframe.parse("1m"))))
    assert_same(lakes, "bars_1m")


def test_a_bar_of_finer_bars_that_were_received_later(new_lake: NewLake) -> None:
    lakes = [new_lake(), new_lake()]
    for lake, volume in zip(lakes, (1.0, 2.0), strict=True):
        received = pl.Series([None] * 14 + [TIME_T + HOUR], dtype=TIME)
        write(lake, "bars_1m", bars(15, received_at=received, volume=[1.0] * 14 + [volume]))
        finer, grid = (Grid(Timeframe.parse(name)) for name in ("1m", "15m"))
        stored = lake.scan("bars_1m").collect()
        fill(lake, "bars_15m", derive_from_bars(stored, finer, grid))
    assert_same(lakes, "bars_15m")


def test_a_value_between_its_neighbours(new_lake: NewLake) -> None:
    lakes = [new_lake(schemas={"rates": RATES}) for _ in range(2)]
    for lake, later in zip(lakes, (2.0, 3.0), strict=True):
        times = pl.Series([T0, TIME_T + 10 * MINUTE], dtype=TIME)
        rows = pl.DataFrame({"timestamp": times, "rate": [1.0, later]})
        fill(lake, "rates", rows)
        wanted = pl.Series([T0 + 15 * MINUTE], dtype=TIME)
        stored = lake.scan("rates").collect()
        fill(lake, "rates", interpolate_rows(lake.dataset("rates"), stored, wanted, "linear"))
    assert_same(lakes, "rates")
