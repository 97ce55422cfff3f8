"""Clients see each fault as described, at the requests that it is set for."""

import time
from collections.abc import Callable
from http.client import IncompleteRead, RemoteDisconnected
from typing import Any

import ccxt
import orjson
import pytest

from lake.errors import UsageError
from lake.sandbox import Fault, RandomFaults, Sandbox

Ask = Callable[..., Any]
Use = Callable[..., Any]

QUERY = {"symbol": "BTCUSDT", "interval": "1m", "limit": 50}


@pytest.mark.parametrize("status", [429, 418])
def test_refused_with_retry_after(own: Sandbox, ask: Ask, use: Use, status: int) -> None:
    own.fail(Fault(str(status), times=2, retry_after=0.05))
    reply = ask(own, "klines", **QUERY)
    assert (reply.status, reply.headers["Retry-After"]) == (status, "0.05")
    assert reply.json["code"] == -1003
    with pytest.raises(ccxt.DDoSProtection):
        use(own, lambda client: client.public_get_klines(QUERY))
    assert ask(own, "klines", **QUERY).status == 200


@pytest.mark.parametrize("status", [500, 502, 503])
def test_the_server_fails(own: Sandbox, ask: Ask, use: Use, status: int) -> None:
    own.fail(Fault(str(status), times=2))
    reply = ask(own, "klines", **QUERY)
    assert reply.status == status
    assert b"<html>" in reply.body
    with pytest.raises(ccxt.ExchangeNotAvailable):
        use(own, lambda client: client.public_get_klines(QUERY))


def test_a_firewall_refuses_with_a_page(own: Sandbox, ask: Ask) -> None:
    own.fail(Fault("403"))
    reply = ask(own, "klines", **QUERY)
    assert reply.status == 403
    assert b"<html>" in reply.body
    assert ask(own, "klines", **QUERY).status == 200


def test_a_location_is_refused_in_json(own: Sandbox, ask: Ask) -> None:
    own.fail(Fault("451"))
    reply = ask(own, "klines", **QUERY)
    assert reply.status == 451
    assert reply.json["msg"].startswith("Service unavailable from a restricted location")


@pytest.mark.parametrize("endpoint", ["klines", "aggTrades"])
def test_a_misrouted_answer_is_of_another_market(own: Sandbox, ask: Ask, endpoint: str) -> None:
    query = {"symbol": "BTCUSDT", "limit": 5}
    if endpoint == "klines":
        query["interval"] = "1m"
    honest = ask(own, endpoint, **query).json
    own.fail(Fault("misrouted"))
    assert ask(own, endpoint, **query).json not in (honest, [])
    assert ask(own, endpoint, **query).json == honest
    own.fail(Fault("misrouted"))
    assert ask(own, "exchangeInfo").json["symbols"]


def test_reset(own: Sandbox, ask: Ask) -> None:
    own.fail(Fault("reset"))
    with pytest.raises((ConnectionResetError, RemoteDisconnected)):
        ask(own, "klines", **QUERY)
    assert [(entry.status, entry.fault) for entry in own.log] == [(0, "reset")]


def test_timeout_hangs_then_breaks_off(own: Sandbox, ask: Ask) -> None:
    own.fail(Fault("timeout", hang_seconds=0.2))
    start = time.monotonic()
    with pytest.raises((ConnectionResetError, RemoteDisconnected)):
        ask(own, "klines", **QUERY)
    assert 0.2 <= time.monotonic() - start < 2


