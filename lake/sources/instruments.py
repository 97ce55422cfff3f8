"""Instruments: converts ccxt's markets to rows of `instruments`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import polars as pl
from ccxt.base.decimal_to_precision import DECIMAL_PLACES, TICK_SIZE

from lake.model.dataset import TIMESTAMP
from lake.sources.frames import to_timestamps

# Later than any time that is stored, and small enough for 64 bits.
_BEYOND_MS = 2.0**62
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
        "maker_fee": _to_float(market.get("maker")),
        "taker_fee": _to_float(market.get("taker")),
    }
    expiry = to_timestamps([_find_expiry_ms(market)]).alias("expiry")
    return pl.DataFrame([row], schema=_SCHEMA).with_columns(expiry)


def to_step_size(precision: float | None, precision_mode: int) -> float | None:
    """Convert a precision of ccxt to a step.

    Significant digits have no fixed step, since it grows with the number: the result is None.
    """
    number = _to_float(precision)
    if number is None:
        return None
    if precision_mode == TICK_SIZE:
        return number
    if precision_mode == DECIMAL_PLACES:
        return float(f"1e{-int(number)}")
    return None


def _find_expiry_ms(market: Mapping[str, Any]) -> int | None:
    """Return the expiry of a dated derivative in Unix milliseconds; null if it has none.

    A perpetual swap does not expire; Deribit sends a time in the year 3000 for it.
    """
    if market.get("type") == "swap":
        return None
    number = _to_float(market.get("expiry"))
    return None if number is None else int(max(-_BEYOND_MS, min(number, _BEYOND_MS)))


def _to_float(value: Any) -> float | None:
    """Convert a number, or text of one; anything else is no value, and does not cost the others."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
