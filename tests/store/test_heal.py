"""What a crash left unsealed and unreadable is undone by the next writer, and nothing else is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from lake.api import Lake, utc_now
from lake.errors import DamagedError
from lake.store.checksums import list_records, name_checkpoint, name_log_entry
from lake.store.clock import CommitClock
from lake.store.heal import heal_end
from lake.store.log import read_latest_version
from lake.store.soundness import SET_ASIDE
from lake.store.store import Store
from tests.conftest import DAY, T0, store_of, trades, write

Damage = Callable[[Path], None]


def zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGES: dict[str, tuple[str, Damage]] = {
    "data of zeros": ("data", zero),
    "half of the data": ("data", halve),
    "empty data": ("data", empty),
    "no data": ("data", Path.unlink),
    "commit of zeros": ("log", zero),
    "half of the commit": ("log", halve),
    "empty commit": ("log", empty),
}
ROWS = trades(15, step=DAY / 5)
CLOCK = CommitClock(utc_now)


@pytest.fixture
def filled(lake: Lake) -> Store:
    """Trades of three days in three commits."""
    store = store_of(lake)
    for number in range(3):
        write(store, "trades", ROWS[number * 5 : number * 5 + 5])
    return store


def folder(store: Store) -> Path:
    return store.root.tables / "trades"


def restart(store: Store) -> Store:
    """Another store over the same lake, as of another process."""
    return Store(store.root, store.now)


def unseal(store: Store, count: int = 1) -> None:
    """Leave the newest commits as a crash before their seal does."""
    for record in list_records(folder(store))[-count:]:
        record.path.unlink()


def damage(store: Store, name: str, back: int = 0) -> Path:
    """Damage the newest commit, or one before it."""
    kind, change = DAMAGES[name]
    version = read_latest_version(folder(store)) - back
    file = folder(store) / name_log_entry(version)
    if kind == "data":
        [file] = (folder(store) / "exchange=binance" / "symbol=BTC%2FUSDT").glob(
            f"date=2024-01-{version:02}/*.parquet"
        )
    change(file)
    return file


def read(store: Store) -> pl.DataFrame:
    return store.read(store.catalog.dataset("trades")).select(ROWS.columns)


@pytest.mark.parametrize("name", DAMAGES)
def test_the_same_write_brings_every_row_back(
    filled: Store, lake: Lake, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    unseal(filled)
    damage(filled, name)
    assert write(restart(filled), "trades", ROWS).inserted == 5
    assert read(restart(filled)).equals(ROWS)
    verified = lake.maintenance.verify("trades")
    assert verified.is_intact
    assert verified.files.is_empty()
    [warning] = [r.getMessage() for r in caplog.records if r.name == "lake.store.heal"]
    assert "table=trades first=3 last=3" in warning
    if name.endswith("data") or name.startswith("data"):
        assert 'lost="binance BTC/USDT 2024-01-03"' in warning
    assert not heal_end(folder(filled), CLOCK)


@pytest.mark.parametrize("name", DAMAGES)
def test_what_came_after_it_is_undone_with_it(filled: Store, name: str) -> None:
    unseal(filled, 2)
    damage(filled, name, back=1)
    assert write(restart(filled), "trades", ROWS).inserted == 10
    assert read(restart(filled)).equals(ROWS)


@pytest.mark.parametrize("lost", [1, 5])
def test_commits_after_one_that_vanished_are_moved_away(filled: Store, lost: int) -> None:
    for number in range(lost):
        write(filled, "trades", trades(1, first=100 + number, start=T0 + 9 * DAY))
    unseal(filled, lost + 1)
    for version in range(3, 3 + lost):
        (folder(filled) / name_log_entry(version)).unlink()
    with pytest.raises(DamagedError, match="commit 3 is missing") as caught:
        read(restart(filled))
    assert "`lake ingest`. It moves the commit away" in caught.value.hint
    assert write(restart(filled), "trades", ROWS).inserted == 5
    assert read(restart(filled)).equals(ROWS)
    moved = [file.name for file in (folder(filled) / SET_ASIDE).iterdir()]
    assert moved == [Path(name_log_entry(3 + lost)).name]


def test_a_commit_that_was_deleted_after_a_checkpoint_has_not_vanished(
    filled: Store, lake: Lake
) -> None:
    lake.maintenance.checkpoint("trades")
    unseal(filled, 2)
    for version in range(3):
        (folder(filled) / name_log_entry(version)).unlink()
    assert not heal_end(folder(filled), CLOCK)
    assert read(restart(filled)).equals(ROWS)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_sealed_commit_is_never_undone(filled: Store, name: str) -> None:
    file = damage(filled, name)
    version = read_latest_version(folder(filled))
    if file.suffix == ".json":
        with pytest.raises(DamagedError, match=str(file)):
            write(restart(filled), "trades", ROWS)
    else:
        assert not heal_end(folder(filled), CLOCK)
    assert read_latest_version(folder(filled)) == version
    assert not (folder(filled) / SET_ASIDE).exists()


@pytest.mark.parametrize("name", ["data of zeros", "empty commit"])
def test_nothing_is_undone_before_a_sealed_commit(filled: Store, name: str) -> None:
    list_records(folder(filled))[-2].path.unlink()
    damage(filled, name, back=1)
    assert not heal_end(folder(filled), CLOCK)


@pytest.mark.parametrize("name", DAMAGES)
def test_nothing_is_undone_where_another_program_wrote(filled: Store, name: str) -> None:
    rows = filled.read(filled.catalog.dataset("trades")).head(1)
    write_deltalake(folder(filled), rows.with_columns(trade_id=pl.lit("x")), mode="append")
    unseal(filled)
    damage(filled, name, back=1)
    assert not heal_end(folder(filled), CLOCK)
    assert read_latest_version(folder(filled)) == 4


def test_a_commit_that_can_be_read_is_kept_and_sealed(filled: Store) -> None:
    unseal(filled)
    assert write(restart(filled), "trades", ROWS).unchanged == 15
    assert [record.first for record in list_records(folder(filled))] == [0, 1, 2, 3]


def test_a_compaction_is_undone_and_no_row_lost(lake: Lake) -> None:
    for number in range(3):
        write(lake, "trades", trades(5, first=number * 5))
    lake.maintenance.optimize("trades")
    unseal(store_of(lake))
    newest = max(folder(store_of(lake)).rglob("*.parquet"), key=lambda f: f.stat().st_mtime_ns)
    zero(newest)
    assert write(lake, "trades", trades(15)).unchanged == 15
    assert lake.maintenance.verify("trades").is_intact


@pytest.mark.parametrize("change", [empty, zero, halve])
def test_a_creation_is_repeated(lake: Lake, change: Damage) -> None:
    store = store_of(lake)
    store.create(store.catalog.dataset("trades"))
    unseal(store)
    change(folder(store) / name_log_entry(0))
    assert write(restart(store), "trades", ROWS).inserted == 15


def test_readers_are_told_what_to_do(filled: Store) -> None:
    unseal(filled)
    damage(filled, "empty commit")
    with pytest.raises(DamagedError, match="commit 3 is empty") as caught:
        read(restart(filled))
    assert "`lake ingest`. It moves the commit away" in caught.value.hint


def test_it_waits_for_a_writer_that_is_about_to_seal(filled: Store) -> None:
    unseal(filled)
    damage(filled, "data of zeros")
    handle = filled.open(filled.catalog.dataset("trades"))
    healed = threading.Thread(target=heal_end, args=(folder(filled), CLOCK))
    with handle.hold():
        healed.start()
        healed.join(0.2)
        assert healed.is_alive()
        assert read_latest_version(folder(filled)) == 3
    healed.join()
    assert read_latest_version(folder(filled)) == 4


def test_rows_that_another_writer_has_not_sealed_are_synced_before_they_count(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds its rows stored records their coverage, before the other writer seals them."""
    write(restart(filled), "trades", trades(5, first=20, start=T0 + 9 * DAY))
    unseal(filled)
    synced: list[str] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    assert write(filled, "trades", trades(5, first=20, start=T0 + 9 * DAY)).unchanged == 5
    [data] = folder(filled).rglob("date=2024-01-10/*.parquet")
    entry = folder(filled) / name_log_entry(4)
    assert {str(data), str(data.parent), str(entry), str(entry.parent)} <= set(synced)


def test_a_torn_checkpoint_that_was_never_sealed_is_dropped(filled: Store, lake: Lake) -> None:
    lake.maintenance.checkpoint("trades")
    unseal(filled)
    zero(folder(filled) / name_checkpoint(3))
    assert write(restart(filled), "trades", ROWS).unchanged == 15
