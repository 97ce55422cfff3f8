"""Strict requests: invalid answers, refusals, pauses, clocks, and messages of errors."""

import asyncio
import gc
import logging
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import ccxt.async_support as ccxt
import pytest
from aiohttp import web
from pydantic import SecretStr

from lake.errors import (
    SourceError,
    SourceUnavailableError,
    UnknownNameError,
)
from lake.settings import ExchangeSettings, HttpSettings, RetrySettings, Url
from lake.sources.ccxt_client import Client, connect, redirect_urls
from lake.sources.ccxt_strict import parse_json
from tests.sources.replies import GOOD, NOW, Reply, answer, client, klines, scripted


async def reset(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 100
    await response.prepare(request)
    await response.write(b'[[1,"2')
    await asyncio.sleep(0.01)
    assert request.transport is not None
    request.transport.abort()
    return response


async def silence(_: web.Request) -> web.Response:
    await asyncio.sleep(0.6)
    return web.Response(body=GOOD)


RUBBISH = {
    "truncated": answer(GOOD[:5]),
    "half a number": answer(b"[1, 2"),
    "a page for humans": answer(b"<html>Be right back.</html>"),
    "empty": answer(b""),
    "NaN": answer(b'[{"a": NaN}]'),
    "500": answer(b"<html>Oops</html>", 500),
    "502 in JSON": answer(b'{"code": -1, "msg": "gateway"}', 502),
    "503": answer(b"", 503),
    "408": answer(b"{}", 408),
    "418": answer(b'{"code": -1003, "msg": "banned"}', 418, Retry_After="0.01"),
    "429": answer(b'{"code": -1003, "msg": "slow down"}', 429, Retry_After="0.01"),
    "429 without a word": answer(b"", 429),
    "403 of a client that is too fast": answer(b'{"retMsg": "access too frequent"}', 403),
    "reset": reset,
    "cut": cut,
    "silence": silence,
    "disconnected, says the venue": answer(b'{"code": -1001, "msg": "Internal error"}', 400),
}


@pytest.mark.parametrize("kind", RUBBISH)
def test_an_invalid_answer_is_requested_again(
    serving: Any, kind: str, log_lines: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        async with serving(scripted(RUBBISH[kind], RUBBISH[kind])) as url:
            source = client(url)
            assert await klines(source) == [[1, "2"]]
            # aiohttp itself repeats a GET on a connection that turns out to be dead
            assert source.requests == (2 if kind == "reset" else 3)

    asyncio.run(run())
    assert any("tried_again" in line for line in log_lines)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("kind", ["truncated", "503", "cut", "reset", "empty", "429"])
def test_invalid_answers_in_all_attempts_are_an_error_with_details(serving: Any, kind: str) -> None:
    async def run() -> None:
        async with serving(scripted(*[RUBBISH[kind]] * 9)) as url:
            await klines(client(url))

    with pytest.raises(SourceUnavailableError) as caught:
        asyncio.run(run())
    message = caught.value.message
    assert message.startswith("binance gave no usable answer in 4 attempts: GET klines")
    assert "BTCUSDT" in message
    assert caught.value.hint
    assert caught.value.code == "source_unavailable"


@pytest.mark.parametrize("pause", ["0.25", "date"])
def test_retry_after_stops_all_requests_of_the_client(serving: Any, pause: str) -> None:
    arrived: list[float] = []
    clock = datetime.now(UTC).replace(microsecond=0)

    async def handle(request: web.Request) -> web.StreamResponse:
        arrived.append(time.monotonic())
        if len(arrived) > 1:
            return await answer()(request)
        date = format_datetime(clock, usegmt=True)
        until = format_datetime(clock + timedelta(seconds=1), usegmt=True)
        return web.Response(
            status=429,
            headers={"Date": date, "Retry-After": until if pause == "date" else pause},
        )

    async def first(source: Client) -> None:
        await source.call("publicGetKlines", {"symbol": "A", "interval": "1m"})

    async def later(source: Client) -> None:
        await asyncio.sleep(0.05)
        await source.call("publicGetTime")

    async def run() -> None:
        async with serving(handle) as url:
            source = client(url, http=HttpSettings(rate_limit=False))
            try:
                await asyncio.gather(first(source), *(later(source) for _ in range(5)))
            finally:
                await source.close()

    asyncio.run(run())
    assert len(arrived) == 7
    min_pause = 1.0 if pause == "date" else 0.25
    assert min_pause - 0.01 <= min(arrived[1:]) - arrived[0] < min_pause + 0.5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[18446744073709551615]", [18446744073709551615]),
        ("[18446744073709551616]", [18446744073709551616]),
        ('{"id":131799727412345678901234}', {"id": 131799727412345678901234}),
        ("[-9223372036854775809]", [-9223372036854775809]),
        ("[1.25, 1e3]", [1.25, 1000.0]),
        ("[0.12345678901234567890123]", [0.12345678901234567890123]),
    ],
)
def test_integers_of_any_size_stay_exact(text: str, value: Any) -> None:
    parsed = parse_json(text)
    assert parsed == value
    assert repr(parsed) == repr(value)


