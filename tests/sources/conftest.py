"""Sandboxes and small servers, sources that fetch from them, and the expected rows."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from aiohttp import web
from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

from lake.log import log_retry
from lake.model.catalog import builtin
from lake.model.intervals import RangeSet, intersect, union
from lake.model.time import TimeRange, from_ms, to_ms_ceiling
from lake.sandbox import Market as SandboxMarket
from lake.sandbox import Sandbox, SyntheticMarkets
from lake.sandbox.intervals import INTERVALS
from lake.settings import ExchangeSettings, HttpSettings, RetrySettings, Url
from lake.sources.base import FetchRequest, Refused
from lake.sources.ccxt_rest import CcxtSource
from lake.sources.registry import source_name
from tests.paths import SHARED

NOW = datetime(2024, 3, 1, 12, 0, 30, tzinfo=UTC)
SAMPLES = SHARED / "cex" / "samples"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serving = Callable[[Handler], AbstractAsyncContextManager[str]]
Connect = Callable[..., CcxtSource]


@dataclass(frozen=True)
class Fetched:
    """All pages of a window together."""

    frame: pl.DataFrame
    settled: RangeSet
    pages: int
    not_given: RangeSet = ()
    refused: tuple[Refused, ...] = ()


Fetch = Callable[..., Awaitable[Fetched]]


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """An exchange for one test, at `NOW`, without weight limit."""
    with Sandbox(now=lambda: NOW, weight_limit=False) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def quiet() -> Iterator[Sandbox]:
    """An exchange for tests that do not change it."""
    with Sandbox(now=lambda: NOW, weight_limit=False) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def serving() -> Serving:
    """Serve a handler on loopback: `async with serving(handler) as url`."""

    @asynccontextmanager
    async def serve(handler: Handler) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    return serve


@pytest.fixture(scope="session")
def connect() -> Connect:
    """Create a source with short waits, without rate limiter: `connect(exchange_id, url, …)`."""

    def create(
        exchange_id: str,
        url: str,
        *,
        now: Callable[[], datetime] = lambda: NOW,
        attempts: int = 4,
        timeout_seconds: float = 5.0,
        unified: bool = False,
    ) -> CcxtSource:
        return CcxtSource(
            exchange_id,
            name=source_name(exchange_id),
            now=now,
            http=HttpSettings(rate_limit=False, timeout_seconds=timeout_seconds),
            retry=RetrySettings(
                attempts=attempts, wait_initial_seconds=0.001, wait_max_seconds=0.01
            ),
            exchange=ExchangeSettings(url=Url(url)),
            unified=unified,
        )

    return create


@pytest.fixture(scope="session")
def fetch() -> Fetch:
    """Fetch all pages of a window: `await fetch(source, dataset, symbol, start, end)`."""

    async def fetch_all(
        source: CcxtSource, dataset: str, symbol: str, start: datetime, end: datetime
    ) -> Fetched:
        market = await source.market(symbol)
        window = TimeRange(start, end)
        request = FetchRequest(builtin().dataset(dataset), market)
        pages = [page async for _, page in source.fetch([request], window)]
        frames = [page.frame for page in pages if page.frame.height]
        settled = [page.settled for page in pages if page.settled is not None]
        assert sum((s.duration for s in union(settled)), start - start) == sum(
            (s.duration for s in settled), start - start
        ), "settled intervals overlap"
        not_given = union(page.not_given for page in pages if page.not_given is not None)
        assert not intersect(union(settled), not_given), "settled and not given"
        frame = pl.concat(frames) if frames else pl.DataFrame()
        refused = tuple(record for page in pages for record in page.refused)
        return Fetched(frame, union(settled), len(pages), not_given, refused)

    return fetch_all


@pytest.fixture(scope="session")
def truth() -> "Truth":
    """The true rows of the sandbox's markets."""
    return Truth()


