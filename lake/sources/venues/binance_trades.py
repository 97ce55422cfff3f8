"""Aggregated trades of Binance: the first page by time, the others by id, each confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lake.model.time import TimeRange, iso
from lake.sources.base import Page
from lake.sources.faults import ANSWERS_COMPARED, ask_until_consistent, build_contradiction_error
from lake.sources.frames import range_or_none
from lake.sources.records import Records, join_anomalies, parse_records
from lake.sources.venues.beginnings import build_page_before, is_history
from lake.sources.venues.binance_api import BinanceMarket, to_time_parameters
from lake.sources.venues.binance_pages import (
    Trade,
    find_jump,
    find_trade_anomaly,
    parse_agg_trades,
    validate_trades,
)
from lake.sources.venues.held_pages import ContradictionError, hold_back

_LIMIT = 1000
# `aggTrades` refuses a longer range between startTime and endTime
_LONGEST_RANGE = timedelta(hours=1)
# How long Binance's replicas may still serve older answers
_SETTLE = timedelta(seconds=10)
# Ids of a market count from 0: an oldest trade with a greater id is not the first one.
_LAST_FIRST_ID = 1000
# Pages that wait for the pages after them: these show whether they are of this market.
_HELD_PAGES = 3
# Pages and answers that must agree in a window of the past.
_CONFIRMATIONS = 3
# Answers that must agree on a trade, before as many disagree, once answers contradict each other.
_VOTES = 4
# More than one trade, since ids may be missing or repeated.
_CONFIRMING_TRADES = 5


class BinanceTrades:
    """Fetches the aggregated trades of one market.

    Parameters
    ----------
    first_day
        Fetches the open time of the first daily bar; None if unknown.
    """

    def __init__(
        self, market: BinanceMarket, first_day: Callable[[], Awaitable[datetime | None]]
    ) -> None:
        self._market = market
        self._first_day = first_day
        self._oldest: Trade | None = None
        self._has_asked_oldest = False
        self._finding = asyncio.Lock()

    def fetch(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the aggregated trades of a window.

        A page is given once the pages after it continue it: an answer of another market looks like
        an answer of this one until then.
        """
        return hold_back(
            self._walk,
            window,
            pages_held=_HELD_PAGES,
            client=self._market.client,
            what=f"trades of {self._market.symbol} in {window}",
        )

    async def _walk(self, window: TimeRange) -> AsyncGenerator[Page]:
        done_until = window.start
        if (before := await self._build_page_before(window)) is not None:
            yield before
            done_until = before.end
            if done_until == window.end:
                return
        rest = TimeRange(done_until, window.end)
        reached, answer = await self._fetch_first_trades(rest)
        if (before := await self._build_page_before(rest)) is not None:
            yield before
            done_until = before.end
            if answer.frame.height and answer.frame["timestamp"][0] < done_until:
                self._has_asked_oldest, self._oldest = False, None
                raise ContradictionError(f"a trade before {iso(done_until)}, the oldest")
        pages = 0
        while answer.frame.height:
            trades, pages = answer.frame, pages + 1
            last = trades["timestamp"].max()
            assert isinstance(last, datetime)  # noqa: S101 - parse_records refuses nulls
            inside = trades.filter(pl.col("timestamp") < window.end).drop("id")
            until = min(window.end, reached)
            if last >= until:
                await self._vote(trades, window, pages)
                yield Page(inside, range_or_none(done_until, until), answer.refused)
                return
            yield Page(inside, range_or_none(done_until, last), answer.refused)
            done_until = max(done_until, last)
            reached, answer = await self._fetch_following(trades)
            if answer.frame.is_empty():
                await self._vote(trades, window, pages)
        settled = range_or_none(done_until, min(window.end, reached))
        yield Page(answer.frame.drop("id"), settled, answer.refused)

    async def _fetch_first_trades(self, window: TimeRange) -> tuple[datetime, Records]:
        """Fetch the first page that has trades, and the time up to which it is complete.

        A page is accepted if the same trade follows by id one that is earlier than the window. An
        empty window is accepted if every hour was empty twice, or more often if answers have
        contradicted each other.
        """
        times_empty = 0
        for _ in range(ANSWERS_COMPARED):
            reached, answer = await self._fetch_first_by_time(window)
            if answer.frame.is_empty():
                times_empty += 1
                if times_empty == (_VOTES if self._market.client.contradictions else 2):
                    return reached, answer
            elif await self._is_confirmed_by_id(Trade.at(answer.frame, 0), window.start):
                return reached, answer
            self._market.client.contradictions += answer.frame.height > 0
        raise build_contradiction_error(
            self._market.client.id, f"trades of {self._market.symbol} in {window}"
        )

    async def _fetch_first_by_time(self, window: TimeRange) -> tuple[datetime, Records]:
        at = window.start
        while True:
            reached = self._market.client.venue_now() - _SETTLE
            answer = await self._fetch_by_time(TimeRange(at, min(at + _LONGEST_RANGE, window.end)))
            if answer.frame.height:
                return reached, answer
            at += _LONGEST_RANGE
            if is_history(window.start, self._market.client.venue_now()):
                oldest = await self._find_oldest()
                at = max(at, oldest.time if oldest is not None else at)
            if at >= min(window.end, self._market.client.venue_now()):
                return reached, answer

    async def _is_confirmed_by_id(self, first: Trade, start: datetime) -> bool:
        """Return whether the trade has its id, and the one before it is before the start."""
        answer = await self._fetch_by_id(max(first.id - 1, 0), _CONFIRMING_TRADES)
        trades = answer.frame
        earlier = trades.filter(pl.col("id") < first.id)["timestamp"]
        return _has_trade(trades, first) and not (earlier >= start).any()

    async def _fetch_following(self, before: pl.DataFrame) -> tuple[datetime, Records]:
        """Fetch the page after a page by id; where it does not continue, confirm it by time."""
        last = Trade.at(before, -1)
        for _ in range(ANSWERS_COMPARED):
            reached = self._market.client.venue_now() - _SETTLE
            answer = await self._fetch_by_id(last.id + 1, _LIMIT)
            trades = answer.frame
            jump = find_jump(before, trades)
            first = Trade.at(trades, 0) if trades.height else None
            if jump is None or await self._follows(last, first):
                return reached, answer
            self._market.client.contradictions += 1
        raise ContradictionError(jump)

    async def _follows(self, last: Trade, first: Trade | None) -> bool:
        """Return whether a trade follows another one also by time; None: no trade follows it.

        Raises
        ------
        ContradictionError
            By time there is no such last trade: either answer is not of this market.
        """
        start = last.time if first is None else min(first.time, last.time)
        trades = (await self._fetch_by_time(TimeRange(start, start + _LONGEST_RANGE))).frame
        following = trades.filter(pl.col("id") > last.id)
        if not _has_trade(trades, last):
            raise ContradictionError(f"trade {last.id} is at {iso(last.time)} by id, not by time")
        if following.height or first is None:
            return first == (Trade.at(following, 0) if following.height else None)
        later = TimeRange(first.time, first.time + _LONGEST_RANGE)
        return _has_trade((await self._fetch_by_time(later)).frame, first)

    async def _vote(self, trades: pl.DataFrame, window: TimeRange, pages: int) -> None:
        """Let answers by id vote for the last trade, if answers have contradicted each other.

        A short window of the past, in which few pages confirm each other, is put to the vote, too:
        it is fetched once, unlike the newest minutes.

        Raises
        ------
        ContradictionError
            More answers do not have it.
        """
        last, votes = Trade.at(trades, -1), [0, 0]
        is_past = window.end < self._market.client.venue_now() - _LONGEST_RANGE
        wanted = _CONFIRMATIONS - pages if is_past else 0
        while votes[True] < wanted or (self._market.client.contradictions and max(votes) < _VOTES):
            answer = await self._fetch_by_id(last.id, _CONFIRMING_TRADES)
            has_trade = _has_trade(answer.frame, last)
            votes[has_trade] += 1
            self._market.client.contradictions += not has_trade
            if votes[False] == _VOTES:
                what = f"trade {last.id} is in {votes[True]} of {sum(votes)} answers"
                raise ContradictionError(what)

    async def _fetch_by_time(self, hour: TimeRange) -> Records:
        def read(answer: Any) -> Records:
            records = self._read(answer)
            return Records(validate_trades(records.frame, window=hour), records.refused)

        def find_anomaly(answer: Records) -> str | None:
            return join_anomalies(answer.anomaly, find_trade_anomaly(answer.frame, None))

        return await self._fetch_trades(to_time_parameters(hour), read, find_anomaly)

    async def _fetch_by_id(self, from_id: int, limit: int) -> Records:
        def read(answer: Any) -> Records:
            records = self._read(answer)
            return Records(validate_trades(records.frame, from_id=from_id), records.refused)

        def find_anomaly(answer: Records) -> str | None:
            return join_anomalies(answer.anomaly, find_trade_anomaly(answer.frame, from_id))

        return await self._fetch_trades({"fromId": from_id, "limit": limit}, read, find_anomaly)

    def _read(self, answer: Any) -> Records:
        records = parse_records(answer, parse_agg_trades, ("timestamp", "id"))
        return self._market.require_readable("trades", records)

    async def _fetch_trades(
        self,
        request: dict[str, Any],
        read: Callable[[Any], Records],
        find_anomaly: Callable[[Records], str | None],
    ) -> Records:
        answer, anomaly = await ask_until_consistent(
            self._market.client.id,
            f"trades of {self._market.symbol} with {request}",
            lambda: self._market.call(
                self._market.api.agg_trades, {"limit": _LIMIT, **request}, read
            ),
            find_anomaly,
        )
        trades = answer.frame
        if anomaly is not None and trades.height:
            first = iso(trades["timestamp"][0])
            self._market.report("trades_inconsistent", anomaly=anomaly, first=first)
        return answer

    async def _build_page_before(self, window: TimeRange) -> Page | None:
        """Build the page of the time before the oldest trade, if that is known and in the window.

        Ids count from 0: the first id proves that there were no trades before it, any other that
        there were.
        """
        oldest = self._oldest
        if oldest is None or oldest.time <= window.start:
            return None
        began = oldest.time if oldest.id <= _LAST_FIRST_ID else await self._first_day()
        return build_page_before(window, oldest.time, began, parse_agg_trades([]).drop("id"))

    async def _find_oldest(self) -> Trade | None:
        """Find the oldest trade that the venue serves, once; it must say so twice."""
        async with self._finding:
            if not self._has_asked_oldest:
                answer, _ = await ask_until_consistent(
                    self._market.client.id,
                    f"the oldest trade of {self._market.symbol}",
                    lambda: self._market.call(
                        self._market.api.agg_trades, {"fromId": 0, "limit": 1}, self._read
                    ),
                    lambda answer: str(answer.frame.rows()),
                )
                self._has_asked_oldest = True
                self._oldest = Trade.at(answer.frame, 0) if answer.frame.height else None
            return self._oldest


def _has_trade(trades: pl.DataFrame, trade: Trade) -> bool:
    same_id = trades.filter(pl.col("id") == trade.id)
    return any(Trade.at(same_id, place) == trade for place in range(same_id.height))
