"""Aggregated trades of Binance: the first page by time, the others by id."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lake.model.time import TimeRange, iso
from lake.sources.base import Page
from lake.sources.faults import ANSWERS_COMPARED, ask_until_consistent, build_contradiction_error
from lake.sources.frames import range_or_none
from lake.sources.venues.binance_api import BinanceMarket, to_time_parameters
from lake.sources.venues.binance_pages import find_trade_gaps, parse_agg_trades, validate_trades

_LIMIT = 1000
# `aggTrades` refuses a longer range between startTime and endTime
_LONGEST_RANGE = timedelta(hours=1)
# How long Binance's replicas may still serve older answers
_SETTLE = timedelta(seconds=10)


class BinanceTrades:
    """Fetches the aggregated trades of one market."""

    def __init__(self, market: BinanceMarket) -> None:
        self._market = market

    async def fetch(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the aggregated trades of a window: the first page by time, the others by id."""
        done_until = window.start
        if done_until >= self._market.client.venue_now():
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
        raise build_contradiction_error(
            self._market.client.id, f"trades of {self._market.symbol} in {window}"
        )

    async def _fetch_first_trades_by_time(self, window: TimeRange) -> tuple[datetime, pl.DataFrame]:
        at = window.start
        while True:
            reached = self._market.client.venue_now() - _SETTLE
            hour = TimeRange(at, min(at + _LONGEST_RANGE, window.end))

            def read(answer: Any, hour: TimeRange = hour) -> pl.DataFrame:
                return validate_trades(parse_agg_trades(answer), window=hour)

            trades = await self._fetch_trades(None, to_time_parameters(hour), read)
            at = hour.end
            if trades.height or at >= min(window.end, self._market.client.venue_now()):
                return reached, trades

    async def _is_after_earlier_trade(self, trade_id: int, start: datetime) -> bool:
        if trade_id == 0:
            return True
        earlier = await self._fetch_by_id(trade_id - 1, limit=1)
        return earlier.is_empty() or earlier["id"][0] >= trade_id or earlier["timestamp"][0] < start

    async def _fetch_trades_from(self, from_id: int) -> tuple[datetime, pl.DataFrame]:
        reached = self._market.client.venue_now() - _SETTLE
        return reached, await self._fetch_by_id(from_id, _LIMIT)

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
            return self._market.require_readable("trades", read(answer))

        trades, anomaly = await ask_until_consistent(
            self._market.client.id,
            f"trades of {self._market.symbol} with {request}",
            lambda: self._market.call(
                self._market.api.agg_trades, {"limit": _LIMIT, **request}, read_readable
            ),
            find_anomaly,
        )
        if anomaly is not None and trades.height:
            self._market.report(
                "trades_inconsistent", anomaly=anomaly, first=iso(trades["timestamp"][0])
            )
        return trades
