"""Binance's errors: code, status, and the exception that ccxt raises for them."""

from collections.abc import Callable
from itertools import count
from typing import Any

import ccxt
import pytest

from lake.sandbox import Sandbox
from lake.sandbox.weights import WeightCounter

Ask = Callable[..., Any]
Use = Callable[..., Any]

SPOT = "api.binance.com/api/v3"
FUTURES = "fapi.binance.com/fapi/v1"
BTC = {"symbol": "BTCUSDT"}
HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("code", "host", "path", "query"),
    [
        (-1100, SPOT, "klines", {"symbol": "btcusdt", "interval": "1m"}),
        (-1100, SPOT, "klines", {**BTC, "interval": "1m", "startTime": "yesterday"}),
        (-1100, FUTURES, "aggTrades", {**BTC, "fromId": "-5"}),
        (-1101, SPOT, "time", {"a": 1}),
        (-1101, SPOT, "depth", {**BTC, "limit": 5, "offset": 5}),
        (-1102, SPOT, "klines", {"interval": "1m"}),
        (-1102, SPOT, "klines", BTC),
        (-1102, FUTURES, "depth", {"symbol": ""}),
        (-1104, SPOT, "klines", {**BTC, "interval": "1m", "since": 5}),
        (-1105, SPOT, "trades", {**BTC, "limit": ""}),
        (-1120, SPOT, "klines", {**BTC, "interval": "7m"}),
        (-1120, FUTURES, "klines", {**BTC, "interval": "1s"}),
        (-1121, SPOT, "klines", {"symbol": "NOPEUSDT", "interval": "1m"}),
        (-1121, FUTURES, "depth", {"symbol": "XRPETH"}),
        (-1121, SPOT, "exchangeInfo", {"symbol": "NOPE"}),
        (-1127, SPOT, "aggTrades", {**BTC, "startTime": 0, "endTime": HOUR_MS + 1}),
        (-1127, FUTURES, "aggTrades", {**BTC, "startTime": 0, "endTime": HOUR_MS + 1}),
        (-1128, SPOT, "aggTrades", {**BTC, "fromId": 5, "startTime": 0}),
        (-1128, FUTURES, "aggTrades", {**BTC, "fromId": 5, "endTime": 9}),
        (-1130, FUTURES, "klines", {**BTC, "interval": "1m", "limit": 1501}),
        (-1130, SPOT, "klines", {**BTC, "interval": "1m", "limit": 0}),
        (-1023, FUTURES, "klines", {**BTC, "interval": "1m", "startTime": 2, "endTime": 1}),
        (-4021, FUTURES, "depth", {**BTC, "limit": 7}),
    ],
)
def test_refused_with_binances_code(
    quiet: Sandbox, ask: Ask, code: int, host: str, path: str, query: dict[str, Any]
) -> None:
    reply = ask(quiet, path, host=host, **query)
    assert (reply.status, reply.json["code"]) == (400, code)
    assert sorted(reply.json) == ["code", "msg"]
    assert reply.headers["Content-Type"].startswith("application/json")


def test_the_messages_are_binances(quiet: Sandbox, ask: Ask) -> None:
    def message(path: str, **query: object) -> str:
        return str(ask(quiet, path, **query).json["msg"])

    assert message("klines", symbol="NOPE", interval="1m") == "Invalid symbol."
    assert message("time", a=1) == "Too many parameters; expected '0' and received '1'."
    assert message("klines", symbol="BTCUSDT", interval="1m", since=1) == (
        "Not all sent parameters were read; read '2' parameter(s) but was sent '3'."
    )
    assert message("klines", symbol="BTCUSDT") == (
        "Mandatory parameter 'interval' was not sent, was empty/null, or malformed."
    )


def test_a_parameter_sent_twice_is_refused(quiet: Sandbox, ask: Ask) -> None:
    reply = ask(quiet, "depth?symbol=ETHUSDT", symbol="BTCUSDT")
    assert reply.status == 400


def test_an_hour_of_trades_is_not_too_long(quiet: Sandbox, ask: Ask) -> None:
    reply = ask(quiet, "aggTrades", **BTC, startTime=1768000000000, endTime=1768003600000)
    assert reply.status == 200
    assert len(reply.json) > 200


