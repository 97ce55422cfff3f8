"""Fixtures for tests of alerts: a receiver of messages, findings, and a clock that tests set."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import polars as pl
import pytest

from lake.api import Lake
from lake.settings import Settings
from tests.conftest import MINUTE, T0, TIME, NewLake

NOW = T0 + timedelta(days=1)


@dataclass(frozen=True)
class Request:
    """A received request: path with query, headers in lower case, and the JSON body."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def title(self) -> str:
        return str(self.body["title"])

    @property
    def text(self) -> str:
        return str(self.body["message"])


@dataclass
class Receiver:
    """A web hook on loopback.

    `status`: what it answers, after `slow_seconds`; `hang`: it takes, and answers nothing; `drip`:
    it answers, and never ends.
    """

    port: int = 0
    status: int = 200
    hang: bool = False
    drip: bool = False
    slow_seconds: float = 0
    requests: list[Request] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/hook"

    def taken(self) -> list[Request]:
        """Return the requests since the last call."""
        taken, self.requests = self.requests, []
        return taken


@pytest.fixture(autouse=True)
def _logs_as_in_a_new_process() -> Iterator[None]:
    """Reset logging: commands in this process configured it for a stderr that is closed by now."""
    package = logging.getLogger("lake")
    before = package.level, package.propagate, package.handlers[:]
    package.setLevel(logging.NOTSET)
    package.propagate, package.handlers[:] = True, []
    yield
    package.setLevel(before[0])
    package.propagate, package.handlers[:] = before[1], before[2]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    yield from _running()


@pytest.fixture
def other_receiver() -> Iterator[Receiver]:
    yield from _running()


def _running() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append(Request(self.path, headers, json.loads(body)))
            if receiver.hang:
                receiver.closing.wait()
                return
            if receiver.drip:
                self._drip()
                return
            receiver.closing.wait(receiver.slow_seconds)
            with suppress(ConnectionError):  # the client did not wait
                self.send_response(receiver.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _drip(self) -> None:
            """Send a byte from time to time, so that no single read takes long."""
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not receiver.closing.wait(0.1):
                try:
                    self.wfile.write(b".")
                except OSError:
                    return

        def log_message(self, *_: object) -> None:
            """Nothing: pytest shows what fails."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.closing.set()
            server.shutdown()
            thread.join()


@dataclass
class Clock:
    """A clock that the test sets."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def turn(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@pytest.fixture
def clock() -> Clock:
    return Clock()


Watched = Callable[..., Lake]


@pytest.fixture
def watched(new_lake: NewLake, clock: Clock) -> Watched:
    """Return a function that creates a lake with alert settings; `at`: opens an existing one."""

    def make(at: str | None = None, **alerts: Any) -> Lake:
        uri = at or str(new_lake().root.path)
        return Lake(settings(uri, **alerts), now=clock)

    return make


def settings(uri: str, **alerts: Any) -> Settings:
    return Settings.model_validate({"uri": uri, "alerts": alerts})


def rule(name: str = "bad", **values: Any) -> dict[str, Any]:
    """A rule on findings, to the channel `chat`."""
    return {"name": name, "severity": "warning", "channels": ["chat"], **values}


def findings(
    count: int = 1,
    *,
    first: int = 0,
    dataset: str = "bars_1m",
    exchange: str = "binance",
    symbol: str = "BTC/USDT",
    check: str = "gap",
    severity: str = "error",
    status: str = "open",
    found_at: datetime = NOW,
) -> pl.DataFrame:
    """Findings at the minutes `first`, `first + 1`, …"""
    times = [T0 + n * MINUTE for n in range(first, first + count)]
    frame = pl.DataFrame({"timestamp": times}, schema={"timestamp": TIME})
    texts = {
        "exchange": exchange,
        "symbol": symbol,
        "dataset": dataset,
        "check": check,
        "against": "trades",
        "finding_id": "0",
        "severity": severity,
        "dimension": "completeness",
        "message": f"a {check} of one minute",
        "context": "[]",
        "status": status,
        "job_id": "job",
    }
    return frame.with_columns(
        (pl.col("timestamp") + MINUTE).alias("end"),
        pl.lit(1, dtype=pl.Int64).alias("rows"),
        pl.lit(found_at, dtype=TIME).alias("found_at"),
        *(pl.lit(value).alias(name) for name, value in texts.items()),
    )


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until a condition is true; fail if it never is."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.01)
