"""Maintenance of a whole lake: recorded, beside ingestion, and killed at any moment."""

from __future__ import annotations

import ast
import os
import random
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import lake as lake_package
from lake.api import Lake, utc_now
from lake.bundles.repository import Repository
from lake.errors import CommitConflictError, DamagedError, UnknownNameError, UsageError
from lake.jobs.maintain import Maintainer
from lake.settings import Settings
from lake.store.locks import lock_for_deletion, lock_for_pin
from lake.store.root import Root
from lake.store.store import Store
from tests.conftest import DAY, MINUTE, NAIVE, T0, NewLake, bars, copy_lake, store_of, trades, write
from tests.jobs import maintenance_children as children
from tests.jobs.maintenance_children import maintainer

SYMBOLS = ("BTC/USDT", "ADA/USDT:USDT", "Ω %2F")
KILLS = 5


def later(root: Root) -> Store:
    return Store(root, lambda: utc_now() + children.LATER)


@pytest.fixture(scope="module")
def origin(new_lake: NewLake) -> Lake:
    """Trades in many files, and revised bars whose first version is pinned."""
    lake = new_lake()
    store = store_of(lake)
    for part in range(3):
        for symbol in SYMBOLS:
            frames = [
                trades(5, first=100 * day + 10 * part, start=T0 + day * DAY, symbol=symbol)
                for day in range(4)
            ]
            write(store, "trades", pl.concat(frames))
    for volume in (1.0, 2.0, 3.0):
        for symbol in SYMBOLS:
            write(store, "bars_1m", bars(8, step=DAY, symbol=symbol, volume=[volume] * 8))
        if volume == 1.0:
            lake.bundles.pin("held", table="bars_1m", check=False)
    return lake


@pytest.fixture
def filled(origin: Lake, tmp_path: Path) -> Lake:
    return copy_lake(origin, tmp_path / "lake")


def held_version(lake: Lake) -> int:
    return lake.bundles.open("held").contents.ref("bars_1m").version


def content(path: Path, version: int) -> list[pl.DataFrame]:
    """All rows, and those of the version of bars that is held."""
    lake = Lake(Settings(uri=str(path)))
    frames = [lake.scan(table).collect() for table in children.TABLES]
    return [*frames, lake.scan("bars_1m", version=version).collect()]


