"""A migration adds columns and changes how files are kept; killed at any point, it loses no row."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import CommitConflictError, DamagedError
from lake.jobs import migrate as migrating
from lake.model.partitions import PARTITIONINGS, Granularity
from lake.settings import CacheSettings, Settings
from lake.store import migrate as store_migrate
from lake.store import migration_journal
from lake.store.locks import lock_file
from lake.store.migrate import MigrationResult
from tests import processes
from tests.conftest import DAY, T0, NewLake, funding, store_of, write

SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT")
TIMES = [T0 - 40 * DAY + timedelta(hours=8) * number for number in range(3 * 80)]
NAMES: Any = {"exchange": "binance", "symbol": SYMBOLS[0]}
CHANGES: list[tuple[Granularity, Granularity]] = [
    ("year", "month"),
    ("month", "year"),
    ("year", "day"),
    ("day", "month"),
]


def build(new_lake: NewLake, kind: Granularity = "year") -> Lake:
    lake = new_lake({"funding": kind})
    for start in range(0, len(TIMES), 60):
        for symbol in SYMBOLS:
            write(lake, "funding", funding(TIMES[start : start + 60], symbol))
    return lake


def rows_of(lake: Lake) -> pl.DataFrame:
    return lake.scan("funding").collect()


def partitions_of(lake: Lake) -> list[str]:
    return DeltaTable(str(lake.root.tables / "funding")).metadata().partition_columns


def staged(lake: Lake) -> int:
    """Files of the new granularity, committed or not."""
    return len(list((lake.root.tables / "funding").rglob("month=*/*.parquet")))


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_the_files_of_a_table_are_kept_otherwise(
    new_lake: NewLake, before: Granularity, after: Granularity
) -> None:
    lake = build(new_lake, before)
    rows, bundle = rows_of(lake), lake.bundles.pin("before", table="funding", check=False)
    version = store_of(lake).version(lake.dataset("funding"))
    assert lake.latest("funding", **NAMES).height == 1
    planned = lake.maintenance.migrate({"funding": after})
    assert planned.rows() == [
        ("funding", "granularity", before, after, len(rows), planned["files"][0])
    ]
    assert partitions_of(lake)[-1] == PARTITIONINGS[before].column
    made = lake.maintenance.migrate({"funding": after}, apply=True)
    assert_frame_equal(made, planned)
    assert partitions_of(lake) == list(PARTITIONINGS[after].columns)
    for reader in (lake, Lake(lake.settings)):
        assert_frame_equal(rows_of(reader), rows)
        assert reader.dataset("funding").granularity == after
        assert reader.latest("funding", **NAMES, n=10_000).height == len(TIMES)
        assert_frame_equal(reader.scan("funding", version=version).collect(), rows)
        counted = "SELECT count(*) FROM funding WHERE date >= DATE '2024-01-01'"
        expected = len(rows.filter(pl.col("date") >= T0.date()))
        assert reader.sql(counted).fetchall() == [(expected,)]
        assert reader.sql(counted, at={"funding": version}).fetchall() == [(expected,)]
        assert reader.maintenance.migrate().is_empty()
    assert lake.maintenance.verify("funding").problems.is_empty()
    assert bundle.verify(deep=True) == []
    again = lake.bundles.pin("after", table="funding", check=False)
    assert (again.id, again.verify(deep=True)) == (bundle.id, [])


def test_a_table_is_written_repaired_and_vacuumed_after_it(new_lake: NewLake) -> None:
    lake = build(new_lake)
    bundle = lake.bundles.pin("before", table="funding", check=False)
    lake.maintenance.migrate({"funding": "month"}, apply=True)
    later = [TIMES[-1] + timedelta(hours=8) * (number + 1) for number in range(3)]
    changed = funding([TIMES[0]]).with_columns(funding_rate=pl.lit(0.5))
    assert write(lake, "funding", funding(later)).inserted == 3
    assert write(lake, "funding", changed).updated == 1
    lake.maintenance.optimize(table="funding")
    lake.maintenance.checkpoint("funding")
    lake.maintenance.vacuum(keep="1h")
    assert write(Lake(lake.settings), "funding", funding(later)).inserted == 0
    rows = rows_of(Lake(lake.settings))
    foreign = pl.scan_delta(str(lake.root.tables / "funding")).filter(pl.col("date") >= T0.date())
    assert foreign.collect().height == rows.filter(pl.col("date") >= T0.date()).height
    assert rows.height == len(SYMBOLS) * len(TIMES) + 3
    assert rows.filter(pl.col("funding_rate") == 0.5).height == 1
    assert bundle.verify(deep=True) == []
    difference = lake.bundles.diff("before", lake.bundles.pin("new", table="funding").id)
    assert difference["date"].n_unique() == 2


def test_rows_that_others_write_meanwhile_are_migrated_too(
    new_lake: NewLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, calls = build(new_lake), list[bool]()
    stage = store_migrate._stage

    def write_between(*arguments: Any) -> Any:
        parts = stage(*arguments)
        if not calls:
            calls.append(True)
            other = Lake(lake.settings)
            write(other, "funding", funding([TIMES[-1] + DAY]))
            write(other, "funding", funding([TIMES[0]]).with_columns(funding_rate=pl.lit(0.5)))
        return parts

    monkeypatch.setattr(store_migrate, "_stage", write_between)
    lake.maintenance.migrate({"funding": "month"}, apply=True)
    rows = rows_of(Lake(lake.settings))
    assert rows.height == len(SYMBOLS) * len(TIMES) + 1
    assert rows.filter(pl.col("funding_rate") == 0.5).height == 1
    assert not rows.select("symbol", "timestamp").is_duplicated().any()


def run_and_die(uri: str, moment: str) -> None:
    """Migrate, and kill this process: at the second part, before the commit, or after it."""
    lake = Lake(Settings(uri=uri, cache=CacheSettings(enabled=False)))
    name, module = {
        "part": ("write_files", migration_journal),
        "swap": ("_swap", store_migrate),
        "commit": ("commit_actions", store_migrate),
    }[moment]
    original, calls = getattr(module, name), []

    def die(*arguments: Any, **options: Any) -> Any:
        calls.append(True)
        if moment == "swap" or (moment == "part" and len(calls) == 2):
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if moment == "commit":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, die)
    lake.maintenance.migrate({"funding": "month"}, apply=True)


@pytest.mark.parametrize(("moment", "reused"), [("part", 1), ("swap", 3), ("commit", 0)])
def test_a_killed_migration_leaves_a_lake_that_the_next_run_completes(
    new_lake: NewLake, moment: str, reused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = build(new_lake)
    rows, bundle = rows_of(lake), lake.bundles.pin("before", table="funding", check=False)
    child = processes.start(run_and_die, lake.settings.uri, moment)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    between = Lake(lake.settings)
    assert_frame_equal(rows_of(between), rows)
    assert between.sql("SELECT count(*) FROM funding").fetchall() == [(rows.height,)]
    assert between.bundles.open("before").verify(deep=True) == []
    assert write(between, "funding", funding(TIMES[:3])).inserted == 0
    results: list[MigrationResult] = []
    change = store_migrate.change_granularity

    def note(*arguments: Any, **options: Any) -> MigrationResult:
        results.append(change(*arguments, **options))
        return results[-1]

    monkeypatch.setattr(migrating, "change_granularity", note)
    made = between.maintenance.migrate(apply=True)  # without options: it was noted
    assert made.height == (moment != "commit")
    assert [result.reused > 0 for result in results] == [reused > 0] * (moment != "commit")
    after = Lake(lake.settings)
    assert partitions_of(after)[-1] == "month"
    assert_frame_equal(rows_of(after), rows)
    assert after.maintenance.verify("funding").problems.is_empty()
    for reader in (bundle, after.bundles.open("before")):
        assert reader.verify(deep=True) == []
    live = store_of(after).snapshot(after.dataset("funding")).files()
    assert staged(after) == live.height


def test_a_staged_file_that_was_changed_is_written_again(new_lake: NewLake) -> None:
    lake = build(new_lake)
    rows = rows_of(lake)
    child = processes.start(run_and_die, lake.settings.uri, "swap")
    child.join()
    for path in list((lake.root.tables / "funding").rglob("month=*/*.parquet"))[:2]:
        path.write_bytes(path.read_bytes()[:-9] + b"123456789")
    lake.maintenance.migrate(apply=True, granularity={"funding": "month"})
    assert_frame_equal(rows_of(Lake(lake.settings)), rows)


def test_a_damaged_file_stops_it_and_nothing_changes(new_lake: NewLake) -> None:
    lake = build(new_lake)
    store = store_of(lake)
    snapshot = store.snapshot(lake.dataset("funding"))
    path = Path(snapshot.uri, snapshot.files()["path"][0])
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"123456789")
    with pytest.raises(DamagedError):
        lake.maintenance.migrate({"funding": "month"}, apply=True)
    path.write_bytes(content)
    assert partitions_of(lake)[-1] == "year"
    assert rows_of(lake).height == len(SYMBOLS) * len(TIMES)


def test_two_migrations_of_a_table_do_not_run_at_once(
    new_lake: NewLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = build(new_lake)
    monkeypatch.setattr(migration_journal, "_WAIT", timedelta(0))
    with (
        lock_file(lake.root.tables / "funding" / "_migration.jsonl"),
        pytest.raises(CommitConflictError, match="another process migrates it"),
    ):
        lake.maintenance.migrate({"funding": "month"}, apply=True)


def test_columns_of_a_dataset_file_are_added_without_rewriting_a_file(lake_before: Lake) -> None:
    planned = lake_before.maintenance.migrate()
    tables = ["bars_1h", "bars_1m", "funding"]
    assert planned.filter(pl.col("step") == "columns")["table"].to_list() == tables
    files = sorted(lake_before.root.tables.rglob("date=*/*.parquet"))
    lake_before.maintenance.migrate(apply=True)
    for name in tables:
        schema = store_of(lake_before).open(lake_before.dataset(name)).schema()
        assert "received_at" in [field.name for field in schema.fields]
    assert sorted(lake_before.root.tables.rglob("date=*/*.parquet")) == files
    assert lake_before.maintenance.migrate().is_empty()
    assert lake_before.bundles.open("before").verify(deep=True) == []


def test_the_commit_says_what_it_did(new_lake: NewLake) -> None:
    lake = build(new_lake)
    lake.maintenance.migrate({"funding": "month"}, apply=True)
    [last] = DeltaTable(str(lake.root.tables / "funding")).history(1)
    own = json.loads(last["userMetadata"])
    assert (own["granularity"], own["changes"]) == (["year", "month"], False)
    assert own["rows"] == len(SYMBOLS) * len(TIMES)
    assert (lake.root.path / "lake.json").read_text().count('"funding": "month"') == 1
