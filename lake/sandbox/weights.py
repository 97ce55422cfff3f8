"""Counts request weight per minute; refuses, then bans, a client as Binance would."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time

_WINDOW_SECONDS = 60
# Refusals in one minute before the ban; Binance does not publish its number.
_REFUSALS_BEFORE_BAN = 10
_BAN_SECONDS = 120.0  # Binance's shortest ban


@dataclass(frozen=True, slots=True)
class WeightUsage:
    """The weight used in this minute, and whether the request is refused.

    `status` is 0 (accepted), 429 (too much weight) or 418 (banned after too many refusals);
    `retry_after` is in seconds.
    """

    used: int
    status: int = 0
    retry_after: float = 0.0
    message: str = ""


class WeightCounter:
    """Counts the request weight that the clients of one host use.

    Parameters
    ----------
    limit : int
        Weight allowed in each calendar minute.
    clock : callable, default time.time
        Returns seconds: real time even if the market's clock stands still, so that clients can
        wait.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time) -> None:
        self._limit = limit
        self._clock = clock
        self._window = 0
        self._used = 0
        self._refusals = 0
        self._banned_until = 0.0

    def count(self, weight: int) -> WeightUsage:
        """Count the weight of a request, and return whether it is refused."""
        now = self._clock()
        window = int(now // _WINDOW_SECONDS)
        if window != self._window:
            self._window, self._used, self._refusals = window, 0, 0
        self._used += weight
        if now < self._banned_until:
            return self._ban(now)
        if self._used <= self._limit:
            return WeightUsage(self._used)
        self._refusals += 1
        if self._refusals > _REFUSALS_BEFORE_BAN:
            self._banned_until = now + _BAN_SECONDS
            return self._ban(now)
        wait = (window + 1) * _WINDOW_SECONDS - now
        message = (
            f"Too much request weight used; current limit is {self._limit} request weight "
            "per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
        )
        return WeightUsage(self._used, 429, wait, message)

    def _ban(self, now: float) -> WeightUsage:
        message = (
            f"Way too much request weight used; IP banned until {self._banned_until * 1000:.0f}. "
            "Please use WebSocket Streams for live updates to avoid bans."
        )
        return WeightUsage(self._used, 418, self._banned_until - now, message)
