"""Sandboxes, and two kinds of clients for them: ccxt and raw HTTP."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPMessage
from typing import Any, NamedTuple
from urllib.parse import urlencode

import ccxt.async_support as ccxt
import orjson
import pytest

from lake.sandbox import Sandbox, redirect

NOW = datetime(2026, 1, 15, 12, 0, 30, tzinfo=UTC)

Ask = Callable[..., "Reply"]
Use = Callable[..., Any]


class Reply(NamedTuple):
    """The answer that a raw client received."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body."""
        return orjson.loads(self.body)


@pytest.fixture(scope="session")
def quiet() -> Iterator[Sandbox]:
    """A sandbox without weight limit that no test changes."""
    with Sandbox(now=lambda: NOW, weight_limit=False) as sandbox:
        yield sandbox


@pytest.fixture
def own() -> Iterator[Sandbox]:
    """A sandbox for one test."""
    with Sandbox(now=lambda: NOW) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def ask() -> Ask:
    """Send raw HTTP requests to a sandbox: `ask(sandbox, path, host=…, **query)`."""

    def send(
        sandbox: Sandbox, path: str, host: str = "api.binance.com/api/v3", **query: object
    ) -> Reply:
        connection = HTTPConnection("127.0.0.1", sandbox.port, timeout=5)
        try:
            connection.request("GET", f"/{host}/{path}?{urlencode(query)}")
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    return send


@pytest.fixture(scope="session")
def use() -> Use:
    """Run `work(client)` with a real asynchronous ccxt client of a sandbox."""

    def run(sandbox: Sandbox, work: Callable[[Any], Awaitable[Any]], name: str = "binance") -> Any:
        async def session() -> Any:
            client = getattr(ccxt, name)({"enableRateLimit": False, "timeout": 5000})
            client.urls["api"] = redirect(client.urls["api"], sandbox.url)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(session())

    return run
