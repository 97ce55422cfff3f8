"""Each commit is on disk before a write returns, with the SHA-256 of what it wrote."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from lake.api import Lake
from lake.errors import DamagedError, StorageError
from lake.model.market import Market
from lake.model.progress import NoProgress
from lake.model.time import TimeRange
from lake.store import checksums
from lake.store.checksums import Checksums, list_records
from lake.store.hashing import hash_file
from lake.store.store import Store
from lake.store.verify import verify_tables
from tests.conftest import DAY, ORIGIN, T0, bars, store_of, trades, write


@pytest.fixture
def filled(lake: Lake) -> Store:
    """Trades of three days in three commits."""
    store = store_of(lake)
    for number in range(3):
        write(store, "trades", trades(5, first=number * 5, start=T0 + number * DAY))
    return store


def table_of(store: Store) -> Path:
    return store.root.tables / "trades"


def list_live(store: Store) -> list[str]:
    return store.snapshot(store.catalog.dataset("trades")).files()["path"].to_list()


def read_hashes(store: Store) -> dict[str, str]:
    return read_all(table_of(store))


def read_all(table: Path) -> dict[str, str]:
    """Read all records of a table."""
    records = sorted(list_records(table), key=checksums.order_records)
    return {
        path: digest
        for record in records
        for path, digest in checksums.read_record(record.path).iter_rows()
    }


def test_every_file_and_commit_has_its_hash(filled: Store) -> None:
    hashes = read_hashes(filled)
    log = [f"_delta_log/{version:020}.json" for version in range(4)]
    assert sorted(hashes) == sorted([*list_live(filled), *log])
    assert all(hash_file(table_of(filled) / path) == digest for path, digest in hashes.items())


def test_sha256sum_reads_the_records(filled: Store) -> None:
    names = [str(record.path) for record in list_records(table_of(filled))]
    command = ["sha256sum", "--check", "--strict", "--quiet", *names]
    subprocess.run(command, cwd=table_of(filled), check=True)


def test_all_of_a_commit_is_synced_when_a_write_returns(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spy, as nothing else tells what was synced: each call still syncs."""
    synced: set[str] = set()
    sync = os.fsync

    def note(handle: int) -> None:
        with suppress(FileNotFoundError):
            synced.add(os.path.realpath(f"/proc/self/fd/{handle}"))
        sync(handle)

    store = store_of(lake)
    table = store.root.tables / "trades"
    monkeypatch.setattr(os, "fsync", note)
    write(store, "trades", trades(3))
    for count in (3, 5):  # the first commit also makes the table
        write(store, "trades", trades(count, start=T0 + DAY))
        files = [table / path for path in list_live(store)]
        folders = {parent for file in files for parent in file.parents if table in parent.parents}
        log = sorted((table / "_delta_log").glob("*.json"))
        assert len(log) == (3 if count == 3 else 4)
        expected = [*files, *folders, *log, table, table / "_delta_log", table / "_checksums"]
        assert {str(path) for path in expected} <= synced
    assert str(store.root.tables) in synced


def test_a_commit_whose_writer_was_killed_is_recorded_by_the_next(filled: Store) -> None:
    records = list_records(table_of(filled))
    for record in (records[1], records[3]):
        record.path.unlink()
    assert len(read_hashes(filled)) == 3
    write(Store(filled.root, filled.now), "trades", trades(5))  # changes nothing, makes no commit
    assert [r.first for r in list_records(table_of(filled))] == [0, 1, 2, 3]
    assert set(list_live(filled)) <= set(read_hashes(filled))


@pytest.mark.parametrize("left", [4, 0], ids=["cut short", "zeros of its size"])
def test_a_file_that_a_crash_left_damaged_is_not_attested(filled: Store, left: int) -> None:
    list_records(table_of(filled))[3].path.unlink()
    last = list_live(filled)[-1]
    file = table_of(filled) / last
    # With a commit of another program after it, it is not undone: see test_heal.py.
    rows = filled.read(filled.catalog.dataset("trades")).head(1)
    write_deltalake(table_of(filled), rows.with_columns(trade_id=pl.lit("x")), mode="append")
    file.write_bytes(file.read_bytes()[:left] if left else bytes(file.stat().st_size))
    with suppress(DamagedError):
        write(Store(filled.root, filled.now), "trades", trades(1, first=99))
    assert last not in read_hashes(filled)
    verified = verify_tables(filled, [filled.catalog.dataset("trades")], NoProgress())
    problems = verified.problems
    assert problems["path"].to_list() == [last]


def test_a_table_of_before_gets_records_from_its_next_commit_on(filled: Store) -> None:
    for record in list_records(table_of(filled)):
        record.path.unlink()
    write(Store(filled.root, filled.now), "trades", trades(5))
    assert list_records(table_of(filled)) == []
    write(Store(filled.root, filled.now), "trades", trades(5, first=50))
    assert [record.first for record in list_records(table_of(filled))] == [4]


def test_files_of_another_engine_are_not_attested(filled: Store) -> None:
    dataset = filled.catalog.dataset("trades")
    rows = filled.read(dataset).head(1).with_columns(trade_id=pl.lit("x"))
    write_deltalake(table_of(filled), rows, mode="append")
    write(Store(filled.root, filled.now), "trades", trades(5, first=50))
    hashes = read_hashes(filled)
    assert f"_delta_log/{4:020}.json" in hashes
    assert len(set(list_live(filled)) - set(hashes)) == 1


