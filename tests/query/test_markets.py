"""Units of amounts by market: read from specifications, and shown by `describe`."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from lake.api import Lake
from lake.errors import UnknownNameError
from lake.model.market import Market, StoredMarket
from lake.model.units import Units
from lake.query.markets import find_market_units
from tests.conftest import T0, NewLake, bars, store_of, trades, write

SPOT, LINEAR, INVERSE = "BTC/USDT", "BTC/USDT:USDT", "BTC/USD:BTC"


def specification(symbol: str, linear: bool, size: float, day: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "exchange": ["okx"],
            "symbol": [symbol],
            "valid_from": [T0 + timedelta(days=day)],
            "venue_symbol": [symbol],
            "type": ["swap"],
            "base": ["BTC"],
            "quote": ["USDT"],
            "linear": [linear],
            "contract_size": [size],
        }
    )


@pytest.fixture(scope="module")
def filled(new_lake: NewLake) -> Lake:
    lake = new_lake()
    for symbol in (SPOT, LINEAR, INVERSE):
        write(lake, "trades", trades(exchange="okx", symbol=symbol))
    write(lake, "bars_1m", bars(exchange="okx", symbol=LINEAR))
    for row in (
        specification(LINEAR, True, 1.0),
        specification(LINEAR, True, 0.01, day=1),
        specification(INVERSE, False, 100.0),
    ):
        write(lake, "instruments", row)
    return lake


def unit(lake: Lake, column: str, table: str = "trades", symbol: str | None = None) -> str:
    described = lake.describe(table, symbol=() if symbol is None else symbol)
    found: str = described.filter(pl.col("column") == column)["unit"].item()
    return found


def test_the_newest_specification_counts_for_stored_markets_too(filled: Lake) -> None:
    units = Units("contracts", "base", 0.01)
    for kind in (Market, StoredMarket):
        assert find_market_units(store_of(filled), kind("okx", LINEAR)) == units


def test_describe_shows_the_unit_of_each_market_that_differs(filled: Lake) -> None:
    assert unit(filled, "amount") == (
        "base; contracts of 100 quote on okx BTC/USD:BTC; "
        "contracts of 0.01 base on okx BTC/USDT:USDT"
    )
    assert unit(filled, "amount", symbol=LINEAR) == "contracts of 0.01 base"
    assert unit(filled, "amount", symbol=SPOT) == "base"
    assert unit(filled, "volume", "bars_1m") == "base"
    assert unit(filled, "price") == "quote"


def test_units_without_a_specification_are_unknown(new_lake: NewLake) -> None:
    lake = new_lake()
    assert unit(lake, "amount") == "base"
    write(lake, "trades", trades(exchange="kraken", symbol=LINEAR))
    assert unit(lake, "amount") == "unknown"


def test_describe_knows_the_markets_of_all_tables_and_no_others(new_lake: NewLake) -> None:
    lake = new_lake()
    assert unit(lake, "amount", symbol="NO/SUCH") == "base", "an empty lake refuses none"
    write(lake, "instruments", specification(LINEAR, True, 0.01))
    write(lake, "bars_1m", bars(exchange="okx", symbol=SPOT))
    for symbol in (LINEAR, SPOT):
        assert lake.describe("trades", exchange="okx", symbol=symbol).height > 0
    with pytest.raises(UnknownNameError, match="NO/SUCH"):
        lake.describe("trades", symbol="NO/SUCH")
