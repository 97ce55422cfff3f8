"""Rows of which none is stored are appended without a merge, and never doubled."""

from __future__ import annotations

import json
from datetime import timedelta

import polars as pl
import pytest
from deltalake import DeltaTable, Field
from deltalake.exceptions import CommitFailedError

from lake.api import Lake
from lake.store import append as appending
from lake.store import delta
from lake.store.checksums import name_checkpoint
from lake.store.columns import build_schema
from lake.store.local_table import LocalTable
from lake.store.log import locate_log_file, read_actions, read_commits
from lake.store.store import Store
from tests.conftest import DAY, MINUTE, T0, NewLake, bars, store_of, trades, write

NAMES = ["BTC/USDT", "A~B", "A B%2F:ü/Ω'\"", "x*y.z-_", "[a]{b}#?\\"]


@pytest.fixture
def no_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("merged")

    monkeypatch.setattr(LocalTable, "merge", refuse)


def count_rows(lake: Lake, table: str) -> int:
    return lake.scan(table).collect().height


@pytest.mark.usefixtures("no_merge")
def test_new_rows_are_appended(lake: Lake) -> None:
    store = store_of(lake)
    for day in range(3):
        assert write(store, "bars_1m", bars(5, start=T0 + day * DAY)).inserted == 5
        assert write(store, "trades", trades(5, first=3 * day, step=MINUTE)).inserted == (
            5 if day == 0 else 3
        )
    assert (count_rows(lake, "bars_1m"), count_rows(lake, "trades")) == (15, 11)
    assert lake.audit("trades", operation="merge")["inserted"].to_list() == [3, 3, 5]


@pytest.mark.parametrize("symbol", NAMES)
def test_files_lie_where_delta_rs_would_put_them(new_lake: NewLake, symbol: str) -> None:
    places = []
    for is_merged in (False, True):
        lake = new_lake()
        with pytest.MonkeyPatch.context() as patch:
            if is_merged:
                patch.setattr("lake.store.merge.can_append", lambda *_: False)
            write(lake, "bars_1m", bars(2, symbol=symbol))
        table = lake.root.tables / "bars_1m"
        add = read_actions(table, 1)[-1]["add"]
        on_disk = next(table.glob("exchange=*/*/*/*.parquet")).parent.relative_to(table)
        places.append((add["path"].rpartition("/")[0], add["partitionValues"], on_disk))
    assert places[0] == places[1]


def test_an_appended_file_is_replaced_by_a_merge_and_a_compaction(lake: Lake) -> None:
    store = store_of(lake)
    for symbol in NAMES:
        for part in range(2):
            write(store, "bars_1m", bars(2, symbol=symbol, start=T0 + part * 10 * MINUTE))
        assert write(store, "bars_1m", bars(2, symbol=symbol, volume=[8.0, 9.0])).updated == 2
    lake.maintenance.optimize()
    assert len(DeltaTable(lake.root.tables / "bars_1m").file_uris()) == len(NAMES)
    rows = lake.scan("bars_1m").collect()
    assert rows.height == 4 * len(NAMES)
    assert rows.filter(symbol=NAMES[2])["volume"].to_list() == [8.0, 9.0, 1.0, 2.0]


