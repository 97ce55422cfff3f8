"""What may not be read of one table stops no other: it is left out and named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lake.api import Lake
from lake.settings import Settings
from tests.cli.conftest import Outcome
from tests.cli.lake_process import WITHOUT_PRIVILEGE, run_lake
from tests.cli.test_storage_errors import closed
from tests.conftest import DAY, T0, funding, trades, write

pytestmark = pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")

OTHERS = {"funding", "checks", "findings", "jobs", "scores"}
CLOSED: dict[str, Callable[[Path], Path]] = {
    "folder": lambda table: table,
    "log": lambda table: table / "_delta_log",
    "data file": lambda table: min(table.rglob("*.parquet")),
}
WHOLE_TABLES = ("folder", "log")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake of trades and funding, each in two files; checked."""
    folder = tmp_path_factory.mktemp("closed")
    lake = Lake.create(Settings(uri=str(folder / "lake")))
    write(lake, "trades", trades(2, step=DAY))
    for number in range(2):
        write(lake, "funding", funding([T0 + number * DAY]))
    lake.quality.check()
    return folder


@pytest.fixture(params=CLOSED)
def what(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(made: Path, what: str, tmp_path: Path) -> Iterator[Path]:
    """A copy of the lake in which nobody may read some of its trades."""
    shutil.copytree(made / "lake", tmp_path / "lake")
    with closed(CLOSED[what](tmp_path / "lake" / "tables" / "trades")):
        yield tmp_path


def run(folder: Path, command: str) -> Outcome:
    before = WITHOUT_PRIVILEGE if os.geteuid() == 0 else ()
    done = run_lake(folder, *command.split(), "--json", before=before)
    assert "Traceback" not in done.err
    return done


def require_named(done: Outcome) -> None:
    assert "table=trades" in done.err
    assert "no permission" in done.err


def tables_in(done: Outcome) -> set[str]:
    return {row["table"] for row in json.loads(done.out)}


@pytest.mark.parametrize("command", ["tables", "status", "audit", "quality report"])
def test_views_show_all_others(folder: Path, what: str, command: str) -> None:
    done = run(folder, command)
    assert done.code == 0, done.err
    assert "funding" in done.out
    if what in WHOLE_TABLES and command != "quality report":
        require_named(done)
    if command == "tables":
        assert tables_in(done) >= OTHERS | {"trades"}


@pytest.mark.parametrize(
    "command", ["maintain optimize", "maintain checkpoint", "verify table", "migrate --apply"]
)
def test_all_others_are_maintained(folder: Path, what: str, command: str) -> None:
    done = run(folder, command)
    refused = what in WHOLE_TABLES or command == "verify table"
    assert done.code == (2 if refused else 0), done.err
    if refused:
        require_named(done)
    if command != "migrate --apply":
        shown = tables_in(done) if command != "verify table" else OTHERS
        assert shown >= OTHERS
        assert ("trades" in shown) == (not refused)


def test_others_are_vacuumed(folder: Path, what: str) -> None:
    done = run(folder, "maintain vacuum --yes")
    assert done.code == (2 if what in WHOLE_TABLES else 0), done.err
    assert json.loads(done.out) == []
    assert run(folder, "maintain gc --yes").code == 0


def test_others_are_checked(folder: Path) -> None:
    done = run(folder, "quality check funding")
    assert done.code == 0, done.err
    whole = run(folder, "quality check")
    assert whole.code == 2, whole.err
    require_named(whole)
    assert isinstance(json.loads(whole.out), list)


def test_damage_of_other_files_is_still_found(folder: Path, what: str) -> None:
    tables = ["funding"] if what in WHOLE_TABLES else ["funding", "trades"]
    files = [max((folder / "lake" / "tables" / table).rglob("*.parquet")) for table in tables]
    for file in files:
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    done = run(folder, "verify table")
    assert done.code == 3, done.err
    require_named(done)
    damaged = {row["path"]: row["kind"] for row in json.loads(done.out)}
    assert list(damaged.values()) == ["damaged"] * len(files)
    assert {Path(path).name for path in damaged} == {file.name for file in files}


def test_several_refused_files_are_one_error(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "lake", tmp_path / "lake")
    first, second = sorted((tmp_path / "lake" / "tables" / "trades").rglob("*.parquet"))
    with closed(first), closed(second):
        done = run(tmp_path, "verify table trades")
    assert done.code == 2, done.err
    assert str(first) in done.error["message"]
    assert done.error["message"].endswith("; and 1 more file")
