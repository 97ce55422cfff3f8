"""Vacuum: what a bundle needs stays, whatever is asked for; the rest goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.api import Lake, utc_now
from lake.errors import DamagedError, UnknownNameError, UsageError
from lake.store.log import Commit
from lake.store.store import Store
from lake.store.vacuum import BundleFiles, DiskFile, VacuumReport, plan_vacuum, vacuum
from tests.conftest import DAY, MINUTE, T0, bars, store_of, trades, write
from tests.store.test_compaction import SYMBOLS, on_disk, optimize

WEEK = timedelta(days=7)
HOUR = timedelta(hours=1)


def later(lake: Lake, by: timedelta = 30 * DAY) -> Store:
    """A store of a lake for which it is later."""
    return Store(lake.root, lambda: utc_now() + by)


def clean(
    store: Store,
    *holds: BundleFiles,
    keep: timedelta = WEEK,
    dry_run: bool = False,
    tables: Sequence[str] = ("bars_1m",),
) -> VacuumReport:
    datasets = [store.catalog.dataset(name) for name in tables]
    return vacuum(store, datasets, holds, keep=keep, dry_run=dry_run)


def held(store: Store, version: int | None = None, bundle: str = "b" * 64) -> BundleFiles:
    """A hold of `bars_1m` at a version, as a bundle of that version has it."""
    snapshot = store.snapshot(store.catalog.dataset("bars_1m"), version=version)
    paths = frozenset(snapshot.files()["path"])
    return BundleFiles(
        bundle, "research", "bars_1m", snapshot.table_id, snapshot.version, lambda: paths
    )


def revise(store: Store, times: int = 2) -> list[int]:
    """Bars of several markets, revised some times; gives the versions with all of them."""
    versions = []
    for turn in range(times + 1):
        for symbol in SYMBOLS:
            written = write(store, "bars_1m", bars(3, symbol=symbol, volume=[turn + 1.0] * 3))
        assert written.version is not None
        versions.append(written.version)
    return versions


def loosen(table: Path) -> None:
    """What deltalake's own vacuum and log cleanup would obey."""
    DeltaTable(table).alter.set_table_properties(
        {
            "delta.deletedFileRetentionDuration": "interval 0 seconds",
            "delta.logRetentionDuration": "interval 0 seconds",
            "delta.enableExpiredLogCleanup": "true",
        }
    )


def test_what_no_version_and_no_bundle_needs_goes(lake: Lake) -> None:
    first, *_ = revise(store_of(lake))
    rows = lake.scan("bars_1m").collect()
    before = on_disk(store_of(lake), "bars_1m")
    report = clean(later(lake))
    assert set(report.files["path"]) == before - on_disk(store_of(lake), "bars_1m")
    assert report.files.height == 2 * len(SYMBOLS)
    assert set(report.files["reason"]) == {"older version"}
    assert report.files["deleted"].all()
    assert report.held.is_empty()
    assert_frame_equal(lake.scan("bars_1m").collect(), rows)
    with pytest.raises(UnknownNameError, match="a vacuum"):
        lake.scan("bars_1m", version=first).collect()
    assert clean(later(lake)).files.is_empty()


def test_a_held_version_reads_the_same_after_compaction_and_vacuum(lake: Lake) -> None:
    store = store_of(lake)
    _, middle, _ = revise(store)
    hold = held(store, middle)
    rows, pinned = lake.scan("bars_1m").collect(), lake.scan("bars_1m", version=middle).collect()
    for part in range(2):
        write(store, "bars_1m", bars(3, start=T0 + DAY + part * 10 * MINUTE))
    rows = lake.scan("bars_1m").collect()
    optimize(store, "bars_1m")
    report = clean(later(lake), hold)
    assert report.files.height == len(SYMBOLS) + 2
    assert_frame_equal(lake.scan("bars_1m").collect(), rows)
    assert_frame_equal(lake.scan("bars_1m", version=middle).collect(), pinned)

    released = clean(later(lake))
    assert released.files.height == len(SYMBOLS)
    assert_frame_equal(lake.scan("bars_1m").collect(), rows)


def test_a_dry_run_tells_what_goes_and_which_bundle_holds_what_back(lake: Lake) -> None:
    store = store_of(lake)
    first, middle, last = revise(store)
    bundles = [held(store, first, "a" * 64), held(store, middle, "b" * 64), held(store, last)]
    before = on_disk(store, "bars_1m")
    dry = clean(later(lake), *bundles[1:], dry_run=True)
    assert on_disk(store, "bars_1m") == before
    assert not dry.files["deleted"].any()
    assert dry.held.rows() == [
        ("b" * 64, "research", "bars_1m", len(SYMBOLS), dry.held["bytes"].item())
    ]
    report = clean(later(lake), *bundles[1:])
    assert_frame_equal(report.files, dry.files.with_columns(deleted=pl.lit(value=True)))
    gone = before - on_disk(store, "bars_1m")
    assert gone == set(dry.files["path"])
    freed = clean(later(lake), dry_run=True)
    assert dry.held["bytes"].item() == freed.files["bytes"].sum()


