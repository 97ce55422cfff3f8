"""Any ccxt exchange over the unified methods: by time, with overlap, trusting no `since`."""

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
from lake.sources.ccxt_client import Client, drift
from lake.sources.faults import Fault, agreed
from lake.sources.frames import REQUIRED, part, unreadable
from lake.sources.venues.unified_pages import (
    LEAST_PAGE,
    Cursor,
    Oddity,
    Series,
    Source,
    first_time,
    ids_that_differ,
    is_stuck,
    last_time,
    new_rows,
    of_shorter_bars,
    parse_bars,
    parse_funding,
    parse_trades,
    within,
)

_DEFAULT_BARS = 50
# Asked for trades since a time, Coinbase gives the latest before another time.
_ONLY_LATEST_TRADES = frozenset({"coinbase", "coinbaseadvanced"})
# how old the copies may be that a venue's caches serve
_STALE = timedelta(minutes=10)
# later than any data
_FAR = datetime.max.replace(tzinfo=UTC)

_log = get_logger(__name__)


class UnifiedVenue:
    """Pages of one market.

    Venues differ in what they make of `since`: some give the rows from it on, some those of a
    span after it, some always the latest. The answers decide: what lies before the first row of
    one is known only if a row from before is there too, or if the venue has once given an answer
    that ended well before its newest row, so that it cannot have been simply the latest rows.

    Parameters
    ----------
    client
        Connected to any exchange of ccxt's.
    market
        ccxt's market.
    """

    def __init__(self, client: Client, market: Mapping[str, Any]) -> None:
        self._client = client
        self._symbol = str(market["symbol"])
        self._newest: dict[Source, datetime] = {}
        self._page: dict[Source, int] = {}
        self._honoured: set[Source] = set()

    def bars(self, timeframe: Timeframe, window: TimeRange) -> AsyncGenerator[Page]:
        """Bars of a window."""
        limit = self._limit("fetchOHLCV") or _DEFAULT_BARS
        step = timedelta(seconds=timeframe.seconds)
        series = Series(
            family="bars",
            method="fetch_ohlcv",
            arguments=(self._symbol, str(timeframe)),
            read=parse_bars,
            key="timestamp",
            limit=self._limit("fetchOHLCV"),
            lookback=step * max(1, limit // 10),
            hop=step * (limit - 1),
            settle=timedelta(seconds=5),
            timeframe=timeframe,
        )
        return self._pages(series, window)

    def trades(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Trades of a window."""
        series = Series(
            family="trades",
            method="fetch_trades",
            arguments=(self._symbol,),
            read=parse_trades,
            key="trade_id",
            limit=self._limit("fetchTrades"),
            lookback=timedelta(minutes=1),
            # the shortest span that a method of ccxt's asks for by itself, Binance's
            hop=timedelta(hours=1),
            settle=timedelta(seconds=10),
        )
        return self._pages(series, window)

    def funding(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Funding rates of a window."""
        limit = self._limit("fetchFundingRateHistory")
        series = Series(
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
        return self._pages(series, window)

    def _limit(self, method: str) -> int | None:
        limit = self._client.exchange.feature_value(self._symbol, method, "limit")
        return int(limit) if limit else None

    async def _pages(self, series: Series, window: TimeRange) -> AsyncGenerator[Page]:
        cursor = Cursor(window.start, window.start - series.lookback, series.read([]))
        while cursor.at < min(window.end, self._client.venue_now()):
            reached = self._client.venue_now() - series.settle
            answer, oddity = await self._answer(series, cursor)
            first = cursor.since == window.start - series.lookback and cursor.overlap.is_empty()
            if first and oddity == Oddity.BEGINS_LATER:
                # nothing happened just before the window: look for a row from longer before
                cursor = Cursor(cursor.at, cursor.at - series.hop * 9 // 10, answer.clear())
                continue
            rows = within(answer, cursor.at, window.end)
            rows = series.finished(new_rows(rows, cursor.overlap, series.key), reached)
            if oddity == Oddity.NOTHING_NEW:
                until = await self._next_span(series, cursor, answer)
                if until is None:
                    return
                end = min(until, window.end, series.known_until(rows, reached))
                yield Page(rows, part(cursor.at, end))
                cursor = Cursor(max(cursor.at, until), until, answer.clear())
                continue
            start = self._known_from(series, cursor, answer, oddity)
            known = series.known_until(series.finished(answer, reached), reached)
            last = last_time(answer)
            cursor = cursor.moved(series.known_past(last), answer, last)
            yield Page(rows, part(start, min(cursor.at, window.end, known)))
            if known <= last:
                return

    def _known_from(
        self, series: Series, cursor: Cursor, answer: pl.DataFrame, oddity: Oddity | None
    ) -> datetime:
        """From when on all is known, by an answer that may or may not begin where it should.

        A full page of trades may be the end of the span that was asked for, not its beginning;
        of bars a span holds no more than a page.
        """
        full = series.family != "bars" and answer.height >= self._page[series.source]
        if oddity is None or (series.source in self._honoured and not full):
            return cursor.at
        first = first_time(answer)
        self._report("past_not_given", series, asked=iso(cursor.at), given=iso(first))
        return max(cursor.at, series.known_from(first))

    async def _answer(self, series: Series, cursor: Cursor) -> tuple[pl.DataFrame, Oddity | None]:
        # known before the answer: a row that is newer than the answer's last must have been there
        newest = self._newest.get(series.source) or await self._ask_newest(series)
        answer, oddity = await agreed(
            self._client.id,
            f"{series.family} of {self._symbol} since {iso(cursor.since)}",
            partial(self._ask, series, cursor.since),
            partial(cursor.oddity, series),
        )
        if newest is not None and (answer.is_empty() or last_time(answer) < newest - _STALE):
            self._honoured.add(series.source)
        return answer, oddity

    async def _ask(self, series: Series, since: datetime | None) -> pl.DataFrame:
        def read(answer: Any) -> pl.DataFrame:
            rows = series.read(answer)
            what = f"{series.family} of {self._symbol}"
            missing = unreadable(rows, REQUIRED[series.family])
            if missing:
                raise drift(self._client.id, f"{what} without {missing}")
            if series.timeframe is not None and of_shorter_bars(rows, series.timeframe):
                raise Fault(f"bars that are shorter than {series.timeframe}")
            if series.family == "trades" and (ids := ids_that_differ(rows)):
                raise SourceError(
                    f"{self._client.id} gives different trades one id: {what}, {ids[0]}",
                    "Trades of this market cannot be told apart; take them from an archive.",
                )
            return rows

        if series.family == "trades" and self._client.id in _ONLY_LATEST_TRADES:
            since = None
        since_ms = None if since is None else max(0, to_ms(since))
        return await self._client.ask(
            series.method, *series.arguments, since_ms, series.limit, read=read
        )

    async def _next_span(
        self, series: Series, cursor: Cursor, answer: pl.DataFrame
    ) -> datetime | None:
        """Where to go on after an answer with nothing new; None if the venue gives nothing at all.

        An empty answer says that nothing happened only if the venue has shown that it gives
        rows: a format that ccxt no longer reads looks empty as well.
        """
        if is_stuck(answer, cursor.since, self._page[series.source]):
            raise SourceError(
                f"{self._client.id} gives {answer.height} {series.family} of {self._symbol} at "
                f"{iso(cursor.since)}: a full page of one moment, which asking by time cannot pass",
                "Take this market and day from an archive of the venue.",
            )
        newest = await self._newest_after(series, max(cursor.at, cursor.since))
        if newest is None:
            self._report("nothing_given", series, asked=iso(cursor.at))
            return None
        if newest <= cursor.since or newest < cursor.at:
            return _FAR
        return cursor.since + series.hop

    async def _newest_after(self, series: Series, time: datetime) -> datetime | None:
        """The time of the venue's newest row, asked for again unless it is known to be later."""
        known = self._newest.get(series.source)
        return known if known is not None and known > time else await self._ask_newest(series)

    async def _ask_newest(self, series: Series) -> datetime | None:
        try:
            answer = await self._ask(series, None)
        except SourceUnavailableError:
            raise
        except SourceError:
            # some venues give no bars without `since`; where that is not why, this fails as well
            answer = await self._ask(series, self._client.venue_now() - series.hop)
        self._page[series.source] = max(LEAST_PAGE, answer.height)
        if answer.is_empty():
            return None
        self._newest[series.source] = last_time(answer)
        return self._newest[series.source]

    def _report(self, event: str, series: Series, **facts: object) -> None:
        _log.warning(
            event, exchange=self._client.id, symbol=self._symbol, dataset=series.family, **facts
        )
