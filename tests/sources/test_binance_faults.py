"""Binance through the real ccxt client: faults do not change the fetched rows."""

import asyncio
from datetime import datetime
from typing import Any

import polars as pl
import pytest
from aiohttp import ClientSession, web
from polars.testing import assert_frame_equal

from lake.errors import SourceUnavailableError
from lake.model.time import TimeRange
from lake.sandbox import Fault, Market, RandomFaults, Sandbox, SyntheticMarkets, Trades
from tests.sources.markets import DAY, HOUR, KINDS, LIES, QUIET, SPOT, SWAP, same


async def everything(source: Any, fetch: Any, now: datetime) -> dict[str, Any]:
    """Fetch several past pages of each dataset, one after another."""
    start, symbol = now - 20 * DAY, SWAP[1]
    book = await source.order_book(await source.market(symbol), 5)
    return {
        "bars": await fetch(source, "bars_1m", symbol, start, start + 50 * HOUR),
        "trades": await fetch(source, "trades", symbol, start, start + 5 * HOUR),
        "funding": await fetch(source, "funding", symbol, now - 500 * DAY, now),
        "book": book.drop("received_at"),
        "instruments": pl.concat((await source.instruments()).values()),
    }


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    for name in ("bars", "trades", "funding"):
        assert_frame_equal(left[name].frame, right[name].frame, check_exact=True)
        assert left[name].settled == right[name].settled
    assert_frame_equal(left["book"], right["book"])
    assert_frame_equal(left["instruments"], right["instruments"])


@pytest.fixture(scope="module")
def faultless(connect: Any, fetch: Any, now: datetime) -> dict[str, Any]:
    async def run(url: str) -> dict[str, Any]:
        async with connect("binanceusdm", url) as source:
            return await everything(source, fetch, now)

    with Sandbox(now=lambda: now, weight_limit=False) as sandbox:
        return asyncio.run(run(sandbox.url))


ENDPOINTS = ("exchangeInfo", "klines", "aggTrades", "fundingRate", "depth")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("kind", [*KINDS, *LIES, "timeout"])
def test_each_fault_changes_nothing(
    sandbox: Sandbox,
    connect: Any,
    fetch: Any,
    now: datetime,
    faultless: dict[str, Any],
    kind: str,
    endpoint: str,
) -> None:
    times = 1 if kind in (*LIES, "timeout") else 2
    for skip in (0, 2):
        sandbox.fail(Fault(kind, endpoint, times, skip, retry_after=0.01, hang_seconds=1.0))

    async def run() -> dict[str, Any]:
        async with connect("binanceusdm", sandbox.url, timeout_seconds=0.25) as source:
            return await everything(source, fetch, now)

    assert_same(asyncio.run(run()), faultless)
    struck = [entry.fault for entry in sandbox.log if entry.fault]
    assert struck
    assert set(struck) == {kind}


@pytest.mark.parametrize("seed", range(3))
def test_faults_at_random_change_nothing(
    sandbox: Sandbox, connect: Any, fetch: Any, now: datetime, faultless: dict[str, Any], seed: int
) -> None:
    sandbox.fail_at_random(RandomFaults(0.4, [*KINDS, *LIES], seed=seed, retry_after=0.01))

    async def run() -> dict[str, Any]:
        async with connect("binanceusdm", sandbox.url, attempts=30) as source:
            return await everything(source, fetch, now)

    assert_same(asyncio.run(run()), faultless)
    assert any(entry.fault for entry in sandbox.log)


