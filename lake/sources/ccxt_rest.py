"""The source of any exchange that ccxt knows: bars, trades, funding, books, instruments by REST."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Protocol

import polars as pl

from lake.errors import SourceError, UnknownNameError, UsageError
from lake.log import get_logger
from lake.model.catalog import builtin
from lake.model.dataset import Dataset
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe
from lake.settings import ExchangeSettings, HttpSettings, RetrySettings
from lake.sources.base import FetchRequest, Page
from lake.sources.books import build_book_row, choose_depth
from lake.sources.ccxt_client import connect
from lake.sources.instruments import build_instrument_row
from lake.sources.names import build_unknown_name_error
from lake.sources.venues import binance
from lake.sources.venues.habits import Habits
from lake.sources.venues.unified import UnifiedVenue

_log = get_logger(__name__)


class _Venue(Protocol):
    """Fetches the pages of one market."""

    def bars(self, timeframe: Timeframe, window: TimeRange) -> AsyncGenerator[Page]: ...

    def trades(self, window: TimeRange) -> AsyncGenerator[Page]: ...

    def funding(self, window: TimeRange) -> AsyncGenerator[Page]: ...


class CcxtSource:
    """Market data of one exchange by REST: ranges, the present, specifications.

    Spot and USD-M markets of Binance are fetched from its own endpoints, which give quote volume,
    trade count and taker-buy volumes; all others by ccxt's unified methods, with the columns that
    the venue gives. Use it in one event loop, and close it, or use it as an asynchronous context
    manager.

    Parameters
    ----------
    exchange_id
        The exchange as ccxt spells it: `binance`, `kraken`.
    name
        Name that is recorded as the source of its rows; see `lake.sources.registry.source_name`.
    now
        The local clock, in UTC.
    http, retry
        Timeouts, concurrency, and retries of requests.
    exchange
        URL and credentials.
    unified
        Use the unified methods even where there are better endpoints.

    Raises
    ------
    UnknownNameError
        ccxt has no such exchange; the error names the closest.
    """

    def __init__(
        self,
        exchange_id: str,
        *,
        name: str,
        now: Callable[[], datetime],
        http: HttpSettings | None = None,
        retry: RetrySettings | None = None,
        exchange: ExchangeSettings | None = None,
        unified: bool = False,
    ) -> None:
        self.client = connect(
            exchange_id,
            now=now,
            http=http or HttpSettings(),
            retry=retry or RetrySettings(),
            settings=exchange or ExchangeSettings(),
        )
        self._name = name
        self._unified = unified
        self._habits = Habits()
        self._venues: dict[str, _Venue] = {}

    async def __aenter__(self) -> CcxtSource:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def name(self) -> str:
        return self._name

    @property
    def requests(self) -> int:
        return self.client.requests

    async def market(self, symbol: str) -> Market:
        await self._describe(symbol)
        return Market(self.client.id, symbol)

    async def require(self, dataset: Dataset, market: Market) -> None:
        exchange = self.client.exchange
        if dataset.fetch is None or exchange.has.get(dataset.fetch.method) is not True:
            methods = builtin().fetch_methods.items()
            has = [family for family, method in methods if exchange.has.get(method) is True]
            raise UnknownNameError(
                f"{self.client.id} does not have {dataset.family}", f"It has {', '.join(has)}."
            )
        timeframe = dataset.timeframe
        if timeframe is not None and str(timeframe) not in exchange.timeframes:
            near = ", ".join(nearest_timeframes(timeframe, exchange.timeframes))
            raise UnknownNameError(
                f"{self.client.id} has no bars of {timeframe}", f"It has, closest first: {near}."
            )
        if dataset.event == "funding" and not (await self._describe(market.symbol)).get("swap"):
            raise UnknownNameError(
                f"{market} has no funding: it is no perpetual swap",
                "Perpetual swaps are called like BTC/USDT:USDT.",
            )

    def window(self, dataset: Dataset) -> timedelta:
        if dataset.fetch is None or dataset.fetch.window is None:
            raise _no_range(dataset)
        return dataset.fetch.window

    @property
    def batch_size(self) -> int:
        return 1

    @property
    def concurrency(self) -> int:
        return self.client.concurrency

    async def fetch(
        self, requests: Sequence[FetchRequest], window: TimeRange
    ) -> AsyncGenerator[tuple[FetchRequest, Page]]:
        for request in requests:
            await self.require(request.dataset, request.market)
            description = await self._describe(request.market.symbol)
            async with aclosing(self._pages(request.dataset, description, window)) as pages:
                async for page in pages:
                    yield request, page

    def _pages(
        self, dataset: Dataset, market: Mapping[str, Any], window: TimeRange
    ) -> AsyncGenerator[Page]:
        venue = self._venue(market)
        if dataset.timeframe is not None:
            return venue.bars(dataset.timeframe, window)
        if dataset.event == "trade":
            return venue.trades(window)
        if dataset.event == "funding":
            return venue.funding(window)
        raise _no_range(dataset)

    def _venue(self, market: Mapping[str, Any]) -> _Venue:
        symbol = market["symbol"]
        if symbol not in self._venues:
            if binance.is_supported(self.client.id, market) and not self._unified:
                self._venues[symbol] = binance.BinanceVenue(self.client, market)
            else:
                self._venues[symbol] = UnifiedVenue(self.client, market, self._habits)
        return self._venues[symbol]

    async def _describe(self, symbol: str) -> Mapping[str, Any]:
        markets = await self.client.markets(symbol)
        if symbol not in markets:
            names = {name: (str(market["id"]),) for name, market in markets.items()}
            raise build_unknown_name_error(f"{self.client.id} has no market", symbol, names)
        market: Mapping[str, Any] = markets[symbol]
        return market

    async def order_book(self, market: Market, depth: int | None) -> pl.DataFrame:
        await self._describe(market.symbol)
        levels = choose_depth(self.client.id, depth)

        def read(book: Any) -> pl.DataFrame:
            return build_book_row(book, depth, self.client.now())

        row = await self.client.call("fetch_order_book", market.symbol, levels, read=read)
        if depth is not None and levels is not None and levels < depth:
            _log.warning("book_is_shallower", market=str(market), requested=depth, most=levels)
        return row

    async def instruments(self, symbols: Collection[str] | None = None) -> dict[str, pl.DataFrame]:
        if symbols is None:
            markets = dict(await self.client.all_markets())
        else:
            listed = [(symbol, await self.client.markets(symbol)) for symbol in symbols]
            markets = {symbol: known[symbol] for symbol, known in listed if symbol in known}
        mode = self.client.exchange.precisionMode
        rows: dict[str, pl.DataFrame] = {}
        first_error: SourceError | None = None
        for name, market in markets.items():
            try:
                rows[name] = build_instrument_row(market, mode)
            except (KeyError, TypeError, ValueError) as error:
                message = f"{self.client.id} describes {name} in an unknown way: {error!r}"
                _log.warning("instrument_unreadable", error=message)
                first_error = first_error or SourceError(message, "A newer ccxt may read it.")
        if first_error is not None and not rows:
            raise first_error
        return rows

    async def close(self) -> None:
        await self.client.close()


def _no_range(dataset: Dataset) -> UsageError:
    return UsageError(
        f"{dataset.name} cannot be fetched by range: exchanges give only the present",
        "Take a snapshot instead.",
    )


def nearest_timeframes(timeframe: Timeframe, names: Mapping[str, Any]) -> list[str]:
    """Sort the timeframes of a venue, those of the most similar length first."""
    lengths = {}
    for name in names:
        try:
            lengths[name] = Timeframe.parse(name).seconds
        except UsageError:
            continue  # venues have names such as "tick" that the lake has no bars of
    return sorted(lengths, key=lambda name: abs(math.log(lengths[name] / timeframe.seconds)))
