"""A sandbox in another process is controlled over HTTP; one that cannot start reports why."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import Any

import orjson
import pytest

from lake.errors import ConfigError, UnknownNameError, UsageError
from lake.sandbox import Sandbox, redirect

Ask = Callable[..., Any]

MINUTE = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE_MS = 1767225600000


def post(port: int, path: str, body: object) -> tuple[int, Any]:
    """Post JSON to the control API."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", f"/sandbox/{path}", orjson.dumps(body))
        response = connection.getresponse()
        return response.status, orjson.loads(response.read())
    finally:
        connection.close()


def log(port: int) -> list[dict[str, Any]]:
    """Read the log of requests from the control API."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/sandbox/log")
        requests: list[dict[str, Any]] = orjson.loads(connection.getresponse().read())["requests"]
        return requests
    finally:
        connection.close()


def test_faults_revisions_and_log_over_http(own: Sandbox, ask: Ask) -> None:
    fault = {"kind": "502", "match": "time", "times": 1}
    assert post(own.port, "faults", {"script": [fault]}) == (200, {})
    assert [ask(own, "time").status for _ in range(2)] == [502, 200]
    assert post(own.port, "faults", {"down": True}) == (200, {})
    assert ask(own, "ping").status == 503
    assert post(own.port, "faults", {"random": {"rate": 1, "kinds": ["500"]}}) == (200, {})
    assert ask(own, "ping").status == 500
    assert post(own.port, "faults", {}) == (200, {})
    revision = {
        "symbol": "BTC/USDT",
        "interval": "1m",
        "timestamp": "2026-01-01T00:00:00Z",
        "changes": {"close": "1.5"},
    }
    assert post(own.port, "revise", revision) == (200, {})
    query = {"symbol": "BTCUSDT", "interval": "1m", "startTime": MINUTE_MS, "limit": 1}
    assert ask(own, "klines", **query).json[0][4] == "1.5"
    requests = log(own.port)
    assert [entry["status"] for entry in requests] == [502, 200, 503, 500, 200]
    assert requests[-1]["path"] == "/api.binance.com/api/v3/klines"
    assert requests[-1]["query"].startswith("symbol=BTCUSDT&interval=1m")
    assert (requests[0]["fault"], requests[-1]["fault"]) == ("502", "")
    assert [entry.status for entry in own.log] == [entry["status"] for entry in requests]
    assert post(own.port, "clear", {}) == (200, {})
    assert log(own.port) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"script": [{"kind": "flood"}]}),
        ("faults", {"script": [{"kinds": "500"}]}),
        ("faults", {"scripts": []}),
        ("faults", []),
        ("revise", {"symbol": "BTC/USDT"}),
        ("revise", {"symbol": "BTC/USDT", "interval": "1m", "timestamp": "soon", "changes": {}}),
    ],
)
def test_nonsense_is_refused_with_the_reason(own: Sandbox, path: str, body: object) -> None:
    status, answer = post(own.port, path, body)
    assert status == 400
    assert answer["error"]


@pytest.mark.parametrize(
    ("error", "symbol", "interval", "time", "changes"),
    [
        (UnknownNameError, "NOPE/USDT", "1m", MINUTE, {"close": "1"}),
        (UsageError, "BTC/USDT", "7m", MINUTE, {"close": "1"}),
        (UsageError, "BTC/USDT", "1m", MINUTE.replace(second=1), {"close": "1"}),
        (UsageError, "BTC/USDT", "1m", MINUTE.replace(year=2019), {"close": "1"}),
        (UsageError, "BTC/USDT", "1m", MINUTE, {"vwap": "1"}),
    ],
)
def test_a_revision_of_nothing_is_an_error(
    quiet: Sandbox,
    error: type[Exception],
    symbol: str,
    interval: str,
    time: datetime,
    changes: dict[str, str],
) -> None:
    with pytest.raises(error):
        quiet.revise(symbol, interval, time, **changes)


def test_the_log_can_be_cleared(own: Sandbox, ask: Ask) -> None:
    ask(own, "ping")
    assert len(own.log) == 1
    own.clear_log()
    assert own.log == []


def test_a_port_in_use_is_an_error(quiet: Sandbox) -> None:
    with pytest.raises(ConfigError, match="cannot listen"), Sandbox(port=quiet.port):
        pass


def test_only_this_machine_is_served() -> None:
    with pytest.raises(ConfigError, match="this machine only"), Sandbox(host="0.0.0.0"):  # noqa: S104
        pass


def test_an_address_that_is_no_address_is_an_error() -> None:
    with pytest.raises(ConfigError, match="this machine only"), Sandbox(host="example.com"):
        pass


def test_redirect_rewrites_every_url() -> None:
    urls = {"public": "https://api.binance.com/api/v3", "deep": {"x": "https://a.b/c"}}
    assert redirect(urls, "http://127.0.0.1:1") == {
        "public": "http://127.0.0.1:1/api.binance.com/api/v3",
        "deep": {"x": "http://127.0.0.1:1/a.b/c"},
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_stops_cleanly_on_a_signal(number: signal.Signals) -> None:
    program = (
        "from lake.sandbox import SyntheticMarkets, serve\n"
        "serve(SyntheticMarkets(), on_ready=lambda url: print(url, flush=True))\n"
        "print('stopped')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        assert log(port) == []
        os.kill(process.pid, number)
        assert process.stdout.read() == "stopped\n"
        assert process.stderr.read() == ""
        assert process.wait(5) == 0
