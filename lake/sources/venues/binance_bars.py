"""Bars of Binance: pages that continue each other, checked where they begin late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import polars as pl

from lake.errors import SourceRefusedError
from lake.model.grid import Grid
from lake.model.time import EPOCH, TimeRange, iso
from lake.model.timeframe import Timeframe
from lake.model.words import count
from lake.sources.base import Page
from lake.sources.faults import (
    ANSWERS_COMPARED,
    Fault,
    ask_until_consistent,
    build_contradiction_error,
)
from lake.sources.frames import find_complete_until, range_or_none
from lake.sources.records import Records, join_anomalies, parse_records
from lake.sources.venues.beginnings import DAY, build_page_before, find_beginning, is_history
from lake.sources.venues.binance_api import BinanceMarket, to_time_parameters
from lake.sources.venues.binance_pages import find_price_jump, parse_klines, validate_klines
from lake.sources.venues.held_pages import ContradictionError, hold_back

# How long Binance's replicas may still serve older answers
_SETTLE = timedelta(seconds=5)
_DAILY = Timeframe(1, "d")


class BinanceBars:
    """Fetches the bars of one market."""

    def __init__(self, market: BinanceMarket) -> None:
        self._market = market
        self._oldest: dict[Timeframe, datetime | None] = {}
        self._first_day: datetime | None = None
        self._finding = asyncio.Lock()

    def fetch(self, timeframe: Timeframe, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the bars of a window; each page starts where the last one ended.

        A page is given once the next one continues its prices, or is confirmed.
        """
        return hold_back(
            partial(self._walk, timeframe),
            window,
            pages_held=1,
            client=self._market.client,
            what=f"{timeframe} bars of {self._market.symbol} in {window}",
        )

    async def _walk(self, timeframe: Timeframe, window: TimeRange) -> AsyncGenerator[Page]:
        before = _build_no_bars(timeframe)
        done_until, at = window.start, timeframe.ceiling(window.start)
        for page in await self._list_page_before(timeframe, window):
            yield page
            done_until = at = page.end
        while done_until < window.end and at < self._market.client.venue_now():
            reached = self._market.client.venue_now() - _SETTLE
            if at >= window.end:
                no_bars = _build_no_bars(timeframe)
                yield Page(no_bars, range_or_none(done_until, min(window.end, reached)))
                return
            end = min(timeframe.after(at, self._market.api.bars_limit), window.end)
            answer, following = await self._fetch_page(timeframe, TimeRange(at, end), window.end)
            bars = answer.frame
            await self._require_continued(timeframe, before, bars)
            before = bars if bars.height else before
            if done_until == window.start and following > at and is_history(at, reached):
                await self._find_oldest(timeframe)
                for page in await self._list_page_before(timeframe, window):
                    yield page
                    done_until = page.end
            at = _find_next(bars, timeframe, following)
            until = min(at, window.end)
            complete_until = find_complete_until(bars, timeframe, reached, Grid(timeframe))
            settled_end = min(until, complete_until)
            yield Page(bars, range_or_none(done_until, settled_end), answer.refused)
            done_until = until

    async def _require_continued(
        self, timeframe: Timeframe, before: pl.DataFrame, bars: pl.DataFrame
    ) -> None:
        """Where the price jumps between two pages, ask for the bars around the jump together.

        Raises
        ------
        ContradictionError
            The answer has others: one of the pages is not of this market.
        """
        jump = find_price_jump(before, bars, timeframe)
        if jump is None:
            return
        both = pl.concat([before[-1], bars[:1]]).drop("closed")
        window = TimeRange(both["timestamp"][0], timeframe.after(both["timestamp"][1]))
        answer = await self._fetch_klines(timeframe, window, 2)
        if not answer.frame.drop("closed").equals(both):
            raise ContradictionError(f"{jump} at {iso(both['timestamp'][1])}")

    async def _fetch_page(
        self, timeframe: Timeframe, page: TimeRange, end: datetime
    ) -> tuple[Records, datetime]:
        """Fetch the bars of a page, and the open time of the first bar from its start to `end`.

        A page that does not start with its first bar is accepted only if a request for the first
        bar gives the same result: a repeated older answer can look like a quiet market.
        """
        rest = TimeRange(page.start, end)
        for _ in range(ANSWERS_COMPARED):
            answer = await self._fetch_klines(timeframe, page, self._market.api.bars_limit)
            bars = answer.frame
            first_open = bars["timestamp"][0] if bars.height else page.end
            if first_open == page.start:
                return answer, first_open
            first = (await self._fetch_klines(timeframe, rest, 1)).frame
            following = first["timestamp"][0] if first.height else end
            if following == first_open or (bars.is_empty() and following >= page.end):
                return answer, following
        raise build_contradiction_error(
            self._market.client.id, f"{timeframe} bars of {self._market.symbol} in {page}"
        )

    async def _fetch_klines(self, timeframe: Timeframe, window: TimeRange, limit: int) -> Records:
        reached = self._market.client.venue_now() - _SETTLE

        def read(answer: Any) -> tuple[Records, str | None]:
            records = self._market.require_readable("bars", parse_records(answer, parse_klines))
            if records.frame.height > limit:
                raise Fault(f"{count(records.frame.height, 'bar')} instead of {limit}")
            bars, anomaly = validate_klines(records.frame, timeframe, window, reached)
            return Records(bars, records.refused), join_anomalies(records.anomaly, anomaly)

        interval = self._market.client.exchange.timeframes[str(timeframe)]
        request = {"interval": interval, "limit": limit, **to_time_parameters(window)}
        (records, _), anomaly = await ask_until_consistent(
            self._market.client.id,
            f"{timeframe} bars of {self._market.symbol} in {window}",
            lambda: self._market.call(self._market.api.klines, request, read),
            lambda answer: answer[1],
        )
        if anomaly is not None:
            self._market.report("bars_inconsistent", anomaly=anomaly)
        return records

    async def _list_page_before(self, timeframe: Timeframe, window: TimeRange) -> list[Page]:
        """Return the page of the time before the oldest bar, if that is known and in the window."""
        oldest = self._oldest.get(timeframe)
        if oldest is None or oldest <= window.start:
            return []
        began: datetime | None = oldest
        if timeframe.longest < DAY:
            began = find_beginning(oldest, await self.first_day())
        page = build_page_before(window, oldest, began, _build_no_bars(timeframe))
        return [] if page is None else [page]

    async def _find_oldest(self, timeframe: Timeframe) -> None:
        """Find the oldest bar, once: not with requests for each day before it."""
        async with self._finding:
            if timeframe not in self._oldest:
                self._oldest[timeframe] = await self._fetch_first(timeframe)

    async def first_day(self) -> datetime | None:
        """Return the open time of the first daily bar; None if the venue does not give it."""
        async with self._finding:
            return await self._fetch_first_day()

    async def _fetch_first_day(self) -> datetime | None:
        if self._first_day is None:
            try:
                self._first_day = await self._fetch_first(_DAILY)
            except SourceRefusedError as error:
                self._market.report("first_day_refused", reason=error.message)
        return self._first_day

    async def _fetch_first(self, timeframe: Timeframe) -> datetime | None:
        """Fetch the open time of the first bar that the venue serves; it must say so twice."""
        since_ever = TimeRange(EPOCH, self._market.client.venue_now())
        records, _ = await ask_until_consistent(
            self._market.client.id,
            f"the first {timeframe} bar of {self._market.symbol}",
            lambda: self._fetch_klines(timeframe, since_ever, 1),
            lambda records: str(records.frame["timestamp"].to_list()),
        )
        return records.frame["timestamp"][0] if records.frame.height else None


def _build_no_bars(timeframe: Timeframe) -> pl.DataFrame:
    return validate_klines(parse_klines([]), timeframe, TimeRange(EPOCH, EPOCH + DAY), EPOCH)[0]


def _find_next(bars: pl.DataFrame, timeframe: Timeframe, following: datetime) -> datetime:
    """Return where the page after some bars begins: the grid may begin anew after a bar off it."""
    return timeframe.floor(timeframe.after(bars["timestamp"][-1])) if len(bars) else following
