"""Lets requests out to a venue: as many at once as fill its rate limit at its distance."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from lake.sources.faults import Trouble
from lake.sources.pacing import Pacer
from lake.sources.venues.rate_limits import Limit

AT_FIRST = 8
"""Requests at once before the distance of the venue is known, and without a rate limit."""
_FEWEST = 4
"""Requests at once after any number of faults: one that hangs does not stop all others."""
MOST = 128
"""Requests at once, unless the settings give a number: their pages are held in memory."""
# The smoothed round trip and its deviation, as TCP has them: RFC 6298, 2.3
_ALPHA, _BETA, _DEVIATIONS = 1 / 8, 1 / 4, 2.0
# Trips longer than this many times the shortest one wait for this machine, and more would not help
_LONGEST = 3.0
_SPARE = 2


class Gate:
    """Requests that are under way to one venue.

    By Little's law requests that take `t` seconds use a limit of `r` a second if `r * t` of them
    are under way. So many are let out, by a smoothed measure of `t`; fewer after a fault of a venue
    that is overloaded, and then slowly more.

    Parameters
    ----------
    wait_until_open
        Waits while the venue demands a pause.
    most
        Requests at once at most; None: `MOST`, and `AT_FIRST` without a rate limit.
    """

    def __init__(self, wait_until_open: Callable[[], Awaitable[None]], most: int | None) -> None:
        self._wait_until_open = wait_until_open
        self._most = most
        self._pacers: dict[str, Pacer] = {}
        self._under_way = 0
        self._left = asyncio.Event()
        self._trip: float | None = None
        self._deviation, self._shortest = 0.0, math.inf
        self._window = float(AT_FIRST)
        self._has_backed_off, self._backed_off_at = False, 0.0

    @property
    def concurrency(self) -> int:
        """How many requests are let out at once now."""
        return max(1, min(self._find_wanted(), int(self._window)))

    def _find_wanted(self) -> int:
        rate = sum(pacer.requests_per_second for pacer in self._pacers.values())
        if not rate:
            return self._most or AT_FIRST
        if self._trip is None:
            return min(AT_FIRST, self._most or MOST)
        # never fewer than at first: pacing, and not this, keeps the limit
        trip = min(self._trip + _DEVIATIONS * self._deviation, _LONGEST * self._shortest)
        wanted = math.ceil(rate * trip) + _SPARE
        return min(max(wanted, AT_FIRST), self._most or MOST)

    @asynccontextmanager
    async def pass_through(self, limit: Limit | None, weight: float) -> AsyncIterator[None]:
        """Wait for the turn of a request; the block sends it, and ends with its answer.

        Parameters
        ----------
        limit
            The limit that it uses; None: it uses none.
        weight
            How much of it.
        """
        clock = asyncio.get_running_loop().time
        pacer = None if limit is None else self._find_pacer(limit)
        await self._wait(pacer, weight, clock)
        sent_at = clock()
        try:
            yield
            self._note_success(clock() - sent_at)
        finally:
            self._under_way -= 1
            self._left.set()
            if pacer is not None:
                pacer.release(weight, clock())

    def _find_pacer(self, limit: Limit) -> Pacer:
        if limit.name not in self._pacers:
            self._pacers[limit.name] = Pacer(limit.allowance)
        return self._pacers[limit.name]

    async def _wait(self, pacer: Pacer | None, weight: float, clock: Callable[[], float]) -> None:
        if pacer is None:
            await self._wait_for_room()
            return
        async with pacer.turn:
            while True:
                await self._wait_for_room()
                delay = pacer.find_delay(weight, clock())
                if delay <= 0:
                    break
                self._leave_room()
                await asyncio.sleep(delay)
            pacer.count(weight, clock())

    async def _wait_for_room(self) -> None:
        """Take a place among the requests under way, once the venue accepts requests."""
        while True:
            await self._wait_until_open()
            if self._under_way < self.concurrency:
                break
            self._left.clear()
            await self._left.wait()
        self._under_way += 1

    def _leave_room(self) -> None:
        self._under_way -= 1
        self._left.set()

    def _note_success(self, seconds: float) -> None:
        self._shortest = min(self._shortest, seconds)
        if self._trip is None:
            self._trip, self._deviation = seconds, seconds / 2
        else:
            self._deviation += _BETA * (abs(seconds - self._trip) - self._deviation)
            self._trip += _ALPHA * (seconds - self._trip)
        if self._window < (self._most or MOST):
            self._window += 1 / self._window if self._has_backed_off else 1.0

    def note_trouble(self, trouble: Trouble, limit: Limit | None) -> None:
        """Let fewer requests out after a fault, once a round trip; ask for less if too fast."""
        now = asyncio.get_running_loop().time()
        if self._has_backed_off and now - self._backed_off_at < (self._trip or 0.0):
            return
        self._has_backed_off, self._backed_off_at = True, now
        self._window = max(float(_FEWEST), self.concurrency / 2)
        if trouble == "too_fast" and limit is not None:
            self._find_pacer(limit).slow_down(now)
