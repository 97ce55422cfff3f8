"""What venues are known to do that no answer of theirs tells; each with where it is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a venue does.

    Attributes
    ----------
    omits_empty_bars
        It sends no bar for an interval in which nothing was traded: a bar that it left out of an
        answer is no loss.
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
    """What is known of an exchange, by ccxt's id; of others nothing is assumed."""
    return _KNOWN.get(exchange, Capabilities())
