"""Paces requests within the rate limit of a venue.

A venue counts weight in windows of its own clock, and a request reaches it at an unknown moment
between its sending and its answer. So a weight counts from the sending until one window after the
answer: whatever the delays are, no window of the venue holds more than the limit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

# What is used of the limit: a request counts for longer than a window
_SHARE = 0.98
# What a client that was busy may catch up, of a window
_CATCH_UP = 0.05
# A venue that refuses more slowly than its limit says gets less, and then more again
_SLOWER, _SLOWEST, _RECOVERY_PER_SECOND = 0.7, 0.1, 0.01
_SMOOTHING = 0.1
# The clocks of both sides do not run equally fast, and times are rounded
_TOLERANCE = 0.0001
# Until an expired window frees weight, while all of it is in flight
_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a venue allows: a weight in any window of some seconds.

    Attributes
    ----------
    weight
        The limit, in the venue's unit.
    seconds
        The length of the window.
    burst
        The weight that may be used at once from the start.
    """

    weight: float
    seconds: float
    burst: float = 0.0

    @property
    def rate(self) -> float:
        """Weight a second that keeps the limit after a burst."""
        return _SHARE * (self.weight - self.burst) / self.seconds


class Pacer:
    """Spaces the requests that share one limit.

    Parameters
    ----------
    allowance
        The limit.

    Attributes
    ----------
    turn
        Held by the request that is sent next.
    """

    def __init__(self, allowance: Allowance) -> None:
        self.turn = asyncio.Lock()
        self._allowance = allowance
        burst_seconds = allowance.burst / allowance.rate
        self._catch_up_seconds = max(_CATCH_UP * allowance.seconds, burst_seconds)
        self._burst_seconds = burst_seconds
        self._next_at: float | None = None
        self._counted: deque[tuple[float, float]] = deque()  # when it expires, weight
        self._weight_counted = 0.0
        self._mean_weight: float | None = None
        self._factor, self._slowed_at = 1.0, float("-inf")

    @property
    def requests_per_second(self) -> float:
        """How many requests of the usual weight the limit allows; 0 before the first one."""
        return self._allowance.rate / self._mean_weight if self._mean_weight else 0.0

    def find_delay(self, weight: float, now: float) -> float:
        """Return how many seconds a request has to wait before it may be asked for again; or 0."""
        while self._counted and self._counted[0][0] <= now:
            self._weight_counted -= self._counted.popleft()[1]
        delay = 0.0 if self._next_at is None else max(0.0, self._next_at - now)
        if self._weight_counted and self._weight_counted + weight > self._allowance.weight:
            expires_at = self._counted[0][0] if self._counted else now
            delay = max(delay, expires_at - now, _POLL_SECONDS)
        return delay

    def count(self, weight: float, now: float) -> None:
        """Count a request that is sent now."""
        self._weight_counted += weight
        rate = self._allowance.rate * self._find_factor(now)
        due_at = now - self._burst_seconds if self._next_at is None else self._next_at
        self._next_at = max(due_at, now - self._catch_up_seconds) + weight / rate
        mean = weight if self._mean_weight is None else self._mean_weight
        self._mean_weight = mean + _SMOOTHING * (weight - mean)

    def release(self, weight: float, now: float) -> None:
        """Note the answer to a request: its weight counts for one more window."""
        self._counted.append((now + self._allowance.seconds * (1 + _TOLERANCE), weight))

    def slow_down(self, now: float) -> None:
        """Ask for less for some time: the venue allows less than its limit says."""
        self._factor = max(_SLOWEST, self._find_factor(now) * _SLOWER)
        self._slowed_at = now

    def _find_factor(self, now: float) -> float:
        if self._factor == 1.0:
            return 1.0
        return min(1.0, self._factor + _RECOVERY_PER_SECOND * (now - self._slowed_at))
