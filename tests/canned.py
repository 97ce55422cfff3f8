"""A venue with canned answers in a process of its own: `python -m tests.canned`.

It speaks Binance's dialect. Bars of a minute are functions of their number, and are rendered once;
all else comes from the sandbox. It answers after a delay, as a distant venue does, and counts the
weight of each request when it arrives.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from http.client import HTTPConnection

import orjson
from aiohttp import web

from lake.sandbox.binance import answer
from lake.sandbox.exchange import Exchange
from lake.sandbox.parameters import Refusal
from lake.sandbox.synthetic import SyntheticMarkets
from lake.sandbox.venues import VENUES

UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE_MS = 60_000
_PAGES_KEPT = 2000  # 0.3 GB
_LONGEST_PAGE = 1500


class CannedVenue:
    """The address of a venue, and what it counted."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    def read_arrivals(self, path: str = "klines") -> list[tuple[float, float]]:
        """Return the time, in seconds, and the weight of each request so far to an endpoint."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", "/arrivals")
            arrivals = orjson.loads(connection.getresponse().read())
        finally:
            connection.close()
        return [(at, weight) for at, weight, endpoint in arrivals if path in ("", endpoint)]


@contextmanager
def serve_canned(delay_ms: float = 0, jitter_ms: float = 0) -> Iterator[CannedVenue]:
    """Run a venue that answers after a delay, and up to a jitter later."""
    command = [sys.executable, "-m", "tests.canned", str(delay_ms), str(jitter_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield CannedVenue(json.loads(process.stdout.readline())["port"])
        finally:
            process.terminate()


def find_most(arrivals: Sequence[tuple[float, float]], seconds: float) -> float:
    """Return the largest weight that any window of some seconds holds; it is half-open."""
    most = total = 0.0
    first = 0
    for at, weight in arrivals:
        total += weight
        while arrivals[first][0] <= at - seconds:
            total -= arrivals[first][1]
            first += 1
        most = max(most, total)
    return most


def _close(number: int) -> float:
    return 30_000 + 2_000 * math.sin(number / 3_000) + (number * 7919 % 101) / 10


def _render_bar(number: int) -> bytes:
    opens, closes = _close(number - 1), _close(number)
    high, low = max(opens, closes) + 1.25, min(opens, closes) - 1.25
    volume = 1 + (number * 104_729 % 1009) / 100
    quote, at = volume * (opens + closes) / 2, number * MINUTE_MS
    return (
        f'[{at},"{opens:.8f}","{high:.8f}","{low:.8f}","{closes:.8f}","{volume:.8f}",'
        f'{at + MINUTE_MS - 1},"{quote:.8f}",{100 + number % 37},"{volume / 2:.8f}",'
        f'"{quote / 2:.8f}","0"]'
    ).encode()


@lru_cache(_PAGES_KEPT)
def _render_bars(first: int, stop: int) -> bytes:
    return b"[" + b",".join(map(_render_bar, range(first, stop))) + b"]"


class _Server:
    def __init__(self, delay_ms: float, jitter_ms: float) -> None:
        self._delay, self._jitter = delay_ms / 1000, jitter_ms / 1000
        self._exchange = Exchange(SyntheticMarkets(), lambda: datetime.now(UTC))
        self._arrivals: list[tuple[float, float, str]] = []
        self._random = random.Random(7)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/arrivals":
            return web.Response(body=orjson.dumps(self._arrivals))
        host, _, path = request.path.lstrip("/").partition("/")
        venue = VENUES[host]
        endpoint = path.removeprefix(venue.prefix.lstrip("/"))
        query = dict(request.query)
        weight = venue.weight(endpoint, int(query.get("limit", 500)))
        self._arrivals.append((time.monotonic(), weight, endpoint))
        body, status = self._answer(host, endpoint, query)
        if self._delay or self._jitter:
            await asyncio.sleep(self._delay + self._jitter * self._random.random())
        return web.Response(body=body, status=status, content_type="application/json")

    def _answer(self, host: str, endpoint: str, query: dict[str, str]) -> tuple[bytes, int]:
        if endpoint == "klines" and query.get("interval") == "1m":
            first = -(-int(query["startTime"]) // MINUTE_MS)
            last = int(query.get("endTime", UNTIL.timestamp() * 1000 - 1)) // MINUTE_MS
            stop = min(last + 1, first + min(int(query.get("limit", 500)), _LONGEST_PAGE))
            return _render_bars(first, max(first, stop)), 200
        try:
            return answer(self._exchange, VENUES[host], endpoint, list(query.items())), 200
        except Refusal as error:
            return orjson.dumps({"code": error.code, "msg": error.message}), error.status


async def _serve(delay_ms: float, jitter_ms: float) -> None:
    runner = web.ServerRunner(web.Server(_Server(delay_ms, jitter_ms).handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve a venue with canned answers.")
    parser.add_argument("delay_ms", type=float)
    parser.add_argument("jitter_ms", type=float)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.delay_ms, arguments.jitter_ms))
