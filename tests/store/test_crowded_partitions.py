"""Small files are compacted in any partition; those of the lake's own tables by their writer."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake, utc_now
from lake.errors import CommitConflictError
from lake.model.dataset import TIMESTAMP
from lake.store import store as storing
from lake.store.compact import (
    MOST_SMALL,
    SETTLED_AFTER,
    CompactionRule,
    compact,
    list_files,
    plan_batches,
)
from lake.store.store import Store
from tests.conftest import DAY, MINUTE, ORIGIN, bars, store_of, write

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MARKETS = ("BTC/USDT", "ETH/USDT")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time


def cover(store: Store, number: int, markets: tuple[str, ...] = MARKETS) -> None:
    """Write a row of coverage for each market."""
    start = NOW - 100 * DAY + number * MINUTE
    frame = pl.DataFrame(
        {
            "exchange": ["binance"] * len(markets),
            "symbol": list(markets),
            "dataset": ["trades"] * len(markets),
            "timestamp": [start] * len(markets),
            "end": [start + MINUTE] * len(markets),
            "status": ["fetched"] * len(markets),
            "rows": [number] * len(markets),
            "source": ["test"] * len(markets),
            "job_id": ["job"] * len(markets),
            "recorded_at": [NOW] * len(markets),
        },
        schema_overrides=dict.fromkeys(("timestamp", "end", "recorded_at"), TIMESTAMP),
    )
    store.write(store.catalog.dataset("coverage"), frame, ORIGIN)


def count_files(store: Store, table: str) -> list[int]:
    files = store.snapshot(store.catalog.dataset(table)).files()
    return files.group_by("symbol").len().sort("symbol")["len"].to_list()


def numbers(store: Store) -> list[int]:
    rows = store.read(store.catalog.dataset("coverage"))
    return sorted(rows.filter(symbol=MARKETS[0])["rows"].to_list())


def test_the_writer_compacts_tables_of_the_lake_itself(lake: Lake) -> None:
    store = store_of(lake)
    most = 0
    for number in range(2 * MOST_SMALL + 10):
        cover(store, number)
        if number % 8 == 0 or number % MOST_SMALL < 2:
            most = max(most, *count_files(store, "coverage"))
    assert numbers(store) == list(range(2 * MOST_SMALL + 10))
    assert most <= MOST_SMALL
    compactions = lake.audit("coverage", source="lake").filter(pl.col("operation") != "MERGE")
    assert compactions["rows"].to_list() == [2 * (2 * MOST_SMALL + 1), 2 * (MOST_SMALL + 1)]
    assert lake.maintenance.verify("coverage").tables["damaged"].sum() == 0


def test_nothing_is_listed_or_loaded_when_there_is_nothing_to_do(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(lake)
    for number in range(3):
        cover(store, number)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("compacted")

    monkeypatch.setattr(storing, "compact", refuse)
    cover(store, 3)
    assert numbers(store) == [0, 1, 2, 3]


def test_two_writers_compact_the_same_table_and_lose_no_row(lake: Lake) -> None:
    def run(first: int) -> None:
        store = store_of(lake)
        for number in range(MOST_SMALL):
            cover(store, first + number)

    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(run, first) for first in (0, 1000)]:
            future.result()
    store = store_of(lake)
    assert numbers(store) == [*range(MOST_SMALL), *range(1000, 1000 + MOST_SMALL)]
    assert max(count_files(store, "coverage")) <= MOST_SMALL + 1


def test_a_lost_race_is_no_error_of_the_write(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(lake)

    def lose(*_: object, **__: object) -> None:
        raise CommitConflictError("others kept rewriting", "Run it again.")

    with monkeypatch.context() as patch:
        patch.setattr(storing, "compact", lose)
        for number in range(MOST_SMALL + 2):
            cover(store, number)
    assert numbers(store) == list(range(MOST_SMALL + 2))
    cover(store, MOST_SMALL + 2)
    assert count_files(store, "coverage") == [1, 1]
    assert numbers(store) == list(range(MOST_SMALL + 3))


KILLED = """
import os, sys
from lake.api import Lake, utc_now
from lake.settings import Settings
from lake.store import delta
from lake.store.store import Store
from tests.store.test_crowded_partitions import cover, MOST_SMALL
store = Store(Lake(Settings(uri=sys.argv[1])).root, utc_now)
real = delta._commit_files
def die(*args):
    if sys.argv[2] == "after":
        real(*args)
    os.kill(os.getpid(), 9)
