"""Requests for one market over ccxt's unified methods, and what the answers show of the venue."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import polars as pl

from lake.errors import SourceError, SourceUnavailableError
from lake.log import get_logger
from lake.model.time import iso, to_ms
from lake.sources.ccxt_client import Client, build_format_error
from lake.sources.faults import Fault, ask_until_consistent
from lake.sources.frames import REQUIRED, find_unreadable_columns
from lake.sources.venues.unified_pages import (
    MIN_PAGE_ROWS,
    Anomaly,
    RangeQuery,
    Source,
    WindowPosition,
    find_ambiguous_ids,
    has_shorter_bars,
    last_time,
)

# For trades since a time, Coinbase returns the latest trades before another time.
_ONLY_LATEST_TRADES = frozenset({"coinbase", "coinbaseadvanced"})
# maximum age of the copies in a venue's caches
_STALE = timedelta(minutes=10)

_log = get_logger(__name__)


class UnifiedRequests:
    """Sends the requests for one market.

    Parameters
    ----------
    client
        A client of any exchange of ccxt.
    market
        The market of ccxt.
    """

    def __init__(self, client: Client, market: Mapping[str, Any]) -> None:
        self.client = client
        self.symbol = str(market["symbol"])
        self._newest: dict[Source, datetime] = {}
        self._page: dict[Source, int] = {}
        self._honoured: set[Source] = set()

    def is_honoured(self, query: RangeQuery) -> bool:
        """Return whether an answer ended well before the newest row: not always the latest rows."""
        return query.source in self._honoured

    def page_rows(self, query: RangeQuery) -> int:
        """Return the count of the rows of the venue's newest answer."""
        return self._page[query.source]

    def find_limit(self, method: str) -> int | None:
        """Return the most rows of an answer as ccxt knows them; None if it does not."""
        limit = self.client.exchange.feature_value(self.symbol, method, "limit")
        return int(limit) if limit else None

    async def fetch_answer(
        self, query: RangeQuery, position: WindowPosition
    ) -> tuple[pl.DataFrame, Anomaly | None]:
        """Return the answer at a position, and its anomaly if two answers share it."""
        # fetched before the answer: any newer row must have existed when the venue answered
        newest = self._newest.get(query.source) or await self.fetch_newest(query)
        answer, anomaly = await ask_until_consistent(
            self.client.id,
            f"{query.family} of {self.symbol} since {iso(position.since)}",
            partial(self.call, query, position.since),
            partial(position.find_anomaly, query),
        )
        if newest is not None and (answer.is_empty() or last_time(answer) < newest - _STALE):
            self._honoured.add(query.source)
        return answer, anomaly

    async def call(self, query: RangeQuery, since: datetime | None) -> pl.DataFrame:
        """Return the rows of one answer; without `since` the newest ones."""

        def read(answer: Any) -> pl.DataFrame:
            rows = query.read(answer)
            what = f"{query.family} of {self.symbol}"
            missing = find_unreadable_columns(rows, REQUIRED[query.family])
            if missing:
                raise build_format_error(self.client.id, f"{what} without {missing}")
            if query.timeframe is not None and has_shorter_bars(rows, query.timeframe):
                raise Fault(f"bars that are shorter than {query.timeframe}")
            if query.family == "trades" and (ids := find_ambiguous_ids(rows)):
                raise SourceError(
                    f"{self.client.id} uses one id for different trades: {what}, {ids[0]}",
                    "Ids do not identify trades of this market; take them from an archive.",
                )
            return rows

        if query.family == "trades" and self.client.id in _ONLY_LATEST_TRADES:
            since = None
        since_ms = None if since is None else max(0, to_ms(since))
        return await self.client.call(
            query.method, *query.arguments, since_ms, query.limit, read=read
        )

    async def find_newest_after(self, query: RangeQuery, time: datetime) -> datetime | None:
        """Return the time of the venue's newest row; fetch it again unless it is after `time`."""
        newest = self._newest.get(query.source)
        if newest is not None and newest > time:
            return newest
        return await self.fetch_newest(query)

    async def fetch_newest(self, query: RangeQuery) -> datetime | None:
        """Return the time of the venue's newest row; None if it has none."""
        try:
            answer = await self.call(query, None)
        except SourceUnavailableError:
            raise
        except SourceError:
            # some venues return no bars without `since`; any other cause fails again here
            answer = await self.call(query, self.client.venue_now() - query.hop)
        self._page[query.source] = max(MIN_PAGE_ROWS, answer.height)
        if answer.is_empty():
            return None
        self._newest[query.source] = last_time(answer)
        return self._newest[query.source]

    def report(self, event: str, query: RangeQuery, **facts: object) -> None:
        """Log what is odd in the answers for this market."""
        _log.warning(
            event, exchange=self.client.id, symbol=self.symbol, dataset=query.family, **facts
        )
