"""Binance's spot and USD-M markets over its own endpoints: every column, every page checked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lake.log import get_logger
from lake.model.time import MILLISECOND, TimeRange, iso, to_ms_ceiling
from lake.model.timeframe import Timeframe
from lake.sources.base import Page
from lake.sources.ccxt_client import Client, drift
from lake.sources.faults import ANSWERS_COMPARED, agreed, contradiction
from lake.sources.frames import REQUIRED, bars_known_until, part, unreadable
from lake.sources.venues.binance_pages import (
    checked_funding,
    checked_klines,
    checked_trades,
    parse_agg_trades,
    parse_funding,
    parse_klines,
    trade_gaps,
)

IDS = frozenset({"binance", "binanceusdm", "binanceus"})

_TRADES_LIMIT = 1000
_FUNDING_LIMIT = 1000
# `aggTrades` refuses more between startTime and endTime
_TRADES_HOURS = timedelta(hours=1)
_LONGEST_FUNDING_INTERVAL = timedelta(hours=8, minutes=1)

# How long after the fact Binance's replicas may still serve something else
_BARS_SETTLE = timedelta(seconds=5)
_TRADES_SETTLE = timedelta(seconds=10)
_FUNDING_SETTLE = timedelta(minutes=1)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Api:
    """ccxt's implicit methods of one of Binance's hosts, and the most bars a page."""

    klines: str
    agg_trades: str
    funding: str
    bars_limit: int


_SPOT = _Api("publicGetKlines", "publicGetAggTrades", "", 1000)
_USDM = _Api("fapiPublicGetKlines", "fapiPublicGetAggTrades", "fapiPublicGetFundingRate", 1500)


def serves(exchange_id: str, market: Mapping[str, Any]) -> bool:
    """Whether a market of ccxt's is asked for here: spot and USD-M, not COIN-M or options."""
    return exchange_id in IDS and _api(market) is not None


def _api(market: Mapping[str, Any]) -> _Api | None:
    if market.get("spot"):
        return _SPOT
    return _USDM if market.get("linear") and not market.get("option") else None


