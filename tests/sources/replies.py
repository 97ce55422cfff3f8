"""Small servers of fixed replies, and a client of them."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from lake.settings import ExchangeSettings, HttpSettings, RetrySettings, Url
from lake.sources.ccxt_client import Client, connect

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
GOOD = b'[[1,"2"]]'

Reply = Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]


def client(
    url: str,
    *,
    now: Callable[[], datetime] = lambda: NOW,
    http: HttpSettings | None = None,
    exchange: ExchangeSettings | None = None,
    attempts: int = 4,
) -> Client:
    return connect(
        "binance",
        now=now,
        http=http or HttpSettings(rate_limit=False, timeout_seconds=0.3),
        retry=RetrySettings(attempts=attempts, wait_initial_seconds=0.001, wait_max_seconds=0.01),
        settings=exchange or ExchangeSettings(url=Url(url)),
    )


def answer(body: bytes = GOOD, status: int = 200, **headers: str) -> Reply:
    async def reply(_: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        kind = "text/html" if body.startswith(b"<") else "application/json"
        return web.Response(body=body, status=status, headers=named, content_type=kind)

    return reply


def scripted(*replies: Reply) -> Reply:
    """Serve each reply once, then good answers."""
    left = list(replies)

    async def handle(request: web.Request) -> web.StreamResponse:
        return await (left.pop(0) if left else answer())(request)

    return handle


async def klines(source: Client) -> Any:
    try:
        return await source.call("publicGetKlines", {"symbol": "BTCUSDT", "interval": "1m"})
    finally:
        await source.close()
