"""Binance's hosts: the methods of each, and requests for one market."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lake.log import get_logger
from lake.model.time import TimeRange, to_ms_ceiling
from lake.sources.ccxt_client import Client, build_format_error
from lake.sources.frames import REQUIRED, find_unreadable_columns
from lake.sources.records import Records

T = TypeVar("T")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Api:
    """ccxt's implicit methods for one of Binance's hosts, and the maximum bars per page."""

    klines: str
    agg_trades: str
    funding: str
    bars_limit: int


_SPOT = Api("publicGetKlines", "publicGetAggTrades", "", 1000)
_USDM = Api("fapiPublicGetKlines", "fapiPublicGetAggTrades", "fapiPublicGetFundingRate", 1500)


def find_api(market: Mapping[str, Any]) -> Api | None:
    """Return the methods for a market of ccxt; None for COIN-M and options."""
    if market.get("spot"):
        return _SPOT
    return _USDM if market.get("linear") and not market.get("option") else None


class BinanceMarket:
    """Sends the requests for one market.

    Parameters
    ----------
    client
        A client of Binance.
    market
        A market of ccxt, spot or USD-M.
    """

    def __init__(self, client: Client, market: Mapping[str, Any]) -> None:
        api = find_api(market)
        if api is None:
            raise ValueError(f"{market['symbol']} is neither spot nor USD-M")
        self.client = client
        self.api = api
        self.symbol = str(market["symbol"])
        self.id = str(market["id"])

    async def call(self, method: str, request: dict[str, Any], read: Callable[[Any], T]) -> T:
        """Call a method for this market; see `Client.call`."""
        return await self.client.call(method, {"symbol": self.id, **request}, read=read)

    def require_readable(self, family: str, records: Records) -> Records:
        """Return the records.

        Raises
        ------
        SourceError
            No row of them can be read.
        """
        missing = find_unreadable_columns(records.frame, REQUIRED[family])
        if missing:
            raise build_format_error(self.client.id, f"{family} of {self.symbol} without {missing}")
        return records

    def report(self, event: str, **facts: object) -> None:
        """Log what is odd in the data of this market."""
        _log.warning(event, exchange=self.client.id, symbol=self.symbol, **facts)


def to_time_parameters(window: TimeRange) -> dict[str, int]:
    """Convert a half-open range to Binance's inclusive milliseconds."""
    return {
        "startTime": to_ms_ceiling(window.start),
        "endTime": to_ms_ceiling(window.end) - 1,
    }
