"""Where the rows of a market begin at any venue of ccxt, found with a few requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from lake.errors import SourceError, SourceRefusedError
from lake.model.timeframe import Timeframe
from lake.model.words import count
from lake.sources.faults import ask_until_consistent
from lake.sources.venues.beginnings import DAY, find_beginning
from lake.sources.venues.unified_pages import RangeQuery, Source, first_time, last_time
from lake.sources.venues.unified_requests import UnifiedRequests

# Before the first block of Bitcoin, no venue traded.
_GENESIS = datetime(2009, 1, 3, tzinfo=UTC)
_DAILY, _HOURLY = Timeframe(1, "d"), Timeframe(1, "h")
# The longest first, so that few requests reach from the genesis to the present.
_LONG_TIMEFRAMES = (Timeframe(1, "M"), Timeframe(1, "w"), _DAILY)
_LONGEST_SEARCH = 24


@dataclass(frozen=True, slots=True)
class History:
    """Where the rows of a dataset and market begin.

    Attributes
    ----------
    oldest
        The time of the oldest row that the venue serves; None if unknown.
    first_day
        The open time of the first daily bar; None if unknown.
    is_certain
        Whether all requests for this were answered: else it may be known later.
    """

    oldest: datetime | None
    first_day: datetime | None
    is_certain: bool = True

    def is_quiet_before(self, time: datetime) -> bool:
        """Return whether the venue serves rows of before a time: no rows there means quiet."""
        return self.oldest is not None and self.oldest < time

    def find_beginning(self, oldest: datetime) -> datetime | None:
        """Return the time before which there were provably no rows, given the oldest row."""
        return find_beginning(oldest, self.first_day)


class UnifiedHistory:
    """Finds where the rows of one market begin; each answer must come twice.

    Parameters
    ----------
    requests
        Requests for the market.
    build_bars
        Builds the query of bars of a timeframe.
    """

    def __init__(
        self, requests: UnifiedRequests, build_bars: Callable[[Timeframe], RangeQuery]
    ) -> None:
        self._requests = requests
        self._build_bars = build_bars
        self._histories: dict[Source, History] = {}
        self._first_day: datetime | None = None
        self._has_asked_first_day = False
        self._finding = asyncio.Lock()

    async def find(self, query: RangeQuery, time: datetime) -> History:
        """Find where the rows of a query begin; the requests are sent once.

        Parameters
        ----------
        time
            Where the venue serves rows of before this time, the first day is not searched for.
        """
        async with self._finding:
            known = self._histories.get(query.source)
            try:
                if known is None:
                    known = History(await self._search_oldest(query), None)
                if known.is_certain and known.first_day is None and not known.is_quiet_before(time):
                    known = await self._add_first_day(query, known)
            except SourceError as error:
                self._requests.report("first_rows_not_given", query, error=error.message)
                known = History(None, None, is_certain=False)
            self._histories[query.source] = known
            return known

    async def _search_oldest(self, query: RangeQuery) -> datetime | None:
        if query.timeframe is not None and query.timeframe.longest >= DAY:
            return await self._search_forward(query)
        return await self._first_of(query, await self._ask(query, _GENESIS))

    async def _add_first_day(self, query: RangeQuery, known: History) -> History:
        if query.timeframe is not None and query.timeframe.longest >= DAY:
            return History(known.oldest, known.oldest)
        first_day, oldest = await self._find_first_day(), known.oldest
        if oldest is None and first_day is not None:
            # a venue that gives a range after `since` has no rows in that of the genesis
            first_hour = await self._refine(_HOURLY, first_day, DAY)
            oldest = await self._first_of(query, await self._ask(query, first_hour))
        return History(oldest, first_day)

    async def _find_first_day(self) -> datetime | None:
        if not self._has_asked_first_day:
            self._has_asked_first_day = True
            known = self._requests.client.exchange.timeframes or {}
            if not self._requests.client.exchange.has.get("fetchOHLCV"):
                return None
            for timeframe in _LONG_TIMEFRAMES:
                if str(timeframe) in known:
                    self._first_day = await self._search_first_day(timeframe)
                    break
        return self._first_day

    async def _search_first_day(self, timeframe: Timeframe) -> datetime | None:
        first = await self._search_forward(self._build_bars(timeframe))
        if first is None or timeframe == _DAILY:
            return first
        return await self._refine(_DAILY, first, timeframe.longest)

    async def _refine(self, timeframe: Timeframe, first: datetime, length: timedelta) -> datetime:
        """Return the open time of the first finer bar within the first bar, which is this long."""
        if str(timeframe) not in self._requests.client.exchange.timeframes:
            return first
        query = self._build_bars(timeframe)
        finer = await self._first_of(query, await self._ask(query, first))
        return finer if finer is not None and first <= finer < first + length else first

    async def _search_forward(self, query: RangeQuery) -> datetime | None:
        """Ask range after range for the first row."""
        since = _GENESIS
        for _ in range(_LONGEST_SEARCH):
            answer = await self._ask(query, since)
            if answer.height:
                return await self._first_of(query, answer)
            since += max(self._requests.find_hop(query), timedelta(days=1))
            if since > self._requests.client.venue_now():
                break
        return None

    async def _first_of(self, query: RangeQuery, answer: pl.DataFrame) -> datetime | None:
        """Return the time of the first row of an answer; None if it may be just the newest page."""
        if answer.is_empty():
            return None
        if self._requests.is_full(query, answer.height):
            newest = await self._requests.find_newest_after(query, last_time(answer))
            if newest is None or self._requests.is_newest(query, answer):
                return None
        return first_time(answer)

    async def _ask(self, query: RangeQuery, since: datetime) -> pl.DataFrame:
        """Return the rows since a time; none if the venue refuses it."""
        try:
            answer, _ = await ask_until_consistent(
                self._requests.client.id,
                f"the first {query.family} of {self._requests.symbol}",
                lambda: self._requests.call(query, since),
                _describe,
            )
        except SourceRefusedError as error:
            self._requests.report("first_rows_refused", query, error=error.message)
            return query.read([])
        return answer


def _describe(answer: pl.DataFrame) -> str:
    if answer.is_empty():
        return "no rows"
    return f"{count(answer.height, 'row')} from {first_time(answer)} to {last_time(answer)}"
