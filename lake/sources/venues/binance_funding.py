"""Funding rates of Binance's USD-M markets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

from lake.model.time import MILLISECOND, TimeRange, iso
from lake.sources.base import Page
from lake.sources.faults import ask_until_consistent
from lake.sources.frames import range_or_none
from lake.sources.records import Records, join_anomalies, parse_records
from lake.sources.venues.binance_api import BinanceMarket, to_time_parameters
from lake.sources.venues.binance_pages import parse_funding, validate_funding

_LIMIT = 1000
_LONGEST_INTERVAL = timedelta(hours=8, minutes=1)
# How long Binance's replicas may still serve older answers
_SETTLE = timedelta(minutes=1)


class BinanceFunding:
    """Fetches the funding rates of one market."""

    def __init__(self, market: BinanceMarket) -> None:
        self._market = market

    async def fetch(self, window: TimeRange) -> AsyncGenerator[Page]:
        """Fetch the funding rates of a window."""
        done_until = window.start
        while done_until < window.end and done_until < self._market.client.venue_now():
            reached = self._market.client.venue_now() - _SETTLE
            answer = await self._fetch_page(TimeRange(done_until, window.end))
            rates = answer.frame
            until = rates["timestamp"][-1] + MILLISECOND if rates.height else window.end
            until = min(until, window.end)
            yield Page(rates, range_or_none(done_until, min(until, reached)), answer.refused)
            done_until = until

    async def _fetch_page(self, window: TimeRange) -> Records:
        def read(answer: Any) -> Records:
            records = parse_records(answer, parse_funding)
            self._market.require_readable("funding", records)
            rates = validate_funding(records.frame, window, self._market.id)
            return Records(rates, records.refused)

        def find_anomaly(answer: Records) -> str | None:
            rates = answer.frame
            first = rates["timestamp"][0] if rates.height else window.end
            is_late = rates.is_empty() or first - window.start > _LONGEST_INTERVAL
            repeated = rates.height - rates["timestamp"].n_unique()
            return join_anomalies(
                answer.anomaly,
                f"none before {iso(first)}" if is_late else None,
                f"{repeated} times are repeated" if repeated else None,
            )

        request = {"limit": _LIMIT, **to_time_parameters(window)}
        answer, _ = await ask_until_consistent(
            self._market.client.id,
            f"funding rates of {self._market.symbol} in {window}",
            lambda: self._market.call(self._market.api.funding, request, read),
            find_anomaly,
        )
        return answer
