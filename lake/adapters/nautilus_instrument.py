"""Instruments of NautilusTrader, from the specifications in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lake.adapters.rows import require_package
from lake.bundles.bundle import Bundle
from lake.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from nautilus_trader.model.instruments import CryptoPerpetual, CurrencyPair


def instrument(
    bundle: Bundle,
    exchange: str,
    symbol: str,
    *,
    price_precision: int | None = None,
    size_precision: int | None = None,
) -> CurrencyPair | CryptoPerpetual:
    """Build the instrument of a market from its specification in the bundle.

    Its id is the venue's own name of the market, with `-PERP` for perpetuals, and the exchange in
    capitals: `BTCUSDT.BINANCE`, `BTCUSDT-PERP.BINANCE`, as in Nautilus' adapter for Binance.

    Parameters
    ----------
    price_precision, size_precision
        Decimal places; by default, those of the tick and the lot.

    Returns
    -------
    CurrencyPair or CryptoPerpetual
        CurrencyPair for spot, CryptoPerpetual for `BASE/QUOTE:SETTLE` swaps. The `multiplier` of a
        swap is its contract size. Fees are fractions, zero if the venue does not publish them;
        margins are zero.

    Raises
    ------
    UnknownNameError
        The bundle has no specification of the market.
    UsageError
        The tick or lot is unknown, the market is neither spot nor swap, a precision has fewer
        decimal places than the tick or the lot or more than Nautilus supports, or Nautilus is not
        installed.
    """
    instruments = require_package("nautilus_trader.model.instruments", "nautilus")
    specification = _find_specification(bundle, exchange, symbol)
    kind = specification["type"]
    if kind not in ("spot", "swap"):
        raise UsageError(
            f"{exchange} {symbol} is a {kind}; only spot and swap markets are supported",
            "Choose another symbol.",
        )
    values = _build_common_values(specification, price_precision, size_precision)
    if kind == "spot":
        return instruments.CurrencyPair(**values)
    return instruments.CryptoPerpetual(**values, **_build_swap_values(specification))


def to_nanoseconds(times: pl.Series) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Convert times to Unix time in nanoseconds, as uint64."""
    return (times.dt.epoch("us").cast(pl.UInt64) * 1000).to_numpy(writable=True)


def _find_specification(bundle: Bundle, exchange: str, symbol: str) -> dict[str, Any]:
    for row in bundle.manifest.instruments:
        if (row["exchange"], row["symbol"]) == (exchange, symbol):
            return row
    raise UnknownNameError(
        f"bundle {bundle.id[:12]} has no specification of {exchange} {symbol}",
        "Run `lake ingest instruments`, then pin the bundle again: its tick and lot are needed.",
    )


def _build_common_values(
    specification: Mapping[str, Any], price_precision: int | None, size_precision: int | None
) -> dict[str, Any]:
    """Return the arguments that all kinds of instruments share."""
    identifiers = require_package("nautilus_trader.model.identifiers", "nautilus")
    objects = require_package("nautilus_trader.model.objects", "nautilus")
    price_places = _choose_places(specification, "tick_size", price_precision)
    size_places = _choose_places(specification, "lot_size", size_precision)
    name, kind = specification["venue_symbol"], specification["type"]
    valid_from_ns = to_nanoseconds(
        pl.Series([datetime.fromisoformat(specification["valid_from"])])
    )[0]
    return {
        "instrument_id": identifiers.InstrumentId(
            identifiers.Symbol(f"{name}-PERP" if kind == "swap" else name),
            identifiers.Venue(specification["exchange"].upper()),
        ),
        "raw_symbol": identifiers.Symbol(name),
        "base_currency": objects.Currency.from_str(specification["base"]),
        "quote_currency": objects.Currency.from_str(specification["quote"]),
        "price_precision": price_places,
        "size_precision": size_places,
        "price_increment": objects.Price(_to_decimal(specification["tick_size"]), price_places),
        "size_increment": objects.Quantity(_to_decimal(specification["lot_size"]), size_places),
        "maker_fee": _to_decimal(specification["maker_fee"] or 0),
        "taker_fee": _to_decimal(specification["taker_fee"] or 0),
        "ts_event": int(valid_from_ns),
        "ts_init": int(valid_from_ns),
    }


def _build_swap_values(specification: Mapping[str, Any]) -> dict[str, Any]:
    """Return the additional arguments of a swap."""
    objects = require_package("nautilus_trader.model.objects", "nautilus")
    contract = _to_decimal(specification["contract_size"] or 1)
    return {
        "settlement_currency": objects.Currency.from_str(specification["settle"]),
        "is_inverse": specification["linear"] is False,
        "multiplier": objects.Quantity(contract, _count_places(contract)),
    }


def _choose_places(specification: Mapping[str, Any], step_name: str, precision: int | None) -> int:
    """Return the requested decimal places, or those of the step; never fewer than the step's."""
    objects = require_package("nautilus_trader.model.objects", "nautilus")
    market = f"{specification['exchange']} {specification['symbol']}"
    step = specification[step_name]
    if not step:
        raise UsageError(
            f"the bundle has no {step_name} for {market}",
            "Build the instrument yourself, and pass it as `specification`.",
        )
    fewest, most = _count_places(_to_decimal(step)), int(objects.FIXED_PRECISION)
    places = fewest if precision is None else precision
    if not fewest <= places <= most:
        raise UsageError(
            f"{places} decimal places do not fit {market}: its {step_name} is {step}",
            f"Use {fewest} to {most}."
            if fewest <= most
            else "Nautilus cannot represent its numbers.",
        )
    return places


def _to_decimal(number: float) -> Decimal:
    """Return the shortest decimal that equals a number."""
    return Decimal(repr(number))


def _count_places(number: Decimal) -> int:
    """Count the decimal places of a number without trailing zeros."""
    return max(0, -int(number.normalize().as_tuple().exponent))
