"""Any ccxt exchange over the unified methods: requests by time, with overlap, `since` unproven."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import polars as pl

from lake.errors import SourceError, SourceUnavailableError
from lake.log import get_logger
from lake.model.time import TimeRange, iso, to_ms
from lake.model.timeframe import Timeframe
from lake.sources.base import Page
from lake.sources.ccxt_client import Client, build_format_error
from lake.sources.faults import Fault, ask_until_consistent
from lake.sources.frames import REQUIRED, find_unreadable_columns, range_or_none
from lake.sources.venues.unified_pages import (
    MIN_PAGE_ROWS,
    Anomaly,
    RangeQuery,
    Source,
    WindowPosition,
    filter_new_rows,
    filter_range,
    find_ambiguous_ids,
    first_time,
    has_shorter_bars,
    is_stuck,
    last_time,
    parse_bars,
    parse_funding,
    parse_trades,
)

_DEFAULT_BARS = 50
# For trades since a time, Coinbase returns the latest trades before another time.
_ONLY_LATEST_TRADES = frozenset({"coinbase", "coinbaseadvanced"})
# maximum age of the copies in a venue's caches
_STALE = timedelta(minutes=10)
# later than any data
_FAR = datetime.max.replace(tzinfo=UTC)

_log = get_logger(__name__)


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
        self._client = client
        self._symbol = str(market["symbol"])
        self._newest: dict[Source, datetime] = {}
        self._page: dict[Source, int] = {}
        self._honoured: set[Source] = set()

    def bars(self, timeframe: Timeframe, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the bars of a window."""
        limit = self._find_limit("fetchOHLCV") or _DEFAULT_BARS
        step = timedelta(seconds=timeframe.seconds)
        query = RangeQuery(
            family="bars",
            method="fetch_ohlcv",
            arguments=(self._symbol, str(timeframe)),
            read=parse_bars,
            key="timestamp",
            limit=self._find_limit("fetchOHLCV"),
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
            arguments=(self._symbol,),
            read=parse_trades,
            key="trade_id",
            limit=self._find_limit("fetchTrades"),
            lookback=timedelta(minutes=1),
            # the shortest range that a method of ccxt requests by itself, that of Binance
            hop=timedelta(hours=1),
            settle=timedelta(seconds=10),
        )
        return self._fetch_pages(query, window)

    def funding(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the funding rates of a window."""
        limit = self._find_limit("fetchFundingRateHistory")
        query = RangeQuery(
            family="funding",
            method="fetch_funding_rate_history",
            arguments=(self._symbol,),
            read=parse_funding,
            key="timestamp",
            limit=limit,
            lookback=timedelta(days=3),
            hop=timedelta(hours=1) * (limit or 100),
            settle=timedelta(minutes=1),
        )
        return self._fetch_pages(query, window)

    def _find_limit(self, method: str) -> int | None:
        limit = self._client.exchange.feature_value(self._symbol, method, "limit")
        return int(limit) if limit else None

    async def _fetch_pages(self, query: RangeQuery, window: TimeRange) -> AsyncGenerator[Page]:
        position = WindowPosition(window.start, window.start - query.lookback, query.read([]))
        while position.at < min(window.end, self._client.venue_now()):
            reached = self._client.venue_now() - query.settle
            answer, anomaly = await self._fetch_answer(query, position)
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
        full = query.family != "bars" and answer.height >= self._page[query.source]
        if anomaly is None or (query.source in self._honoured and not full):
            return position.at
        first = first_time(answer)
        self._report("history_incomplete", query, requested=iso(position.at), first=iso(first))
        return max(position.at, query.complete_from(first))

    async def _fetch_answer(
        self, query: RangeQuery, position: WindowPosition
    ) -> tuple[pl.DataFrame, Anomaly | None]:
        # fetched before the answer: any newer row must have existed when the venue answered
        newest = self._newest.get(query.source) or await self._fetch_newest(query)
        answer, anomaly = await ask_until_consistent(
            self._client.id,
            f"{query.family} of {self._symbol} since {iso(position.since)}",
            partial(self._call, query, position.since),
            partial(position.find_anomaly, query),
        )
        if newest is not None and (answer.is_empty() or last_time(answer) < newest - _STALE):
            self._honoured.add(query.source)
        return answer, anomaly

    async def _call(self, query: RangeQuery, since: datetime | None) -> pl.DataFrame:
        def read(answer: Any) -> pl.DataFrame:
            rows = query.read(answer)
            what = f"{query.family} of {self._symbol}"
            missing = find_unreadable_columns(rows, REQUIRED[query.family])
            if missing:
                raise build_format_error(self._client.id, f"{what} without {missing}")
            if query.timeframe is not None and has_shorter_bars(rows, query.timeframe):
                raise Fault(f"bars that are shorter than {query.timeframe}")
            if query.family == "trades" and (ids := find_ambiguous_ids(rows)):
                raise SourceError(
                    f"{self._client.id} uses one id for different trades: {what}, {ids[0]}",
                    "Ids do not identify trades of this market; take them from an archive.",
                )
            return rows

        if query.family == "trades" and self._client.id in _ONLY_LATEST_TRADES:
            since = None
        since_ms = None if since is None else max(0, to_ms(since))
        return await self._client.call(
            query.method, *query.arguments, since_ms, query.limit, read=read
        )

    async def _find_next_since(
        self, query: RangeQuery, position: WindowPosition, answer: pl.DataFrame
    ) -> datetime | None:
        """Return where to continue after an answer without new rows; None if the venue has no rows.

        An empty answer means that nothing happened only if the venue has returned rows before: a
        format that ccxt can no longer parse looks empty, too.
        """
        if is_stuck(answer, position.since, self._page[query.source]):
            raise SourceError(
                f"{self._client.id} returned {answer.height} {query.family} of {self._symbol} at "
                f"{iso(position.since)}: a full page of one moment, which requests by time cannot "
                "pass",
                "Take this market and day from an archive of the venue.",
            )
        newest = await self._find_newest_after(query, max(position.at, position.since))
        if newest is None:
            self._report("no_rows", query, requested=iso(position.at))
            return None
        if newest <= position.since or newest < position.at:
            return _FAR
        return position.since + query.hop

    async def _find_newest_after(self, query: RangeQuery, time: datetime) -> datetime | None:
        """Return the time of the venue's newest row; fetch it again unless it is after `time`."""
        newest = self._newest.get(query.source)
        if newest is not None and newest > time:
            return newest
        return await self._fetch_newest(query)

    async def _fetch_newest(self, query: RangeQuery) -> datetime | None:
        try:
            answer = await self._call(query, None)
        except SourceUnavailableError:
            raise
        except SourceError:
            # some venues return no bars without `since`; any other cause fails again here
            answer = await self._call(query, self._client.venue_now() - query.hop)
        self._page[query.source] = max(MIN_PAGE_ROWS, answer.height)
        if answer.is_empty():
            return None
        self._newest[query.source] = last_time(answer)
        return self._newest[query.source]

    def _report(self, event: str, query: RangeQuery, **facts: object) -> None:
        _log.warning(
            event, exchange=self._client.id, symbol=self._symbol, dataset=query.family, **facts
        )