@pytest.mark.parametrize("dataset", ["bars_1m", "trades"])
def test_a_quiet_market_survives_repeated_answers(
    sandbox: Sandbox, connect: Any, fetch: Any, truth: Any, now: datetime, dataset: str
) -> None:
    # a repeated empty answer, or an old page inside a larger window, looks like a quiet market
    start = now - 9 * DAY

    async def run() -> Any:
        async with connect("binance", sandbox.url) as source:
            await fetch(source, dataset, QUIET[1], start + 3 * HOUR, start + 4 * HOUR)
            sandbox.fail(Fault("duplicate", match="XRPETH"))
            wide = await fetch(source, dataset, QUIET[1], start, start + 6 * HOUR)
            await fetch(source, dataset, QUIET[1], now - 3000 * DAY, now - 2999 * DAY)
            sandbox.fail(Fault("duplicate", match="XRPETH"))
            return wide, await fetch(source, dataset, QUIET[1], start, start + 6 * HOUR)

    if dataset == "trades":
        expected = truth.trades(*QUIET, start, start + 6 * HOUR)
    else:
        expected = truth.bars(*QUIET, "1m", start, start + 6 * HOUR)
    for got in asyncio.run(run()):
        same(got.frame, expected)
        assert got.settled == (TimeRange(start, start + 6 * HOUR),)


def test_a_venue_that_stays_down_is_unavailable(
    sandbox: Sandbox, connect: Any, fetch: Any, now: datetime
) -> None:
    async def run() -> None:
        async with connect("binance", sandbox.url) as source:
            await source.market(SPOT[1])
            sandbox.go_down()
            await fetch(source, "bars_1m", SPOT[1], now - DAY, now)

    with pytest.raises(SourceUnavailableError, match="binance gave no usable answer in 4 attempts"):
        asyncio.run(run())


@pytest.mark.parametrize("lies", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("dataset", "endpoint"),
    [("trades", "aggTrades"), ("bars_1m", "klines"), ("funding", "funding")],
)
def test_an_empty_answer_is_not_accepted_at_once(
    quiet: Sandbox,
    serving: Any,
    connect: Any,
    fetch: Any,
    truth: Any,
    now: datetime,
    dataset: str,
    endpoint: str,
    lies: int,
) -> None:
    # the answer with this number is an empty list, as of a replica that lags
    count = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal count
        count += endpoint in request.path
        if endpoint in request.path and count == lies:
            return web.Response(body=b"[]", content_type="application/json")
        async with ClientSession() as session, session.get(quiet.url + request.path_qs) as answer:
            return web.Response(body=await answer.read(), content_type="application/json")

    start = now - 600 * DAY
    end = start + {"trades": 3 * HOUR, "bars_1m": 30 * HOUR, "funding": 400 * DAY}[dataset]

    async def run() -> Any:
        async with serving(handle) as url, connect("binanceusdm", url) as source:
            return await fetch(source, dataset, SWAP[1], start, end)

    got = asyncio.run(run())
    if dataset == "bars_1m":
        same(got.frame, truth.bars(*SWAP, "1m", start, end))
    else:
        same(got.frame, getattr(truth, dataset)(*SWAP, start, end))
    assert got.settled == (TimeRange(start, end),)


class Gapped(SyntheticMarkets):
    """A market with gaps in its ids, as Binance has some."""

    JUMP = 1000

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def trades(self, market: Market, start: int, stop: int) -> Trades:
        trades = super().trades(market, start, stop)
        ids = [n + self.JUMP * (n >= self.at) for n in trades.ids]
        return Trades(ids, trades.times_ms, trades.prices, trades.amounts, trades.sells)

    def position_of(self, market: Market, trade_id: int) -> int:
        if trade_id >= self.at:
            trade_id = max(self.at, trade_id - self.JUMP)
        return super().position_of(market, trade_id)


@pytest.mark.parametrize("place", [0, 1, 150, 999, 1000, 1001])
def test_a_gap_of_ids_is_reported_and_passed(
    connect: Any,
    fetch: Any,
    truth: Any,
    now: datetime,
    log_lines: list[str],
    place: int,
) -> None:
    start, end = now - 30 * DAY, now - 30 * DAY + 7 * HOUR
    plain = truth.trades(*SPOT, start, end)
    data = Gapped(int(plain["trade_id"][place]))

    async def run(url: str) -> Any:
        async with connect("binance", url) as source:
            return await fetch(source, "trades", SPOT[1], start, end)

    with Sandbox(data, now=lambda: now, weight_limit=False) as sandbox:
        got = asyncio.run(run(sandbox.url))
    same(got.frame, plain, ["timestamp", "price", "amount"])
    assert got.settled == (TimeRange(start, end),)
    assert any("trades_inconsistent" in line and "are missing" in line for line in log_lines)
