"""What all requests to one venue share: retries, the venue's clock, the gate, secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from lake.settings import HttpSettings
from lake.sources.faults import Retrier, parse_http_date, remove_secrets
from lake.sources.gate import Gate
from lake.sources.refusals import find_pause

# Clocks of a venue's hosts behind one name differ by less, and caches of current data are fresher.
_STALE = timedelta(minutes=1)


class Session:
    """State that all requests to one venue share: retries, the venue's clock, a counter.

    Parameters
    ----------
    retrier
        Repeats requests.
    now
        The local clock, in UTC.
    concurrency
        Maximum number of concurrent requests; None: as many as fill the rate limit.
    secrets
        Texts that must not appear in messages.
    max_bytes
        The largest body of an answer, after decompression.
    """

    def __init__(
        self,
        retrier: Retrier,
        now: Callable[[], datetime],
        concurrency: int | None,
        secrets: tuple[str, ...] = (),
        max_bytes: int = HttpSettings().max_answer_bytes,
    ) -> None:
        self.max_bytes = max_bytes
        self.retrier = retrier
        self.now = now
        self.requests = 0
        self.gate = Gate(retrier.wait_until_open, concurrency)
        self._secrets = secrets
        self._ahead = timedelta(0)
        self._newest: dict[str, datetime] = {}
        self._behind: dict[str, timedelta] = {}

    def update_clock(self, host: str, headers: Mapping[str, str]) -> timedelta | None:
        """Compare the local clock with the `Date` of an answer.

        Returns by how much an answer is too old to be believed, as one of a cache may be: it knows
        nothing of the time since, and says nothing of the venue's clock. Too old is what is older
        than an earlier answer of its host; and what is older than the local clock, unless the
        answer before was so too: then it is the clock that is fast.
        """
        date = parse_http_date(headers, "date")
        if date is None:
            return None
        now = self.now()
        newest = max(date, self._newest.get(host, date))
        self._newest[host] = newest
        if date < min(newest, now) - _STALE:
            return newest - date
        behind = max(timedelta(0), now - date)
        expected = self._behind.get(host, timedelta(0))
        self._behind[host] = behind
        if behind > expected + _STALE:
            return behind - expected
        self._ahead = behind
        return None

    def venue_now(self) -> datetime:
        """Return the earlier of the local time and the venue's time, as of its last answer.

        With a fast local clock, times that the venue has not reached would count as complete.
        `Date` has whole seconds, so the result is up to one second late.
        """
        return self.now() - self._ahead

    def find_pause(self, headers: Mapping[str, str], words: str) -> float | None:
        """Find how long a refusal demands to wait, in seconds."""
        return find_pause(headers, words, self.now())

    def remove_secrets(self, text: object) -> str:
        return remove_secrets(str(text), self._secrets)
