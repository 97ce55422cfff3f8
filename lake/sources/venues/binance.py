"""Binance's spot and USD-M markets over its own endpoints: all columns, every page checked."""

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
from lake.sources.ccxt_client import Client, build_format_error
from lake.sources.faults import ANSWERS_COMPARED, ask_until_consistent, build_contradiction_error
from lake.sources.frames import (
    REQUIRED,
    find_complete_until,
    find_unreadable_columns,
    range_or_none,
)
from lake.sources.venues.binance_pages import (
    find_trade_gaps,
    parse_agg_trades,
    parse_funding,
    parse_klines,
    validate_funding,
    validate_klines,
    validate_trades,
)

IDS = frozenset({"binance", "binanceusdm", "binanceus"})

_TRADES_LIMIT = 1000
_FUNDING_LIMIT = 1000
# `aggTrades` refuses a longer range between startTime and endTime
_TRADES_HOURS = timedelta(hours=1)
_LONGEST_FUNDING_INTERVAL = timedelta(hours=8, minutes=1)

# How long Binance's replicas may still serve older answers
_BARS_SETTLE = timedelta(seconds=5)
_TRADES_SETTLE = timedelta(seconds=10)
_FUNDING_SETTLE = timedelta(minutes=1)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Api:
    """ccxt's implicit methods for one of Binance's hosts, and the maximum bars per page."""

    klines: str
    agg_trades: str
    funding: str
    bars_limit: int


_SPOT = _Api("publicGetKlines", "publicGetAggTrades", "", 1000)
_USDM = _Api("fapiPublicGetKlines", "fapiPublicGetAggTrades", "fapiPublicGetFundingRate", 1500)


def is_supported(exchange_id: str, market: Mapping[str, Any]) -> bool:
    """Return whether a market of ccxt is supported: spot and USD-M, not COIN-M or options."""
    return exchange_id in IDS and _find_api(market) is not None


