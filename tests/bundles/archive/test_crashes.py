"""Exports and imports with full disks, killed processes and little memory."""

from __future__ import annotations

import os
import signal
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

import lake as api
from lake.api import Lake
from lake.bundles.archive.transfer import create_unfinished, rename_into_place
from lake.bundles.bundle import Bundle
from lake.errors import (
    StorageError,
    UnknownNameError,
    UsageError,
)
from lake.settings import Settings
from tests import processes
from tests.bundles.archive.conftest import Steps, content, left
from tests.conftest import DAY, NewLake, trades, write
from tests.store.test_storage_faults import DISK_BYTES, disk, fill

__all__ = ["disk"]  # a fixture


def test_who_writes_to_the_same_place_waits(small: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "b"
    with ThreadPoolExecutor(1) as thread:
        with create_unfinished(target, folder=True) as unfinished:
            second = thread.submit(small.export, target)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
            (unfinished / "first").write_bytes(b"")
            rename_into_place(unfinished, target)
        with pytest.raises(UsageError, match="already exists"):
            second.result()
    assert content(tmp_path) == {"b/first": b""}


def noise(count: int) -> pl.DataFrame:
    """Build trades that do not compress well."""
    numbers = pl.Series(range(count)).hash(7).cast(pl.Float64)
    return trades(count, step=DAY / count).with_columns(price=numbers, amount=numbers.reverse())


@pytest.mark.parametrize("name", ["b.tar.zst", "b"])
@pytest.mark.parametrize("free_bytes", [0, 4096, 100_000])
def test_an_export_to_a_full_disk_leaves_nothing(
    lake: Lake, disk: Path, name: str, free_bytes: int
) -> None:
    write(lake, "trades", noise(20_000))
    pinned = lake.bundles.pin("big", table="trades")
    filler = fill(disk, free_bytes)
    with pytest.raises(StorageError, match="the disk is full"):
        pinned.export(disk / name)
    assert list(disk.iterdir()) == [filler]
    filler.unlink()
    assert api.open_bundle(pinned.export(disk / name), cache=False).verify() == []


@pytest.mark.parametrize(
    ("free_bytes", "says"),
    [
        (0, "the disk is full"),
        (4096, "the disk is full"),
        (100_000, r"unpacks to .*, and the disk of .* has [\d.]+ kB left"),
    ],
)
def test_an_import_to_a_full_disk_leaves_nothing(
    lake: Lake,
    disk: Path,
    tmp_path: Path,
    free_bytes: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(lake, "trades", noise(20_000))
    path = lake.bundles.pin("big", table="trades").export(tmp_path / "b.tar.zst")
    other = Lake.create(Settings(uri=str(disk / "lake")))
    filler = fill(disk, free_bytes)
    with pytest.raises(StorageError, match=says):
        other.bundles.import_(path, name="b")
    assert left(other) == []
    monkeypatch.setenv("LAKE_CACHE__FOLDER", str(disk / "cache"))
    with pytest.raises(StorageError, match=says):
        api.open_bundle(path)
    assert list((disk / "cache").glob("unpacked/*")) == []
    filler.unlink()
    assert other.bundles.import_(path, name="b").verify() == []
    assert path.stat().st_size < DISK_BYTES


class Fatal(Steps):
    """Progress that kills its process after some files."""

    def __init__(self, after_files: int) -> None:
        super().__init__()
        self.after_files = after_files

    def advance(self, count: float = 1, **figures: object) -> None:
        super().advance(count, **figures)
        if self.done >= self.after_files:
            os.kill(os.getpid(), signal.SIGKILL)


def _export(uri: str, path: Path, after_files: int) -> None:
    api.open(uri).bundles.open("b").export(path, progress=Fatal(after_files))


def _import(uri: str, path: Path, after_files: int) -> None:
    api.open(uri).bundles.import_(path, name="b", progress=Fatal(after_files))


def run_killed(lake: Lake, work: Callable[..., None], path: Path, after_files: int) -> None:
    """Run an export or import in a process that is killed after some files."""
    child = processes.start(work, str(lake.root.path), path, after_files)
    child.join()
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["b.tar.zst", "b"])
def test_a_kill_leaves_nothing_incomplete(
    lake: Lake, bundle: Bundle, new_lake: NewLake, tmp_path: Path, name: str
) -> None:
    for after_files in (1, 5):
        run_killed(lake, _export, tmp_path / name, after_files)
        assert not (tmp_path / name).exists()
    whole = bundle.export(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    other = new_lake()
    for after_files in (1, 5):
        run_killed(other, _import, whole, after_files)
        assert other.bundles.ls().is_empty()
        with pytest.raises(UnknownNameError):
            other.bundles.open("b")
    assert other.bundles.import_(whole, name="b").verify(deep=True) == []


def test_memory_stays_bounded_with_large_files(tmp_path: Path, lake: Lake) -> None:
    """Memory never holds a whole file; to verify rows, it holds those of a market-day."""
    write(lake, "trades", noise(1_000_000))
    pinned = lake.bundles.pin("big", table="trades")
    (size,) = pinned.contents.files.read_all()["bytes"]
    folder, archive = pinned.export(tmp_path / "b"), tmp_path / "b.tar.zst"

    def import_and_open() -> None:
        lake.bundles.import_(archive, name="again")
        api.open_bundle(archive, cache=False)

    steps: list[Callable[[], object]] = [
        lambda: api.open_bundle(folder, cache=False).export(archive),
        lambda: pinned.verify(deep=True),
        import_and_open,
    ]
    copying, verifying, importing = [peak_of(step) for step in steps]
    assert size > 12_000_000
    assert copying < 8_000_000
    assert importing < verifying + 8_000_000


def peak_of(action: Callable[[], object]) -> int:
    """Return the most memory that Python's objects took."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
