"""Funding rates of Binance's USD-M markets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lake.model.time import EPOCH, MILLISECOND, TimeRange, iso
from lake.sources.base import Page
from lake.sources.faults import ask_until_consistent
from lake.sources.frames import range_or_none
from lake.sources.records import Records, join_anomalies, parse_records
from lake.sources.venues.beginnings import DAY, build_page_before, find_beginning, is_history
from lake.sources.venues.binance_api import BinanceMarket, to_time_parameters
from lake.sources.venues.binance_pages import parse_funding, validate_funding

_LIMIT = 1000
_LONGEST_INTERVAL = timedelta(hours=8, minutes=1)
# How long Binance's replicas may still serve older answers
_SETTLE = timedelta(minutes=1)


class BinanceFunding:
    """Fetches the funding rates of one market."""

    def __init__(
        self, market: BinanceMarket, first_day: Callable[[], Awaitable[datetime | None]]
    ) -> None:
        self._market = market
        self._first_day = first_day

    async def fetch(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the funding rates of a window."""
        done_until = window.start
        while done_until < window.end and done_until < self._market.client.venue_now():
            reached = self._market.client.venue_now() - _SETTLE
            answer = await self._fetch_page(TimeRange(done_until, window.end))
            rates = answer.frame
            if done_until == window.start and _is_late(rates, window):
                before = await self._build_page_before(window)
                if before is not None:
                    yield before
                    done_until = before.end
            until = rates["timestamp"][-1] + MILLISECOND if rates.height else window.end
            until = min(until, window.end)
            yield Page(rates, range_or_none(done_until, min(until, reached)), answer.refused)
            done_until = until

    async def _build_page_before(self, window: TimeRange) -> Page | None:
        """Build the page of the time before the oldest rate; None if there is none in the window.

        The first rate settles within a day of the first trade.
        """
        since_ever = TimeRange(EPOCH, self._market.client.venue_now())
        if not is_history(window.start, since_ever.end):
            return None
        first = (await self._fetch_page(since_ever, limit=1)).frame
        if first.is_empty() or first["timestamp"][0] <= window.start:
            return None
        oldest = first["timestamp"][0]
        began = find_beginning(oldest, await self._first_day(), 2 * DAY)
        no_rates = parse_funding([]).drop("symbol")
        return build_page_before(window, oldest, began, no_rates)

    async def _fetch_page(self, window: TimeRange, limit: int = _LIMIT) -> Records:
        def read(answer: Any) -> Records:
            records = parse_records(answer, parse_funding)
            self._market.require_readable("funding", records)
            rates = validate_funding(records.frame, window, self._market.id)
            return Records(rates, records.refused)

        def find_anomaly(answer: Records) -> str | None:
            rates = answer.frame
            first = rates["timestamp"][0] if rates.height else window.end
            is_late = _is_late(rates, window)
            repeated = rates.height - rates["timestamp"].n_unique()
            return join_anomalies(
                answer.anomaly,
                f"none before {iso(first)}" if is_late else None,
                f"{repeated} times are repeated" if repeated else None,
            )

        request = {"limit": limit, **to_time_parameters(window)}
        answer, _ = await ask_until_consistent(
            self._market.client.id,
            f"funding rates of {self._market.symbol} in {window}",
            lambda: self._market.call(self._market.api.funding, request, read),
            find_anomaly,
        )
        return answer


def _is_late(rates: pl.DataFrame, window: TimeRange) -> bool:
    return rates.is_empty() or rates["timestamp"][0] - window.start > _LONGEST_INTERVAL
