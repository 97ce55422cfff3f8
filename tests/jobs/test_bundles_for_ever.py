"""Bundles outlive ingestion, revisions, compaction, vacuum, an ageing log, and kills."""

from __future__ import annotations

import os
import random
import time
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from lake.api import Lake, utc_now
from lake.bundles.bundle import Bundle
from lake.errors import DamagedError, UsageError
from lake.settings import CacheSettings, Settings
from lake.store.store import Store
from tests.conftest import DAY, MINUTE, T0, NewLake, bars, trades, write
from tests.jobs import bundle_children

TABLES = ("bars_1m", "trades")
COMMITS = 500
PINS = 10


class Calendar:
    """A present that can be moved on: what was committed becomes old without waiting."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


def opened(lake: Lake, now: Calendar) -> Lake:
    settings = Settings(uri=str(lake.root.path), cache=CacheSettings(enabled=False))
    return Lake(settings, now)


def age_log(lake: Lake, table: str, days: int) -> None:
    """Make the log's files look old, and write a checkpoint: what Delta's clean-up waits for."""
    then = time.time() - days * 86_400
    for file in (lake.root.tables / table / "_delta_log").glob("*"):
        os.utime(file, (then, then))
    lake.maintenance.checkpoint([table])


def commit(store: Store, dice: random.Random, number: int) -> None:
    """New rows, or other values of rows that are there."""
    day = number // 40
    if dice.random() < 0.3:
        start = T0 + dice.randrange(day + 1) * DAY
        write(store, "bars_1m", bars(20, start=start, volume=[dice.random() for _ in range(20)]))
    elif dice.random() < 0.5:
        start = T0 + day * DAY + (number % 40) * 30 * MINUTE
        write(store, "bars_1m", bars(30, start=start, symbol=dice.choice(("BTC/USDT", "ETH/USDT"))))
    else:
        write(store, "trades", trades(20, first=number * 20, step=MINUTE))


def frames(bundle: Bundle) -> dict[str, pl.DataFrame]:
    return {table: bundle.scan(table).collect() for table in bundle.tables}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_bundles_read_the_same_after_five_hundred_commits_and_all_maintenance(
    lake: Lake,
) -> None:
    now = Calendar()
    lake = opened(lake, now)
    store = Store(lake.root, now)
    dice = random.Random(20261123)
    saved: dict[str, dict[str, pl.DataFrame]] = {}
    vacuumed = 0
    for table, frame in (("bars_1m", bars(5)), ("trades", trades(5))):
        write(store, table, frame)
    for number in range(COMMITS):
        commit(store, dice, number)
        if number % (COMMITS // PINS) == 25:
            bundle = lake.bundles.pin(f"pin-{len(saved)}", table=TABLES, check=not saved)
            saved[bundle.id] = frames(bundle)
        if number % 60 == 59:
            lake.maintenance.optimize(before=now() if dice.random() < 0.5 else None)
        if number % 100 == 99:
            now.ahead += timedelta(days=40)
            for table in TABLES:
                age_log(lake, table, 40)
            vacuumed += lake.maintenance.vacuum(keep=timedelta(hours=1)).files.height
    assert len(saved) == PINS
    assert vacuumed > 100, "the vacuum had nothing to do"
    for bundle_id, before in saved.items():
        bundle = opened(lake, now).bundles.open(bundle_id)
        assert bundle.verify(deep=True) == []
        for table, frame in before.items():
            assert_frame_equal(bundle.scan(table).collect(), frame)
            at_version = lake.scan(table, version=bundle.contents.ref(table).version).collect()
            assert_frame_equal(at_version, frame)
    for bundle_id in saved:
        lake.bundles.rm(bundle_id)
    now.ahead += timedelta(days=40)
    assert lake.maintenance.vacuum().files.height > 0, "only the bundles held files back"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_random_moments_no_bundle_breaks(lake: Lake) -> None:
    """Children pin, compact and vacuum, and are killed; what was pinned before reads the same."""
    store = Store(lake.root, utc_now)
    for number in range(12):
        write(store, "bars_1m", bars(200, start=T0 + number * 100 * MINUTE))
        write(store, "trades", trades(200, first=number * 100))
    pinned = opened(lake, Calendar()).bundles.pin("kept", table=TABLES)
    before = frames(pinned)
    begun = time.monotonic()
    bundle_children.start(lake.root.path, 1).join()
    duration = time.monotonic() - begun
    dice = random.Random(5)
    for number in range(6):
        child = bundle_children.start(lake.root.path, number + 2)
        time.sleep(dice.uniform(0.2, 0.95) * duration)
        child.kill()
        child.join()
        reopened = opened(lake, Calendar()).bundles.open("kept")
        assert reopened.verify(deep=True) == []
        for table, frame in before.items():
            assert_frame_equal(reopened.scan(table).collect(), frame)
        for bundle_id in lake.bundles.ls()["id"]:
            assert lake.bundles.open(bundle_id).verify(deep=True) == []
    assert lake.bundles.ls().height > 1, "no child lived long enough to pin"
    bundle_children.work(lake.root.path, 99)


def test_no_setting_makes_a_vacuum_break_a_pin(lake: Lake) -> None:
    now = Calendar()
    lake = opened(lake, now)
    for number in range(4):
        write(Store(lake.root, now), "bars_1m", bars(10, volume=[float(number)] * 10))
    bundle = lake.bundles.pin("b", table="bars_1m", until=T0 + 5 * MINUTE)
    before = frames(bundle)
    write(lake, "bars_1m", bars(10, volume=[9.0] * 10))
    path = lake.root.tables / "bars_1m"
    DeltaTable(path).alter.set_table_properties(
        {
            "delta.deletedFileRetentionDuration": "interval 0 seconds",
            "delta.logRetentionDuration": "interval 0 seconds",
            "delta.enableExpiredLogCleanup": "true",
        }
    )
    age_log(lake, "bars_1m", 400)
    write(lake, "bars_1m", bars(10, volume=[10.0] * 10))
    now.ahead = timedelta(days=400)
    with pytest.raises(UsageError, match="one hour or more"):
        lake.maintenance.vacuum(keep=timedelta())
    report = lake.maintenance.vacuum(keep=timedelta(hours=1))
    assert report.files.height > 0
    assert report.held.select("name", "files").rows() == [("b", 1)]
    reopened = lake.bundles.open("b")
    assert reopened.verify(deep=True) == []
    assert_frame_equal(reopened.scan("bars_1m").collect(), before["bars_1m"])


def test_a_vacuum_refuses_where_a_bundle_cannot_be_read(new_lake: NewLake) -> None:
    now = Calendar()
    lake = opened(new_lake(), now)
    write(lake, "trades", trades())
    bundle = lake.bundles.pin("b", table="trades")
    write(lake, "trades", trades(9))
    lake.maintenance.optimize(before=now())
    manifest: Path = lake.root.bundles / bundle.id / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(content[:100])
    now.ahead = timedelta(days=400)
    with pytest.raises(DamagedError, match="bundle b cannot be read, so the files that it needs"):
        lake.maintenance.vacuum()
    manifest.write_bytes(content)
    lake.maintenance.vacuum()
    assert lake.bundles.open("b").verify(deep=True) == []