def test_big_integers_stay_exact(serving: Any) -> None:
    async def run() -> Any:
        async with serving(scripted(answer(b'[{"a":102090736227123456789012}]'))) as url:
            return await klines(client(url))

    assert asyncio.run(run()) == [{"a": 102090736227123456789012}]


def test_secrets_are_in_no_message(serving: Any) -> None:
    echo = answer(b'{"code": -2015, "msg": "key TOPSECRET is not allowed"}', 401)
    key, secret = SecretStr("TOPSECRET"), SecretStr("HUSH")

    async def run(reply: Reply) -> None:
        async with serving(scripted(*[reply] * 9)) as url:
            await klines(
                client(url, exchange=ExchangeSettings(url=Url(url), api_key=key, secret=secret))
            )

    with pytest.raises(SourceError) as refused:
        asyncio.run(run(echo))
    with pytest.raises(SourceUnavailableError) as failed:
        asyncio.run(run(answer(b"<html>TOPSECRET HUSH</html>", 500)))
    for error in (refused.value, failed.value):
        assert "TOPSECRET" not in str(error)
        assert "HUSH" not in str(error)
        assert "***" in str(error)


def test_ccxts_rate_limiter_is_kept(serving: Any) -> None:
    async def run(*, rate_limit: bool) -> float:
        async with serving(scripted()) as url:
            source = client(url, http=HttpSettings(rate_limit=rate_limit))
            started = time.monotonic()
            request = {"symbol": "A", "interval": "1m"}
            await asyncio.gather(*(source.call("publicGetKlines", request) for _ in range(20)))
            elapsed = time.monotonic() - started
            await source.close()
            return elapsed

    # 20 requests of weight 2 at 50 ms for a weight of 5: 0.02 s each
    assert asyncio.run(run(rate_limit=True)) > 0.3
    # a loaded machine takes its time: the shortest of some runs
    assert min(asyncio.run(run(rate_limit=False)) for _ in range(5)) < 0.3


def test_no_more_requests_at_once_than_set(serving: Any) -> None:
    under_way = most = 0

    async def handle(_: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return web.Response(body=GOOD, content_type="application/json")

    async def run() -> None:
        async with serving(handle) as url:
            source = client(url, http=HttpSettings(rate_limit=False, concurrency=3))
            await asyncio.gather(*(source.call("publicGetTime") for _ in range(12)))
            await source.close()

    asyncio.run(run())
    assert most == 3


def test_an_unknown_exchange_names_the_closest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        connect(
            "binanse",
            now=lambda: NOW,
            http=HttpSettings(),
            retry=RetrySettings(),
            settings=ExchangeSettings(),
        )
    assert caught.value.message == "unknown exchange 'binanse'"
    assert caught.value.hint.startswith("Did you mean binance")


@pytest.mark.parametrize("exchange_id", ccxt.exchanges)
def test_every_exchange_can_be_redirected(exchange_id: str) -> None:
    source = connect(
        exchange_id,
        now=lambda: NOW,
        http=HttpSettings(),
        retry=RetrySettings(),
        settings=ExchangeSettings(url=Url("http://127.0.0.1:1/")),
    )
    urls = str(source.exchange.urls["api"])
    assert urls.count("://") == urls.count("http://127.0.0.1:1/")


def test_redirection_keeps_host_and_path() -> None:
    urls = {"a": "https://api.x.com/v1", "b": ["http://y.io"], "c": {"d": "wss://z.io"}, "e": None}
    assert redirect_urls(urls, "http://127.0.0.1:1") == {
        "a": "http://127.0.0.1:1/api.x.com/v1",
        "b": ["http://127.0.0.1:1/y.io"],
        "c": {"d": "wss://z.io"},
        "e": None,
    }


def test_nothing_is_left_open(
    serving: Any, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    async def run() -> None:
        async with serving(scripted(reset, reset, *[answer(b"", 500)] * 4)) as url:
            with pytest.raises(SourceUnavailableError):
                await klines(client(url))
            client(url)  # never used, so nothing has to be closed

    with caplog.at_level(logging.DEBUG):
        asyncio.run(run())
        gc.collect()
    log_lines = [record.getMessage() for record in caplog.records]
    assert not [text for text in log_lines if "nclosed" in text or "release all resources" in text]
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]
