"""A source that is not ccxt: it serves ranges of bars, and no order books."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from datetime import datetime, timedelta

import polars as pl

from lake.errors import UnknownNameError
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.sources.base import FetchRequest, Page

EXCHANGE = "archive"
MINUTE = timedelta(minutes=1)


def bars_of(symbol: str, window: TimeRange) -> pl.DataFrame:
    """The bars that the source has of a market: one a minute, its price that of the market."""
    count = window.duration // MINUTE
    price = float(sum(map(ord, symbol)))
    return pl.DataFrame(
        {
            "timestamp": [window.start + n * MINUTE for n in range(count)],
            **dict.fromkeys(("open", "high", "low", "close", "volume"), [price] * count),
            "closed": [True] * count,
        },
        schema_overrides={"timestamp": TIMESTAMP, "closed": pl.Boolean},
    )


class Archive:
    """What all sources have; serves nothing.

    Attributes
    ----------
    closed
        Whether it was closed.
    """

    def __init__(self, *symbols: str) -> None:
        self.requests = 0
        self.closed = False
        self._symbols = symbols

    @property
    def name(self) -> str:
        return f"files:{EXCHANGE}"

    async def market(self, symbol: str) -> Market:
        if symbol not in self._symbols:
            raise UnknownNameError(f"{self.name} has no market {symbol}")
        return Market(EXCHANGE, symbol)

    async def close(self) -> None:
        self.closed = True


class Ranges(Archive):
    """Serves bars of some markets, several in one fetch.

    Attributes
    ----------
    fetched
        The symbols and the window of each fetch.
    """

    def __init__(self, *symbols: str, batch_size: int = 1) -> None:
        super().__init__(*symbols)
        self.batch_size = batch_size
        self.concurrency = 8
        self.fetched: list[tuple[tuple[str, ...], TimeRange]] = []

    async def require(self, dataset: Dataset, market: Market) -> None:
        if dataset.name != "bars_1m":
            raise UnknownNameError(f"{self.name} has no {dataset.name} of {market}")

    def window(self, dataset: Dataset) -> timedelta:
        assert dataset.name == "bars_1m"
        return timedelta(hours=6)

    async def fetch(
        self, requests: Sequence[FetchRequest], window: TimeRange
    ) -> AsyncGenerator[tuple[FetchRequest, Page]]:
        """Two pages of each request: the first of all, then the second of all."""
        assert 1 <= len(requests) <= self.batch_size
        self.requests += 1
        self.fetched.append((tuple(request.market.symbol for request in requests), window))
        middle = window.start + window.duration // (2 * MINUTE) * MINUTE
        for part in (TimeRange(window.start, middle), TimeRange(middle, window.end)):
            for request in requests:
                yield request, Page(bars_of(request.market.symbol, part), part)


class SomeSpecifications(Ranges):
    """Serves bars of all its markets, and the specification of the first one."""

    async def instruments(self, symbols: Collection[str] | None = None) -> dict[str, pl.DataFrame]:
        first = self._symbols[0]
        if symbols is not None and first not in symbols:
            return {}
        base, quote = first.split("/")
        row = {"venue_symbol": first, "type": "spot", "base": base, "quote": quote}
        return {first: pl.DataFrame([row])}


def day(time: datetime) -> TimeRange:
    """The day before a time's midnight."""
    midnight = time.replace(hour=0, minute=0, second=0, microsecond=0)
    return TimeRange(midnight - timedelta(days=1), midnight)
