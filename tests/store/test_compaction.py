"""Compaction of closed dates: every row stays, whoever else writes, or nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from polars.testing import assert_frame_equal

from lake.api import Lake, utc_now
from lake.errors import CommitConflictError, DamagedError
from lake.store import compact as compaction
from lake.store import merge, prepare
from lake.store.checksums import list_records
from lake.store.compact import CompactionResult, compact, list_files, plan_batches
from lake.store.conform import conform
from lake.store.ledger import Ledger
from lake.store.log import read_commits
from lake.store.store import Store
from tests.conftest import DAY, MINUTE, T0, NewLake, bars, funding, store_of, trades, write

SYMBOLS = ("BTC/USDT", "ADA/USDT:USDT", "A B%2F:ü/Ω'\"")
WriteRows = Callable[[Path, pl.DataFrame], int]


def optimize(store: Store, table: str, before: datetime | None = None) -> list[CompactionResult]:
    dataset, now = store.catalog.dataset(table), store.now()
    rule = compaction.CompactionRule(before or now, now - compaction.SETTLED_AFTER)
    todo = plan_batches(list_files(store.snapshot(dataset)), dataset, rule)
    handle = store.open(dataset)
    results = [compact(handle, dataset, batch, rule, now=now, job_id="job") for batch in todo]
    return [result for result in results if result is not None]


def files(store: Store, table: str) -> pl.DataFrame:
    return store.snapshot(store.catalog.dataset(table)).files()


def on_disk(store: Store, table: str) -> set[str]:
    folder = store.root.tables / table
    return {str(path.relative_to(folder)) for path in folder.rglob("*.parquet*")} - {
        str(path.relative_to(folder)) for path in (folder / "_delta_log").rglob("*")
    }


def require_no_orphans(store: Store, table: str) -> None:
    named = frozenset[str]().union(*(c.added for c in read_commits(store.root.tables / table)))
    assert on_disk(store, table) == named


def books(count: int, start: datetime, symbol: str) -> pl.DataFrame:
    bids, asks = (
        [[top, top + step] for _ in range(count)] for top, step in ((99.0, -1.0), (100.0, 1.0))
    )
    return trades(count, start=start, symbol=symbol).select(
        "exchange",
        "symbol",
        "timestamp",
        pl.int_range(count, dtype=pl.Int64).alias("sequence"),
        pl.lit(utc_now()).cast(pl.Datetime("us", "UTC")).alias("received_at"),
        *(pl.Series(name, bids) for name in ("bid_prices", "bid_amounts")),
        *(pl.Series(name, asks) for name in ("ask_prices", "ask_amounts")),
    )


def scatter(store: Store, table: str, days: int = 3, parts: int = 2) -> None:
    """Rows of several markets and days, in files of a few rows each; out of order."""
    for symbol in SYMBOLS:
        for day in range(days):
            for part in reversed(range(parts)):
                start = T0 + day * DAY + part * 10 * MINUTE
                write(store, table, _rows(table, start, day * 100 + part * 10, symbol))


def _rows(table: str, start: datetime, first: int, symbol: str) -> pl.DataFrame:
    start += timedelta(microseconds=123_456)
    if table == "trades":
        begin = start - first * MINUTE
        side = ["buy", None, "sell"]
        return trades(3, first=first, start=begin, step=MINUTE, symbol=symbol, side=side)
    if table == "bars_1m":
        return bars(3, start=start.replace(microsecond=0), symbol=symbol)
    if table == "funding":
        return funding([start, start + MINUTE], symbol)
    return books(3, start, symbol)


@pytest.mark.parametrize("table", ["trades", "bars_1m", "funding", "orderbooks"])
def test_many_files_of_a_closed_date_become_one_and_every_row_stays(lake: Lake, table: str) -> None:
    store = store_of(lake)
    scatter(store, table)
    rows = lake.scan(table).collect()
    version = store.snapshot(store.catalog.dataset(table)).version
    results = optimize(store, table)

    assert [result.version for result in results] == [version + 1 + n for n in range(len(results))]
    stored = files(store, table)
    assert stored.height == stored.select("exchange", "symbol", "date").n_unique()
    assert sum(result.rows for result in results) == rows.height == stored["rows"].sum()
    assert_frame_equal(lake.scan(table).collect(), rows)
    assert_frame_equal(lake.scan(table, version=version).collect(), rows)
    for symbol in SYMBOLS:
        part = lake.scan(table, symbol=symbol, since=T0 + DAY, until=T0 + 2 * DAY).collect()
        inside = (pl.col("timestamp") >= T0 + DAY) & (pl.col("timestamp") < T0 + 2 * DAY)
        assert_frame_equal(part, rows.filter(inside & (pl.col("symbol") == symbol)))
        assert_frame_equal(
            lake.scan(table).filter(inside, pl.col("symbol") == symbol).collect(), part
        )
    counted = lake.sql(f"FROM {table} SELECT symbol, count(*) GROUP BY symbol").fetchall()
    assert dict(counted) == dict(rows.group_by("symbol").len().iter_rows())
    require_no_orphans(store, table)


def test_a_compacted_file_is_like_one_that_delta_writes(new_lake: NewLake) -> None:
    loose, whole = new_lake(), new_lake()
    parts = [_rows("trades", T0 + n * MINUTE, n, SYMBOLS[2]) for n in (0, 10)]
    for part in parts:
        write(loose, "trades", part)
    write(whole, "trades", pl.concat(parts))
    optimize(store_of(loose), "trades")
    facts = []
    for lake in (loose, whole):
        table = DeltaTable(lake.root.tables / "trades")
        actions = pl.DataFrame(table.get_add_actions(flatten=True))
        path = files(store_of(lake), "trades")["path"][0]
        parquet = pq.ParquetFile(lake.root.tables / "trades" / path)
        column = parquet.metadata.row_group(0).column(0)
        drop = ("path", "size_bytes", "modification_time")
        facts.append(
            (
                actions.drop(drop).select(sorted(set(actions.columns) - set(drop))).to_dicts(),
                os.path.dirname(path),  # noqa: PTH120 - the spelling counts
                [
                    (parquet.schema.column(n).name, parquet.schema.column(n).physical_type)
                    for n in range(len(parquet.schema))
                ],
                column.compression,
            )
        )
    assert facts[0] == facts[1]
    assert facts[0][3] == "ZSTD"


def test_only_dates_that_ended_by_then_are_compacted(lake: Lake) -> None:
    store = store_of(lake)
    scatter(store, "trades")
    assert optimize(store, "trades", T0 + DAY - timedelta(microseconds=1)) == []
    optimize(store, "trades", T0 + 2 * DAY)
    by_date = files(store, "trades").group_by("date").len().sort("date")["len"].to_list()
    assert by_date == [len(SYMBOLS), len(SYMBOLS), 2 * len(SYMBOLS)]


def test_a_date_of_a_sparse_table_is_its_year(lake: Lake) -> None:
    store = store_of(lake)
    scatter(store, "funding")
    assert optimize(store, "funding", datetime.fromisoformat("2024-12-31T23:59Z")) == []
    assert optimize(store, "funding", datetime.fromisoformat("2025-01-01T00:00Z")) != []


def test_a_second_run_has_nothing_to_do(lake: Lake) -> None:
    store = store_of(lake)
    scatter(store, "trades")
    assert len(optimize(store, "trades")) == len(SYMBOLS)
    version = store.snapshot(store.catalog.dataset("trades")).version
    assert optimize(store, "trades") == []
    assert store.snapshot(store.catalog.dataset("trades")).version == version


def test_many_rows_become_several_files_and_a_second_run_leaves_them(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FILE_ROWS", 4)
    store = store_of(lake)
    scatter(store, "trades", days=1, parts=4)
    rows = lake.scan("trades").collect()
    optimize(store, "trades")
    assert sorted(files(store, "trades")["rows"].to_list()) == [4] * 9
    assert_frame_equal(lake.scan("trades").collect(), rows)
    assert optimize(store, "trades") == []


def test_a_long_run_of_dates_is_several_commits(lake: Lake) -> None:
    store = store_of(lake)
    for part in range(2):
        for half in range(2):
            start = T0 + half * 20 * DAY + part * MINUTE
            write(store, "bars_1m", bars(20, start=start, step=DAY))
    rows = lake.scan("bars_1m").collect()
    results = optimize(store, "bars_1m")
    assert [result.dates for result in results] == [32, 8]
    assert_frame_equal(lake.scan("bars_1m").collect(), rows)


def test_the_commit_says_which_job_and_what_digest(lake: Lake) -> None:
    store = store_of(lake)
    scatter(store, "trades", days=1)
    results = optimize(store, "trades")
    commit = Ledger(store).read_commits("trades", 1)[0]
    assert (commit["job"], commit["source"]) == ("job", "lake")
    assert (commit["rows"], commit["digest"]) == (results[-1].rows, results[-1].digest)


def meddle(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any], times: int = 1) -> None:
    """Let another writer commit after the old rows were read, and before the new file is."""
    write_rows: WriteRows = compaction.write_rows
    left = iter(range(times))

    def meddling(path: Path, rows: pl.DataFrame) -> int:
        if next(left, None) is not None:
            act()
        return write_rows(path, rows)

    # There is no other way to be sure that the other writer comes at the worst moment.
    monkeypatch.setattr(compaction, "write_rows", meddling)


@pytest.mark.parametrize("symbol", [SYMBOLS[2], "ETH/USDT"], ids=["same date", "another market"])
def test_rows_that_others_add_meanwhile_stay(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, symbol: str
) -> None:
    store = store_of(lake)
    for first in (0, 10):
        write(store, "trades", trades(3, first=first, symbol=SYMBOLS[2]))
    more = trades(5, first=20, symbol=symbol)
    meddle(monkeypatch, lambda: write(lake, "trades", more))
    optimize(store, "trades")
    stored = lake.scan("trades").collect()
    assert sorted(stored["trade_id"].to_list(), key=int) == [
        str(n) for n in (0, 1, 2, 10, 11, 12, 20, 21, 22, 23, 24)
    ]
    assert files(store, "trades").height == 2
    require_no_orphans(store, "trades")


def test_rows_that_others_revise_meanwhile_are_neither_lost_nor_doubled(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(lake)
    for part in range(2):
        write(store, "bars_1m", bars(3, start=T0 + part * 10 * MINUTE))
    meddle(monkeypatch, lambda: write(lake, "bars_1m", bars(2, volume=[7.0, 8.0])))
    results = optimize(store, "bars_1m")
    assert len(results) == 1
    stored = lake.scan("bars_1m").collect()
    assert stored["volume"].to_list() == [7.0, 8.0, 3.0, 1.0, 2.0, 3.0]
    assert files(store, "bars_1m").height == 1
    require_no_orphans(store, "bars_1m")


def test_who_always_loses_gives_up_and_leaves_nothing_behind(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(lake)
    for part in range(2):
        write(store, "bars_1m", bars(3, start=T0 + part * 10 * MINUTE))
    turns = iter(range(100))

    def revise() -> None:
        write(lake, "bars_1m", bars(1, volume=[100.0 + next(turns)]))

    monkeypatch.setattr(compaction, "_ATTEMPTS", 2)
    meddle(monkeypatch, revise, times=100)
    with pytest.raises(CommitConflictError, match="binance BTC/USDT 2024-01-01"):
        optimize(store, "bars_1m")
    assert lake.scan("bars_1m").collect()["volume"].to_list() == [101.0, 2.0, 3.0, 1.0, 2.0, 3.0]
    require_no_orphans(store, "bars_1m")


@pytest.mark.parametrize("table", ["bars_1m", "trades"])
def test_a_merge_that_read_before_a_compaction_cannot_double_rows_after_it(
    lake: Lake, table: str
) -> None:
    """Not even those between two milliseconds, of which the log's statistics do not tell."""
    store = store_of(lake)
    dataset = store.catalog.dataset(table)
    begin = T0 + timedelta(microseconds=700)
    rows = bars(6, start=begin) if table == "bars_1m" else trades(6, start=begin, step=MINUTE)
    for part in range(2):
        write(store, table, rows.slice(3 * part, 3))
    merging = store.open(dataset)
    optimize(store, table)
    stored = lake.scan(table).collect()
    revised = conform(dataset, rows.tail(1).with_columns(pl.col(pl.Float64) + 1)).rows
    # What `merge` does after it has read: it commits on top of the version that it has read.
    with suppress(CommitFailedError):
        merge._merge_once(merging, dataset, prepare.MergeBatch(revised))
    assert_frame_equal(lake.scan(table).collect(), stored)