@pytest.mark.parametrize("keep", [HOUR, WEEK, timedelta.max])
def test_versions_of_the_time_that_is_kept_stay_readable(lake: Lake, keep: timedelta) -> None:
    versions = revise(store_of(lake))
    rows = {v: lake.scan("bars_1m", version=v).collect() for v in versions}
    assert clean(store_of(lake), keep=keep).files.is_empty()
    for version, frame in rows.items():
        assert_frame_equal(lake.scan("bars_1m", version=version).collect(), frame)


@pytest.mark.parametrize("keep", [timedelta(0), -DAY, HOUR - timedelta(microseconds=1)])
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_time_so_short_that_running_writers_lose_files_is_refused(
    lake: Lake, keep: timedelta, dry_run: bool
) -> None:
    revise(store_of(lake))
    before = on_disk(store_of(lake), "bars_1m")
    with pytest.raises(UsageError, match="running writers") as caught:
        clean(later(lake), keep=keep, dry_run=dry_run)
    assert "one hour" in caught.value.hint
    assert on_disk(store_of(lake), "bars_1m") == before


def test_table_properties_that_keep_nothing_endanger_no_bundle(lake: Lake) -> None:
    store = store_of(lake)
    first, *_ = revise(store)
    hold, pinned = held(store, first), lake.scan("bars_1m", version=first).collect()
    table = lake.root.tables / "bars_1m"
    loosen(table)
    recent = lake.scan("bars_1m", version=first + 1).collect()
    clean(store, hold, keep=HOUR)
    assert_frame_equal(lake.scan("bars_1m", version=first + 1).collect(), recent)
    clean(later(lake), hold, keep=HOUR)
    write(later(lake), "bars_1m", bars(3, start=T0 + DAY))
    assert_frame_equal(lake.scan("bars_1m", version=first).collect(), pinned)


def test_files_of_writers_at_work_stay_and_those_of_dead_ones_go(lake: Lake) -> None:
    store = store_of(lake)
    revise(store, times=0)
    folder = next((lake.root.tables / "bars_1m").rglob("*.parquet")).parent
    old = utc_now().timestamp() - 2 * WEEK.total_seconds()
    dead = [folder / "part-dead.parquet", folder / "part-dead.parquet#1"]
    fresh = folder / "part-fresh.parquet"
    for path in (*dead, fresh):
        path.write_bytes(b"half")
    for path in dead:
        os.utime(path, (old, old))
    report = clean(store)
    assert [Path(path).name for path in report.files["path"]] == [path.name for path in dead]
    assert report.files["reason"].to_list() == ["never committed"] * 2
    assert fresh.exists()
    clean(later(lake))
    assert not fresh.exists()


def test_what_is_no_data_file_stays(lake: Lake) -> None:
    revise(store_of(lake))
    table = lake.root.tables / "bars_1m"
    folder = next(table.rglob("*.parquet")).parent
    (table / "_other").mkdir()
    foreign = [
        folder / "notes.txt",
        folder / ".hidden.parquet",
        folder / "_mine.parquet",
        table / "_other" / "part.parquet",
    ]
    for path in foreign:
        path.write_bytes(b"mine")
    log = sorted((table / "_delta_log").iterdir())
    clean(later(lake, 4000 * DAY), keep=HOUR)
    assert all(path.exists() for path in foreign)
    assert sorted((table / "_delta_log").iterdir()) == log


def test_folders_of_partitions_without_files_go(lake: Lake) -> None:
    store = store_of(lake)
    revise(store, times=0)
    folder = lake.root.tables / "bars_1m" / "exchange=gone" / "symbol=X" / "date=2024-01-01"
    folder.mkdir(parents=True)
    (folder / "part-dead.parquet").write_bytes(b"half")
    clean(later(lake))
    assert not folder.parent.parent.exists()
    assert lake.scan("bars_1m").collect().height == 3 * len(SYMBOLS)


def test_the_list_of_a_bundle_guards_files_where_its_version_cannot(lake: Lake) -> None:
    store = store_of(lake)
    first, *_ = revise(store)
    hold = held(store, first)
    another = replace(hold, table_id="the table was made anew", version=10**6)
    report = clean(later(lake), another)
    assert report.held["files"].to_list() == [len(SYMBOLS)]
    assert hold.paths() <= on_disk(store, "bars_1m")


def test_the_version_of_a_bundle_guards_files_where_its_list_does_not(lake: Lake) -> None:
    store = store_of(lake)
    first, *_ = revise(store)
    hold = held(store, first)
    clean(later(lake), replace(hold, paths=frozenset))
    assert hold.paths() <= on_disk(store, "bars_1m")


def _no_list() -> frozenset[str]:
    raise DamagedError("files.parquet is damaged")


