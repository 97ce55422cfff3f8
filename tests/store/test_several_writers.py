"""Several processes and threads that write the same tables: nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lake.api import Lake, utc_now
from lake.model.catalog import builtin
from lake.settings import Settings
from lake.store import delta
from lake.store.clock import CommitClock
from tests import conftest, processes
from tests.conftest import DAY, MINUTE, T0, NewLake, store_of, trades, write


def bars(count: int = 3, **columns: Any) -> pl.DataFrame:
    """Bars of equal volumes, which tell what changed them."""
    return conftest.bars(count, **{"volume": [1.0] * count, **columns})


WRITERS = 4
ROUNDS = 3
BATCH = 10


# Each writer begins when all are ready, then writes rows of which half are another's too.
def _work(number: int, paths: Sequence[str], ready: Barrier, inserted: Queue[int]) -> None:
    stores = [store_of(Lake(Settings(uri=path))) for path in paths]
    ready.wait(60)
    count = 0
    for store in stores:
        for turn in range(ROUNDS):
            first = (number + turn * 2) * BATCH // 2
            count += write(store, "trades", trades(BATCH, first=first, step=MINUTE * 60)).inserted
            write(store, "bars_1m", bars(BATCH, volume=[number + 1.0] * BATCH))
    inserted.put(count)


def run_writers(lakes: list[Lake]) -> int:
    """Rows that all writers together say that they inserted as trades."""
    paths = [str(lake.root.path) for lake in lakes]
    ready = processes.CONTEXT.Barrier(WRITERS)
    inserted: Queue[int] = processes.CONTEXT.Queue()
    writers = [processes.start(_work, number, paths, ready, inserted) for number in range(WRITERS)]
    count = sum(inserted.get(timeout=120) for _ in writers)
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    return count


def test_processes_that_race_create_a_table_once_and_lose_and_double_nothing(
    new_lake: NewLake,
) -> None:
    lakes = [new_lake() for _ in range(2)]
    inserted = run_writers(lakes)
    ids = (WRITERS - 1 + (ROUNDS - 1) * 2) * BATCH // 2 + BATCH
    for lake in lakes:
        stored = lake.scan("trades").collect()
        assert sorted(stored["trade_id"].to_list(), key=int) == [str(n) for n in range(ids)]
        volumes = lake.scan("bars_1m").collect()["volume"].to_list()
        assert len(volumes) == BATCH
        assert set(volumes) <= {1.0, 2.0, 3.0, 4.0}
        versions = lake.versions("trades")
        assert (versions["operation"] == "CREATE TABLE").sum() == 1
    assert inserted == ids * len(lakes)


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
def test_threads_lose_and_double_nothing(lake: Lake, shared: bool) -> None:
    common = store_of(lake)

    def work(number: int) -> int:
        store = common if shared else store_of(lake)
        return sum(
            write(store, "trades", trades(BATCH, first=(number + turn) * 5, step=DAY / 24)).inserted
            for turn in range(5)
        )

    with ThreadPoolExecutor(2) as threads:
        inserted = sum(threads.map(work, range(2)))
    ids = lake.scan("trades").collect()["trade_id"].to_list()
    assert len(ids) == len(set(ids)) == inserted == 5 * 5 + BATCH


def test_a_reader_keeps_its_version_while_others_write(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    before = lake.scan("bars_1m")
    query = lake.sql("SELECT sum(volume) FROM bars_1m")
    write(lake, "bars_1m", bars(9, volume=[7.0] * 9))
    assert before.collect()["volume"].to_list() == [1.0] * 3
    assert query.fetchall() == [(3.0,)]
    assert lake.scan("bars_1m", since=T0 + 3 * MINUTE).collect().height == 6


def test_a_table_that_many_make_at_once_is_made_once(tmp_path: Path) -> None:
    dataset, clock = builtin().dataset("trades"), CommitClock(utc_now)
    with ThreadPoolExecutor(8) as threads:
        for number in range(20):
            path = tmp_path / str(number)
            list(threads.map(delta.create_table, [path] * 8, [dataset] * 8, [clock] * 8))
            assert delta.open_table(path, dataset).version() == 0
