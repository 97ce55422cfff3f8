"""Known behaviour of venues that their answers do not show, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Behaviour of a venue.

    Attributes
    ----------
    omits_empty_bars
        The venue sends no bar for an interval without trades: a bar that is missing in an answer
        is no loss.
    """

    omits_empty_bars: bool = False


# "No data is published for intervals where there are no ticks."
# https://docs.cdp.coinbase.com/exchange/reference/exchangerestapi_getproductcandles
_COINBASE = Capabilities(omits_empty_bars=True)
# "Candles will not be generated if there was no trading volume during that candle."
# https://github.com/bitfinexcom/bitfinex-api-py/issues/198
_BITFINEX = Capabilities(omits_empty_bars=True)

_KNOWN: Mapping[str, Capabilities] = {
    "bitfinex": _BITFINEX,
    "coinbase": _COINBASE,
    "coinbaseexchange": _COINBASE,
}


def find_capabilities(exchange: str) -> Capabilities:
    """Return the known behaviour of an exchange, by ccxt's id; the defaults for others."""
    return _KNOWN.get(exchange, Capabilities())
