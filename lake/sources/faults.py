"""Answers worth asking for again: what is wrong with them, how long to wait, when to give up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import stamina

from lake.errors import SourceUnavailableError
from lake.settings import RetrySettings

T = TypeVar("T")
A = TypeVar("A", bound=str)

# A venue that bans an address for hours is reported at once: nobody waits at a silent terminal.
LONGEST_PAUSE_SECONDS = 900.0
ANSWERS_COMPARED = 5

_SIGNATURE = re.compile(r"(?i)\b(signature|sign|api_?key|token|passphrase)=[^&\s]*")
_LONGEST_REASON = 300


class Fault(Exception):  # noqa: N818 - it is a fault of the answer, and never leaves this package
    """An answer that did not come, or cannot be right: asking again may help.

    Attributes
    ----------
    reason
        What is wrong, without secrets.
    retry_after
        Seconds that the venue asked to wait; None where it did not say.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


def remove_secrets(text: str, secrets: tuple[str, ...] = ()) -> str:
    """A text for people: secrets and signatures blotted out, one line, not endless."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = " ".join(_SIGNATURE.sub(r"\1=***", text).split())
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "…"


def parse_http_date(headers: Mapping[str, str], name: str) -> datetime | None:
    """The time in a header (RFC 9110, 5.6.7), None where there is none or it is malformed."""
    try:
        time = parsedate_to_datetime(find_header(headers, name) or "")
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a `Retry-After` asks to wait, given as (fractional) seconds or as a date.

    A date is compared with the venue's own clock, its `Date` header, where there is one.
    RFC 9110, 10.2.3.
    """
    text = find_header(headers, "retry-after")
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d*)?", text.strip()):
        return float(text)
    time = parse_http_date(headers, "retry-after")
    if time is None:
        return None
    return max(0.0, (time - (parse_http_date(headers, "date") or now)).total_seconds())


def find_header(headers: Mapping[str, str], name: str) -> str | None:
    """A header's value, whatever the case of its name."""
    return next((value for key, value in headers.items() if key.lower() == name), None)


def build_contradiction_error(venue: str, request: str) -> SourceUnavailableError:
    """The error for a venue whose answers keep excluding each other."""
    return SourceUnavailableError(
        f"{venue} contradicts itself in {ANSWERS_COMPARED} answers: {request}",
        "Try again later: what is stored stays, and only the rest will be asked for.",
    )


async def ask_until_consistent(
    venue: str,
    request: str,
    fetch: Callable[[], Awaitable[T]],
    find_anomaly: Callable[[T], A | None],
) -> tuple[T, A | None]:
    """An answer without oddity, or one that two answers in a row agree on, and the oddity.

    What is odd once is a slip of the venue, what is odd twice in the same way is its data: a gap
    that is really there must neither be believed at once nor asked for forever.

    Raises
    ------
    SourceUnavailableError
        Each answer is odd in another way.
    """
    before: A | None = None
    for _ in range(ANSWERS_COMPARED):
        answer = await fetch()
        anomaly = find_anomaly(answer)
        if anomaly is None or anomaly == before:
            return answer, anomaly
        before = anomaly
    raise build_contradiction_error(venue, request)


class Retrier:
    """Repeats requests to one venue, with growing waits, and holds all of them when it says so.

    Parameters
    ----------
    venue
        Its id, for messages.
    settings
        How often to ask, and the waits where the venue names none.
    """

    def __init__(self, venue: str, settings: RetrySettings) -> None:
        self._venue = venue
        self._attempts = settings.attempts
        self._open_at = 0.0
        self._retry = stamina.AsyncRetryingCaller(
            attempts=settings.attempts,
            timeout=None,
            wait_initial=settings.wait_initial_seconds,
            wait_max=settings.wait_max_seconds,
            wait_jitter=settings.wait_initial_seconds,
        )

    async def wait_until_open(self) -> None:
        """Wait until the venue lets itself be asked again; every request passes here."""
        loop = asyncio.get_running_loop()
        while (seconds := self._open_at - loop.time()) > 0:
            if seconds > LONGEST_PAUSE_SECONDS:
                raise Fault("the venue asked to be left alone", seconds)
            await asyncio.sleep(seconds)

    async def run(self, request: str, operation: Callable[[], Awaitable[T]]) -> T:
        """What the operation gives once it raises no `Fault`.

        Raises
        ------
        SourceUnavailableError
            It still does after all attempts, or the venue wants a pause that is too long.
        """
        try:
            return await operation()
        except Fault as fault:
            return await self._repeat(request, operation, fault)

    async def _repeat(self, request: str, operation: Callable[[], Awaitable[T]], first: Fault) -> T:
        attempts = 0

        async def attempt() -> T:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                raise first
            return await operation()

        try:
            return await self._retry(self._wait, attempt)
        except Fault as fault:
            raise self._unavailable(request, attempts, fault) from fault

    def _wait(self, error: Exception) -> bool | float:
        if not isinstance(error, Fault):
            return False
        if error.retry_after is None:
            return True
        now = asyncio.get_running_loop().time()
        self._open_at = max(self._open_at, now + error.retry_after)
        return error.retry_after if error.retry_after <= LONGEST_PAUSE_SECONDS else False

    def _unavailable(self, request: str, attempts: int, fault: Fault) -> SourceUnavailableError:
        count = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        message = f"{self._venue} gave no usable answer in {count}: {request}: {fault.reason}"
        when = "Try again later"
        if fault.retry_after is not None:
            when = f"The venue asks for a pause of {fault.retry_after:.0f} s; try again after it"
        return SourceUnavailableError(
            message, f"{when}: what is stored stays, and only the rest will be asked for."
        )
