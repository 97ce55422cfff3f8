"""A commit costs what it brings: the year before it costs nothing.

Daily commits of many markets into a dense and a sparse table, and into one of the lake's own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import polars as pl
import pytest

from lake.api import Lake
from lake.model.dataset import TIMESTAMP
from lake.model.selection import Selection
from lake.settings import Settings
from lake.store.store import Origin, Store
from tests.bench.conftest import report

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

T0 = datetime(2025, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = int(os.environ.get("GROWTH_DAYS", "365"))
MARKETS = [f"COIN{number}/USDT" for number in range(20)]
EARLY, LATE = slice(5, 20), slice(-15, None)
MEGABYTES_GROWN = 100


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = T0

    def __call__(self) -> datetime:
        return self.time


def _place(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows for each market."""
    markets = pl.DataFrame({"exchange": "binance", "symbol": MARKETS})
    return markets.join(rows, how="cross")


def bars(day: int) -> pl.DataFrame:
    """24 bars a market, an hour apart."""
    number = pl.int_range(24, eager=True)
    prices = {"open": 100.0, "high": 110.0, "low": 90.0, "close": 101.0}
    times = T0 + day * DAY + pl.Series((number * 3_600_000_000).cast(pl.Duration("us")))
    columns = {name: price + number % 7 for name, price in prices.items()}
    frame = pl.DataFrame({"timestamp": times, **columns, "volume": 1.0 + number})
    return _place(frame.with_columns(closed=pl.lit(value=True)))


def coverage(day: int) -> pl.DataFrame:
    """A row of coverage a market."""
    start = T0 + day * DAY
    row = {"dataset": "trades", "timestamp": start, "end": start + DAY, "status": "fetched"}
    facts = {"rows": 24, "source": "bench", "job_id": f"job{day}", "recorded_at": start + DAY}
    times = dict.fromkeys(("timestamp", "end", "recorded_at"), TIMESTAMP)
    return _place(pl.DataFrame([{**row, **facts}], schema_overrides=times))


TABLES: dict[str, Callable[[int], pl.DataFrame]] = {
    "bars_1m": bars,
    "bars_1h": bars,
    "coverage": coverage,
}


def _measure(action: Callable[[], object]) -> float:
    begun = time.process_time()
    action()
    return time.process_time() - begun


def _read_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _take(seconds: list[float], part: slice) -> float:
    """The median: a compaction or a checkpoint, each after many commits, is not in it."""
    return median(seconds[part])


def test_a_commit_costs_the_same_after_a_year(tmp_path: Path) -> None:
    clock = Clock()
    store = Store(Lake.create(Settings(uri=str(tmp_path / "lake"))).root, clock)
    commits: dict[str, list[float]] = {name: [] for name in TABLES}
    reads: dict[str, list[float]] = {name: [] for name in TABLES}
    memory: list[float] = []
    one = Selection(("binance",), (MARKETS[0],))
    for day in range(DAYS):
        clock.time = T0 + (day + 1) * DAY
        for name, build in TABLES.items():
            dataset, rows, origin = store.catalog.dataset(name), build(day), Origin(f"j{day}", "b")
            commits[name].append(_measure(lambda: store.write(dataset, rows, origin)))  # noqa: B023
            reads[name].append(_measure(lambda: store.latest(dataset).files(one)))  # noqa: B023
        memory.append(_read_megabytes())
    grown = {name: _take(taken, LATE) / _take(taken, EARLY) for name, taken in commits.items()}
    for name, ratio in grown.items():
        report(f"a commit to {name} after {DAYS} days against the first ones", ratio, "<= 1.2")
        latest = 1000 * _take(reads[name], LATE)
        print(f"{name}: {1000 * _take(commits[name], LATE):.0f} ms; latest {latest:.1f} ms")
        part = commits[name][-64:]
        print(f"  mean of the last 64, with compaction: {1000 * sum(part) / len(part):.0f} ms")
    print(f"memory: {memory[EARLY.stop]:.0f} to {memory[-1]:.0f} MB")
    own = store.latest(store.catalog.dataset("coverage")).files()
    most = own.group_by("exchange", "symbol", "date").len()["len"].max()
    assert isinstance(most, int)
    report("files of a partition of coverage", most, "<= 65")
    assert most <= 65
    assert max(grown.values()) <= 1.2
    assert memory[-1] - memory[EARLY.stop] <= MEGABYTES_GROWN