delta._commit_files = die
for number in range(MOST_SMALL + 5):
    cover(store, number)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_writer_that_is_killed_while_it_compacts_leaves_each_row_once(
    lake: Lake, moment: str
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(lake.root.path), moment], check=False
    )
    assert killed.returncode == -9
    store = store_of(lake)
    assert numbers(store) == list(range(MOST_SMALL + 1))
    cover(store, MOST_SMALL + 1)
    assert numbers(store) == list(range(MOST_SMALL + 2))
    assert max(count_files(store, "coverage")) <= 2
    assert lake.maintenance.verify("coverage").tables["damaged"].sum() == 0


def scatter(store: Store, count: int, symbol: str = "BTC/USDT") -> None:
    for number in range(count):
        write(store, "bars_1h", bars(1, start=NOW - 90 * DAY + number * HOUR,
                                     symbol=symbol))  # fmt: skip


def test_small_files_of_an_open_partition_are_compacted_when_they_are_settled(lake: Lake) -> None:
    clock = Clock()
    store = Store(lake.root, clock)
    dataset = store.catalog.dataset("bars_1h")
    scatter(store, MOST_SMALL + 1)
    scatter(store, MOST_SMALL, symbol="ETH/USDT")
    rows = store.read(dataset)

    def plan() -> list[str]:
        rule = CompactionRule(clock.time - DAY, clock.time - SETTLED_AFTER)
        return list(map(str, plan_batches(list_files(store.snapshot(dataset)), dataset, rule)))

    assert plan() == []
    clock.time += SETTLED_AFTER
    assert plan() == []
    clock.time += timedelta(seconds=1)
    assert len(plan()) == 1
    assert plan()[0].startswith("binance BTC/USDT")
    optimized = Lake(lake.settings, now=clock).maintenance.optimize("bars_1h")
    assert optimized["files_before"].to_list() == [MOST_SMALL + 1]
    assert optimized["files_after"].to_list() == [1]
    assert count_files(store, "bars_1h") == [1, MOST_SMALL]
    assert_frame_equal(store.read(dataset), rows)
    assert plan() == []


def test_a_live_writer_of_the_partition_goes_on_beside_its_compaction(lake: Lake) -> None:
    store = store_of(lake)
    dataset = store.catalog.dataset("bars_1h")
    scatter(store, MOST_SMALL + 1)
    ends: list[bool] = []

    def go_on() -> None:
        own = store_of(lake)
        for number in range(25):
            start = NOW - 90 * DAY + (60 + number) * HOUR
            write(own, "bars_1h", bars(2, start=start, step=HOUR, volume=[float(number), 0.0]))
        ends.append(True)

    def compact_all() -> int:
        own, count = store_of(lake), 0
        rule = CompactionRule(None, utc_now() + DAY)
        while not ends:
            for batch in plan_batches(list_files(own.snapshot(dataset)), dataset, rule):
                compact(own.open_for_writing(dataset), dataset, batch, rule,
                        now=own.now(), job_id="job")  # fmt: skip
                count += 1
        return count

    with ThreadPoolExecutor(2) as threads:
        writer, keeper = threads.submit(go_on), threads.submit(compact_all)
        writer.result()
        assert keeper.result() >= 1
    rows = store.read(dataset)
    assert rows.height == 86 == rows.unique("timestamp").height
    assert rows["volume"].tail(26).to_list() == [*map(float, range(25)), 0.0]
