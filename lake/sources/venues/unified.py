"""Any ccxt exchange over the unified methods: requests by time, with overlap, `since` unproven."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from lake.errors import SourceError
from lake.model.time import TimeRange, iso
from lake.model.timeframe import Timeframe
from lake.sources.base import Page
from lake.sources.ccxt_client import Client
from lake.sources.frames import range_or_none
from lake.sources.venues.unified_pages import (
    Anomaly,
    RangeQuery,
    WindowPosition,
    filter_new_rows,
    filter_range,
    first_time,
    is_stuck,
    last_time,
    parse_bars,
    parse_funding,
    parse_trades,
)
from lake.sources.venues.unified_requests import UnifiedRequests

_DEFAULT_BARS = 50
# later than any data
_FAR = datetime.max.replace(tzinfo=UTC)


class UnifiedVenue:
    """Fetches the pages of one market.

    Venues interpret `since` differently: some return the rows from it on, some those of a range
    after it, some always the latest rows. The answers decide. The time before the first row of an
    answer counts as covered only if the answer also has an earlier row, or if an answer of the
    venue once ended well before its newest row, so that it was not simply the latest rows.

    Parameters
    ----------
    client
        A client of any exchange of ccxt.
    market
        The market of ccxt.
    """

    def __init__(self, client: Client, market: Mapping[str, Any]) -> None:
        self._requests = UnifiedRequests(client, market)

    def bars(self, timeframe: Timeframe, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the bars of a window."""
        limit = self._requests.find_limit("fetchOHLCV") or _DEFAULT_BARS
        step = timedelta(seconds=timeframe.seconds)
        query = RangeQuery(
            family="bars",
            method="fetch_ohlcv",
            arguments=(self._requests.symbol, str(timeframe)),
            read=parse_bars,
            key="timestamp",
            limit=self._requests.find_limit("fetchOHLCV"),
            lookback=step * max(1, limit // 10),
            hop=step * (limit - 1),
            settle=timedelta(seconds=5),
            timeframe=timeframe,
        )
        return self._fetch_pages(query, window)

    def trades(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the trades of a window."""
        query = RangeQuery(
            family="trades",
            method="fetch_trades",
            arguments=(self._requests.symbol,),
            read=parse_trades,
            key="trade_id",
            limit=self._requests.find_limit("fetchTrades"),
            lookback=timedelta(minutes=1),
            # the shortest range that a method of ccxt requests by itself, that of Binance
            hop=timedelta(hours=1),
            settle=timedelta(seconds=10),
        )
        return self._fetch_pages(query, window)

    def funding(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the funding rates of a window."""
        limit = self._requests.find_limit("fetchFundingRateHistory")
        query = RangeQuery(
            family="funding",
            method="fetch_funding_rate_history",
            arguments=(self._requests.symbol,),
            read=parse_funding,
            key="timestamp",
            limit=limit,
            lookback=timedelta(days=3),
            hop=timedelta(hours=1) * (limit or 100),
            settle=timedelta(minutes=1),
        )
        return self._fetch_pages(query, window)

    async def _fetch_pages(self, query: RangeQuery, window: TimeRange) -> AsyncGenerator[Page]:
        position = WindowPosition(window.start, window.start - query.lookback, query.read([]))
        while position.at < min(window.end, self._requests.client.venue_now()):
            reached = self._requests.client.venue_now() - query.settle
            answer, anomaly = await self._requests.fetch_answer(query, position)
            first = position.since == window.start - query.lookback and position.overlap.is_empty()
            if first and anomaly == Anomaly.STARTS_LATER:
                # no row just before the window: look for an earlier row
                position = WindowPosition(
                    position.at, position.at - query.hop * 9 // 10, answer.clear()
                )
                continue
            rows = filter_range(answer, position.at, window.end)
            rows = query.add_closed(filter_new_rows(rows, position.overlap, query.key), reached)
            if anomaly == Anomaly.NOTHING_NEW:
                until = await self._find_next_since(query, position, answer)
                if until is None:
                    return
                end = min(until, window.end, query.complete_until(rows, reached))
                yield Page(rows, range_or_none(position.at, end))
                position = WindowPosition(max(position.at, until), until, answer.clear())
                continue
            start = self._find_complete_from(query, position, answer, anomaly)
            complete_until = query.complete_until(query.add_closed(answer, reached), reached)
            last = last_time(answer)
            position = position.advance(query.complete_to(last), answer, last)
            yield Page(rows, range_or_none(start, min(position.at, window.end, complete_until)))
            if complete_until <= last:
                return

    def _find_complete_from(
        self,
        query: RangeQuery,
        position: WindowPosition,
        answer: pl.DataFrame,
        anomaly: Anomaly | None,
    ) -> datetime:
        """Return the time from which an answer is complete, which may start later than the request.

        A full page of trades may be the end of the requested range instead of its start; a range
        of bars never exceeds one page.
        """
        full = query.family != "bars" and answer.height >= self._requests.page_rows(query)
        if anomaly is None or (self._requests.is_honoured(query) and not full):
            return position.at
        first = first_time(answer)
        self._requests.report(
            "history_incomplete", query, requested=iso(position.at), first=iso(first)
        )
        return max(position.at, query.complete_from(first))

    async def _find_next_since(
        self, query: RangeQuery, position: WindowPosition, answer: pl.DataFrame
    ) -> datetime | None:
        """Return where to continue after an answer without new rows; None if the venue has no rows.

        An empty answer means that nothing happened only if the venue has returned rows before: a
        format that ccxt can no longer parse looks empty, too.
        """
        if is_stuck(answer, position.since, self._requests.page_rows(query)):
            raise SourceError(
                f"{self._requests.client.id} returned {answer.height} {query.family} of "
                f"{self._requests.symbol} at {iso(position.since)}: a full page of one moment, "
                "which requests by time cannot pass",
                "Take this market and day from an archive of the venue.",
            )
        newest = await self._requests.find_newest_after(query, max(position.at, position.since))
        if newest is None:
            self._requests.report("no_rows", query, requested=iso(position.at))
            return None
        if newest <= position.since or newest < position.at:
            return _FAR
        return position.since + query.hop
