"""Public market data are asked without the configured key, unless the venue asks for it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from lake.errors import SourceRefusedError
from lake.model.venues import find_capabilities
from lake.sandbox import Sandbox
from lake.settings import ExchangeSettings, HttpSettings, RetrySettings, Url
from lake.sources.ccxt_rest import CcxtSource
from tests.sources.conftest import NOW
from tests.sources.replies import GOOD

KEY, SECRET, PASSWORD = "KEY-5e", "SECRET-5e", "PASS-5e"


def connect(exchange: str, url: str, *, unified: bool = False) -> CcxtSource:
    return CcxtSource(
        exchange,
        name=f"ccxt:{exchange}",
        now=lambda: NOW,
        http=HttpSettings(rate_limit=False),
        retry=RetrySettings(attempts=1, wait_initial_seconds=0.001, wait_max_seconds=0.001),
        exchange=ExchangeSettings(
            url=Url(url),
            api_key=SecretStr(KEY),
            secret=SecretStr(SECRET),
            password=SecretStr(PASSWORD),
        ),
        unified=unified,
    )


@pytest.mark.parametrize("unified", [False, True])
def test_no_public_request_carries_the_key(sandbox: Sandbox, fetch: Any, *, unified: bool) -> None:
    """Lists of markets, instruments, bars, trades, books and funding, of spot and of swaps."""

    async def run() -> None:
        async with connect("binance", sandbox.url, unified=unified) as source:
            start = NOW - timedelta(hours=1)
            await source.instruments()
            for symbol in ("BTC/USDT", "BTC/USDT:USDT"):
                await fetch(source, "bars_1m", symbol, start, NOW)
                await fetch(source, "trades", symbol, NOW - timedelta(minutes=1), NOW)
                await source.order_book(await source.market(symbol), 5)
            await fetch(source, "funding", "BTC/USDT:USDT", NOW - timedelta(days=2), NOW)

    asyncio.run(run())
    paths = {entry.path.rpartition("/")[2] for entry in sandbox.log}
    assert paths >= {"exchangeInfo", "klines", "aggTrades", "depth", "fundingRate"}
    assert {entry.status for entry in sandbox.log} == {200}
    for entry in sandbox.log:
        names = {name.lower() for name, _ in entry.headers}
        assert "user-agent" in names
        assert not names & {"x-mbx-apikey", "authorization", "cookie"}
        sent = f"{entry.path}?{entry.query} {entry.headers}"
        assert not any(key in sent for key in (KEY, SECRET, PASSWORD)), sent
        assert "signature" not in sent


def test_a_venue_that_asks_for_a_key_gets_it(serving: Any) -> None:
    """Luno's candles; ccxt signs them with basic authentication."""
    headers: list[dict[str, str]] = []

    async def handle(request: web.Request) -> web.Response:
        headers.append(dict(request.headers))
        return web.Response(body=GOOD, content_type="application/json")

    async def run(exchange: str, method: str) -> None:
        async with serving(handle) as url, connect(exchange, url) as source:
            await source.client.call(method, {"pair": "XBTZAR"})

    assert find_capabilities("luno").needs_key
    asyncio.run(run("luno", "exchangePrivateGetCandles"))
    asyncio.run(run("luno", "publicGetTicker"))
    signed, public = headers
    assert signed["Authorization"].startswith("Basic ")
    assert "Authorization" not in public


def test_an_error_of_authentication_says_whether_a_key_is_sent(serving: Any) -> None:
    async def handle(_: web.Request) -> web.Response:
        body = b'{"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."}'
        return web.Response(status=401, body=body, content_type="application/json")

    async def run() -> None:
        async with serving(handle) as url, connect("binance", url) as source:
            await source.client.call("publicGetTime")

    with pytest.raises(SourceRefusedError) as caught:
        asyncio.run(run())
    assert "are not sent" in caught.value.hint
