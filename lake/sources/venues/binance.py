"""Binance's spot and USD-M markets over its own endpoints: all columns, every page checked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe
from lake.sources.base import Page
from lake.sources.ccxt_client import Client
from lake.sources.venues.binance_api import BinanceMarket, find_api
from lake.sources.venues.binance_bars import BinanceBars
from lake.sources.venues.binance_funding import BinanceFunding
from lake.sources.venues.binance_trades import BinanceTrades

IDS = frozenset({"binance", "binanceusdm", "binanceus"})


def is_supported(exchange_id: str, market: Mapping[str, Any]) -> bool:
    """Return whether a market of ccxt is supported: spot and USD-M, not COIN-M or options."""
    return exchange_id in IDS and find_api(market) is not None


class BinanceVenue:
    """Fetches the pages of one market.

    Parameters
    ----------
    client
        A client of one of `IDS`.
    market
        A market of ccxt for which `is_supported` is true.
    """

    def __init__(self, client: Client, market: Mapping[str, Any]) -> None:
        own = BinanceMarket(client, market)
        self._bars = BinanceBars(own)
        self._trades = BinanceTrades(own, self._bars.first_day)
        self._funding = BinanceFunding(own, self._bars.first_day)

    def bars(self, timeframe: Timeframe, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the bars of a window; each page starts where the last one ended."""
        return self._bars.fetch(timeframe, window)

    def trades(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the aggregated trades of a window: the first page by time, the others by id."""
        return self._trades.fetch(window)

    def funding(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the funding rates of a window."""
        return self._funding.fetch(window)
