"""Errors of storage say what they are; damage is said only of damage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lake.api import Lake
from lake.settings import Settings
from tests.cli.lake_process import WITHOUT_PRIVILEGE, run_lake
from tests.conftest import DAY, trades, write

SQL = ("sql", "SELECT count(price) FROM trades")
PIN = ("bundle", "pin", "two", "trades", "--no-check", "-q")
VERIFY = ("bundle", "verify", "one")
OF_DAMAGE = ("damaged", "backup", "Traceback")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a lake of 40 files of trades, and a bundle `one`."""
    lake = Lake.create(Settings(uri=str(tmp_path / "lake")))
    write(lake, "trades", trades(40, step=DAY))
    lake.bundles.pin("one", table="trades")
    return tmp_path


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """Let nobody read a file or folder in the block."""
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(mode)


def first_file(folder: Path) -> Path:
    return min((folder / "lake" / "tables" / "trades").rglob("*.parquet"))


CLOSED: dict[str, Callable[[Path], Path]] = {
    "data file": first_file,
    "log": lambda folder: folder / "lake" / "tables" / "trades" / "_delta_log",
    "checksums": lambda folder: next(
        (folder / "lake" / "tables" / "trades" / "_checksums").iterdir()
    ),
    "list of a bundle": lambda folder: next((folder / "lake" / "bundles").glob("*/files.parquet")),
    "marker": lambda folder: folder / "lake" / "lake.json",
}


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
@pytest.mark.parametrize("what", CLOSED)
def test_no_permission_is_said_to_be_that(folder: Path, what: str) -> None:
    commands = [VERIFY] if what == "list of a bundle" else [SQL, PIN]
    before = WITHOUT_PRIVILEGE if os.geteuid() == 0 else ()
    with closed(CLOSED[what](folder)):
        for command in commands:
            shown = run_lake(folder, *command, before=before)
            if what == "checksums" and shown.code == 0:
                continue  # a query need not look at all of them
            assert shown.code == 2, shown.err
            assert "no permission" in shown.err
            assert not any(word in shown.err for word in OF_DAMAGE)


def test_too_many_open_files_are_said_to_be_that(folder: Path) -> None:
    shown = run_lake(folder, *SQL, before=["prlimit", "--nofile=30"])
    assert shown.code == 2, shown.err
    assert "too many files are open" in shown.err
    assert "ulimit -n" in shown.err


def test_a_file_where_a_folder_should_be(folder: Path) -> None:
    names = folder / "lake" / "bundles" / "names"
    shutil.rmtree(names)
    names.write_text("")
    shown = run_lake(folder, *PIN)
    assert shown.code == 2, shown.err
    assert "a file where a folder should be" in shown.err


def test_a_missing_file_is_damage(folder: Path) -> None:
    first_file(folder).unlink()
    for command in (SQL, PIN, VERIFY):
        shown = run_lake(folder, *command)
        assert shown.code == 3, shown.err
        assert "missing" in shown.err or "No files found" in shown.err
