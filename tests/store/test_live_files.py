"""The list of live files follows the log, and is always the one that delta-rs gives."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.store.live_files import LiveFiles
from lake.store.local_table import LocalTable
from lake.store.log import locate_log_file, read_latest_version
from lake.store.snapshot import Snapshot
from tests.conftest import DAY, MINUTE, T0, NewLake, bars, store_of, trades, write


def open_table(lake: Lake, name: str) -> LocalTable:
    return store_of(lake).open(lake.dataset(name))


def require_same(table: LocalTable, lake: Lake, name: str) -> None:
    followed, loaded = table.list_live(), open_table(lake, name).list_live()
    assert followed.schema == loaded.schema
    # Merges of delta-rs state the time in which they wrote a file; the list has the same.
    assert_frame_equal(followed, loaded, check_row_order=False)
    dataset = lake.dataset(name)
    assert_frame_equal(Snapshot(dataset, table).files(), store_of(lake).snapshot(dataset).files())


def refuse_loading(monkeypatch: pytest.MonkeyPatch, table: LocalTable) -> None:
    def refuse() -> None:
        raise AssertionError("the table was loaded anew")

    monkeypatch.setattr(table, "update_incremental", refuse)


def test_commits_that_add_and_remove_files_are_followed_without_loading_the_table(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = T0 + 9 * DAY + timedelta(microseconds=1500)
    write(lake, "trades", trades(3))
    table = open_table(lake, "trades")
    table.list_live()
    refuse_loading(monkeypatch, table)
    write(lake, "trades", trades(2, first=10, symbol="A~B %2F:ü/Ω'\"", start=T0 + DAY))
    write(lake, "trades", trades(2, first=30, received_at=[received] * 2))
    table.follow()
    require_same(table, lake, "trades")
    lake.maintenance.optimize()
    table.follow()
    assert table.version() == read_latest_version(lake.root.tables / "trades")
    require_same(table, lake, "trades")


def test_rows_that_are_revised_move_to_other_files(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, "bars_1m", bars(5))
    table = open_table(lake, "bars_1m")
    before = table.list_live()
    refuse_loading(monkeypatch, table)
    write(lake, "bars_1m", bars(2, start=T0 + MINUTE, volume=[7.0, 8.0]))
    table.follow()
    assert set(table.list_live()["path"]).isdisjoint(before["path"])
    require_same(table, lake, "bars_1m")


def test_what_delta_rs_reads_is_loaded_first(lake: Lake) -> None:
    write(lake, "bars_1m", bars(5))
    table = open_table(lake, "bars_1m")
    table.list_live()
    write(lake, "bars_1m", bars(5, start=T0 + DAY))
    table.follow()
    assert len(table.file_uris()) == 2
    assert Snapshot(lake.dataset("bars_1m"), table).scan_unordered().collect().height == 10


@pytest.mark.parametrize("commits", [1, 70])
def test_an_empty_table_and_many_commits_are_loaded(lake: Lake, commits: int) -> None:
    store = store_of(lake)
    dataset = lake.dataset("trades")
    store.create(dataset)
    table = store.open(dataset)
    assert table.list_live().is_empty()
    for number in range(commits):
        write(store, "trades", trades(1, first=number, step=MINUTE))
    table.follow()
    require_same(table, lake, "trades")
    assert table.list_live().height == commits


ADD: dict[str, Any] = {
    "path": "exchange=binance/symbol=BTC%252FUSDT/date=2024-01-01/x.parquet",
    "partitionValues": {"exchange": "binance", "symbol": "BTC/USDT", "date": "2024-01-01"},
    "size": 5,
    "modificationTime": 7,
    "dataChange": True,
}
STATISTICS = {"minValues": {"timestamp": "2024-01-01T00:00:00+01:00"}, "maxValues": {}}


@pytest.mark.parametrize(
    "statistics", [None, "{}", json.dumps({"numRecords": 3}), json.dumps(STATISTICS)]
)
def test_statistics_of_other_engines_may_lack_anything(lake: Lake, statistics: str | None) -> None:
    write(lake, "bars_1m", bars(3))
    table = open_table(lake, "bars_1m")
    live = LiveFiles.load(table, table.version())
    assert live.frame.schema.names()[0] == "path"
    after = live.apply(2, [{"add": {**ADD, "stats": statistics}}])
    assert after is not None
    assert after.frame.height == 2
    row = after.frame.filter(pl.col("path").str.ends_with("x.parquet"))
    assert row["path"].item() == "exchange=binance/symbol=BTC%2FUSDT/date=2024-01-01/x.parquet"
    assert row["max.timestamp"].item() is None
    assert (row["min.timestamp"].item() == T0 - timedelta(hours=1)) == (
        statistics == json.dumps(STATISTICS)
    ) or row["min.timestamp"].item() is None


@pytest.mark.parametrize(
    "action",
    [
        {"metaData": {"id": "another"}},
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"add": {**ADD, "deletionVector": {"storageType": "u"}}},
        {"add": {**ADD, "dataChange": False}},
        {"domainMetadata": {}},
    ],
    ids=["schema", "protocol", "deletion vector", "statistics", "unknown"],
)
def test_commits_that_do_anything_else_are_loaded_by_delta_rs(
    lake: Lake, action: dict[str, Any]
) -> None:
    write(lake, "bars_1m", bars(3))
    table = open_table(lake, "bars_1m")
    live = LiveFiles.load(table, table.version())
    locate_log_file(lake.root.tables / "bars_1m", 2).write_text(json.dumps(action) + "\n")
    assert live.follow(lake.root.tables / "bars_1m", 2) is None


@pytest.mark.parametrize("text", ["", "{", '{"add":{}}\n', "[1]\n"])
def test_an_entry_that_cannot_be_read_is_left_to_delta_rs(lake: Lake, text: str) -> None:
    write(lake, "bars_1m", bars(3))
    table = open_table(lake, "bars_1m")
    live = LiveFiles.load(table, table.version())
    locate_log_file(lake.root.tables / "bars_1m", 2).write_text(text)
    after = live.follow(lake.root.tables / "bars_1m", 2)
    assert after is None or (text == "" and after.frame.equals(live.frame))


@pytest.mark.parametrize("commits", [1, 3, 5])
def test_a_table_that_was_replaced_is_opened_anew(new_lake: NewLake, commits: int) -> None:
    """As by a restore from a backup: its commits are no later ones of the table before."""
    lake, other = new_lake(), new_lake()
    store = store_of(lake)
    for number in range(3):
        write(store, "trades", trades(2, first=10 * number, start=T0 + number * DAY))
    for number in range(commits):
        write(other, "trades", trades(3, first=1000 + 10 * number, start=T0 + number * DAY))
    assert lake.sql("SELECT count(*) FROM trades").fetchall() == [(6,)]
    shutil.rmtree(lake.root.tables / "trades")
    shutil.copytree(other.root.tables / "trades", lake.root.tables / "trades")
    assert lake.sql("SELECT count(*) FROM trades").fetchall() == [(3 * commits,)]
    assert write(store, "trades", trades(3, first=1000)).unchanged == 3
    assert write(store, "trades", trades(2)).inserted == 2
    assert lake.scan("trades").collect().height == 3 * commits + 2
