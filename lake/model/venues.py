"""Known behaviour of venues that their answers do not show, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

Unit = Literal["base", "quote", "contracts"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Behaviour of a venue.

    Attributes
    ----------
    omits_empty_bars
        The venue sends no bar for an interval without trades: a bar that is missing in an answer
        is no loss.
    bar_offsets
        By timeframe, how much later than the timeframe's own grid bars open. Stored bars of a
        market override this.
    linear_volume, inverse_volume
        Unit of the volume of bars of linear and inverse derivatives, as ccxt gives it; None:
        unknown.
    funding_limit
        Largest absolute funding rate of an interval, as a fraction; None: unknown.
    needs_key
        The venue, or ccxt, asks for the API key for some public market data. No other venue gets
        the key.
    """

    omits_empty_bars: bool = False
    bar_offsets: Mapping[str, timedelta] = field(default_factory=dict)
    linear_volume: Unit | None = None
    inverse_volume: Unit | None = None
    funding_limit: float | None = None
    needs_key: bool = False


# "No data is published for intervals where there are no ticks."
# https://docs.cdp.coinbase.com/exchange/reference/exchangerestapi_getproductcandles
_COINBASE = Capabilities(omits_empty_bars=True)
# "Candles will not be generated if there was no trading volume during that candle."
# https://github.com/bitfinexcom/bitfinex-api-py/issues/198
_BITFINEX = Capabilities(omits_empty_bars=True)
# Daily candles open at midnight of UTC+8. https://github.com/huobiapi/API_Docs_en/issues/8
_HTX = Capabilities(bar_offsets={"1d": timedelta(hours=16)})
# ccxt's parse_ohlcv takes the volume in base of all contracts: of inverse ones column 7.
_BINANCE = Capabilities(linear_volume="base", inverse_volume="base")
# ccxt's parse_ohlcv takes `volCcy`, the volume in base, of all contracts.
_OKX = Capabilities(linear_volume="base", inverse_volume="base")
# ccxt's parse_ohlcv takes `turnover` of inverse contracts, which is in base.
_BYBIT = Capabilities(linear_volume="base", inverse_volume="base")
# Funding is capped at 4 % an hour:
# https://hyperliquid.gitbook.io/hyperliquid-docs/trading/funding
_HYPERLIQUID = Capabilities(linear_volume="base", funding_limit=0.04)
# ccxt's sign() requires credentials: of alpaca and mudrex for the list of markets, of luno for
# candles, of coinspot for trades and books, of modetrade and woofipro for candles and books.
_KEYED = Capabilities(needs_key=True)

_KNOWN: Mapping[str, Capabilities] = {
    "alpaca": _KEYED,
    "binance": _BINANCE,
    "binancecoinm": _BINANCE,
    "binanceusdm": _BINANCE,
    "bitfinex": _BITFINEX,
    "bybit": _BYBIT,
    "coinbase": _COINBASE,
    "coinbaseexchange": _COINBASE,
    "coinspot": _KEYED,
    "htx": _HTX,
    "huobi": _HTX,
    "hyperliquid": _HYPERLIQUID,
    "luno": _KEYED,
    "modetrade": _KEYED,
    "mudrex": _KEYED,
    "okx": _OKX,
    "woofipro": _KEYED,
}


def find_capabilities(exchange: str) -> Capabilities:
    """Return the known behaviour of an exchange, by ccxt's id; the defaults for others."""
    return _KNOWN.get(exchange, Capabilities())