def test_who_comes_second_reads_again_and_stores_no_row_twice(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = store_of(lake), store_of(lake)
    write(first, "trades", trades(2))
    write(second, "trades", trades(2, start=T0 + DAY, first=10))
    build = appending._build_info
    turns = iter([True])

    def meddle(*args: object) -> object:
        # Another engine takes no lock: it commits while the files are written.
        if next(turns, False):
            table = DeltaTable(lake.root.tables / "trades")
            table.alter.set_table_properties({"delta.checkpointInterval": "100"})
        return build(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(appending, "_build_info", meddle)
    result = write(second, "trades", trades(4, start=T0 + DAY, first=10))
    assert result.inserted == 2
    assert count_rows(lake, "trades") == 6
    folder = lake.root.tables / "trades"
    named = {path for commit in read_commits(folder) for path in commit.added}
    assert len(list(folder.glob("exchange=*/**/*.parquet"))) == len(named)


def test_two_writers_of_the_same_rows_store_them_once(lake: Lake) -> None:
    stores = [store_of(lake), store_of(lake)]
    for day in range(6):
        for store in stores if day % 2 else reversed(stores):
            write(store, "trades", trades(20, first=10 * day, step=MINUTE))
            write(store, "bars_1m", bars(20, start=T0 + day * 10 * MINUTE))
    assert count_rows(lake, "trades") == count_rows(lake, "bars_1m") == 70


def test_a_version_that_exists_is_refused(lake: Lake) -> None:
    store = store_of(lake)
    write(store, "bars_1m", bars(2))
    table = store.open_for_writing(store.catalog.dataset("bars_1m"))
    table.list_live()
    locate_log_file(lake.root.tables / "bars_1m", 2).write_text("{}\n")
    rows = bars(2, start=T0 + DAY).with_columns(date=T0.date())
    files = set((lake.root.tables / "bars_1m").rglob("*.parquet"))
    with pytest.raises(CommitFailedError, match="version 2"):
        appending.append(
            table, store.catalog.dataset("bars_1m"), _complete(store, rows), table.stamp({})
        )
    assert set((lake.root.tables / "bars_1m").rglob("*.parquet")) == files


def _complete(store: Store, rows: pl.DataFrame) -> pl.DataFrame:
    schema = store.catalog.dataset("bars_1m").polars_schema
    return rows.select(
        pl.col(name) if name in rows.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in schema.items()
    )


def test_a_checkpoint_is_made_each_twenty_commits(lake: Lake) -> None:
    store = store_of(lake)
    for number in range(21):
        write(store, "bars_1m", bars(1, start=T0 + number * MINUTE))
    folder = lake.root.tables / "bars_1m"
    assert (folder / name_checkpoint(19)).exists()
    assert json.loads((folder / "_delta_log/_last_checkpoint").read_text())["version"] == 19
    assert count_rows(lake, "bars_1m") == 21
    assert lake.maintenance.verify("bars_1m").tables["damaged"].sum() == 0


def test_rows_are_appended_to_a_table_without_an_interval_of_checkpoints(lake: Lake) -> None:
    dataset = store_of(lake).catalog.dataset("trades")
    DeltaTable.create(
        lake.root.tables / "trades", build_schema(dataset), partition_by=list(dataset.partitions)
    )
    assert write(lake, "trades", trades(2)).inserted == 2
    assert count_rows(lake, "trades") == 2


def test_rows_count_as_inserted_if_another_program_commits_before_the_checkpoint(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, "trades", trades(2))
    table, create = DeltaTable(lake.root.tables / "trades"), delta.create_due_checkpoint
    table.alter.set_table_properties({"delta.checkpointInterval": "2"})

    def meddle(handle: LocalTable) -> None:
        table.alter.set_table_properties({"delta.checkpointInterval": "4"})
        create(handle)

    monkeypatch.setattr(appending, "create_due_checkpoint", meddle)
    result = write(lake, "trades", trades(2, start=T0 + DAY, first=10))
    assert (result.inserted, count_rows(lake, "trades")) == (2, 4)


def test_tables_that_ask_more_of_a_writer_are_merged_into(lake: Lake) -> None:
    store = store_of(lake)
    dataset = store.catalog.dataset("bars_1m")
    write(store, "bars_1m", bars(1))
    assert appending.can_append(store.open(dataset), dataset)
    table = DeltaTable(lake.root.tables / "bars_1m")
    table.alter.add_columns([Field.from_json(
        '{"name":"more","type":"long","nullable":true,"metadata":{}}'
    )])  # fmt: skip
    assert not appending.can_append(store.open(dataset), dataset)
    assert write(store_of(lake), "bars_1m", bars(1, start=T0 + DAY)).inserted == 1


def test_times_between_two_milliseconds_are_found(lake: Lake) -> None:
    """The statistics of files are cut to milliseconds: a file may hold later rows."""
    store = store_of(lake)
    start = T0 + timedelta(microseconds=700)
    assert write(store, "bars_1m", bars(1, start=start)).inserted == 1
    assert write(store, "bars_1m", bars(1, start=start, volume=[9.0])).updated == 1
    assert count_rows(lake, "bars_1m") == 1
