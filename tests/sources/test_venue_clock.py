"""The clock of a venue, as its answers show it; answers of a cache are none of its own."""

import asyncio
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from lake.errors import SourceUnavailableError
from tests.sources.replies import NOW, answer, client, klines, scripted


@pytest.mark.parametrize(("behind_seconds", "expected_behind"), [(3600, 3600), (0, 0), (-3600, 0)])
def test_the_earlier_clock_counts(serving: Any, behind_seconds: int, expected_behind: int) -> None:
    date = format_datetime(NOW - timedelta(seconds=behind_seconds), usegmt=True)

    async def run() -> datetime:
        async with serving(scripted(*[answer(Date=date)] * 2)) as url:
            source = client(url)
            assert source.venue_now() == NOW
            await klines(source)
            return source.venue_now()

    assert asyncio.run(run()) == NOW - timedelta(seconds=expected_behind)


@pytest.mark.parametrize(("first", "times"), [(True, 1), (True, 3), (False, 1)])
def test_a_stale_answer_is_asked_again(serving: Any, *, first: bool, times: int) -> None:
    """A cache may answer with what the venue said before; its date says nothing of the clock."""
    fresh = answer(b"[[2]]", Date=format_datetime(NOW, usegmt=True))
    stale = answer(b"[[1]]", Date=format_datetime(NOW - timedelta(minutes=40), usegmt=True))

    async def run() -> tuple[Any, datetime, int]:
        async with serving(scripted(*[fresh] * first, *[stale] * times, fresh)) as url:
            source = client(url)
            request = {"symbol": "A", "interval": "1m"}
            if first:
                await source.call("publicGetKlines", request)
            rows: Any = await source.call("publicGetKlines", request)
            await source.close()
            return rows, source.venue_now(), source.requests

    assert asyncio.run(run()) == ([[2]], NOW, first + times + 1)


def test_only_stale_answers_are_no_answer(serving: Any) -> None:
    fresh = answer(Date=format_datetime(NOW, usegmt=True))
    stale = answer(Date=format_datetime(NOW - timedelta(minutes=40), usegmt=True))

    async def run() -> None:
        async with serving(scripted(fresh, *[stale] * 8)) as url:
            source = client(url)
            await source.call("publicGetKlines", {"symbol": "A", "interval": "1m"})
            await klines(source)

    with pytest.raises(SourceUnavailableError, match="an answer that is 0:40:00 old"):
        asyncio.run(run())


def test_one_host_with_a_fast_clock_makes_no_other_answer_stale(serving: Any) -> None:
    early = answer(Date=format_datetime(NOW + timedelta(hours=2), usegmt=True))
    right = answer(Date=format_datetime(NOW, usegmt=True))

    async def run() -> int:
        async with serving(scripted(early, right)) as url:
            source = client(url)
            await source.call("publicGetKlines", {"symbol": "A", "interval": "1m"})
            await klines(source)
            return source.requests

    assert asyncio.run(run()) == 2