def test_compaction_runs_beside_writers_of_the_same_and_of_other_dates(lake: Lake) -> None:
    rounds = 12
    ends: list[int] = []

    def ingest() -> None:
        store = store_of(lake)
        for turn in range(rounds):
            write(store, "trades", trades(3, first=3 * turn, step=MINUTE))
            write(store, "trades", trades(3, first=3 * turn, start=T0 + DAY, symbol="ETH/USDT"))
            write(store, "bars_1m", bars(5, start=T0 + turn * MINUTE, volume=[float(turn)] * 5))
        ends.append(1)

    def maintain() -> int:
        store, count = store_of(lake), 0
        while not ends:
            for table in set(store.tables()) & {"trades", "bars_1m"}:
                count += len(optimize(store, table))
        return count

    with ThreadPoolExecutor(2) as threads:
        writer, keeper = threads.submit(ingest), threads.submit(maintain)
        writer.result()
        assert keeper.result() > 2
    store = store_of(lake)
    optimize(store, "trades")
    stored = lake.scan("trades").collect()
    assert stored.height == 2 * 3 * rounds == stored.unique(["symbol", "trade_id"]).height
    volumes = lake.scan("bars_1m").collect()["volume"].to_list()
    assert volumes == [*(float(n) for n in range(rounds)), *[float(rounds - 1)] * 4]


