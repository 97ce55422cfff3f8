"""Any ccxt exchange over the unified methods: requests by time, with overlap, `since` unproven."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

from lake.errors import SourceRefusedError
from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe
from lake.sources.base import Page
from lake.sources.ccxt_client import Client
from lake.sources.faults import build_contradiction_error
from lake.sources.venues.habits import Boundary, Habits
from lake.sources.venues.unified_history import UnifiedHistory
from lake.sources.venues.unified_pages import RangeQuery, parse_bars, parse_funding, parse_trades
from lake.sources.venues.unified_requests import UnifiedRequests
from lake.sources.venues.unified_window import UnifiedWindow

_DEFAULT_BARS = 50
# The boundary of what is too long ago moves with time.
_BOUNDARY_SEARCHES = 3


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
    habits
        What the answers for all markets of the venue have shown.
    """

    def __init__(self, client: Client, market: Mapping[str, Any], habits: Habits) -> None:
        self._requests = UnifiedRequests(client, market, habits)
        self._history = UnifiedHistory(self._requests, self._build_bars)

    def bars(self, timeframe: Timeframe, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the bars of a window."""
        return self._fetch_pages(self._build_bars(timeframe), window)

    def _build_bars(self, timeframe: Timeframe) -> RangeQuery:
        limit = self._requests.find_limit("fetchOHLCV", "fetch_ohlcv")
        step = timedelta(seconds=timeframe.seconds)
        return RangeQuery(
            family="bars",
            method="fetch_ohlcv",
            arguments=(self._requests.symbol, str(timeframe)),
            read=parse_bars,
            key="timestamp",
            limit=limit,
            lookback=step * max(1, (limit or _DEFAULT_BARS) // 10),
            hop=step * max(1, (limit or _DEFAULT_BARS) - 1),
            settle=timedelta(seconds=5),
            timeframe=timeframe,
            row_time=step,
        )

    def trades(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the trades of a window."""
        query = RangeQuery(
            family="trades",
            method="fetch_trades",
            arguments=(self._requests.symbol,),
            read=parse_trades,
            key="trade_id",
            limit=self._requests.find_limit("fetchTrades", "fetch_trades"),
            lookback=timedelta(minutes=1),
            # the shortest range that a method of ccxt requests by itself, that of Binance
            hop=timedelta(hours=1),
            settle=timedelta(seconds=10),
        )
        return self._fetch_pages(query, window)

    def funding(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the funding rates of a window."""
        method = "fetch_funding_rate_history"
        limit = self._requests.find_limit("fetchFundingRateHistory", method)
        query = RangeQuery(
            family="funding",
            method=method,
            arguments=(self._requests.symbol,),
            read=parse_funding,
            key="timestamp",
            limit=limit,
            lookback=timedelta(days=3),
            hop=timedelta(hours=1) * (limit or 100),
            settle=timedelta(minutes=1),
            row_time=timedelta(hours=1),
        )
        return self._fetch_pages(query, window)

    async def _fetch_pages(self, query: RangeQuery, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch a window, or the part of it that the venue does not refuse as too long ago."""
        boundary = self._requests.find_boundary(query)
        for _ in range(_BOUNDARY_SEARCHES):
            asked, part = _leave_out_refused(query, window, boundary)
            try:
                if part is not None:
                    walk = UnifiedWindow(self._requests, self._history, asked, part)
                    async with aclosing(walk.pages()) as pages:
                        async for page in pages:
                            yield page
            except SourceRefusedError as error:
                if error.reason != "too_long_ago":
                    raise
                boundary = await self._requests.search_boundary(query, window.start, error)
                continue
            if boundary is not None and (part is None or part.start > window.start):
                raise self._requests.build_refusal(query, boundary)
            return
        raise build_contradiction_error(
            self._requests.client.id, f"the oldest {query.family} of {self._requests.symbol}"
        )


def _leave_out_refused(
    query: RangeQuery, window: TimeRange, boundary: Boundary | None
) -> tuple[RangeQuery, TimeRange | None]:
    """Return what to ask for, in which part of a window; None where the venue refuses all of it.

    Near the boundary no rows before the window are asked for.
    """
    reach = window.start - max(query.lookback, query.hop)
    if boundary is None or reach > boundary.accepted + query.step:
        return query, window
    part = boundary.cut(window, query.step)
    if part is not None and part.start > window.start:
        part = query.align(part)
    return replace(query, lookback=timedelta(0)), part