def test_a_bundle_whose_needs_cannot_be_told_stops_everything(lake: Lake) -> None:
    store = store_of(lake)
    first, *_ = revise(store)
    write(store, "trades", trades(3))
    hold, before = held(store, first), on_disk(store, "bars_1m")
    for broken in (replace(hold, version=10**6), replace(hold, paths=_no_list)):
        with pytest.raises(DamagedError, match="bundle research") as caught:
            clean(later(lake), broken, tables=("trades", "bars_1m"))
        assert "lake bundle rm research" in caught.value.hint
        assert on_disk(store, "bars_1m") == before


def test_a_log_with_a_hole_stops_it(lake: Lake) -> None:
    store = store_of(lake)
    revise(store)
    DeltaTable(lake.root.tables / "bars_1m").create_checkpoint()
    (lake.root.tables / "bars_1m" / "_delta_log" / f"{3:020}.json").unlink()
    before = on_disk(store, "bars_1m")
    with pytest.raises(DamagedError, match="commit 3 cannot be read"):
        clean(later(lake))
    assert on_disk(store, "bars_1m") == before


def test_a_table_whose_own_files_are_missing_is_left_alone(lake: Lake) -> None:
    store = store_of(lake)
    revise(store)
    latest = store.snapshot(store.catalog.dataset("bars_1m")).files()["path"][0]
    (lake.root.tables / "bars_1m" / latest).unlink()
    before = on_disk(store, "bars_1m")
    with pytest.raises(DamagedError, match="1 of its data files are not on disk"):
        clean(later(lake))
    assert on_disk(store, "bars_1m") == before


PATHS = st.frozensets(st.sampled_from([f"p{n}" for n in range(12)]), max_size=4)
TIMES = st.integers(0, 100).map(lambda hours: T0 + hours * HOUR)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Commit], list[frozenset[str]]]:
    """A log, and the files of each of its versions. Clocks of writers may go back."""
    alive: frozenset[str] = frozenset()
    log, versions = [], []
    for version, (added, removed, time) in enumerate(
        draw(st.lists(st.tuples(PATHS, PATHS, TIMES), min_size=1, max_size=8))
    ):
        alive = (alive - removed) | added
        log.append(Commit(version, time, added))
        versions.append(alive)
    return log, versions


@given(
    histories(),
    st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(0, 7), PATHS), max_size=3),
    st.lists(st.tuples(st.sampled_from([f"p{n}" for n in range(20)]), TIMES), max_size=20),
    TIMES,
)
def test_nothing_that_anybody_needs_is_ever_unneeded(
    history: tuple[list[Commit], list[frozenset[str]]],
    bundles: Mapping[str, tuple[int, frozenset[str]]],
    disk: list[tuple[str, datetime]],
    cutoff: datetime,
) -> None:
    log, versions = history
    files = [DiskFile(path, 1, modified) for path, modified in dict(disk).items()]
    holds = {
        (bundle, bundle): versions[version % len(versions)] | paths
        for bundle, (version, paths) in bundles.items()
    }
    plan = plan_vacuum(files, log, lambda version: versions[version], holds, cutoff)
    gone = {entry.file.path for entry in plan.unneeded}

    needed = set(versions[-1]).union(*holds.values())
    begun = max((v for v, entry in enumerate(log) if entry.time <= cutoff), default=0)
    for version, commit in enumerate(log):
        if version >= begun or commit.time > cutoff:
            needed |= versions[version] | commit.added
    assert not gone & needed
    named = set[str]().union(*(commit.added for commit in log))
    assert all(entry.file.modified < cutoff or entry.file.path in named for entry in plan.unneeded)
    by_reason = {entry.file.path: entry.reason for entry in plan.unneeded}
    assert all((reason == "older version") == (path in named) for path, reason in by_reason.items())

    without = plan_vacuum(files, log, lambda version: versions[version], {}, cutoff)
    spare = {entry.file.path for entry in without.unneeded}
    assert gone == spare.difference(*holds.values())
    for bundle, kept in plan.held.items():
        assert {file.path for file in kept} == spare & holds[bundle]


@given(histories(), TIMES)
def test_all_that_nobody_needs_goes(
    history: tuple[list[Commit], list[frozenset[str]]], cutoff: datetime
) -> None:
    log, versions = history
    in_order = [replace(c, time=T0 + n * HOUR) for n, c in enumerate(log)]
    named = frozenset[str]().union(*(commit.added for commit in log))
    files = [DiskFile(path, 1, T0) for path in named]
    files_at: Callable[[int], frozenset[str]] = lambda version: versions[version]  # noqa: E731
    gone = {
        entry.file.path for entry in plan_vacuum(files, in_order, files_at, {}, cutoff).unneeded
    }
    begun = max((n for n, commit in enumerate(in_order) if commit.time <= cutoff), default=0)
    needed = frozenset[str]().union(*versions[begun:])
    recent = frozenset[str]().union(*(commit.added for commit in log[begun:]))
    assert gone == named - needed - recent