def test_cut_promises_more_than_it_sends(own: Sandbox, ask: Ask) -> None:
    honest = ask(own, "klines", **QUERY).body
    own.fail(Fault("cut"))
    with pytest.raises(IncompleteRead) as caught:
        ask(own, "klines", **QUERY)
    assert caught.value.partial == honest[: len(honest) // 2]
    assert caught.value.expected == len(honest) - len(honest) // 2


@pytest.mark.parametrize("kind", ["truncated", "html", "empty"])
def test_contents_spoiled_with_status_200(own: Sandbox, ask: Ask, kind: str) -> None:
    honest = ask(own, "klines", **QUERY)
    own.fail(Fault(kind))
    reply = ask(own, "klines", **QUERY)
    assert reply.status == 200
    assert int(reply.headers["Content-Length"]) == len(reply.body)
    expected = {
        "truncated": honest.body[: len(honest.body) // 2],
        "empty": b"",
        "html": reply.body,
    }
    assert reply.body == expected[kind]
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(reply.body)
    assert reply.headers["Content-Type"].startswith("text/html") == (kind == "html")


def test_duplicate_repeats_the_previous_page_of_the_same_market(own: Sandbox, ask: Ask) -> None:
    first = ask(own, "aggTrades", symbol="BTCUSDT", fromId=1, limit=5)
    ask(own, "aggTrades", symbol="ETHUSDT", fromId=1, limit=5)
    own.fail(Fault("duplicate"))
    again = ask(own, "aggTrades", symbol="BTCUSDT", fromId=6, limit=5)
    honest = ask(own, "aggTrades", symbol="BTCUSDT", fromId=6, limit=5)
    assert again.json == first.json
    assert [trade["a"] for trade in honest.json] == [6, 7, 8, 9, 10]


def test_shuffled_has_the_same_rows_in_another_order(own: Sandbox, ask: Ask) -> None:
    honest = ask(own, "klines", **QUERY).json
    own.fail(Fault("shuffled"))
    shuffled = ask(own, "klines", **QUERY).json
    assert shuffled not in (honest, honest[::-1])
    assert sorted(shuffled) == honest


def test_two_rows_are_shuffled_too(own: Sandbox, ask: Ask) -> None:
    own.fail(Fault("shuffled"))
    rows = ask(own, "aggTrades", symbol="BTCUSDT", fromId=1, limit=2).json
    assert [row["a"] for row in rows] == [2, 1]


def test_a_script_matches_skips_and_counts(own: Sandbox, ask: Ask) -> None:
    own.fail(Fault("500", match="symbol=BTC", times=2, skip=1), Fault("503", match="aggTrades"))
    symbols = ["BTCUSDT", "ETHUSDT", "BTCUSDT", "BTCUSDT", "BTCUSDT"]
    statuses = [ask(own, "trades", symbol=symbol, limit=1).status for symbol in symbols]
    assert statuses == [200, 200, 500, 500, 200]
    assert ask(own, "aggTrades", symbol="ETHUSDT").status == 503
    assert [entry.fault for entry in own.log] == ["", "", "500", "500", "", "503"]


def test_random_faults_strike_their_share_and_repeat_with_the_seed(own: Sandbox, ask: Ask) -> None:
    def statuses(seed: int) -> list[int]:
        own.fail_at_random(RandomFaults(rate=0.3, kinds=["429", "500", "503"], seed=seed))
        return [ask(own, "time").status for _ in range(150)]

    first = statuses(1)
    assert 0.15 < sum(status != 200 for status in first) / 150 < 0.45
    assert {200, 429, 500, 503} == set(first)
    assert statuses(1) == first
    assert statuses(2) != first


def test_down_is_down_for_everything_until_recovery(own: Sandbox, ask: Ask) -> None:
    own.go_down()
    assert [ask(own, path).status for path in ("exchangeInfo", "time", "klines")] == [503] * 3
    own.recover()
    assert ask(own, "exchangeInfo").status == 200


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Fault("flood"),
        lambda: Fault("500", times=-1),
        lambda: RandomFaults(1.5, ["500"]),
        lambda: RandomFaults(0.5, []),
        lambda: RandomFaults(0.5, ["flood"]),
    ],
)
def test_a_fault_that_makes_no_sense_is_an_error(wrong: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        wrong()