class BinanceVenue:
    """Pages of one market.

    Parameters
    ----------
    client
        Connected to one of `IDS`.
    market
        ccxt's market, one that `serves` says yes to.
    """

    def __init__(self, client: Client, market: Mapping[str, Any]) -> None:
        api = _api(market)
        if api is None:
            raise ValueError(f"{market['symbol']} is neither spot nor USD-M")
        self._client = client
        self._api = api
        self._symbol = str(market["symbol"])
        self._id = market["id"]

    async def bars(self, timeframe: Timeframe, window: TimeRange) -> AsyncGenerator[Page]:
        """Bars of a window, page by page; each page goes on where the last one ended."""
        known, at = window.start, timeframe.ceiling(window.start)
        while known < window.end and at < self._client.venue_now():
            reached = self._client.venue_now() - _BARS_SETTLE
            if at >= window.end:
                nothing = checked_klines(parse_klines([]), timeframe, window, reached)
                yield Page(nothing, part(known, min(window.end, reached)))
                return
            end = min(timeframe.after(at, self._api.bars_limit), window.end)
            bars, following = await self._bars_page(timeframe, TimeRange(at, end), window.end)
            at = timeframe.after(bars["timestamp"][-1]) if bars.height else following
            until = min(at, window.end)
            settled_end = min(until, bars_known_until(bars, timeframe, reached))
            yield Page(bars, part(known, settled_end))
            known = until

    async def _bars_page(
        self, timeframe: Timeframe, page: TimeRange, end: datetime
    ) -> tuple[pl.DataFrame, datetime]:
        """The bars of a page, and where the next bar before `end` opens if it has none.

        A page that does not begin with its first bar is believed only if the question for the
        first bar gives the same: a repeated older answer can look just like a quiet market.
        """
        rest = TimeRange(page.start, end)
        for _ in range(ANSWERS_COMPARED):
            bars = await self._klines(timeframe, page, self._api.bars_limit)
            begins = bars["timestamp"][0] if bars.height else page.end
            if begins == page.start:
                return bars, page.end
            first = await self._klines(timeframe, rest, 1)
            following = first["timestamp"][0] if first.height else end
            if following == begins or (bars.is_empty() and following >= page.end):
                return bars, following
        raise contradiction(self._client.id, f"{timeframe} bars of {self._symbol} in {page}")

    async def _klines(self, timeframe: Timeframe, window: TimeRange, limit: int) -> pl.DataFrame:
        reached = self._client.venue_now() - _BARS_SETTLE

        def read(answer: Any) -> pl.DataFrame:
            bars = self._readable("bars", parse_klines(answer))
            return checked_klines(bars, timeframe, window, reached)

        interval = self._client.exchange.timeframes[str(timeframe)]
        request = {"interval": interval, "limit": limit, **_between(window)}
        return await self._ask(self._api.klines, request, read)

    async def trades(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Aggregated trades of a window: the first page by time, the others by id."""
        known = window.start
        if known >= self._client.venue_now():
            return
        reached, trades = await self._first_trades(window)
        while trades.height:
            last = trades["timestamp"].max()
            assert isinstance(last, datetime)  # noqa: S101 - checked_trades refuses nulls
            inside = trades.filter(pl.col("timestamp") < window.end).drop("id")
            if last >= min(window.end, reached):
                yield Page(inside, part(known, min(window.end, reached)))
                return
            yield Page(inside, part(known, last))
            known = max(known, last)
            reached, trades = await self._trades_from(trades["id"][-1] + 1)
        yield Page(trades.drop("id"), part(known, min(window.end, reached)))

    async def _first_trades(self, window: TimeRange) -> tuple[datetime, pl.DataFrame]:
        """The first page with trades in it, and the time up to which it is complete.

        It is believed once the trade before its first is earlier than the window, and that there
        is none once every hour was empty twice.
        """
        was_empty = False
        for _ in range(ANSWERS_COMPARED):
            reached, trades = await self._first_trades_by_time(window)
            if trades.is_empty():
                if was_empty:
                    return reached, trades
                was_empty = True
            elif await self._follows_earlier(trades["id"][0], window.start):
                return reached, trades
        raise contradiction(self._client.id, f"trades of {self._symbol} in {window}")

    async def _first_trades_by_time(self, window: TimeRange) -> tuple[datetime, pl.DataFrame]:
        at = window.start
        while True:
            reached = self._client.venue_now() - _TRADES_SETTLE
            hour = TimeRange(at, min(at + _TRADES_HOURS, window.end))

            def read(answer: Any, hour: TimeRange = hour) -> pl.DataFrame:
                return checked_trades(parse_agg_trades(answer), window=hour)

            trades = await self._trades(None, _between(hour), read)
            at = hour.end
            if trades.height or at >= min(window.end, self._client.venue_now()):
                return reached, trades

    async def _follows_earlier(self, trade_id: int, start: datetime) -> bool:
        if trade_id == 0:
            return True
        earlier = await self._by_id(trade_id - 1, limit=1)
        return earlier.is_empty() or earlier["id"][0] >= trade_id or earlier["timestamp"][0] < start

    async def _trades_from(self, from_id: int) -> tuple[datetime, pl.DataFrame]:
        reached = self._client.venue_now() - _TRADES_SETTLE
        return reached, await self._by_id(from_id, _TRADES_LIMIT)

    async def _by_id(self, from_id: int, limit: int) -> pl.DataFrame:
        def read(answer: Any) -> pl.DataFrame:
            return checked_trades(parse_agg_trades(answer), from_id=from_id)

        return await self._trades(from_id, {"fromId": from_id, "limit": limit}, read)

    async def _trades(
        self, from_id: int | None, request: dict[str, Any], read: Callable[[Any], pl.DataFrame]
    ) -> pl.DataFrame:
        def odd(trades: pl.DataFrame) -> str | None:
            if trades.is_empty():
                return None if from_id is None else "no trades"
            return trade_gaps(trades, from_id)

        def readable(answer: Any) -> pl.DataFrame:
            return self._readable("trades", read(answer))

        trades, oddity = await agreed(
            self._client.id,
            f"trades of {self._symbol} with {request}",
            lambda: self._ask(self._api.agg_trades, {"limit": _TRADES_LIMIT, **request}, readable),
            odd,
        )
        if oddity is not None and trades.height:
            self._report("trades_irregular", oddity=oddity, first=iso(trades["timestamp"][0]))
        return trades

    async def funding(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Funding rates of a window."""
        known = window.start
        while known < window.end and known < self._client.venue_now():
            reached = self._client.venue_now() - _FUNDING_SETTLE
            rates = await self._funding_page(TimeRange(known, window.end))
            until = rates["timestamp"][-1] + MILLISECOND if rates.height else window.end
            until = min(until, window.end)
            yield Page(rates, part(known, min(until, reached)))
            known = until

    async def _funding_page(self, window: TimeRange) -> pl.DataFrame:
        def read(answer: Any) -> pl.DataFrame:
            return checked_funding(self._readable("funding", parse_funding(answer)), window)

        def odd(rates: pl.DataFrame) -> str | None:
            first = rates["timestamp"][0] if rates.height else window.end
            late = rates.is_empty() or first - window.start > _LONGEST_FUNDING_INTERVAL
            return f"none before {iso(first)}" if late else None

        request = {"limit": _FUNDING_LIMIT, **_between(window)}
        rates, _ = await agreed(
            self._client.id,
            f"funding rates of {self._symbol} in {window}",
            lambda: self._ask(self._api.funding, request, read),
            odd,
        )
        return rates

    async def _ask(
        self, method: str, request: dict[str, Any], read: Callable[[Any], pl.DataFrame]
    ) -> pl.DataFrame:
        return await self._client.ask(method, {"symbol": self._id, **request}, read=read)

    def _readable(self, family: str, frame: pl.DataFrame) -> pl.DataFrame:
        missing = unreadable(frame, REQUIRED[family])
        if missing:
            raise drift(self._client.id, f"{family} of {self._symbol} without {missing}")
        return frame

    def _report(self, event: str, **facts: object) -> None:
        _log.warning(event, exchange=self._client.id, symbol=self._symbol, **facts)


def _between(window: TimeRange) -> dict[str, int]:
    """Binance's inclusive milliseconds of a half-open range."""
    return {
        "startTime": to_ms_ceiling(window.start),
        "endTime": to_ms_ceiling(window.end) - 1,
    }
