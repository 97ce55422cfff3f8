"""Any ccxt exchange: the true rows, if the venue provides them."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from lake.model.time import TimeRange
from lake.sandbox import Fault, Sandbox
from tests.sources.markets import DAY, HOUR, MINUTE, QUIET, SECOND, SPOT, SWAP, same

OHLCV = ["timestamp", "open", "high", "low", "close", "volume"]
TRADE = ["timestamp", "trade_id", "price", "amount", "side"]


@pytest.mark.parametrize(("market", "long"), [(SPOT, 1), (QUIET, 1), (QUIET, 20), (SWAP, 1)])
@pytest.mark.parametrize("back", [timedelta(days=40), timedelta(hours=26)])
def test_it_equals_the_columnar_parsers(
    quiet: Sandbox,
    connect: Any,
    fetch: Any,
    truth: Any,
    now: datetime,
    market: tuple[str, str],
    long: int,
    back: timedelta,
) -> None:
    exchange, symbol = market
    start = now - back
    end = start + long * 3 * HOUR

    async def run() -> Any:
        async with connect(exchange, quiet.url, unified=True) as source:
            return (
                await fetch(source, "bars_1m", symbol, start, start + 9 * (end - start)),
                await fetch(source, "trades", symbol, start, end),
            )

    bars, trades = asyncio.run(run())
    same(bars.frame, truth.bars(*market, "1m", start, start + 9 * (end - start)), OHLCV)
    same(trades.frame, truth.trades(*market, start, end), TRADE)
    assert bars.settled[0].start == trades.settled[0].start == start
    assert len(bars.settled) == len(trades.settled) == 1
    assert trades.settled[0].end == min(end, now - 10 * SECOND)
    assert bars.settled[0].end >= min(start + 9 * (end - start), now - 90 * SECOND)
    assert bars.settled[0].end <= now


def test_funding(quiet: Sandbox, connect: Any, fetch: Any, truth: Any, now: datetime) -> None:
    async def run() -> Any:
        async with connect("binanceusdm", quiet.url, unified=True) as source:
            return await fetch(source, "funding", SWAP[1], now - 300 * DAY, now)

    got = asyncio.run(run())
    expected = truth.funding(*SWAP, now - 300 * DAY, now)
    same(got.frame, expected, ["timestamp", "funding_rate"])
    assert got.settled == (TimeRange(now - 300 * DAY, now - MINUTE),)


@pytest.mark.parametrize("kind", ["429", "503", "reset", "cut", "truncated", "html", "empty"])
@pytest.mark.parametrize("endpoint", ["klines", "aggTrades"])
@pytest.mark.parametrize("skip", [0, 1])
def test_faults_change_nothing(
    sandbox: Sandbox,
    connect: Any,
    fetch: Any,
    truth: Any,
    now: datetime,
    kind: str,
    endpoint: str,
    skip: int,
) -> None:
    start = now - 9 * DAY
    end = start + (5 * HOUR if endpoint == "aggTrades" else 2 * DAY)
    sandbox.fail(Fault(kind, match=endpoint, times=2, skip=skip, retry_after=0.01))

    async def run() -> Any:
        async with connect("binance", sandbox.url, unified=True) as source:
            dataset = "trades" if endpoint == "aggTrades" else "bars_1m"
            return await fetch(source, dataset, SPOT[1], start, end)

    got = asyncio.run(run())
    if endpoint == "klines":
        same(got.frame, truth.bars(*SPOT, "1m", start, end), OHLCV)
    else:
        same(got.frame, truth.trades(*SPOT, start, end), TRADE)
    assert got.settled == (TimeRange(start, end),)
    assert any(entry.fault == kind for entry in sandbox.log)


@pytest.mark.parametrize("kind", ["duplicate", "shuffled"])
@pytest.mark.parametrize("dataset", ["bars_1m", "trades"])
@pytest.mark.parametrize("skip", [0, 1, 2, 3])
def test_repeated_and_shuffled_answers_change_nothing(
    sandbox: Sandbox,
    connect: Any,
    fetch: Any,
    truth: Any,
    now: datetime,
    kind: str,
    dataset: str,
    skip: int,
) -> None:
    start, end = now - 9 * DAY, now - 8 * DAY - 12 * HOUR

    async def run() -> Any:
        async with connect("binance", sandbox.url, unified=True) as source:
            await fetch(source, dataset, QUIET[1], start + HOUR, start + 2 * HOUR)
            sandbox.fail(Fault(kind, match="XRPETH", skip=skip))
            return await fetch(source, dataset, QUIET[1], start, end)

    got = asyncio.run(run())
    if dataset == "trades":
        same(got.frame, truth.trades(*QUIET, start, end), TRADE)
    else:
        same(got.frame, truth.bars(*QUIET, "1m", start, end), OHLCV)
    assert got.settled == (TimeRange(start, end),)
