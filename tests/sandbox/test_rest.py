"""The real ccxt clients receive the data of the market from the sandbox."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import ccxt
import pytest

from lake.sandbox import Sandbox, redirect

Ask = Callable[..., Any]
Use = Callable[..., Any]

NOW_MS = 1768478430000  # conftest's NOW: 2026-01-15 12:00:30 UTC
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
START_MS = NOW_MS - 30_000 - 24 * HOUR_MS


def total(trades: list[dict[str, str]], key: str = "q") -> Decimal:
    """Return the exact sum of a column."""
    return sum((Decimal(trade[key]) for trade in trades), Decimal(0))


def test_ccxt_sees_spot_and_perpetual_markets(quiet: Sandbox, use: Use) -> None:
    markets = use(quiet, lambda client: client.load_markets())
    assert set(markets) == {
        "BTC/USDT",
        "ETH/USDT",
        "XRP/ETH",
        "LUNA/USDT",
        "BTC/USDT:USDT",
        "ETH/USDT:USDT",
    }
    spot, swap = markets["BTC/USDT"], markets["BTC/USDT:USDT"]
    assert (spot["type"], spot["active"], spot["contractSize"]) == ("spot", True, None)
    assert (spot["precision"]["price"], spot["precision"]["amount"]) == (0.01, 1e-05)
    assert spot["limits"]["cost"]["min"] == 5
    assert spot["limits"]["amount"]["min"] == 1e-05
    assert (swap["type"], swap["linear"], swap["settle"]) == ("swap", True, "USDT")
    assert (swap["precision"]["price"], swap["precision"]["amount"]) == (0.1, 0.001)
    assert (swap["contractSize"], swap["limits"]["cost"]["min"]) == (1, 100)
    assert not markets["LUNA/USDT"]["active"]


@pytest.mark.parametrize(
    ("name", "symbols"),
    [("binanceusdm", {"BTC/USDT:USDT", "ETH/USDT:USDT"}), ("binanceus", {"BTC/USDT", "ETH/USDT"})],
)
def test_other_binances_have_their_own_markets(
    quiet: Sandbox, use: Use, name: str, symbols: set[str]
) -> None:
    assert set(use(quiet, lambda client: client.load_markets(), name)) == symbols


def test_the_synchronous_client_works_too(quiet: Sandbox) -> None:
    client = ccxt.binance({"enableRateLimit": False})
    client.urls["api"] = redirect(client.urls["api"], quiet.url)
    bars = client.fetch_ohlcv("BTC/USDT", "1h", limit=3)
    assert [bar[0] for bar in bars] == [NOW_MS - 30_000 - n * HOUR_MS for n in (2, 1, 0)]


def test_bars_are_the_aggregates_of_the_trades_that_the_exchange_lists(
    quiet: Sandbox, use: Use
) -> None:
    async def fetch(client: Any) -> tuple[Any, Any]:
        await client.load_markets()
        bars = await client.fetch_ohlcv("BTC/USDT", "5m", START_MS, 12)
        trades = await client.public_get_aggtrades(
            {"symbol": "BTCUSDT", "startTime": START_MS, "endTime": START_MS + HOUR_MS - 1}
        )
        return bars, trades

    bars, trades = use(quiet, fetch)
    assert len(bars) == 12
    for bar in bars:
        inside = [t for t in trades if bar[0] <= int(t["T"]) < bar[0] + 5 * MINUTE_MS]
        prices = [float(trade["p"]) for trade in inside]
        assert bar[1:5] == [prices[0], max(prices), min(prices), prices[-1]]
        assert bar[5] == float(total(inside))


def test_all_twelve_columns_of_a_bar_are_exact(quiet: Sandbox, ask: Ask) -> None:
    for host in ("api.binance.com/api/v3", "fapi.binance.com/fapi/v1"):
        where = {"host": host, "symbol": "BTCUSDT"}
        span = {"startTime": START_MS, "endTime": START_MS + MINUTE_MS - 1}
        (bar,) = ask(quiet, "klines", interval="1m", **where, **span).json
        trades = ask(quiet, "aggTrades", **where, **span).json
        costs = [{**t, "cost": Decimal(t["p"]) * Decimal(t["q"])} for t in trades]
        bought = [trade for trade in costs if not trade["m"]]
        assert bar[0] == START_MS
        assert bar[6] == START_MS + MINUTE_MS - 1
        assert [Decimal(bar[n]) for n in (5, 7, 9, 10)] == [
            total(costs),
            total(costs, "cost"),
            total(bought),
            total(bought, "cost"),
        ]
        assert (bar[8], bar[11]) == (len(trades), "0")
        assert all("M" in trade for trade in trades) == ("fapi" not in host)


def test_pages_of_bars_meet_without_gap_or_overlap(quiet: Sandbox, use: Use) -> None:
    async def fetch(client: Any) -> list[list[float]]:
        bars: list[list[float]] = []
        since = START_MS - 6000 * MINUTE_MS
        while since < START_MS:
            page = await client.fetch_ohlcv("BTC/USDT", "1m", since, 1000)
            bars += page
            since = page[-1][0] + MINUTE_MS
        return bars

    times = [bar[0] for bar in use(quiet, fetch)]
    assert times[0] == START_MS - 6000 * MINUTE_MS
    assert all(later - earlier == MINUTE_MS for earlier, later in pairwise(times))


def test_pages_of_trades_by_id_are_the_trades_by_time(quiet: Sandbox, ask: Ask) -> None:
    by_time = [
        trade
        for hour in range(6)
        for trade in ask(
            quiet,
            "aggTrades",
            symbol="BTCUSDT",
            limit=1000,
            startTime=START_MS + hour * HOUR_MS,
            endTime=START_MS + (hour + 1) * HOUR_MS - 1,
        ).json
    ]
    by_id: list[Any] = []
    while len(by_id) < len(by_time):
        first = by_id[-1]["a"] + 1 if by_id else by_time[0]["a"]
        by_id += ask(quiet, "aggTrades", symbol="BTCUSDT", fromId=first, limit=500).json
    assert by_id[: len(by_time)] == by_time
    assert [b["a"] - a["a"] for a, b in pairwise(by_time)] == [1] * (len(by_time) - 1)


@pytest.mark.parametrize(
    ("host", "path", "default", "most"),
    [
        ("api.binance.com/api/v3", "klines", 500, 1000),
        ("api.binance.com/api/v3", "aggTrades", 500, 1000),
        ("api.binance.com/api/v3", "trades", 500, 1000),
        ("api.binance.com/api/v3", "historicalTrades", 500, 1000),
        ("fapi.binance.com/fapi/v1", "klines", 500, 1500),
        ("fapi.binance.com/fapi/v1", "aggTrades", 500, 1000),
        ("fapi.binance.com/fapi/v1", "historicalTrades", 500, 500),
        ("fapi.binance.com/fapi/v1", "fundingRate", 100, 1000),
    ],
)
def test_limits_and_defaults_are_binances(
    quiet: Sandbox, ask: Ask, host: str, path: str, default: int, most: int
) -> None:
    query = {"host": host, "symbol": "BTCUSDT"} | ({"interval": "1m"} if path == "klines" else {})
    assert len(ask(quiet, path, **query).json) == default
    assert len(ask(quiet, path, **query, limit=most).json) == most
    above = ask(quiet, path, **query, limit=most + 1)
    if host.startswith("fapi"):
        assert (above.status, above.json["code"]) == (400, -1130)
    else:
        assert len(above.json) == most


def test_without_a_start_the_latest_rows_before_the_end_are_served(
    quiet: Sandbox, ask: Ask
) -> None:
    query = {"symbol": "BTCUSDT", "interval": "1m", "limit": 2}
    latest = ask(quiet, "klines", **query).json
    assert [bar[0] for bar in latest] == [NOW_MS - 30_000 - MINUTE_MS, NOW_MS - 30_000]
    until = ask(quiet, "klines", **query, endTime=START_MS).json
    assert [bar[0] for bar in until] == [START_MS - MINUTE_MS, START_MS]
    first = ask(quiet, "klines", **query, startTime=0).json
    assert first[0][0] == int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * 1000


def test_the_open_bar_holds_the_trades_so_far(quiet: Sandbox, ask: Ask) -> None:
    for interval, opens in (("1m", NOW_MS - 30_000), ("1h", NOW_MS - 30_000)):
        query = {"symbol": "BTCUSDT", "interval": interval, "startTime": opens}
        (bar,) = ask(quiet, "klines", **query).json
        trades = ask(quiet, "aggTrades", symbol="BTCUSDT", startTime=opens).json
        assert Decimal(bar[5]) == total(trades)
        assert (bar[4], bar[8]) == (trades[-1]["p"], len(trades))
        assert bar[6] > NOW_MS


def test_nothing_is_served_from_the_future(quiet: Sandbox, ask: Ask) -> None:
    later = {"symbol": "BTCUSDT", "startTime": NOW_MS}
    assert ask(quiet, "aggTrades", **later).json == []
    assert ask(quiet, "klines", **later, interval="1m").json == []
    last = ask(quiet, "trades", symbol="BTCUSDT", limit=1).json[0]
    assert NOW_MS - MINUTE_MS < last["time"] < NOW_MS
    beyond = {"symbol": "BTCUSDT", "fromId": last["id"] + 1}
    assert ask(quiet, "historicalTrades", **beyond).json == []
    futures = {"host": "fapi.binance.com/fapi/v1"}
    assert ask(quiet, "fundingRate", **futures, **later).json == []


def test_a_quiet_minute_has_no_bar(quiet: Sandbox, ask: Ask) -> None:
    query = {"symbol": "XRPETH", "startTime": START_MS, "endTime": START_MS + HOUR_MS - 1}
    bars = ask(quiet, "klines", interval="1m", **query).json
    trades = ask(quiet, "aggTrades", **query).json
    assert [bar[0] for bar in bars] == sorted({t["T"] // MINUTE_MS * MINUTE_MS for t in trades})
    assert 5 < len(bars) < 40


def test_a_halted_market_serves_its_last_trades(quiet: Sandbox, ask: Ask) -> None:
    halted = int(datetime(2022, 5, 13, tzinfo=UTC).timestamp()) * 1000
    last = ask(quiet, "klines", symbol="LUNAUSDT", interval="1d", limit=1).json
    assert last[0][0] == halted - 24 * HOUR_MS
    assert ask(quiet, "klines", symbol="LUNAUSDT", interval="1d", startTime=halted).json == []


def test_single_trades_are_the_aggregated_ones(quiet: Sandbox, ask: Ask) -> None:
    (agg,) = ask(quiet, "aggTrades", symbol="ETHUSDT", fromId=77, limit=1).json
    (one,) = ask(quiet, "historicalTrades", symbol="ETHUSDT", fromId=77, limit=1).json
    assert one["id"] == agg["a"] == agg["f"] == agg["l"] == 77
    assert (one["price"], one["qty"], one["time"]) == (agg["p"], agg["q"], agg["T"])
    assert (one["isBuyerMaker"], one["isBestMatch"]) == (agg["m"], True)
    assert Decimal(one["quoteQty"]) == Decimal(one["price"]) * Decimal(one["qty"])


def test_the_book_is_around_the_last_price(quiet: Sandbox, use: Use, ask: Ask) -> None:
    async def fetch(client: Any) -> tuple[Any, Any]:
        await client.load_markets()
        trades = await client.fetch_trades("BTC/USDT:USDT", limit=1)
        return await client.fetch_order_book("BTC/USDT:USDT", 10), trades[0]

    book, last = use(quiet, fetch)
    assert len(book["bids"]) == len(book["asks"]) == 10
    assert book["bids"][0][0] <= last["price"] <= book["asks"][0][0]
    assert book["timestamp"] == NOW_MS
    spot = ask(quiet, "depth", symbol="BTCUSDT", limit=7)
    assert sorted(spot.json) == ["asks", "bids", "lastUpdateId"]
    assert len(spot.json["bids"]) == 7
    futures = ask(quiet, "depth", host="fapi.binance.com/fapi/v1", symbol="BTCUSDT")
    assert sorted(futures.json) == ["E", "T", "asks", "bids", "lastUpdateId"]
    assert len(futures.json["asks"]) == 500


def test_funding_rates_ascend_and_carry_the_mark_price(quiet: Sandbox, use: Use, ask: Ask) -> None:
    async def fetch(client: Any) -> Any:
        return await client.fetch_funding_rate_history("BTC/USDT:USDT", START_MS, 10)

    rates = use(quiet, fetch, "binanceusdm")
    assert len(rates) == 3
    assert [rate["timestamp"] // (8 * HOUR_MS) for rate in rates] == [
        START_MS // (8 * HOUR_MS) + n for n in (1, 2, 3)
    ]
    everything = ask(quiet, "fundingRate", host="fapi.binance.com/fapi/v1", limit=4).json
    assert sorted(everything[0]) == ["fundingRate", "fundingTime", "markPrice", "symbol"]
    assert {row["symbol"] for row in everything} == {"BTCUSDT", "ETHUSDT"}
    assert all(float(row["markPrice"]) > 0 for row in everything)


def test_small_endpoints(quiet: Sandbox, ask: Ask) -> None:
    assert ask(quiet, "ping").json == {}
    reply = ask(quiet, "time")
    assert reply.json == {"serverTime": NOW_MS}
    assert reply.headers["Date"] == "Thu, 15 Jan 2026 12:00:30 GMT"
    inverse = ask(quiet, "exchangeInfo", host="dapi.binance.com/dapi/v1").json
    assert inverse["symbols"] == []
    one = ask(quiet, "exchangeInfo", symbol="ETHUSDT").json
    two = ask(quiet, "exchangeInfo", symbols='["BTCUSDT","XRPETH"]').json
    assert [market["symbol"] for market in one["symbols"]] == ["ETHUSDT"]
    assert [market["symbol"] for market in two["symbols"]] == ["BTCUSDT", "XRPETH"]


def test_a_revision_changes_one_bar_as_later_served(own: Sandbox, ask: Ask) -> None:
    query = {"symbol": "BTCUSDT", "interval": "1m", "startTime": START_MS, "limit": 3}
    before = ask(own, "klines", **query).json
    opens = datetime.fromtimestamp(START_MS / 1000, UTC) + timedelta(minutes=1)
    own.revise("BTC/USDT", "1m", opens, close="12345.67000000", trades=99)
    after = ask(own, "klines", **query).json
    assert after[1][4] == "12345.67000000"
    assert after[1][8] == 99
    after[1][4], after[1][8] = before[1][4], before[1][8]
    assert after == before
    other = ask(own, "klines", host="api.binance.us/api/v3", **query).json
    own.revise(
        "BTC/USDT",
        "1m",
        datetime.fromtimestamp(other[0][0] / 1000, UTC),
        exchange="binanceus",
        high="1",
    )
    assert ask(own, "klines", host="api.binance.us/api/v3", **query).json[0][2] == "1"
    assert ask(own, "klines", **query).json[0] == before[0]
