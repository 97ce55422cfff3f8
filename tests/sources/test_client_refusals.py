"""Refusals through the real ccxt client: final and quoted, or obeyed until they end."""

import asyncio
import time
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from lake.errors import SourceRefusedError, SourceUnavailableError
from tests.sources.replies import NOW, Reply, answer, client, klines, scripted


@pytest.mark.parametrize(
    ("status", "body", "reason", "words"),
    [
        (400, b'{"code": -1121, "msg": "Invalid symbol."}', "not_listed", "Invalid symbol"),
        (400, b'{"code": -1100, "msg": "Illegal character"}', "refused", "Illegal character"),
        (401, b'{"code": -2014, "msg": "API-key format invalid."}', "forbidden", "API-key"),
        (403, b'{"code": "x", "msg": "not for you"}', "forbidden", "not for you"),
        (403, b'{"code": 0, "msg": "not for you"}', "forbidden", "not for you"),
        (451, b'{"message": "restricted location"}', "forbidden", "restricted location"),
        (
            451,
            b'{"code": 0, "msg": "Service unavailable from a restricted location"}',
            "forbidden",
            "from a restricted location",
        ),
        (404, b'{"path": "nothing here"}', "refused", "nothing here"),
        (
            400,
            b'{"code": -1, "msg": "Candlestick too long ago. Maximum 10000 points are allowed"}',
            "too_long_ago",
            "Candlestick too long ago",
        ),
    ],
)
def test_a_refusal_is_final_and_quotes_the_venue(
    serving: Any, status: int, body: bytes, reason: str, words: str
) -> None:
    async def run() -> None:
        async with serving(scripted(answer(body, status))) as url:
            source = client(url)
            with pytest.raises(SourceRefusedError, match=words) as caught:
                await klines(source)
            assert caught.value.reason == reason
            assert caught.value.code == "source_refused"
            assert source.requests == 1

    asyncio.run(run())


PAGE = b"""<!DOCTYPE html><html><head><title>Denied</title><style>p { color: red }</style></head>
<body><script>track()</script><p>We don&#39;t serve <b>your country</b>.</p></body></html>"""


@pytest.mark.parametrize("status", [401, 403, 451])
@pytest.mark.parametrize("body", [PAGE, b"We don't serve your country .", b""])
def test_a_refusal_by_any_page_is_final_if_it_comes_twice(
    serving: Any, status: int, body: bytes
) -> None:
    async def run(*replies: Reply) -> int:
        async with serving(scripted(*replies)) as url:
            source = client(url)
            await klines(source)
            return source.requests

    refusal = answer(body, status)
    with pytest.raises(SourceRefusedError) as caught:
        asyncio.run(run(refusal, refusal))
    assert caught.value.reason == "forbidden"
    assert f"HTTP {status}" in caught.value.message
    assert not body or "We don't serve your country ." in caught.value.message
    assert "<" not in caught.value.message
    assert "track" not in caught.value.message
    # a firewall refuses once, or another fault comes between
    assert asyncio.run(run(refusal)) == 2
    assert asyncio.run(run(refusal, answer(b"", 503), refusal)) == 4


@pytest.mark.parametrize("status", [404, 405, 410])
@pytest.mark.parametrize("body", [b"<html><h1>Not Found</h1><p>nginx</p></html>", b"no such app"])
def test_a_page_where_the_venue_should_answer_is_a_refusal_if_it_comes_twice(
    serving: Any, status: int, body: bytes
) -> None:
    async def run(*replies: Reply) -> int:
        async with serving(scripted(*replies)) as url:
            source = client(url)
            await klines(source)
            return source.requests

    page = answer(body, status)
    with pytest.raises(SourceRefusedError, match="a page and no answer of the venue") as caught:
        asyncio.run(run(page, page))
    assert caught.value.reason == "refused"
    assert "address" in caught.value.hint
    assert "<" not in caught.value.message
    assert asyncio.run(run(page)) == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (418, b'{"code":-1003,"msg":"Way too much weight; IP banned until %d."}'),
        (403, b"<html>Too many requests: you are blocked until %d</html>"),
        (429, b'{"error":"banned until %d"}'),
    ],
)
def test_the_end_of_a_ban_in_the_text_is_obeyed(serving: Any, status: int, body: bytes) -> None:
    arrived: list[float] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        arrived.append(time.monotonic())
        if len(arrived) > 1:
            return await answer()(request)
        until = int(NOW.timestamp() * 1000) + 250
        date = format_datetime(NOW, usegmt=True)
        return await answer(body % until, status, Date=date)(request)

    async def run() -> None:
        async with serving(handle) as url:
            await klines(client(url))

    asyncio.run(run())
    assert len(arrived) == 2
    assert arrived[1] - arrived[0] >= 0.24


def test_a_long_ban_is_reported_with_its_length(serving: Any) -> None:
    until = int((NOW + timedelta(hours=5)).timestamp() * 1000)
    body = b'{"code":-1003,"msg":"Way too many requests; IP(1.2.3.4) banned until %d."}' % until

    async def run() -> None:
        async with serving(scripted(answer(body, 418, Date=format_datetime(NOW, True)))) as url:
            await klines(client(url))

    with pytest.raises(SourceUnavailableError, match=f"banned until {until}") as caught:
        asyncio.run(run())
    assert "a pause of 18000 s" in caught.value.hint
