"""Retries of requests: what is wrong with an answer, how long to wait, when to give up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Literal, TypeVar

import stamina

from lake.errors import RefusalReason, SourceRefusedError, SourceUnavailableError
from lake.model.words import count
from lake.retries import run_with_retries
from lake.settings import RetrySettings

T = TypeVar("T")
A = TypeVar("A", bound=str)
Trouble = Literal["too_fast", "overloaded"]

# A longer ban by the venue is reported at once: users should not wait at a silent terminal.
LONGEST_PAUSE_SECONDS = 900.0
ANSWERS_COMPARED = 5

_SIGNATURE = re.compile(r"(?i)\b(signature|sign|api_?key|token|passphrase)=[^&\s]*")
_LONGEST_REASON = 300


class Fault(Exception):  # noqa: N818 - a fault of an answer; it never leaves this package
    """An answer is missing or invalid; a retry may help.

    Attributes
    ----------
    reason
        The reason, without secrets.
    retry_after
        Seconds that the venue asks to wait; None if it does not say.
    refusal
        Why the venue refuses, if this may be final: the second refusal in a row is. A firewall or
        a proxy may refuse once without cause. None for other faults.
    trouble
        What fewer requests would help against; None for other faults.
    """

    def __init__(
        self,
        reason: str,
        retry_after: float | None = None,
        refusal: RefusalReason | None = None,
        trouble: Trouble | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.refusal = refusal
        self.trouble = trouble


def remove_secrets(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return a text for messages: secrets and signatures masked, one line, limited length."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = " ".join(_SIGNATURE.sub(r"\1=***", text).split())
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "…"


def parse_http_date(headers: Mapping[str, str], name: str) -> datetime | None:
    """Parse the time in a header (RFC 9110, 5.6.7); None if it is missing or malformed."""
    try:
        time = parsedate_to_datetime(find_header(headers, name) or "")
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Parse `Retry-After`, (fractional) seconds or a date, into seconds to wait.

    A date is compared with the venue's own clock, its `Date` header, if there is one.
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
    """Return the value of a header; the case of its name does not matter."""
    return next((value for key, value in headers.items() if key.lower() == name), None)


_REFUSAL_HINTS: dict[RefusalReason, str] = {
    "not_listed": "The venue may have delisted the market.",
    "too_long_ago": "The venue serves only newer rows; take older ones from an archive.",
    "forbidden": "The venue does not serve this location, address or key.",
    "refused": "The venue does not serve this request, or its address in the settings is wrong.",
}


def build_refusal(
    venue: str, request: str, words: str, reason: RefusalReason
) -> SourceRefusedError:
    """Build the error for a permanent refusal, with the words of the venue."""
    message = f"{venue} refused {request}: {words}"
    return SourceRefusedError(message, _REFUSAL_HINTS[reason], reason=reason, words=words)


def build_contradiction_error(venue: str, request: str) -> SourceUnavailableError:
    """Build the error for a venue whose answers contradict each other."""
    return SourceUnavailableError(
        f"{venue} gave {ANSWERS_COMPARED} answers that contradict each other: {request}",
        "Try again later: stored rows stay, and only the missing ranges are requested.",
    )


async def ask_until_consistent(
    venue: str,
    request: str,
    fetch: Callable[[], Awaitable[T]],
    find_anomaly: Callable[[T], A | None],
) -> tuple[T, A | None]:
    """Return an answer without anomaly, or one whose anomaly two answers in a row share.

    An anomaly that appears once is an error of the venue; one that appears twice is its data: a
    real gap must neither be accepted at once nor requested forever.

    Raises
    ------
    SourceUnavailableError
        Each answer has a different anomaly.
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
    """Repeats requests to one venue with growing waits; pauses all requests if the venue demands
    it.

    Parameters
    ----------
    venue
        The id of the venue, for messages.
    settings
        The number of attempts, and the waits if the venue does not name one.
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
        """Wait until the venue accepts requests again; every request calls this first."""
        loop = asyncio.get_running_loop()
        while (seconds := self._open_at - loop.time()) > 0:
            if seconds > LONGEST_PAUSE_SECONDS:
                raise Fault("the venue demands a pause", seconds)
            await asyncio.sleep(seconds)

    async def run(self, request: str, operation: Callable[[], Awaitable[T]]) -> T:
        """Return the result of the operation; repeat it while it raises `Fault`.

        Raises
        ------
        SourceRefusedError
            Two answers in a row are refusals.
        SourceUnavailableError
            All attempts failed, or the venue demands a pause that is too long.
        """
        try:
            return await operation()
        except Fault as fault:
            return await self._repeat(request, operation, fault)

    async def _repeat(self, request: str, operation: Callable[[], Awaitable[T]], first: Fault) -> T:
        attempts, refusal = 0, first.refusal

        async def attempt() -> T:
            nonlocal attempts, refusal
            attempts += 1
            if attempts == 1:
                raise first
            try:
                return await operation()
            except Fault as fault:
                if fault.refusal is not None and refusal is not None:
                    raise build_refusal(self._venue, request, fault.reason, refusal) from fault
                refusal = fault.refusal
                raise

        try:
            return await run_with_retries(self._retry, self._wait, attempt)
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
        tries = count(attempts, "attempt")
        message = f"{self._venue} gave no usable answer in {tries}: {request}: {fault.reason}"
        when = "Try again later"
        if fault.retry_after is not None:
            when = f"The venue demands a pause of {fault.retry_after:.0f} s; try again after it"
        return SourceUnavailableError(
            message, f"{when}: stored rows stay, and only the missing ranges are requested."
        )
