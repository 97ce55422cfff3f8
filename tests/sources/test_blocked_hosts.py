"""A venue of several hosts, of which one refuses: the others are not affected."""

import asyncio
from typing import Any

import pytest
from aiohttp import ClientSession, web

from lake.errors import SourceRefusedError, UnknownNameError
from lake.sandbox import Sandbox
from tests.sources.markets import DAY, HOUR

REFUSAL = b'{"code": 0, "msg": "Service unavailable from a restricted location"}'


@pytest.fixture
def blocking(quiet: Sandbox) -> Any:
    """Handle requests as the sandbox does, but refuse those of some hosts."""

    def build(*hosts: str) -> tuple[Any, list[str]]:
        asked: list[str] = []

        async def handle(request: web.Request) -> web.Response:
            asked.append(request.path)
            if any(host in request.path for host in hosts):
                return web.Response(status=451, body=REFUSAL, content_type="application/json")
            url = quiet.url + request.path_qs
            async with ClientSession() as session, session.get(url) as answer:
                body = await answer.read()
                return web.Response(
                    status=answer.status, body=body, content_type="application/json"
                )

        return handle, asked

    return build


def test_spot_needs_no_other_host(
    blocking: Any, serving: Any, connect: Any, fetch: Any, now: Any
) -> None:
    handle, asked = blocking("fapi", "dapi")

    async def run() -> Any:
        async with serving(handle) as url, connect("binance", url) as source:
            rows = await source.instruments(["BTC/USDT"])
            return rows, await fetch(source, "bars_1m", "BTC/USDT", now - DAY, now - 23 * HOUR)

    rows, got = asyncio.run(run())
    assert list(rows) == ["BTC/USDT"]
    assert got.frame.height == 60
    assert [path for path in asked if "exchangeInfo" in path] == [
        "/api.binance.com/api/v3/exchangeInfo"
    ]


def test_a_refused_host_refuses_its_markets_only(blocking: Any, serving: Any, connect: Any) -> None:
    handle, asked = blocking("fapi")

    async def run() -> None:
        async with serving(handle) as url, connect("binance", url) as source:
            for _ in range(3):
                with pytest.raises(SourceRefusedError, match="restricted location") as caught:
                    await source.market("BTC/USDT:USDT")
                assert caught.value.reason == "forbidden"
            assert (await source.market("BTC/USDT")).symbol == "BTC/USDT"

    asyncio.run(run())
    assert len([path for path in asked if "fapi" in path]) == 1


def test_all_specifications_come_without_those_of_a_refused_host(
    blocking: Any, serving: Any, connect: Any, log_lines: list[str]
) -> None:
    handle, _ = blocking("fapi")

    async def run() -> Any:
        async with serving(handle) as url, connect("binance", url) as source:
            return await source.instruments()

    assert "BTC/USDT" in asyncio.run(run())
    (line,) = [line for line in log_lines if "markets_not_given" in line]
    assert "list=linear" in line
    assert "restricted location" in line


def test_a_name_without_a_slash_is_looked_for_in_all_lists(
    blocking: Any, serving: Any, connect: Any
) -> None:
    handle, asked = blocking("dapi")

    async def run() -> None:
        async with serving(handle) as url, connect("binance", url) as source:
            await source.market("BTCUSDT")

    with pytest.raises(UnknownNameError, match="BTCUSDT") as caught:
        asyncio.run(run())
    assert "BTC/USDT" in caught.value.hint
    assert len([path for path in asked if "exchangeInfo" in path]) == 3
