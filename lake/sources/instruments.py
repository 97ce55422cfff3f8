"""Instruments: converts ccxt's markets to rows of `instruments`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from ccxt.base.decimal_to_precision import DECIMAL_PLACES, TICK_SIZE

from lake.model.dataset import TIMESTAMP
from lake.model.time import from_ms

_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "venue_symbol": pl.String,
    "type": pl.String,
    "base": pl.String,
    "quote": pl.String,
    "settle": pl.String,
    "linear": pl.Boolean,
    "active": pl.Boolean,
    "tick_size": pl.Float64,
    "lot_size": pl.Float64,
    "min_amount": pl.Float64,
    "min_cost": pl.Float64,
    "contract_size": pl.Float64,
    "expiry": TIMESTAMP,
    "maker_fee": pl.Float64,
    "taker_fee": pl.Float64,
}


def build_instrument_row(market: Mapping[str, Any], precision_mode: int) -> pl.DataFrame:
    """Convert a market of ccxt to one row of `instruments`, without `valid_from`.

    Parameters
    ----------
    market
        ccxt's market: https://docs.ccxt.com/#/README?id=market-structure
    precision_mode
        ccxt's precision mode of the exchange: the meaning of the numbers in `precision`.
    """
    precision, limits = market.get("precision") or {}, market.get("limits") or {}
    row = {
        "venue_symbol": str(market["id"]),
        "type": market.get("type"),
        "base": market.get("base"),
        "quote": market.get("quote"),
        "settle": market.get("settle"),
        "linear": market.get("linear"),
        "active": market.get("active"),
        "tick_size": to_step_size(precision.get("price"), precision_mode),
        "lot_size": to_step_size(precision.get("amount"), precision_mode),
        "min_amount": _to_float((limits.get("amount") or {}).get("min")),
        "min_cost": _to_float((limits.get("cost") or {}).get("min")),
        "contract_size": _to_float(market.get("contractSize")),
        "expiry": None if market.get("expiry") is None else from_ms(int(market["expiry"])),
        "maker_fee": _to_float(market.get("maker")),
        "taker_fee": _to_float(market.get("taker")),
    }
    return pl.DataFrame([row], schema=_SCHEMA)


def to_step_size(precision: float | None, precision_mode: int) -> float | None:
    """Convert a precision of ccxt to a step.

    Significant digits have no fixed step, since it grows with the number: the result is None.
    """
    if precision is None:
        return None
    if precision_mode == TICK_SIZE:
        return float(precision)
    if precision_mode == DECIMAL_PLACES:
        return float(f"1e{-int(precision)}")
    return None


def _to_float(value: Any) -> float | None:
    return None if value is None else float(value)
