"""Binance through the real ccxt client: equal to the truth."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.errors import UnknownNameError, UsageError
from lake.model.catalog import builtin
from lake.model.intervals import union
from lake.model.market import Market as LakeMarket
from lake.model.time import TimeRange, to_ms
from lake.sandbox import Sandbox
from tests.sources.markets import DAY, HOUR, MINUTE, QUIET, SPOT, SWAP, same


@pytest.mark.parametrize(
    ("market", "timeframe", "back"),
    [
        (SPOT, "1s", 40 * MINUTE),
        (SPOT, "1m", 3 * DAY),
        (QUIET, "1m", 3 * DAY),
        (SWAP, "1m", 3 * DAY),
        (SPOT, "15m", 30 * DAY),
        (QUIET, "1h", 100 * DAY),
        (SWAP, "4h", 200 * DAY),
        (SPOT, "1d", 500 * DAY),
        (SPOT, "3d", 600 * DAY),
        (SPOT, "1w", 400 * DAY),
        (SWAP, "1M", 800 * DAY),
        (("binanceus", "ETH/USDT"), "1h", 20 * DAY),
    ],
)
def test_bars_equal_the_truth(
    quiet: Sandbox,
    connect: Any,
    fetch: Any,
    truth: Any,
    now: datetime,
    market: tuple[str, str],
    timeframe: str,
    back: timedelta,
) -> None:
    exchange, symbol = market
    start, end = now - back, now + HOUR
    dataset = f"bars_{timeframe.replace('M', 'mo')}"

    async def run() -> Any:
        async with connect(exchange, quiet.url) as source:
            return await fetch(source, dataset, symbol, start, end)

    got, expected = asyncio.run(run()), truth.bars(exchange, symbol, timeframe, start, end)
    reached = now - timedelta(seconds=5)
    step = builtin().dataset(dataset).timeframe
    assert step is not None
    same(got.frame, expected, [c for c in expected.columns if c != "closed"])
    ends = [step.after(time) for time in got.frame["timestamp"]]
    assert got.frame["closed"].to_list() == [bar_end <= reached for bar_end in ends]
    # all settled bars are closed, and all bars before the open one are settled
    assert len(got.settled) == 1
    assert got.settled[0].start == start
    assert step.floor(reached) - timedelta(seconds=step.seconds) <= got.settled[0].end <= reached


@pytest.mark.parametrize("market", [SPOT, QUIET, SWAP])
def test_trades_equal_the_truth(
    quiet: Sandbox, connect: Any, fetch: Any, truth: Any, now: datetime, market: tuple[str, str]
) -> None:
    exchange, symbol = market

    async def run(start: datetime, end: datetime) -> Any:
        async with connect(exchange, quiet.url) as source:
            return await fetch(source, "trades", symbol, start, end)

    start = now - 30 * HOUR
    past = asyncio.run(run(start, start + 7 * HOUR))
    same(past.frame, truth.trades(*market, start, start + 7 * HOUR))
    assert past.settled == (TimeRange(start, start + 7 * HOUR),)
    present = asyncio.run(run(now - 2 * HOUR, now + HOUR))
    same(present.frame, truth.trades(*market, now - 2 * HOUR, now + HOUR))
    assert present.settled == (TimeRange(now - 2 * HOUR, now - timedelta(seconds=10)),)


def test_funding_equals_the_truth(
    quiet: Sandbox, connect: Any, fetch: Any, truth: Any, now: datetime
) -> None:
    start = now - 1000 * DAY

    async def run() -> Any:
        async with connect("binanceusdm", quiet.url) as source:
            return await fetch(source, "funding", SWAP[1], start, now + DAY)

    got = asyncio.run(run())
    same(got.frame, truth.funding(*SWAP, start, now + DAY))
    assert got.frame.height > 2900
    assert got.settled == (TimeRange(start, now - MINUTE),)


def test_funding_before_the_listing_is_empty(
    sandbox: Sandbox, connect: Any, fetch: Any, truth: Any, now: datetime
) -> None:
    listed = datetime(2020, 1, 1, tzinfo=now.tzinfo)
    start, end = listed - 700 * DAY, listed + 2 * DAY

    async def run() -> Any:
        async with connect("binanceusdm", sandbox.url) as source:
            return await fetch(source, "funding", SWAP[1], start, end)

    got = asyncio.run(run())
    same(got.frame, truth.funding(*SWAP, start, end))
    assert got.settled == (TimeRange(start, end),)
    assert got.not_given == ()
    assert len([entry for entry in sandbox.log if "exchangeInfo" not in entry.path]) < 10


def test_instruments_and_book_equal_the_truth(quiet: Sandbox, connect: Any, truth: Any) -> None:
    async def run() -> Any:
        async with connect("binance", quiet.url) as source:
            book = await source.order_book(LakeMarket("binance", "BTC/USDT"), 7)
            return await source.instruments(), book

    instruments, book = asyncio.run(run())
    row = instruments["BTC/USDT"].row(0, named=True)
    market = truth.market(*SPOT)
    assert row["venue_symbol"] == "BTCUSDT"
    assert row["tick_size"] == pytest.approx(10.0**-market.price_places, rel=1e-12)
    assert row["lot_size"] == pytest.approx(10.0**-market.amount_places, rel=1e-12)
    assert (row["type"], row["base"], row["quote"]) == ("spot", "BTC", "USDT")
    schema = builtin().dataset("instruments").polars_schema
    assert all(schema[name] == dtype for name, dtype in instruments["BTC/USDT"].schema.items())
    level = book.row(0, named=True)
    assert len(level["bid_prices"]) == len(level["ask_amounts"]) == 7
    assert level["bid_prices"] == sorted(level["bid_prices"], reverse=True)
    assert level["bid_prices"][0] < level["ask_prices"][0]
    assert level["sequence"] > 0
    schema = builtin().dataset("orderbooks").polars_schema
    assert all(schema[name] == dtype for name, dtype in book.schema.items())


@given(st.integers(0, 10 * 86_400_000), st.integers(1, 40 * 3_600_000))
@settings(max_examples=15, deadline=None)
def test_any_window_of_bars_equals_the_truth(
    quiet: Sandbox, connect: Any, fetch: Any, truth: Any, now: datetime, back_ms: int, long_ms: int
) -> None:
    start = now - timedelta(milliseconds=back_ms)
    end = start + timedelta(milliseconds=long_ms)

    async def run() -> Any:
        async with connect("binance", quiet.url) as source:
            return await fetch(source, "bars_1m", QUIET[1], start, end)

    got, expected = asyncio.run(run()), truth.bars(*QUIET, "1m", start, end)
    if expected.height:
        same(got.frame, expected, ["timestamp", "open", "close", "volume"])
    else:
        assert got.frame.is_empty()
    if end < now - HOUR:
        assert got.settled == (TimeRange(start, end),)


@given(st.integers(0, 86_400_000), st.integers(1, 4 * 3_600_000))
@settings(max_examples=15, deadline=None)
def test_any_window_of_trades_equals_the_truth(
    quiet: Sandbox, connect: Any, fetch: Any, truth: Any, now: datetime, back_ms: int, long_ms: int
) -> None:
    start = now - DAY - timedelta(milliseconds=back_ms)
    end = start + timedelta(milliseconds=long_ms)

    async def run() -> Any:
        async with connect("binance", quiet.url) as source:
            return await fetch(source, "trades", QUIET[1], start, end)

    got, expected = asyncio.run(run()), truth.trades(*QUIET, start, end)
    assert got.frame.height == expected.height
    if expected.height:
        same(got.frame, expected)
    assert got.settled == (TimeRange(start, end),)


def test_windows_side_by_side_on_one_client(
    quiet: Sandbox, connect: Any, fetch: Any, truth: Any, now: datetime
) -> None:
    start = now - 10 * DAY

    async def run() -> Any:
        async with connect("binance", quiet.url) as source:
            return await asyncio.gather(
                *(
                    fetch(source, "bars_1m", symbol, start + n * DAY, start + (n + 1) * DAY)
                    for symbol in (SPOT[1], QUIET[1])
                    for n in range(6)
                )
            )

    got = asyncio.run(run())
    for symbol, parts in ((SPOT[1], got[:6]), (QUIET[1], got[6:])):
        expected = truth.bars("binance", symbol, "1m", start, start + 6 * DAY)
        same(pl.concat([one.frame for one in parts]), expected)
        assert union(s for one in parts for s in one.settled) == (
            TimeRange(start, start + 6 * DAY),
        )


@pytest.mark.parametrize("venue", ["binance", "unified"])
@pytest.mark.parametrize("dataset", ["bars_1m", "trades"])
def test_a_fast_local_clock_does_not_settle_the_future(
    quiet: Sandbox, connect: Any, fetch: Any, now: datetime, dataset: str, venue: str
) -> None:
    async def run() -> Any:
        fast = now + 3 * HOUR
        async with connect(
            "binance", quiet.url, now=lambda: fast, unified=venue == "unified"
        ) as source:
            return await fetch(source, dataset, SPOT[1], now - HOUR, fast)

    got = asyncio.run(run())
    assert got.settled[-1].end <= now
    assert got.settled[-1].end >= now - 2 * MINUTE
    if dataset != "trades":
        assert got.frame["closed"].to_list() == [True] * (got.frame.height - 1) + [False]


def test_a_future_window_sends_no_request(
    sandbox: Sandbox, connect: Any, fetch: Any, now: datetime
) -> None:
    async def run() -> Any:
        async with connect("binance", sandbox.url) as source:
            await source.market(SPOT[1])
            sandbox.clear_log()
            return [
                await fetch(source, dataset, SPOT[1], now + HOUR, now + DAY)
                for dataset in ("bars_1m", "trades")
            ]

    for got in asyncio.run(run()):
        assert got.frame.is_empty()
        assert got.settled == ()
    assert len(sandbox.log) == 0


def test_a_long_time_before_the_listing_costs_little(
    sandbox: Sandbox, connect: Any, fetch: Any, truth: Any, now: datetime
) -> None:
    listed = datetime(2020, 1, 1, tzinfo=now.tzinfo)

    async def run() -> Any:
        async with connect("binance", sandbox.url) as source:
            return await fetch(source, "bars_1m", SPOT[1], listed - 900 * DAY, listed + HOUR)

    got = asyncio.run(run())
    same(got.frame, truth.bars(*SPOT, "1m", listed, listed + HOUR))
    assert got.settled == (TimeRange(listed - 900 * DAY, listed + HOUR),)
    assert len([entry for entry in sandbox.log if "klines" in entry.path]) < 8


@pytest.mark.parametrize(
    ("wrong", "best"),
    [
        ("BTCUSDT", "BTC/USDT"),
        ("btc/usdt", "BTC/USDT"),
        ("BTC-USDT", "BTC/USDT"),
        ("BTX/USDT", "BTC/USDT"),
    ],
)
def test_an_unknown_symbol_names_the_closest(
    quiet: Sandbox, connect: Any, wrong: str, best: str
) -> None:
    async def run() -> None:
        async with connect("binance", quiet.url) as source:
            await source.market(wrong)

    with pytest.raises(UnknownNameError) as caught:
        asyncio.run(run())
    assert repr(wrong) in caught.value.message
    assert caught.value.hint.startswith(f"Did you mean {best}")
    assert "names are known" in caught.value.hint


def test_an_error_names_what_a_venue_lacks(
    quiet: Sandbox, connect: Any, fetch: Any, now: datetime
) -> None:
    async def run(exchange: str, dataset: str, symbol: str) -> None:
        async with connect(exchange, quiet.url) as source:
            await fetch(source, dataset, symbol, now - DAY, now)

    with pytest.raises(UnknownNameError, match="2m") as timeframe:
        asyncio.run(run("binance", "bars_2m", SPOT[1]))
    assert "closest first: 3m, 1m" in timeframe.value.hint
    with pytest.raises(UnknownNameError, match="no perpetual swap"):
        asyncio.run(run("binance", "funding", SPOT[1]))
    with pytest.raises(UsageError, match="only the present"):
        asyncio.run(run("binance", "orderbooks", SPOT[1]))


def test_a_dataset_that_a_venue_lacks_is_refused_without_asking(connect: Any) -> None:
    async def run(dataset: str) -> None:
        async with connect("kraken", "http://127.0.0.1:1") as source:
            await source.require(builtin().dataset(dataset), LakeMarket("kraken", "BTC/USD"))

    asyncio.run(run("bars_4h"))
    with pytest.raises(UnknownNameError, match="does not have funding") as caught:
        asyncio.run(run("funding"))
    assert caught.value.hint == "It has bars, trades, orderbooks, instruments."
    with pytest.raises(UnknownNameError, match="no bars of 3m") as timeframe:
        asyncio.run(run("bars_3m"))
    assert timeframe.value.hint.startswith("It has, closest first: 5m, 1m, 15m")


def test_markets_are_loaded_once(sandbox: Sandbox, connect: Any) -> None:
    async def run() -> None:
        async with connect("binance", sandbox.url) as source:
            await asyncio.gather(*(source.market(SPOT[1]) for _ in range(10)))
            await source.instruments()

    asyncio.run(run())
    info_requests = [entry.path for entry in sandbox.log if "exchangeInfo" in entry.path]
    assert len(info_requests) == len(set(info_requests)) > 0


def test_times_are_whole_milliseconds_in_requests(
    sandbox: Sandbox, connect: Any, fetch: Any, now: datetime
) -> None:
    start = now - HOUR + timedelta(microseconds=1)

    async def run() -> Any:
        async with connect("binance", sandbox.url) as source:
            return await fetch(source, "trades", SPOT[1], start, now - 30 * MINUTE)

    got = asyncio.run(run())
    assert got.frame["timestamp"].min() >= start
    assert f"startTime={to_ms(now - HOUR) + 1}&endTime={to_ms(now - 30 * MINUTE) - 1}" in {
        part for entry in sandbox.log for part in [entry.query.partition("&limit")[0]]
    } | {entry.query[entry.query.find("startTime") :] for entry in sandbox.log}