class Truth:
    """The sandbox's data, read without HTTP or ccxt."""

    def __init__(self) -> None:
        self._data = SyntheticMarkets()

    def market(self, exchange: str, symbol: str) -> SandboxMarket:
        for market in self._data.markets:
            if (market.exchange, market.symbol) == (exchange, symbol):
                return market
        raise LookupError(symbol)

    def bars(
        self, exchange: str, symbol: str, interval: str, start: datetime, end: datetime
    ) -> pl.DataFrame:
        """Return bars that open in a range; a bar that is open at `NOW` has the trades so far."""
        market, grid = self.market(exchange, symbol), INTERVALS[interval]
        first, last = to_ms_ceiling(start), to_ms_ceiling(end) - 1
        stop = min(grid.opens(grid.index(last) + 1), to_ms_ceiling(NOW))
        bars = self._data.bars(market, grid, grid.floor(first), stop)
        opens = [from_ms(time) for time in bars.open_ms]
        ends = [from_ms(grid.opens(grid.index(time) + 1)) for time in bars.open_ms]
        frame = pl.DataFrame(
            {
                "timestamp": pl.Series(opens, dtype=pl.Datetime("us", "UTC")),
                "open": list(map(float, bars.open)),
                "high": list(map(float, bars.high)),
                "low": list(map(float, bars.low)),
                "close": list(map(float, bars.close)),
                "volume": list(map(float, bars.volume)),
                "quote_volume": list(map(float, bars.quote_volume)),
                "trade_count": bars.trades,
                "taker_buy_volume": list(map(float, bars.taker_volume)),
                "taker_buy_quote_volume": list(map(float, bars.taker_quote_volume)),
                "closed": [end <= NOW for end in ends],
            }
        )
        return frame.filter(pl.col("timestamp") >= start)

    def trades(self, exchange: str, symbol: str, start: datetime, end: datetime) -> pl.DataFrame:
        market = self.market(exchange, symbol)
        first, stop = to_ms_ceiling(start), min(to_ms_ceiling(end), to_ms_ceiling(NOW))
        positions = [self._data.position_at(market, time) for time in (first, stop)]
        trades = self._data.trades(market, *positions)
        return pl.DataFrame(
            {
                "timestamp": pl.Series(
                    [from_ms(time) for time in trades.times_ms], dtype=pl.Datetime("us", "UTC")
                ),
                "trade_id": list(map(str, trades.ids)),
                "price": list(map(float, trades.prices)),
                "amount": list(map(float, trades.amounts)),
                "side": ["sell" if sell else "buy" for sell in trades.sells],
            }
        )

    def funding(self, exchange: str, symbol: str, start: datetime, end: datetime) -> pl.DataFrame:
        market = self.market(exchange, symbol)
        stop = min(to_ms_ceiling(end), to_ms_ceiling(NOW))
        funding = self._data.funding(market, to_ms_ceiling(start), stop)
        return pl.DataFrame(
            {
                "timestamp": pl.Series(
                    [from_ms(time) for time in funding.times_ms], dtype=pl.Datetime("us", "UTC")
                ),
                "funding_rate": list(map(float, funding.rates)),
                "mark_price": [float(price) if price else None for price in funding.mark_prices],
            }
        )


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """The log lines of the lake from level `info` on, with any configuration."""
    lines: list[str] = []
    package = logging.getLogger("lake")
    handler, level = logging.Handler(), package.level
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    hooks = get_on_retry_hooks()
    set_on_retry_hooks([log_retry])
    yield lines
    set_on_retry_hooks(hooks)
    package.setLevel(level)
    package.removeHandler(handler)


@pytest.fixture(scope="session")
def sample() -> Callable[[str], Any]:
    """Read a recorded answer as bytes: `sample("bybit/http_get_orderbook.json")`."""

    def read(name: str) -> bytes:
        path = SAMPLES / name
        if not path.is_file():
            pytest.skip(f"the recorded answers are not here: {path}")
        return path.read_bytes()

    return read