def _spoil(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(price=pl.when(pl.col("trade_id") == "1").then(0.5).otherwise("price"))


def _lose(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.head(rows.height - 1)


def _receive(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(received_at=pl.col("timestamp"))


@pytest.mark.parametrize(
    "harm", [_spoil, _lose, _receive], ids=["another value", "a row less", "beside the digest"]
)
def test_rows_that_read_back_differently_are_refused_and_nothing_changes(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, harm: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    store = store_of(lake)
    scatter(store, "trades", days=1)
    rows, before = lake.scan("trades").collect(), on_disk(store, "trades")
    version = store.snapshot(store.catalog.dataset("trades")).version
    write_rows: WriteRows = compaction.write_rows
    # A disk or a library that damages what it writes cannot be had otherwise.
    monkeypatch.setattr(compaction, "write_rows", lambda path, r: write_rows(path, harm(r)))
    with pytest.raises(DamagedError, match="read back differently"):
        optimize(store, "trades")
    assert store.snapshot(store.catalog.dataset("trades")).version == version
    assert on_disk(store, "trades") == before
    assert_frame_equal(lake.scan("trades").collect(), rows)


def test_a_file_with_fewer_rows_than_the_log_says_is_not_compacted(lake: Lake) -> None:
    store = store_of(lake)
    scatter(store, "trades", days=1)
    path = lake.root.tables / "trades" / files(store, "trades")["path"][0]
    pl.read_parquet(path, hive_partitioning=False).head(1).write_parquet(path)
    for record in list_records(lake.root.tables / "trades"):
        record.path.unlink()  # with its checksum, a changed file is refused before it is read
    before = on_disk(store, "trades")
    with pytest.raises(DamagedError, match="hold 4 rows, and the log says 6"):
        optimize(store, "trades")
    assert on_disk(store, "trades") == before


def test_a_file_that_is_missing_stops_it(lake: Lake) -> None:
    store = store_of(lake)
    scatter(store, "trades", days=1)
    (lake.root.tables / "trades" / files(store, "trades")["path"][0]).unlink()
    with pytest.raises(DamagedError, match="table trades"):
        optimize(store, "trades")
    assert on_disk(store, "trades") == set(files(store, "trades")["path"][1:])


def test_files_of_many_rows_have_row_groups_that_readers_can_pass_over(lake: Lake) -> None:
    store = store_of(lake)
    count = 140_000
    step = timedelta(microseconds=1000)
    for part in range(2):
        write(store, "trades", trades(count, first=part * count, step=step / 4))
    written = [
        pq.ParquetFile(lake.root.tables / "trades" / path).metadata.num_row_groups
        for path in files(store, "trades")["path"]
    ]
    optimize(store, "trades")
    path = files(store, "trades")["path"][0]
    metadata = pq.ParquetFile(lake.root.tables / "trades" / path).metadata
    assert written == [2, 2]
    assert metadata.num_row_groups == 3
    assert metadata.metadata is None  # no Arrow types: those of Parquet are the ones that count