def require_same(found: list[pl.DataFrame], expected: list[pl.DataFrame]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert_frame_equal(one, other)


def require_killed_at_random_is_harmless(
    tmp_path: Path, lake: Lake, version: int, work: Callable[..., None], *arguments: int
) -> set[int]:
    """Kill a child at several moments; gives how many files the tables had then."""
    dice = random.Random(20260310)
    expected = content(lake.root.path, version)
    progress = set()
    for number in range(KILLS + 1):
        path = tmp_path / f"killed-{number}"
        shutil.copytree(lake.root.path, path)
        child, begun = children.start(work, path, *arguments)
        assert begun.wait(60)
        beginning = time.monotonic()
        if number == 0:  # the first one shows how long it takes
            child.join()
            duration = time.monotonic() - beginning
            assert child.exitcode == 0
        else:
            time.sleep(dice.uniform(0, 0.9) * duration)
            child.kill()
            child.join()
        files = [file for file in (path / "tables").rglob("*") if file.is_file()]
        progress.add(len(files))
        require_same(content(path, version), expected)
        work(path, *arguments)
        require_same(content(path, version), expected)
        shutil.rmtree(path)
    return progress


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_compaction_that_is_killed_at_any_moment_changes_no_row(
    tmp_path: Path, filled: Lake
) -> None:
    version = held_version(filled)
    progress = require_killed_at_random_is_harmless(tmp_path, filled, version, children.optimize)
    assert len(progress) > 2, "the moments were not random enough"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_vacuum_that_is_killed_at_any_moment_breaks_no_bundle(tmp_path: Path, filled: Lake) -> None:
    version = held_version(filled)
    maintainer(store_of(filled)).optimize()
    progress = require_killed_at_random_is_harmless(tmp_path, filled, version, children.vacuum)
    assert len(progress) > 2, "the moments were not random enough"


@pytest.mark.timeout(120)
def test_all_maintenance_runs_beside_an_ingestion_of_the_same_dates(filled: Lake) -> None:
    version = held_version(filled)
    rounds = 10
    held = filled.scan("bars_1m", version=version).collect()
    child, begun = children.start(children.ingest, filled.root.path, rounds)
    begun.wait(60)
    store = store_of(filled)
    maintenance = maintainer(store)
    commits = 0
    while child.is_alive():
        commits += int(maintenance.optimize(children.TABLES)["commits"].sum())
        maintenance.vacuum(children.TABLES, keep=timedelta(hours=1))
        maintenance.checkpoint(children.TABLES)
    child.join()
    assert child.exitcode == 0
    assert commits

    maintenance.optimize()
    maintainer(later(filled.root)).vacuum()
    found = filled.scan("trades").collect()
    assert found.height == 3 * 3 * 4 * 5 + 2 * 3 * rounds
    assert found.unique(["symbol", "trade_id"]).height == found.height
    begin = filled.scan("bars_1m", symbol=SYMBOLS[0], until=T0 + DAY).collect()
    assert begin["volume"].to_list() == [*(float(n) for n in range(rounds)), *[rounds - 1.0] * 4]
    assert_frame_equal(filled.scan("bars_1m", version=version).collect(), held)


def test_nothing_runs_the_maintenance_of_deltalake_around_this_one() -> None:
    """Only the store may import deltalake, which import-linter sees to; and it calls none of it."""
    package = Path(lake_package.__file__).parent
    found = {
        (str(module.relative_to(package)), node.attr)
        for module in package.rglob("*.py")
        if "deltalake" in (text := module.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute)
    }
    calls = {"vacuum", "optimize", "cleanup_metadata", "restore", "repair", "create_checkpoint"}
    assert {one for one in found if one[1] in calls} == {
        ("store/delta.py", "create_checkpoint"),
        ("store/heal.py", "restore"),
    }


def test_what_was_done_is_told_and_recorded(filled: Lake) -> None:
    maintenance = maintainer(later(filled.root))
    rows = filled.scan("trades").collect()

    optimized = maintenance.optimize(["trades"])
    figures = optimized.select("table", "dates", "rows", "files_before", "files_after", "commits")
    assert figures.rows() == [("trades", 12, 180, 36, 12, 3)]
    assert optimized.select(pl.col("bytes_after") < pl.col("bytes_before")).item()
    told = maintenance.vacuum(dry_run=True)
    done = maintenance.vacuum()
    assert done.files["path"].to_list() == told.files["path"].to_list()
    assert done.held.row(0)[:4] == (filled.bundles.resolve("held"), "held", "bars_1m", 24)
    assert maintenance.checkpoint(["trades"]).rows() == [
        ("trades", store_of(filled).snapshot(filled.dataset("trades")).version)
    ]
    assert_frame_equal(filled.scan("trades").collect(), rows)

    jobs = filled.jobs()
    assert jobs["command"].to_list() == [
        f"maintain {verb}" for verb in ("optimize", "vacuum", "checkpoint")
    ]
    assert set(jobs["status"]) == {"ok"}
    assert jobs["rows"].to_list() == [180, 0, 0]
    commit = filled.audit("trades", limit=1).row(0, named=True)
    assert (commit["job"], commit["source"]) == (jobs["job_id"][0], "lake")


def test_bundles_are_read_when_none_can_be_made_any_more(filled: Lake) -> None:
    """A bundle that is made just before is known; one that comes later finds what it needs."""
    reads: list[int] = []

    class Watched(Repository):
        def list_ids(self) -> list[str]:
            with pytest.raises(CommitConflictError), lock_for_pin(filled.root, timedelta(0)):
                pass
            reads.append(len(super().list_ids()))
            return super().list_ids()

    Maintainer(later(filled.root), Watched(filled.root)).vacuum()
    assert set(reads) == {1}


def test_a_dry_run_waits_for_nobody(filled: Lake) -> None:
    with lock_for_deletion(filled.root):
        assert not maintainer(later(filled.root)).vacuum(dry_run=True).files.is_empty()


def test_a_refused_vacuum_is_recorded_with_its_reason(filled: Lake) -> None:
    maintenance = maintainer(later(filled.root))
    (filled.root.bundles / filled.bundles.resolve("held") / "manifest.json").write_text("{}")
    with pytest.raises(DamagedError, match="bundle held"):
        maintenance.vacuum()
    job = filled.jobs().row(0, named=True)
    assert job["status"] == "failed"
    assert "bundle held" in job["error"]


def test_progress_is_told_by_dates(filled: Lake) -> None:
    heard: list[object] = []

    class Listener:
        def begin(self, what: str, total: float) -> None:
            heard.append((what, total))

        def advance(self, count: float = 1, **_: object) -> None:
            heard.append(count)

        def end(self, _outcome: object | None = None, /) -> None:
            heard.append("end")

    maintainer(store_of(filled)).optimize(["trades"], progress=Listener())
    assert heard == [("compacting trades", 12), 4, 4, 4, "end"]


def test_the_present_day_is_not_compacted(lake: Lake) -> None:
    store = store_of(lake)
    for part in range(2):
        write(store, "trades", trades(2, first=10 * part, step=MINUTE / 60))
    noon = maintainer(Store(lake.root, lambda: T0 + DAY / 2))
    assert noon.optimize(["trades"])["dates"].to_list() == [0]
    tomorrow = maintainer(Store(lake.root, lambda: T0 + DAY))
    assert tomorrow.optimize(["trades"])["dates"].to_list() == [1]


def test_what_cannot_be_is_refused(lake: Lake) -> None:
    maintenance = maintainer(store_of(lake))
    write(lake, "trades", trades())
    with pytest.raises(UsageError, match="in the future"):
        maintenance.optimize(before=utc_now() + DAY)
    with pytest.raises(UsageError, match="no time zone"):
        maintenance.optimize(before=NAIVE)
    with pytest.raises(UsageError, match="running writers"):
        maintenance.vacuum(keep=timedelta(minutes=59))
    for verb in (maintenance.optimize, maintenance.vacuum, maintenance.checkpoint):
        with pytest.raises(UnknownNameError, match="bars_1m does not exist yet"):
            verb(["bars_1m"])
        with pytest.raises(UnknownNameError):
            verb(["tardes"])


def test_an_empty_lake_is_maintained_at_once(lake: Lake) -> None:
    maintenance = maintainer(store_of(lake))
    assert maintenance.vacuum(dry_run=True).files.is_empty()
    assert maintenance.gc(dry_run=True).is_empty()
    assert maintenance.optimize().is_empty()


def test_leftovers_of_crashes_go_when_they_are_old(lake: Lake) -> None:
    unfinished = lake.root.bundles / ".unfinished-0123"
    unfinished.mkdir()
    (unfinished / "files.parquet").write_bytes(b"half")
    (unfinished / ".manifest.json.99.tmp").write_bytes(b"half")
    (lake.root.bundles / "names").mkdir(exist_ok=True)
    temporary = lake.root.bundles / "names" / ".research.0123.tmp"
    fresh = lake.root.bundles / ".fresh.0123.tmp"
    records = lake.root.tables / "trades" / "_checksums"
    records.mkdir(parents=True)
    record = records / ".1.sha256.0123.tmp"
    for path in (temporary, fresh, record):
        path.write_bytes(b"some")
    old = time.time() - 2 * 3600
    for path in (*unfinished.iterdir(), unfinished, temporary, record):
        os.utime(path, (old, old))
    kept = [path for path in lake.root.path.rglob("*") if "unfinished" not in str(path)]
    kept.remove(temporary)
    kept.remove(record)

    maintenance = maintainer(store_of(lake))
    expected = [
        ("bundles/.unfinished-0123", 8, "unfinished bundle"),
        ("bundles/names/.research.0123.tmp", 4, "temporary file"),
        ("tables/trades/_checksums/.1.sha256.0123.tmp", 4, "temporary file"),
    ]
    assert maintenance.gc(dry_run=True).rows() == expected
    assert unfinished.exists()
    assert maintenance.gc().rows() == expected
    assert not unfinished.exists()
    assert not temporary.exists()
    assert all(path.exists() for path in kept)


def test_an_unfinished_bundle_that_still_grows_stays(lake: Lake) -> None:
    unfinished = lake.root.bundles / ".unfinished-0123"
    unfinished.mkdir()
    (unfinished / "files.parquet").write_bytes(b"half")
    old = time.time() - 2 * 3600
    os.utime(unfinished, (old, old))
    assert maintainer(store_of(lake)).gc().is_empty()
    assert unfinished.exists()
