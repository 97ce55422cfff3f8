"""One window of a market over the unified methods: pages by time that continue each other."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum

import polars as pl

from lake.model.time import MILLISECOND, TimeRange, iso
from lake.sources.base import Page
from lake.sources.frames import range_or_none
from lake.sources.venues.beginnings import build_page_before, is_history
from lake.sources.venues.unified_history import UnifiedHistory
from lake.sources.venues.unified_pages import (
    Anomaly,
    RangeQuery,
    WindowPosition,
    filter_new_rows,
    filter_range,
    first_time,
    is_stuck,
    last_time,
)
from lake.sources.venues.unified_requests import UnifiedRequests

# An answer is far from full if this many of them are not full together.
_FAR_FROM_FULL = 4
# later than any data
_FAR = datetime.max.replace(tzinfo=UTC)


# pages to give, and where to go on; None at the end
_Step = tuple[list[Page], WindowPosition | None]


class _Start(StrEnum):
    """What an answer that starts late is found to be."""

    WHOLE = "whole"  # the venue has no rows before its first one
    CUT = "cut"  # a smaller range gives earlier rows
    UNKNOWN = "unknown"


class UnifiedWindow:
    """Fetches the pages of one window.

    Parameters
    ----------
    requests, history
        Requests for the market, and where its rows begin.
    query
        What to ask for; without a `lookback` no rows before the window are asked for.
    """

    def __init__(
        self,
        requests: UnifiedRequests,
        history: UnifiedHistory,
        query: RangeQuery,
        window: TimeRange,
    ) -> None:
        self._requests = requests
        self._history = history
        self._whole_query = query
        self._query = query
        self._window = window
        # no row has been found yet in the window, or before it
        self._is_leading = True
        self._can_look_back = bool(query.lookback)

    async def pages(self) -> AsyncGenerator[Page]:
        """Fetch the pages in order of time."""
        window, now = self._window, self._requests.client.venue_now
        since, no_rows = window.start - self._query.lookback, self._query.read([])
        position: WindowPosition | None = WindowPosition(window.start, since, no_rows)
        while position is not None and position.at < min(window.end, now()):
            reached = now() - self._query.settle
            answer, anomaly = await self._requests.fetch_answer(self._query, position)
            if anomaly == Anomaly.NOTHING_NEW:
                pages, position = await self._pass_nothing(position, answer, reached)
            elif anomaly == Anomaly.STARTS_LATER:
                pages, position = await self._pass_late(position, answer, reached)
            else:
                pages, position = self._pass_rows(position, answer, position.at, reached)
            for page in pages:
                yield page

    def _pass_rows(
        self, position: WindowPosition, answer: pl.DataFrame, start: datetime, reached: datetime
    ) -> _Step:
        """Return the page of an answer that is complete from `start` on."""
        query = self._query
        self._is_leading = self._can_look_back = False
        rows = self._select_rows(position, answer, reached)
        complete_until = query.complete_until(query.add_closed(answer, reached), reached)
        last = last_time(answer)
        following = position.advance(max(start, query.complete_to(last)), answer, last)
        until = min(following.at, self._window.end, complete_until)
        page = Page(rows, range_or_none(start, until), self._requests.take_refused(query))
        self._widen(answer)
        return [page], None if complete_until <= last else following

    def _select_rows(
        self, position: WindowPosition, answer: pl.DataFrame, reached: datetime
    ) -> pl.DataFrame:
        # The last rows of the answer before come again: if others are sent now, they count.
        since = position.since if position.overlap.height else position.at
        start = min(position.at, max(since, self._window.start))
        rows = filter_range(answer, start, self._window.end)
        rows = filter_new_rows(rows, position.overlap, self._query.key)
        return self._query.add_closed(rows, reached)

    async def _pass_late(
        self, position: WindowPosition, answer: pl.DataFrame, reached: datetime
    ) -> _Step:
        """Return the pages of an answer that starts later than the covered range ends."""
        kind = await self._check_start(position, answer)
        if kind == _Start.CUT:
            return [], position
        if self._can_look_back:
            # no row just before the window: look for an earlier row
            self._can_look_back = False
            earlier = position.at - self._query.hop * 9 // 10
            return [], WindowPosition(position.at, earlier, answer.clear())
        before = await self._build_page_before(position, answer, kind)
        if before is None:
            start = self._find_complete_from(position, answer, kind)
            return self._pass_rows(position, answer, start, reached)
        pages, following = self._pass_rows(position, answer, before.end, reached)
        return [before, *pages], following

    async def _check_start(self, position: WindowPosition, answer: pl.DataFrame) -> _Start:
        """Return whether an answer that starts late is cut.

        A page as full as the largest of the venue may be the end of the requested range instead of
        its start: a smaller range is asked for, with which the window goes on if it gives earlier
        rows.
        """
        if not self._requests.is_full(self._query, answer.height):
            return _Start.WHOLE
        smaller = self._query.narrow(position.since, answer)
        if smaller is None:
            return _Start.WHOLE if first_time(answer) <= position.at else _Start.UNKNOWN
        less = await self._requests.try_call(smaller, position.since)
        if less is None:
            return _Start.UNKNOWN
        if less.is_empty() or first_time(less) < first_time(answer):
            self._requests.record_page_size(smaller, answer)
            self._query = smaller
            return _Start.CUT
        ends_earlier = last_time(less) < last_time(answer)
        is_same_start = first_time(less) == first_time(answer)
        return _Start.WHOLE if is_same_start and ends_earlier else _Start.UNKNOWN

    async def _build_page_before(
        self, position: WindowPosition, answer: pl.DataFrame, kind: _Start
    ) -> Page | None:
        """Build the page of the time before the first row of all; None if that is not in here.

        Where `since` is not honoured, the first of the newest rows is the oldest one served.
        """
        if not self._is_leading or not self._is_history(position):
            return None
        history = await self._history.find(self._whole_query, position.at)
        is_honoured = self._requests.is_honoured(self._query)
        first = first_time(answer)
        if not history.is_certain or (history.oldest is not None and history.oldest < first):
            return None
        if is_honoured and kind == _Start.UNKNOWN and history.oldest != first:
            return None
        self._report_incomplete(position, first)
        oldest = first if is_honoured else self._query.complete_from(first)
        rest = TimeRange(position.at, self._window.end)
        return build_page_before(rest, oldest, history.find_beginning(first), answer.clear())

    def _is_history(self, position: WindowPosition) -> bool:
        return is_history(position.at, self._requests.client.venue_now())

    def _find_complete_from(
        self, position: WindowPosition, answer: pl.DataFrame, kind: _Start
    ) -> datetime:
        """Return the time from which an answer is complete, which may start later than asked."""
        if self._requests.is_honoured(self._query) and kind == _Start.WHOLE:
            return position.at
        first = first_time(answer)
        self._report_incomplete(position, first)
        return max(position.at, self._query.complete_from(first))

    def _report_incomplete(self, position: WindowPosition, first: datetime) -> None:
        self._requests.report(
            "history_incomplete", self._query, requested=iso(position.at), first=iso(first)
        )

    def _widen(self, answer: pl.DataFrame) -> None:
        """Ask for a longer range again after an answer that is far from full."""
        span, whole = self._query.span, self._whole_query
        if span is None or self._requests.is_full(self._query, _FAR_FROM_FULL * answer.height):
            return
        longer = replace(self._query, span=2 * span, hop=min(whole.hop, 2 * span))
        self._query = longer if 2 * span < whole.hop else whole

    async def _pass_nothing(
        self, position: WindowPosition, answer: pl.DataFrame, reached: datetime
    ) -> _Step:
        """Return the page of an answer without new rows."""
        query, window = self._query, self._window
        self._can_look_back = False
        rows = self._select_rows(position, answer, reached)
        if is_stuck(answer, position.since, self._requests.page_rows(query)):
            return self._pass_moment(position, answer, rows)
        until = await self._find_next_since(position)
        complete_until = self._find_complete_until(position, answer, reached)
        if until is None:
            # nothing proves that no bar follows the last one, which itself is known to its end
            end = min(window.end, query.end_of_last(position), complete_until)
            return [Page(rows, range_or_none(position.at, end))], None
        self._widen(answer)
        if until < _FAR and self._is_leading and self._is_history(position):
            page = await self._build_page_of_nothing(position, until, rows)
            if page is not None:
                end = until if page.settled is None and page.not_given is None else page.end
                return [page], WindowPosition(end, end, answer.clear())
        end = min(until, window.end, complete_until)
        page = Page(rows, range_or_none(position.at, end), self._requests.take_refused(query))
        return [page], WindowPosition(max(position.at, until), until, answer.clear())

    def _find_complete_until(
        self, position: WindowPosition, answer: pl.DataFrame, reached: datetime
    ) -> datetime:
        """Return the time up to which nothing is missing, by an answer without new rows."""
        known = pl.concat([position.overlap, answer])
        return self._query.complete_until(self._query.add_closed(known, reached), reached)

    async def _build_page_of_nothing(
        self, position: WindowPosition, until: datetime, rows: pl.DataFrame
    ) -> Page | None:
        """Build the page of a leading part without rows; None if the market was merely quiet."""
        history = await self._history.find(self._whole_query, position.at)
        if history.is_quiet_before(position.at):
            self._is_leading = False
            return None
        if not history.is_certain and until > position.at:
            return Page(rows, None)
        rest = TimeRange(position.at, self._window.end)
        oldest = history.oldest
        if oldest is None:
            # served from an unknown time on: later than the first day, or than this answer
            first_day = history.first_day
            oldest = first_day if first_day is not None and first_day > position.at else until
            return build_page_before(rest, oldest, first_day, rows)
        return build_page_before(rest, oldest, history.find_beginning(oldest), rows)

    def _pass_moment(
        self, position: WindowPosition, answer: pl.DataFrame, rows: pl.DataFrame
    ) -> _Step:
        """Return the page of one moment that is full, and which requests by time cannot complete.

        The moment stays open: it is the only part of the window that is lost.
        """
        moment = iso(position.since)
        self._requests.report("moment_incomplete", self._query, time=moment, rows=answer.height)
        following = position.since + MILLISECOND
        return [Page(rows, None)], WindowPosition(following, following, answer.clear())

    async def _find_next_since(self, position: WindowPosition) -> datetime | None:
        """Return where to continue after an answer without new rows; None if the venue has no rows.

        An empty answer means that nothing happened only if the venue has returned rows before: a
        format that ccxt can no longer parse looks empty, too.
        """
        query = self._query
        newest = await self._requests.find_newest_after(query, max(position.at, position.since))
        if newest is None:
            self._requests.report("no_rows", query, requested=iso(position.at))
            return None
        if newest <= position.since or newest < position.at:
            return _FAR
        return position.since + self._requests.find_hop(query)
