"""Aggregates of bars, against what is written out by hand."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from lake.model.ohlcv import (
    PRICES,
    aggregate_bars,
    aggregate_price,
    aggregate_trades,
    mark_traded_prices,
    sum_all,
    weigh_trades,
)

TRADES = {
    "price": [10.0, 14.0, 8.0, 12.0],
    "amount": [1.0, 2.0, 3.0, 4.0],
    "side": ["buy", "sell", "buy", "sell"],
    "first_id": [1, 2, 5, 6],
    "last_id": [1, 4, 5, 9],
}


def bar_of(trades: dict[str, Any]) -> dict[str, Any]:
    schema = {"first_id": pl.Int64, "last_id": pl.Int64, "side": pl.String}
    rows = pl.DataFrame(trades, schema_overrides=schema).with_columns(**weigh_trades())
    return rows.select(**aggregate_trades()).row(0, named=True)


def test_trades_make_a_bar() -> None:
    prices = dict(zip(PRICES, (10.0, 14.0, 8.0, 12.0), strict=True))
    assert bar_of(TRADES) == prices | {
        "volume": 10.0,
        "quote_volume": 10.0 + 28.0 + 24.0 + 48.0,
        "trade_count": 1 + 3 + 1 + 4,
        "taker_buy_volume": 4.0,
        "taker_buy_quote_volume": 34.0,
    }


def test_what_is_unknown_of_a_trade_is_unknown_of_its_bar() -> None:
    bar = bar_of({**TRADES, "side": ["buy", None, "buy", "sell"], "last_id": [1, None, 5, 9]})
    unknown = {name for name, value in bar.items() if value is None}
    assert unknown == {"trade_count", "taker_buy_volume", "taker_buy_quote_volume"}


def test_without_a_buy_nothing_was_bought() -> None:
    bar = bar_of({**TRADES, "side": ["sell"] * 4})
    assert (bar["taker_buy_volume"], bar["taker_buy_quote_volume"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("volumes", "prices"),
    [
        ([0.0, 2.0, 3.0, 0.0], (2.0, 30.0, 0.2, 3.5)),
        ([1.0, 2.0, 3.0, 4.0], (1.0, 40.0, 0.1, 4.5)),
        ([0.0, 0.0, 0.0, 0.0], (1.0, 40.0, 0.1, 4.5)),
    ],
)
def test_prices_are_those_of_bars_with_a_volume_if_there_are_any(
    volumes: list[float], prices: tuple[float, ...]
) -> None:
    bars = pl.DataFrame(
        {
            "open": [1.0, 2.0, 3.0, 4.0],
            "high": [10.0, 20.0, 30.0, 40.0],
            "low": [0.1, 0.2, 0.3, 0.4],
            "close": [1.5, 2.5, 3.5, 4.5],
            "volume": volumes,
            "quote_volume": [1.0, None, 1.0, 1.0],
            "trade_count": [1, 2, 3, 4],
            "taker_buy_volume": volumes,
            "taker_buy_quote_volume": volumes,
        }
    )
    bar = bars.with_columns(**mark_traded_prices()).select(**aggregate_bars()).row(0, named=True)
    assert tuple(bar[name] for name in PRICES) == prices
    assert (bar["volume"], bar["quote_volume"], bar["trade_count"]) == (sum(volumes), None, 10)


def test_a_first_price_that_is_null_counts_unless_it_is_passed_over() -> None:
    rows = pl.DataFrame({"price": [None, 2.0, 3.0, None]})
    price = pl.col("price")
    kept = rows.select(aggregate_price("open", price), close=aggregate_price("close", price))
    assert kept.row(0) == (None, None)
    passed = [aggregate_price(name, price, ignore_nulls=True).alias(name) for name in PRICES]
    assert rows.select(passed).row(0) == (2.0, 3.0, 2.0, 3.0)
    assert rows.select(sum_all(price)).item() is None