def test_compaction_and_replacement_record_theirs(filled: Store, lake: Lake) -> None:
    dataset = filled.catalog.dataset("trades")
    write(filled, "trades", trades(5, first=50))
    assert lake.maintenance.optimize("trades")["files_after"].item() == 1
    filled.replace(
        dataset,
        Market("binance", "BTC/USDT"),
        TimeRange(T0 + DAY, T0 + 2 * DAY),
        lambda rows: rows.head(1),
        ORIGIN,
    )
    assert set(list_live(filled)) <= set(read_hashes(filled))


def test_a_rewriting_merge_records_its_files(lake: Lake) -> None:
    store = store_of(lake)
    write(store, "bars_1m", bars(3))
    assert write(store, "bars_1m", bars(3, volume=[1.0, 7.0, 8.0])).updated == 2
    files = store.snapshot(store.catalog.dataset("bars_1m")).files()["path"]
    assert set(files) <= set(read_all(store.root.tables / "bars_1m"))


def make_records(table: Path, versions: range) -> None:
    for version in versions:
        entries = {
            f"part-{version}.parquet": f"{version:064}",
            f"_delta_log/{version:020}.json": "f" * 64,
        }
        checksums.write_record(table, version, entries, replace=True)


def test_records_are_joined_so_that_they_stay_few(tmp_path: Path) -> None:
    for start in range(0, 400, 100):
        make_records(tmp_path, range(start, start + 100))
        checksums.join_records(tmp_path, start + 99)
    assert [(r.first, r.last) for r in list_records(tmp_path)] == [
        (0, 99), (100, 199), (200, 299), (300, 399)
    ]  # fmt: skip
    assert len(read_all(tmp_path)) == 800
    checksums.join_records(tmp_path, 9_999)
    assert [(r.first, r.last) for r in list_records(tmp_path)] == [(0, 399)]
    hashes = read_all(tmp_path)
    assert hashes["part-57.parquet"] == f"{57:064}"
    assert len(hashes) == 800


def test_a_record_written_late_survives_a_join(tmp_path: Path) -> None:
    make_records(tmp_path, range(50))
    make_records(tmp_path, range(51, 100))
    checksums.join_records(tmp_path, 99)
    make_records(tmp_path, range(50, 51))
    make_records(tmp_path, range(100, 200))
    checksums.join_records(tmp_path, 199)
    assert len(read_all(tmp_path)) == 400


def test_a_reader_finds_hashes_before_and_after_a_join(tmp_path: Path) -> None:
    make_records(tmp_path, range(3))
    reader = Checksums(tmp_path)
    names = [f"part-{version}.parquet" for version in (1, 57, 150)]
    assert list(reader.find(names)) == names[:1]
    make_records(tmp_path, range(3, 100))
    assert list(reader.find(names)) == names[:2]
    checksums.join_records(tmp_path, 99)
    make_records(tmp_path, range(100, 151))
    assert reader.find(names) == {
        name: f"{n:064}" for name, n in zip(names, (1, 57, 150), strict=True)
    }


def test_deleted_files_leave_the_records(filled: Store) -> None:
    first = list_live(filled)[0]
    checksums.forget_files(table_of(filled), [first])
    hashes = read_hashes(filled)
    assert first not in hashes
    assert set(list_live(filled)) - set(hashes) == {first}
    assert len(list_records(table_of(filled))) == 1


def flip_a_bit(record: bytes) -> bytes:
    return record[:80] + bytes([record[80] ^ 1]) + record[81:]


@pytest.mark.parametrize("change", [lambda b: b[:-1], flip_a_bit, lambda _: b""])
def test_a_damaged_record_is_refused(filled: Store, change: Callable[[bytes], bytes]) -> None:
    path = list_records(table_of(filled))[1].path
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedError, match=f"{path} is damaged") as caught:
        Checksums(table_of(filled)).find([])
    assert "delete it" in caught.value.hint


def _fail_to_sync(patch: pytest.MonkeyPatch, write_again: Callable[[], object]) -> None:
    """Write to a disk that fails: no real one does on demand."""

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with patch.context() as failing:
        failing.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match="the disk is full"):
            write_again()


def test_new_rows_that_cannot_be_synced_are_not_committed(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_to_sync(monkeypatch, lambda: write(filled, "trades", trades(5, first=50)))
    assert len(list_records(table_of(filled))) == 4
    assert len(list(table_of(filled).rglob("*.parquet"))) == 3
    assert write(filled, "trades", trades(5, first=50)).inserted == 5
    assert set(list_live(filled)) <= set(read_hashes(filled))


def test_a_merge_that_cannot_be_synced_fails_and_the_next_write_seals_it(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(lake)
    write(store, "bars_1m", bars(5))
    revised = bars(5, volume=[9.0] * 5)
    _fail_to_sync(monkeypatch, lambda: write(store, "bars_1m", revised))
    table = store.root.tables / "bars_1m"
    assert len(list_records(table)) == 2
    assert write(store, "bars_1m", revised).unchanged == 5
    assert len(list_records(table)) == 3