def _find_api(market: Mapping[str, Any]) -> _Api | None:
    if market.get("spot"):
        return _SPOT
    return _USDM if market.get("linear") and not market.get("option") else None


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
        api = _find_api(market)
        if api is None:
            raise ValueError(f"{market['symbol']} is neither spot nor USD-M")
        self._client = client
        self._api = api
        self._symbol = str(market["symbol"])
        self._id = market["id"]

    async def bars(self, timeframe: Timeframe, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the bars of a window; each page starts where the last one ended."""
        done_until, at = window.start, timeframe.ceiling(window.start)
        while done_until < window.end and at < self._client.venue_now():
            reached = self._client.venue_now() - _BARS_SETTLE
            if at >= window.end:
                no_bars = validate_klines(parse_klines([]), timeframe, window, reached)
                yield Page(no_bars, range_or_none(done_until, min(window.end, reached)))
                return
            end = min(timeframe.after(at, self._api.bars_limit), window.end)
            bars, following = await self._fetch_bars_page(timeframe, TimeRange(at, end), window.end)
            at = timeframe.after(bars["timestamp"][-1]) if bars.height else following
            until = min(at, window.end)
            settled_end = min(until, find_complete_until(bars, timeframe, reached))
            yield Page(bars, range_or_none(done_until, settled_end))
            done_until = until

    async def _fetch_bars_page(
        self, timeframe: Timeframe, page: TimeRange, end: datetime
    ) -> tuple[pl.DataFrame, datetime]:
        """Fetch the bars of a page, and the open time of the next bar before `end` if it has none.

        A page that does not start with its first bar is accepted only if a request for the first
        bar gives the same result: a repeated older answer can look like a quiet market.
        """
        rest = TimeRange(page.start, end)
        for _ in range(ANSWERS_COMPARED):
            bars = await self._fetch_klines(timeframe, page, self._api.bars_limit)
            first_open = bars["timestamp"][0] if bars.height else page.end
            if first_open == page.start:
                return bars, page.end
            first = await self._fetch_klines(timeframe, rest, 1)
            following = first["timestamp"][0] if first.height else end
            if following == first_open or (bars.is_empty() and following >= page.end):
                return bars, following
        raise build_contradiction_error(
            self._client.id, f"{timeframe} bars of {self._symbol} in {page}"
        )

    async def _fetch_klines(
        self, timeframe: Timeframe, window: TimeRange, limit: int
    ) -> pl.DataFrame:
        reached = self._client.venue_now() - _BARS_SETTLE

        def read(answer: Any) -> pl.DataFrame:
            bars = self._require_readable("bars", parse_klines(answer))
            return validate_klines(bars, timeframe, window, reached)

        interval = self._client.exchange.timeframes[str(timeframe)]
        request = {"interval": interval, "limit": limit, **_to_time_parameters(window)}
        return await self._call(self._api.klines, request, read)

    async def trades(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the aggregated trades of a window: the first page by time, the others by id."""
        done_until = window.start
        if done_until >= self._client.venue_now():
            return
        reached, trades = await self._fetch_first_trades(window)
        while trades.height:
            last = trades["timestamp"].max()
            assert isinstance(last, datetime)  # noqa: S101 - validate_trades refuses nulls
            inside = trades.filter(pl.col("timestamp") < window.end).drop("id")
            if last >= min(window.end, reached):
                yield Page(inside, range_or_none(done_until, min(window.end, reached)))
                return
            yield Page(inside, range_or_none(done_until, last))
            done_until = max(done_until, last)
            reached, trades = await self._fetch_trades_from(trades["id"][-1] + 1)
        yield Page(trades.drop("id"), range_or_none(done_until, min(window.end, reached)))

    async def _fetch_first_trades(self, window: TimeRange) -> tuple[datetime, pl.DataFrame]:
        """Fetch the first page that has trades, and the time up to which it is complete.

        A page is accepted if the trade before its first one is earlier than the window. An empty
        window is accepted if every hour was empty twice.
        """
        was_empty = False
        for _ in range(ANSWERS_COMPARED):
            reached, trades = await self._fetch_first_trades_by_time(window)
            if trades.is_empty():
                if was_empty:
                    return reached, trades
                was_empty = True
            elif await self._is_after_earlier_trade(trades["id"][0], window.start):
                return reached, trades
        raise build_contradiction_error(self._client.id, f"trades of {self._symbol} in {window}")

    async def _fetch_first_trades_by_time(self, window: TimeRange) -> tuple[datetime, pl.DataFrame]:
        at = window.start
        while True:
            reached = self._client.venue_now() - _TRADES_SETTLE
            hour = TimeRange(at, min(at + _TRADES_HOURS, window.end))

            def read(answer: Any, hour: TimeRange = hour) -> pl.DataFrame:
                return validate_trades(parse_agg_trades(answer), window=hour)

            trades = await self._fetch_trades(None, _to_time_parameters(hour), read)
            at = hour.end
            if trades.height or at >= min(window.end, self._client.venue_now()):
                return reached, trades

    async def _is_after_earlier_trade(self, trade_id: int, start: datetime) -> bool:
        if trade_id == 0:
            return True
        earlier = await self._fetch_by_id(trade_id - 1, limit=1)
        return earlier.is_empty() or earlier["id"][0] >= trade_id or earlier["timestamp"][0] < start

    async def _fetch_trades_from(self, from_id: int) -> tuple[datetime, pl.DataFrame]:
        reached = self._client.venue_now() - _TRADES_SETTLE
        return reached, await self._fetch_by_id(from_id, _TRADES_LIMIT)

    async def _fetch_by_id(self, from_id: int, limit: int) -> pl.DataFrame:
        def read(answer: Any) -> pl.DataFrame:
            return validate_trades(parse_agg_trades(answer), from_id=from_id)

        return await self._fetch_trades(from_id, {"fromId": from_id, "limit": limit}, read)

    async def _fetch_trades(
        self, from_id: int | None, request: dict[str, Any], read: Callable[[Any], pl.DataFrame]
    ) -> pl.DataFrame:
        def find_anomaly(trades: pl.DataFrame) -> str | None:
            if trades.is_empty():
                return None if from_id is None else "no trades"
            return find_trade_gaps(trades, from_id)

        def read_readable(answer: Any) -> pl.DataFrame:
            return self._require_readable("trades", read(answer))

        trades, anomaly = await ask_until_consistent(
            self._client.id,
            f"trades of {self._symbol} with {request}",
            lambda: self._call(
                self._api.agg_trades, {"limit": _TRADES_LIMIT, **request}, read_readable
            ),
            find_anomaly,
        )
        if anomaly is not None and trades.height:
            self._report("trades_inconsistent", anomaly=anomaly, first=iso(trades["timestamp"][0]))
        return trades

    async def funding(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the funding rates of a window."""
        done_until = window.start
        while done_until < window.end and done_until < self._client.venue_now():
            reached = self._client.venue_now() - _FUNDING_SETTLE
            rates = await self._fetch_funding_page(TimeRange(done_until, window.end))
            until = rates["timestamp"][-1] + MILLISECOND if rates.height else window.end
            until = min(until, window.end)
            yield Page(rates, range_or_none(done_until, min(until, reached)))
            done_until = until

    async def _fetch_funding_page(self, window: TimeRange) -> pl.DataFrame:
        def read(answer: Any) -> pl.DataFrame:
            return validate_funding(
                self._require_readable("funding", parse_funding(answer)), window
            )

        def find_anomaly(rates: pl.DataFrame) -> str | None:
            first = rates["timestamp"][0] if rates.height else window.end
            is_late = rates.is_empty() or first - window.start > _LONGEST_FUNDING_INTERVAL
            return f"none before {iso(first)}" if is_late else None

        request = {"limit": _FUNDING_LIMIT, **_to_time_parameters(window)}
        rates, _ = await ask_until_consistent(
            self._client.id,
            f"funding rates of {self._symbol} in {window}",
            lambda: self._call(self._api.funding, request, read),
            find_anomaly,
        )
        return rates

    async def _call(
        self, method: str, request: dict[str, Any], read: Callable[[Any], pl.DataFrame]
    ) -> pl.DataFrame:
        return await self._client.call(method, {"symbol": self._id, **request}, read=read)

    def _require_readable(self, family: str, frame: pl.DataFrame) -> pl.DataFrame:
        missing = find_unreadable_columns(frame, REQUIRED[family])
        if missing:
            raise build_format_error(
                self._client.id, f"{family} of {self._symbol} without {missing}"
            )
        return frame

    def _report(self, event: str, **facts: object) -> None:
        _log.warning(event, exchange=self._client.id, symbol=self._symbol, **facts)


def _to_time_parameters(window: TimeRange) -> dict[str, int]:
    """Convert a half-open range to Binance's inclusive milliseconds."""
    return {
        "startTime": to_ms_ceiling(window.start),
        "endTime": to_ms_ceiling(window.end) - 1,
    }
