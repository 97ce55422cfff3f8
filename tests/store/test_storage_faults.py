"""A full disk, a folder that cannot be written, damaged files: clear errors, nothing half-done."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lake.api import Lake, utc_now
from lake.errors import DamagedError, StorageError
from lake.settings import Settings
from tests.conftest import T0, bars, funding, store_of, trades, write

DISK_BYTES = 2_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    outcome = subprocess.run(mount, capture_output=True, text=True, check=False)
    if outcome.returncode:
        pytest.skip(f"needs to mount a file system: {outcome.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def lake_on_disk(disk: Path) -> Lake:
    """A lake with ten trades on the small disk."""
    lake = Lake.create(Settings(uri=str(disk / "lake")))
    write(lake, "trades", trades(10))
    return lake


def fill(disk: Path, free_bytes: int) -> Path:
    """Take all of a disk but so much."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        left = b"\0" * (DISK_BYTES * 2)
        with suppress(OSError):
            file.write(left)
    with filler.open("r+b") as file:
        file.truncate(max(filler.stat().st_size - free_bytes, 0))
    return filler


@pytest.mark.parametrize("free_bytes", [0, 4096])
def test_a_write_to_a_full_disk_can_be_repeated_when_there_is_space(
    disk: Path, lake_on_disk: Lake, free_bytes: int
) -> None:
    store = store_of(lake_on_disk)
    write(store, "trades", trades(10))
    filler = fill(disk, free_bytes)
    with pytest.raises(StorageError, match="table trades: the disk is full"):
        write(store, "trades", trades(20))
    assert lake_on_disk.scan("trades").collect().height == 10
    assert lake_on_disk.versions("trades").height == 2
    filler.unlink()
    assert write(store, "trades", trades(20)).inserted == 10
    assert lake_on_disk.scan("trades").collect()["trade_id"].n_unique() == 20


@pytest.mark.parametrize("free_bytes", [0, 4096, 8192])
def test_a_table_that_found_no_space_can_be_made_later(
    disk: Path, lake_on_disk: Lake, free_bytes: int
) -> None:
    filler = fill(disk, free_bytes)
    with pytest.raises(StorageError, match="table funding: the disk is full"):
        write(lake_on_disk, "funding", funding([T0]))
    assert lake_on_disk.tables().filter(pl.col("rows") > 0)["table"].to_list() == ["trades"]
    filler.unlink()
    assert write(lake_on_disk, "funding", funding([T0])).inserted == 1
    assert lake_on_disk.scan("funding").collect().height == 1


def test_a_pin_that_found_no_space_leaves_no_bundle(disk: Path, lake_on_disk: Lake) -> None:
    filler = fill(disk, 0)
    with pytest.raises(StorageError, match="bundles: the disk is full"):
        lake_on_disk.bundles.pin("full", table="trades")
    assert lake_on_disk.bundles.ls().is_empty()
    filler.unlink()
    assert lake_on_disk.bundles.pin("full", table="trades").verify() == []


def test_a_lake_that_cannot_be_written_can_still_be_read(disk: Path, lake_on_disk: Lake) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    attempts: list[Callable[[], Any]] = [
        lambda: write(lake_on_disk, "trades", trades(20)),
        lambda: write(lake_on_disk, "funding", funding([T0])),
        lambda: lake_on_disk.bundles.pin("new", table="trades"),
        lambda: Lake.create(Settings(uri=str(disk / "other"))),
    ]
    for attempt in attempts:
        with pytest.raises(StorageError, match="not writable"):
            attempt()
    assert write(lake_on_disk, "trades", trades(10)).unchanged == 10
    assert lake_on_disk.scan("trades").collect().height == 10
    assert lake_on_disk.sql("SELECT count(*) FROM trades").fetchall() == [(10,)]


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """Four commits of trades, and one of bars beside."""
    for number in range(4):
        write(lake, "trades", trades(5, first=number * 5))
    write(lake, "bars_1m", bars())
    return lake


def data_file(lake: Lake) -> Path:
    """The data file of the first trades."""
    return Path(lake.root.tables, "trades", first_path(lake))


def first_path(lake: Lake) -> str:
    path: str = store_of(lake).snapshot(lake.dataset("trades"), version=1).files()["path"].item()
    return path


def log_file(lake: Lake, version: int) -> Path:
    return lake.root.tables / "trades" / "_delta_log" / f"{version:020}.json"


def collect(lake: Lake) -> pl.DataFrame:
    return store_of(lake).snapshot(lake.dataset("trades")).collect()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "overwritten": lambda path: path.write_bytes(b"x" * path.stat().st_size),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_data_file_is_an_error_that_names_the_table(filled: Lake, damage: str) -> None:
    DAMAGES[damage](data_file(filled))
    with pytest.raises(DamagedError, match=r"table trades: cannot be read: .") as caught:
        collect(filled)
    assert "`lake verify table trades`" in caught.value.hint
    assert "POLARS_VERBOSE" not in str(caught.value)
    assert "No other" not in caught.value.hint
    with pytest.raises(DamagedError, match="table trades: cannot be read"):
        filled.scan("trades").filter(pl.col("price") > 0).collect()
    with pytest.raises(DamagedError, match="table trades: "):
        filled.bundles.pin("damaged", table="trades")
    with pytest.raises(DamagedError, match=r"table trades: .*part-") as caught:
        filled.sql("SELECT * FROM trades")
    assert "`lake verify table trades`" in caught.value.hint
    assert "magic" not in caught.value.message
    assert filled.scan("bars_1m").collect().height == 3


@pytest.mark.parametrize("damage", ["missing", "cut short", "overwritten"])
@pytest.mark.parametrize("version", [0, 2])
def test_a_damaged_log_file_is_an_error_that_names_the_table(
    filled: Lake, damage: str, version: int
) -> None:
    DAMAGES[damage](log_file(filled, version))
    readers: list[Callable[[], Any]] = [
        lambda: collect(filled),
        lambda: filled.scan("trades"),
        lambda: filled.scan("trades", as_of=utc_now()),
        lambda: filled.sql("SELECT * FROM trades"),
        lambda: filled.versions("trades"),
        lambda: write(filled, "trades", trades(1, first=100)),
    ]
    for read in readers:
        with pytest.raises(DamagedError, match=r"table trades: ."):
            read()
    assert filled.scan("bars_1m").collect().height == 3


def test_a_damaged_commit_does_not_hide_older_versions(filled: Lake) -> None:
    DAMAGES["overwritten"](log_file(filled, 3))
    assert filled.scan("trades", version=2).collect().height == 10
