"""Benchmarks print a ratio against a baseline measured in the same run.

The machine may be noisy: both sides run in turn, several times, and the best of each counts.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def best_seconds(
    *actions: Callable[[], object],
    rounds: int = 3,
    before: Callable[[], object] = gc.collect,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """The shortest time of each action, taken in turn; `before` runs untimed before each.

    `clock`: `time.process_time` measures CPU time, of all threads.
    """
    best = [float("inf")] * len(actions)
    for _ in range(rounds):
        for number, action in enumerate(actions):
            before()
            begun = clock()
            action()
            best[number] = min(best[number], clock() - begun)
    return best


def best_costs(*actions: Callable[[], object], rounds: int = 3) -> list[tuple[float, float]]:
    """The shortest time and, apart from it, the least CPU time of each action, both in seconds."""
    best = [(float("inf"), float("inf"))] * len(actions)
    for _ in range(rounds):
        for number, action in enumerate(actions):
            gc.collect()
            begun, used = time.perf_counter(), time.process_time()
            action()
            wall, cpu = time.perf_counter() - begun, time.process_time() - used
            best[number] = (min(best[number][0], wall), min(best[number][1], cpu))
    return best


def report(what: str, ratio: float, bound: str) -> None:
    """Print one line of the benchmark."""
    print(f"\n{what}: {ratio:.2f} (bound: {bound})")
