"""Answers are read up to a limit, and only from the host that was asked."""

import asyncio
import tracemalloc
import zlib
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web

from lake.errors import SourceUnavailableError
from lake.settings import HttpSettings
from tests.sources.replies import GOOD, answer, client, klines


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_an_answer_that_is_too_large_is_not_read_to_its_end(
    serving: Any, encoding: str | None
) -> None:
    """200 MB of spaces are valid JSON with a digit, and 200 kB on the wire."""

    async def reply(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": encoding} if encoding else {}
        response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
        await response.prepare(request)
        packer = zlib.compressobj(wbits=31) if encoding else None
        with suppress(ConnectionError):
            for _ in range(200):
                piece = b" " * 1_000_000
                await response.write(packer.compress(piece) if packer else piece)
            await response.write((packer.compress(b"1") + packer.flush()) if packer else b"1")
            await response.write_eof()
        return response

    async def run() -> None:
        http = HttpSettings(rate_limit=False, max_answer_bytes=3_000_000)
        async with serving(reply) as url:
            await klines(client(url, http=http, attempts=2))

    tracemalloc.start()
    try:
        with pytest.raises(SourceUnavailableError, match="an answer of more than 3,000,000 bytes"):
            asyncio.run(run())
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


def test_an_answer_within_the_limit_is_read(serving: Any) -> None:
    body = b"[" + b"1," * 400_000 + b"1]"

    async def run() -> Any:
        async with serving(answer(body)) as url:
            return await klines(client(url, http=HttpSettings(max_answer_bytes=len(body))))

    assert len(asyncio.run(run())) == 400_001


@pytest.mark.parametrize("other", [True, False])
def test_only_redirects_to_the_same_host_are_followed(serving: Any, *, other: bool) -> None:
    asked = []

    async def reply(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path == "/moved":
            return web.Response(body=GOOD, content_type="application/json")
        host = f"http://localhost:{request.url.port}" if other else ""
        raise web.HTTPFound(f"{host}/moved")

    async def run() -> Any:
        async with serving(reply) as url:
            return await klines(client(url, attempts=1))

    if other:
        with pytest.raises(SourceUnavailableError, match="a redirect to another host, localhost"):
            asyncio.run(run())
        assert "/moved" not in asked
    else:
        assert asyncio.run(run()) == [[1, "2"]]
