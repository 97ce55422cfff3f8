"""Requests fill the rate limit of a venue at any distance, and never exceed it: `gate`, `pacing`.

Time is virtual: the venue of each test counts the weight of arrivals in all windows of minutes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.sources.gate import AT_FIRST, MOST, Gate
from lake.sources.pacing import Allowance
from lake.sources.venues.rate_limits import Limit, build_limit, find_limit
from tests.canned import find_most
from tests.sources.virtual_time import run_in_virtual_time

SPOT = Limit("spot", Allowance(6000, 60))
Delay = Callable[[], float]


class Venue:
    """Answers after a delay, of which a part passes before a request arrives."""

    def __init__(self, delay: Delay, seed: int = 7) -> None:
        self.arrivals: list[tuple[float, float]] = []
        self.most = 0
        self._delay, self._random = delay, random.Random(seed)
        self._under_way = 0

    async def ask(self, weight: float) -> None:
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        trip = self._delay()
        there = trip * self._random.random()
        await asyncio.sleep(there)
        self.arrivals.append((asyncio.get_running_loop().time(), weight))
        await asyncio.sleep(trip - there)
        self._under_way -= 1


async def never_closed() -> None:
    """A venue that demands no pause."""


async def fetch(
    gate: Gate, venue: Venue, limit: Limit, weights: list[float], busy: Delay = lambda: 0.0
) -> None:
    """Send requests with as many workers as the gate wants, each `busy` after an answer."""
    workers: set[asyncio.Task[None]] = set()

    async def work() -> None:
        while weights:
            weight = weights.pop()
            async with gate.pass_through(limit, weight):
                await venue.ask(weight)
            await asyncio.sleep(busy())
            start()

    def start() -> None:
        for _ in range(gate.concurrency - len(workers)):
            task = asyncio.create_task(work())
            workers.add(task)
            task.add_done_callback(workers.discard)

    start()
    while workers:
        await asyncio.wait(set(workers))


def measure_share(venue: Venue, allowance: Allowance) -> float:
    """Return the weight used as a share of what the limit allows."""
    times = [at for at, _ in venue.arrivals]
    allowed = (max(times) - min(times)) * allowance.weight / allowance.seconds
    return sum(weight for _, weight in venue.arrivals) / allowed


@pytest.mark.parametrize(
    ("delay", "jitter"), [(0.001, 0), (0.02, 0), (0.2, 0), (0.2, 0.2), (0.5, 0.1), (1.5, 1)]
)
def test_the_limit_is_filled_at_any_distance(delay: float, jitter: float) -> None:
    randomness = random.Random(1)
    venue = Venue(lambda: delay + jitter * randomness.random())
    gate = Gate(never_closed, None)
    run_in_virtual_time(fetch(gate, venue, SPOT, [2.0] * 5_000))
    assert find_most(sorted(venue.arrivals), 60) <= 6000
    assert measure_share(venue, SPOT.allowance) >= 0.9
    # Little's law: 50 requests a second that take so long, and some to spare
    assert venue.most <= max(AT_FIRST, 50 * (delay + 2 * jitter) * 1.5 + 4)
    assert venue.most <= MOST


@settings(max_examples=50)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(60, 6000.0), (5, 250.0), (10, 10.0), (1, 20.0)]),
    st.floats(0, 3),
    st.floats(0, 3),
    st.lists(st.sampled_from([1.0, 2.0, 5.0, 20.0]), min_size=1, max_size=4),
    st.floats(0, 2),
)
def test_no_window_ever_holds_more_than_is_allowed(
    seed: int,
    window: tuple[int, float],
    delay: float,
    jitter: float,
    weights: list[float],
    busy: float,
) -> None:
    """With any delays and weights, and a client that is busy at times."""
    seconds, weight = window
    allowance = Allowance(weight, seconds)
    randomness = random.Random(seed)
    venue = Venue(lambda: delay + jitter * randomness.random(), seed)
    usable = [item for item in weights if item <= weight] or [1.0]
    run_in_virtual_time(
        fetch(
            Gate(never_closed, None),
            venue,
            Limit("", allowance),
            [randomness.choice(usable) for _ in range(100)],
            lambda: busy if randomness.random() < 0.05 else 0.0,
        )
    )
    assert len(venue.arrivals) == 100
    assert find_most(sorted(venue.arrivals), seconds) <= weight


def test_the_first_requests_do_not_come_at_once() -> None:
    """Runs that follow each other start anew, and the venue counts them together."""
    venue = Venue(lambda: 0.001)
    run_in_virtual_time(fetch(Gate(never_closed, None), venue, SPOT, [2.0] * 500))
    assert find_most(sorted(venue.arrivals), 1) <= 100 * 1.05


def test_a_number_in_the_settings_is_the_most() -> None:
    venue = Venue(lambda: 1.0)
    run_in_virtual_time(fetch(Gate(never_closed, 3), venue, SPOT, [2.0] * 60))
    assert venue.most == 3


def test_without_a_limit_as_many_as_at_first() -> None:
    venue = Venue(lambda: 0.2)

    async def run() -> None:
        gate = Gate(never_closed, None)

        async def ask() -> None:
            async with gate.pass_through(None, 0.0):
                await venue.ask(0.0)

        await asyncio.gather(*(ask() for _ in range(50)))

    run_in_virtual_time(run())
    assert venue.most == AT_FIRST


def test_troubles_let_fewer_out_and_successes_more_again() -> None:
    async def run() -> list[int]:
        gate, venue = Gate(never_closed, None), Venue(lambda: 0.4)
        seen = []
        await fetch(gate, venue, SPOT, [2.0] * 500)
        seen.append(gate.concurrency)
        for _ in range(3):  # the faults of one round trip count once
            gate.note_trouble("overloaded", SPOT)
        seen.append(gate.concurrency)
        await asyncio.sleep(1)
        gate.note_trouble("overloaded", SPOT)
        seen.append(gate.concurrency)
        await fetch(gate, venue, SPOT, [2.0] * 2000)
        seen.append(gate.concurrency)
        return seen

    full, half, quarter, again = run_in_virtual_time(run())
    assert full >= 20
    assert (half, quarter) == (full // 2, full // 4)
    assert again == full


def test_a_venue_that_says_too_fast_gets_less_for_a_while() -> None:
    async def run() -> list[float]:
        gate = Gate(never_closed, None)

        async def measure() -> float:
            venue = Venue(lambda: 0.02)
            await fetch(gate, venue, SPOT, [2.0] * 500)
            return measure_share(venue, SPOT.allowance)

        rates = [await measure()]
        gate.note_trouble("too_fast", SPOT)
        rates.append(await measure())
        await asyncio.sleep(100)
        gate.note_trouble("overloaded", SPOT)
        return [*rates, await measure()]

    usual, slowed, later = run_in_virtual_time(run())
    assert usual >= 0.9
    assert slowed < 0.85
    assert later >= 0.9


def test_a_pause_is_kept_by_those_who_wait_already() -> None:
    async def run() -> list[tuple[float, float]]:
        loop, venue, opens_at = asyncio.get_running_loop(), Venue(lambda: 0.01), 0.0

        async def wait_until_open() -> None:
            while (seconds := opens_at - loop.time()) > 0:  # noqa: ASYNC110 - it may close anew
                await asyncio.sleep(seconds)

        async def close() -> None:
            nonlocal opens_at
            await asyncio.sleep(1)
            opens_at = loop.time() + 30

        gate = Gate(wait_until_open, None)
        await asyncio.gather(fetch(gate, venue, SPOT, [2.0] * 200), close())
        return venue.arrivals

    arrivals = run_in_virtual_time(run())
    assert len(arrivals) == 200
    assert not [at for at, _ in arrivals if 1.02 < at < 31]


def test_limits_of_binance_are_its_own() -> None:
    """ccxt counts half of what aggregated trades weigh, and shares one limit between hosts."""
    weights = {
        ("public", "klines", 0.4): ("spot", 2.0),
        ("public", "aggTrades", 0.4): ("spot", 4.0),
        ("public", "exchangeInfo", 4.0): ("spot", 20.0),
        ("fapiPublic", "klines", 10.0): ("usdm", 10.0),
        ("fapiPublic", "aggTrades", 20.0): ("usdm", 20.0),
        ("dapiPublic", "klines", 5.0): ("coinm", 5.0),
        ("fapiPublic", "fundingRate", 1.0): ("funding", 1.0),
    }
    for (api, path, cost), (name, weight) in weights.items():
        limit = find_limit("binance", api, path)
        assert limit is not None
        assert (limit.name, limit.weigh(path, cost)) == (name, weight)
    assert find_limit("kraken", "public", "OHLC") is None


def test_other_limits_are_those_of_ccxt() -> None:
    assert build_limit(20, 5000).allowance == Allowance(250, 5)
    assert build_limit(110, 0).allowance.rate == pytest.approx(0.98 * 1000 / 110)
