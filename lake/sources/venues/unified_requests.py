"""Requests for one market over ccxt's unified methods, and what the answers show of the venue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import orjson
import polars as pl

from lake.errors import SourceError, SourceRefusedError, SourceUnavailableError
from lake.log import get_logger
from lake.model.time import iso, to_ms
from lake.model.words import count
from lake.sources.base import Refused
from lake.sources.ccxt_client import Client, build_format_error
from lake.sources.faults import Fault, ask_until_consistent, build_refusal
from lake.sources.frames import REQUIRED, find_unreadable_columns
from lake.sources.venues.habits import MIN_PAGE_ROWS, Boundary, Habits, Key
from lake.sources.venues.unified_pages import (
    Anomaly,
    RangeQuery,
    Source,
    WindowPosition,
    count_times,
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
    habits
        What the answers for all markets of the venue have shown.
    """

    def __init__(self, client: Client, market: Mapping[str, Any], habits: Habits) -> None:
        self.client = client
        self.habits = habits
        self.symbol = str(market["symbol"])
        self._newest: dict[Source, datetime] = {}
        self._page: dict[Source, int] = {}
        self._honoured: set[Source] = set()
        self._unreadable: set[str] = set()
        # whether a record has yet to be given to the caller
        self._refused: dict[Source, dict[str, bool]] = defaultdict(dict)

    def is_honoured(self, query: RangeQuery) -> bool:
        """Return whether an answer ended well before the newest row: not always the latest rows."""
        return query.source in self._honoured

    def page_rows(self, query: RangeQuery) -> int:
        """Return the count of the rows of the venue's newest answer."""
        return self._page[query.source]

    def is_full(self, query: RangeQuery, rows: int) -> bool:
        """Return whether an answer with this number of rows may be cut.

        It may if it has as many rows as the largest answer of the venue. What ccxt believes of the
        limit does not count, except if fewer rows were asked for.
        """
        largest = self.habits.largest(query.method)
        return rows >= (largest if query.limit is None else min(largest, query.limit))

    def find_hop(self, query: RangeQuery) -> timedelta:
        """Return how far an answer without rows reaches: not farther than the largest page could.

        What ccxt believes of the limit is an upper bound only.
        """
        if query.row_time is None:
            return query.hop
        return min(query.hop, query.row_time * (self.habits.largest(query.method) - 1))

    def find_limit(self, feature: str, method: str) -> int | None:
        """Return the most rows of an answer, as it was seen or as ccxt knows it; None if unknown.

        Parameters
        ----------
        feature, method
            The method in ccxt's features, and its name in Python.
        """
        if method in self.habits.page_sizes:
            return self.habits.page_sizes[method]
        limit = self.client.exchange.feature_value(self.symbol, feature, "limit")
        return int(limit) if limit else None

    async def fetch_answer(
        self, query: RangeQuery, position: WindowPosition
    ) -> tuple[pl.DataFrame, Anomaly | None]:
        """Return the answer at a position, and its anomaly if two answers share it."""
        if query.source not in self._newest:
            await self.fetch_newest(query)
        answer, anomaly = await ask_until_consistent(
            self.client.id,
            f"{query.family} of {self.symbol} since {iso(position.since)}",
            partial(self.call, query, position.since),
            partial(position.find_anomaly, query),
        )
        return answer, anomaly

    async def call(self, query: RangeQuery, since: datetime | None) -> pl.DataFrame:
        """Return the rows of one answer; without `since` the newest ones.

        Records that cannot be read are set aside if they come twice; see `take_refused`.
        """
        unreadable: list[Any] = []

        def read(answer: Any) -> pl.DataFrame:
            self._set_aside(query, unreadable)
            return self._read(query, answer)

        if query.family == "trades" and self.client.id in _ONLY_LATEST_TRADES:
            since = None
        parameters: list[Any] = [None if since is None else max(0, to_ms(since)), query.limit]
        if query.span is not None and since is not None:
            parameters.append({"until": to_ms(since + query.span)})
        # known before the answer: any newer row must have existed when the venue answered
        newest = self._newest.get(query.source)
        arguments = (*query.arguments, *parameters)
        rows = await self.client.call(query.method, *arguments, read=read, unreadable=unreadable)
        self.habits.record_rows(query.method, rows.height)
        if since is not None and newest is not None and query.span is None:
            self._record_since(query, rows, newest)
        return rows

    def _record_since(self, query: RangeQuery, rows: pl.DataFrame, newest: datetime) -> None:
        """Record that `since` is honoured if an answer does not reach the newest rows."""
        if rows.is_empty() or last_time(rows) < newest - _STALE:
            self._honoured.add(query.source)

    def _read(self, query: RangeQuery, answer: Any) -> pl.DataFrame:
        rows = query.read(answer)
        missing = find_unreadable_columns(rows, REQUIRED[query.family])
        if missing:
            what = f"{query.family} of {self.symbol} without {missing}"
            raise build_format_error(self.client.id, what)
        if query.timeframe is not None and has_shorter_bars(rows, query.timeframe):
            raise Fault(f"bars that are shorter than {query.timeframe}")
        return rows

    async def try_call(self, query: RangeQuery, since: datetime) -> pl.DataFrame | None:
        """Return the rows of one answer; None if the venue refuses to answer."""
        try:
            return await self.call(query, since)
        except SourceRefusedError:
            return None

    def _set_aside(self, query: RangeQuery, unreadable: Sequence[Any]) -> None:
        records = [orjson.dumps(record, default=str).decode() for record in unreadable]
        fresh = [record for record in records if record not in self._unreadable]
        if fresh:
            self._unreadable.update(fresh)
            raise Fault(f"{count(len(records), 'record')} that cannot be read: {fresh[0][:100]}")
        known = self._refused[query.source]
        known.update((record, True) for record in records if record not in known)

    def take_refused(self, query: RangeQuery) -> tuple[Refused, ...]:
        """Return the records that cannot be read, of the answers since the last call, each once."""
        known = self._refused[query.source]
        fresh = [record for record, is_fresh in known.items() if is_fresh]
        known.update(dict.fromkeys(fresh, False))
        return tuple(Refused("unreadable", record) for record in fresh)

    def record_page_size(self, query: RangeQuery, answer: pl.DataFrame) -> None:
        """Record the number of bars of a page, if it proved to be smaller than ccxt believes."""
        count = count_times(answer)
        if query.limit == count:
            self.habits.page_sizes[query.method] = count

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

    def find_boundary(self, query: RangeQuery) -> Boundary | None:
        """Return where the venue begins to refuse the past, as far as that is known."""
        return self.habits.boundaries.get(_boundary_key(query))

    async def search_boundary(
        self, query: RangeQuery, start: datetime, error: SourceRefusedError
    ) -> Boundary:
        """Search where the venue begins to refuse the past, by halving; its markets share it.

        Parameters
        ----------
        start
            A start of a window, not long before which the venue refused to answer.
        error
            The refusal.
        """
        key = _boundary_key(query)
        async with self.habits.lock:
            known = self.habits.boundaries.get(key)
            if known is not None and known.accepted >= start:
                return known
            refused = start - max(query.lookback, query.hop)
            accepted = self.client.venue_now() - query.step
            while accepted - refused > query.step:
                middle = refused + (accepted - refused) / 2
                if await self._is_accepted(query, middle):
                    accepted = middle
                else:
                    refused = middle
            boundary = Boundary(refused, accepted, error.words)
            self.habits.boundaries[key] = boundary
            return boundary

    async def _is_accepted(self, query: RangeQuery, since: datetime) -> bool:
        try:
            await self.call(query, since)
        except SourceRefusedError as error:
            if error.reason != "too_long_ago":
                raise
            return False
        return True

    def build_refusal(self, query: RangeQuery, boundary: Boundary) -> SourceRefusedError:
        """Build the error for the part of a window that is too long ago."""
        what = f"{query.family} of {self.symbol} before {iso(boundary.accepted)}"
        return build_refusal(self.client.id, what, boundary.words, "too_long_ago")

    def is_newest(self, query: RangeQuery, answer: pl.DataFrame) -> bool:
        """Return whether an answer reaches the newest rows."""
        newest = self._newest.get(query.source)
        return newest is None or last_time(answer) >= newest - _STALE

    def report(self, event: str, query: RangeQuery, **facts: object) -> None:
        """Log what is odd in the answers for this market."""
        _log.warning(
            event, exchange=self.client.id, symbol=self.symbol, dataset=query.family, **facts
        )


def _boundary_key(query: RangeQuery) -> Key:
    return (query.method, query.timeframe)
