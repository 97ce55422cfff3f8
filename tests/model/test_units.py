"""Units of amounts: what is known of a market, and conversions between them."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from lake.model.units import Units, find_units

PERPETUAL = "BTC/USDT:USDT"


def specification(linear: bool, size: float) -> dict[str, Any]:
    return {"type": "swap", "linear": linear, "contract_size": size}


@pytest.mark.parametrize(
    ("exchange", "symbol", "instrument", "units"),
    [
        ("binance", "BTC/USDT", None, Units()),
        ("nobody", "BTC/USDT", {"type": "spot", "linear": None, "contract_size": None}, Units()),
        ("okx", PERPETUAL, specification(True, 0.01), Units("contracts", "base", 0.01)),
        ("binance", PERPETUAL, specification(True, 1.0), Units("base", "base", 1.0)),
        ("okx", "BTC/USD:BTC", specification(False, 100), Units("contracts", "base", 100, True)),
        ("nobody", PERPETUAL, specification(True, 0.01), Units("contracts", None, 0.01)),
        ("okx", PERPETUAL, None, Units(None, None)),
        ("okx", PERPETUAL, specification(True, 0.01) | {"contract_size": None}, Units(None, None)),
    ],
)
def test_units_follow_from_the_venue_and_the_specification(
    exchange: str, symbol: str, instrument: dict[str, Any] | None, units: Units
) -> None:
    assert find_units(exchange, symbol, instrument) == units


LINEAR, INVERSE = Units(contract_size=0.01), Units(contract_size=100.0, inverse=True)


@pytest.mark.parametrize(
    ("units", "source", "target", "amount", "converted"),
    [
        (LINEAR, "contracts", "base", 40, 0.4),
        (LINEAR, "contracts", "quote", 40, 20_000),
        (LINEAR, "base", "contracts", 0.4, 40),
        (LINEAR, "quote", "base", 20_000, 0.4),
        (INVERSE, "contracts", "base", 40, 0.08),
        (INVERSE, "contracts", "quote", 40, 4_000),
        (INVERSE, "quote", "contracts", 4_000, 40),
        (Units(), "base", "quote", 2, 100_000),
        (Units(), "base", "base", 2, 2),
    ],
)
def test_amounts_are_converted_at_a_price_of_50_000(
    units: Units, source: Any, target: Any, amount: float, converted: float
) -> None:
    frame = pl.DataFrame({"amount": [float(amount)], "price": [50_000.0]})
    expression = units.convert(pl.col("amount"), pl.col("price"), source, target)
    assert expression is not None
    assert frame.select(expression.alias("x"))["x"][0] == pytest.approx(converted)


def test_without_a_contract_size_or_a_unit_nothing_is_converted() -> None:
    amount, price = pl.col("amount"), pl.col("price")
    assert Units().convert(amount, price, "contracts", "base") is None
    assert LINEAR.convert(amount, price, None, "base") is None
