"""Bars of Binance: pages that continue each other, checked where they begin late."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe
from lake.sources.base import Page
from lake.sources.faults import ANSWERS_COMPARED, build_contradiction_error
from lake.sources.frames import find_complete_until, range_or_none
from lake.sources.venues.binance_api import BinanceMarket, to_time_parameters
from lake.sources.venues.binance_pages import parse_klines, validate_klines

# How long Binance's replicas may still serve older answers
_SETTLE = timedelta(seconds=5)


class BinanceBars:
    """Fetches the bars of one market."""

    def __init__(self, market: BinanceMarket) -> None:
        self._market = market

    async def fetch(self, timeframe: Timeframe, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the bars of a window; each page starts where the last one ended."""
        done_until, at = window.start, timeframe.ceiling(window.start)
        while done_until < window.end and at < self._market.client.venue_now():
            reached = self._market.client.venue_now() - _SETTLE
            if at >= window.end:
                no_bars = validate_klines(parse_klines([]), timeframe, window, reached)
                yield Page(no_bars, range_or_none(done_until, min(window.end, reached)))
                return
            end = min(timeframe.after(at, self._market.api.bars_limit), window.end)
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
            bars = await self._fetch_klines(timeframe, page, self._market.api.bars_limit)
            first_open = bars["timestamp"][0] if bars.height else page.end
            if first_open == page.start:
                return bars, page.end
            first = await self._fetch_klines(timeframe, rest, 1)
            following = first["timestamp"][0] if first.height else end
            if following == first_open or (bars.is_empty() and following >= page.end):
                return bars, following
        raise build_contradiction_error(
            self._market.client.id, f"{timeframe} bars of {self._market.symbol} in {page}"
        )

    async def _fetch_klines(
        self, timeframe: Timeframe, window: TimeRange, limit: int
    ) -> pl.DataFrame:
        reached = self._market.client.venue_now() - _SETTLE

        def read(answer: Any) -> pl.DataFrame:
            bars = self._market.require_readable("bars", parse_klines(answer))
            return validate_klines(bars, timeframe, window, reached)

        interval = self._market.client.exchange.timeframes[str(timeframe)]
        request = {"interval": interval, "limit": limit, **to_time_parameters(window)}
        return await self._market.call(self._market.api.klines, request, read)
