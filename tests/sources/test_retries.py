"""Retry-After, secrets, consistent answers and retries: `lake.sources.faults`."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import SourceUnavailableError
from lake.settings import RetrySettings
from lake.sources.faults import (
    LONGEST_PAUSE_SECONDS,
    Fault,
    Retrier,
    ask_until_consistent,
    parse_retry_after,
    remove_secrets,
)

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
IMPATIENT = RetrySettings(attempts=3, wait_initial_seconds=0.001, wait_max_seconds=0.01)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"RETRY-AFTER": "0.25"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Fri, 01 Mar 2024 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 01 Mar 2024 11:00:00 GMT"}, 0.0),
        # the venue's clock is ten minutes slow: its own Date gives the length of the pause
        (
            {
                "retry-after": "Fri, 01 Mar 2024 11:50:05 GMT",
                "date": "Fri, 01 Mar 2024 11:50:00 GMT",
            },
            5.0,
        ),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, NOW) == seconds


@given(st.integers(0, 10**6))
def test_a_retry_date_is_compared_with_the_venues_clock(seconds: int) -> None:
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after({"Retry-After": date}, NOW) == seconds


def test_secrets_and_signatures_are_blotted_out() -> None:
    text = "GET /x?symbol=A&apiKey=k1&signature=abc HTTP\n s3cret " + "y" * 1000
    cleaned = remove_secrets(text, ("s3cret",))
    assert cleaned.startswith("GET /x?symbol=A&apiKey=***&signature=*** HTTP *** y")
    assert len(cleaned) < 320


def test_an_answer_without_anomaly_is_requested_once() -> None:
    answers = iter([1, 2])

    async def ask() -> int:
        return next(answers)

    assert asyncio.run(ask_until_consistent("v", "x", ask, lambda _: None)) == (1, None)
    assert next(answers) == 2


def test_an_anomaly_that_appears_twice_is_accepted() -> None:
    answers = iter([3, 5, 5, 7])

    async def ask() -> int:
        return next(answers)

    assert asyncio.run(ask_until_consistent("v", "x", ask, str)) == (5, "5")
    assert next(answers) == 7


def test_an_oddity_that_passes_is_forgotten() -> None:
    answers = iter([3, 0])

    async def ask() -> int:
        return next(answers)

    find_anomaly = lambda answer: str(answer) if answer else None  # noqa: E731
    assert asyncio.run(ask_until_consistent("v", "x", ask, find_anomaly)) == (0, None)


def test_a_venue_whose_answers_always_differ_is_unavailable() -> None:
    answers: Iterator[int] = iter(range(100))

    async def ask() -> int:
        return next(answers)

    with pytest.raises(SourceUnavailableError, match="v gave 5 answers that contradict each other"):
        asyncio.run(ask_until_consistent("v", "x", ask, str))


def test_faults_are_repeated_and_reported_at_last() -> None:
    attempts = 0

    async def failing() -> None:
        nonlocal attempts
        attempts += 1
        raise Fault(f"fault {attempts}")

    with pytest.raises(SourceUnavailableError) as caught:
        asyncio.run(Retrier("kraken", IMPATIENT).run("GET trades", failing))
    assert attempts == 3
    assert caught.value.message == (
        "kraken gave no usable answer in 3 attempts: GET trades: fault 3"
    )
    assert "Try again later" in caught.value.hint


def test_other_errors_are_not_repeated() -> None:
    attempts = 0

    async def failing() -> None:
        nonlocal attempts
        attempts += 1
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        asyncio.run(Retrier("kraken", IMPATIENT).run("GET trades", failing))
    assert attempts == 1


def test_a_pause_holds_back_everybody() -> None:
    retrier = Retrier("kraken", IMPATIENT)
    asked: list[float] = []

    async def first() -> None:
        await retrier.wait_until_open()
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise Fault("too many", retry_after=0.2)

    async def second() -> None:
        await asyncio.sleep(0.02)
        await retrier.run("b", first)

    async def both() -> None:
        await asyncio.gather(retrier.run("a", first), second())

    started = time.monotonic()
    asyncio.run(both())
    assert len(asked) == 3
    assert asked[0] - started < 0.2
    assert min(asked[1:]) - asked[0] >= 0.19


def test_a_long_ban_is_reported_at_once_and_kept_to() -> None:
    retrier = Retrier("binance", IMPATIENT)
    asked = 0

    async def ask() -> None:
        nonlocal asked
        await retrier.wait_until_open()
        asked += 1
        raise Fault("banned", retry_after=LONGEST_PAUSE_SECONDS + 100)

    async def twice() -> list[SourceUnavailableError]:
        errors = []
        for _ in range(2):
            with pytest.raises(SourceUnavailableError) as caught:
                await retrier.run("GET klines", ask)
            errors.append(caught.value)
        return errors

    first, second = asyncio.run(twice())
    assert asked == 1
    assert "1 attempt:" in first.message
    assert "banned" in first.message
    assert "1000 s" in first.hint
    assert "demands a pause" in second.message