@pytest.mark.parametrize(
    ("error", "method", "query"),
    [
        (ccxt.BadSymbol, "public_get_klines", {"symbol": "NOPE", "interval": "1m"}),
        (ccxt.BadRequest, "public_get_klines", {**BTC, "interval": "7m"}),
        (ccxt.BadRequest, "public_get_klines", BTC),
        (ccxt.BadRequest, "public_get_aggtrades", {**BTC, "fromId": 1, "startTime": 0}),
        (ccxt.BadRequest, "fapipublic_get_aggtrades", {**BTC, "startTime": 0, "endTime": 1 << 40}),
        (ccxt.BadRequest, "public_get_klines", {**BTC, "interval": "1m", "startTime": "x"}),
        (ccxt.BadRequest, "fapipublic_get_klines", {**BTC, "interval": "1m", "limit": 1501}),
    ],
)
def test_ccxt_understands_the_refusal(
    quiet: Sandbox, use: Use, error: type[Exception], method: str, query: dict[str, Any]
) -> None:
    with pytest.raises(error) as caught:
        use(quiet, lambda client: getattr(client, method)(query))
    assert type(caught.value) is error


@pytest.mark.parametrize("path", ["nope", "fundingRate"])
def test_endpoints_that_spot_lacks_are_not_found(quiet: Sandbox, ask: Ask, path: str) -> None:
    assert ask(quiet, path, **BTC).status == 404


def test_an_unknown_host_is_not_found(quiet: Sandbox, ask: Ask) -> None:
    assert ask(quiet, "time", host="api.kraken.com/0/public").status == 404


def test_too_much_weight_is_refused_then_banned(own: Sandbox, ask: Ask, use: Use) -> None:
    deep = {
        **BTC,
        "limit": 5000,
    }  # a weight of 250 each; a new minute may start while the limit is used up
    replies = [ask(own, "depth", **deep) for _ in range(62)]
    statuses = [reply.status for reply in replies]
    first = statuses.index(429)
    assert first >= 24
    assert int(replies[0].headers["X-MBX-USED-WEIGHT-1M"]) == 250
    assert 0 < float(replies[first].headers["Retry-After"]) <= 60
    assert replies[first].json["code"] == -1003
    assert statuses[-1] == 418
    assert 100 < float(replies[-1].headers["Retry-After"]) <= 120
    with pytest.raises(ccxt.DDoSProtection, match="banned until"):
        use(own, lambda client: client.public_get_time())
    futures = ask(own, "time", host=FUTURES)
    assert (futures.status, futures.headers["X-MBX-USED-WEIGHT-1M"]) == (200, "1")


@pytest.mark.parametrize(
    ("host", "path", "query", "weight"),
    [
        (SPOT, "klines", {**BTC, "interval": "1m"}, 2),
        (SPOT, "depth", BTC, 5),
        (SPOT, "depth", {**BTC, "limit": 101}, 25),
        (SPOT, "exchangeInfo", {}, 20),
        (FUTURES, "klines", {**BTC, "interval": "1m", "limit": 99}, 1),
        (FUTURES, "klines", {**BTC, "interval": "1m"}, 5),
        (FUTURES, "klines", {**BTC, "interval": "1m", "limit": 1500}, 10),
        (FUTURES, "depth", {**BTC, "limit": 1000}, 20),
        (FUTURES, "aggTrades", BTC, 20),
    ],
)
def test_weights_are_binances(
    own: Sandbox, ask: Ask, host: str, path: str, query: dict[str, Any], weight: int
) -> None:
    reply = ask(own, path, host=host, **query)
    assert int(reply.headers["X-MBX-USED-WEIGHT-1M"]) == weight


def test_a_new_minute_is_a_new_allowance_and_a_ban_ends() -> None:
    now = [600.0]
    meter = WeightCounter(10, clock=lambda: now[0])
    assert [meter.count(6).status for _ in range(2)] == [0, 429]
    assert meter.count(1).retry_after == 60
    now[0] = 660.0
    assert meter.count(6).used == 6
    banned = next(n for n in count() if meter.count(6).status == 418)
    assert banned == 10
    now[0] = 779.9
    assert meter.count(1).status == 418
    now[0] = 780.0
    assert meter.count(1).status == 0
