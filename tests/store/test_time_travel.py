"""Old versions stay readable for ever, by number and by time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from lake.api import Lake, utc_now
from lake.errors import UnknownNameError, UsageError
from lake.store.compact import CompactionRule, compact, list_files, plan_batches
from tests.conftest import DAY, MINUTE, NAIVE, T0, NewLake, store_of, trades, write

COMMITS = 200


def age(folder: Path, days: int) -> None:
    """Make all files look as if they were written long ago."""
    then = time.time() - days * 86400
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def test_the_first_version_outlives_200_commits_a_checkpoint_and_40_days(new_lake: NewLake) -> None:
    lake = new_lake()
    write(lake, "trades", trades(5))
    bundle = lake.bundles.pin("first", table="trades")
    first = lake.scan("trades").collect()
    first_time = utc_now()
    store = store_of(lake)
    for number in range(2, COMMITS - 1):
        write(store, "trades", trades(1, first=10 * number))
    table = lake.root.tables / "trades"
    DeltaTable(table).create_checkpoint()
    age(table, days=40)
    for number in (COMMITS - 1, COMMITS):  # the first of them makes a checkpoint by itself
        write(store, "trades", trades(1, first=10 * number))
    checkpoints = [path.name for path in (table / "_delta_log").glob("*.checkpoint.parquet")]
    assert max(checkpoints).startswith(f"{COMMITS - 1:020}")

    assert_frame_equal(lake.scan("trades", version=1).collect(), first)
    assert_frame_equal(lake.scan("trades", as_of=first_time).collect(), first)
    assert_frame_equal(bundle.scan("trades").collect(), first)
    assert bundle.verify() == []
    assert lake.scan("trades").collect().height == 5 + COMMITS - 1


def test_as_of_gives_the_version_that_was_the_latest_then(lake: Lake) -> None:
    write(lake, "trades", trades(1))
    times = []
    for number in range(1, 6):
        time.sleep(0.003)
        times.append(utc_now())
        time.sleep(0.003)
        write(lake, "trades", trades(1, first=number))
    heights = [lake.scan("trades", as_of=then).collect().height for then in times]
    assert heights == [1, 2, 3, 4, 5]
    assert lake.scan("trades", as_of=utc_now()).collect().height == 6


def test_a_state_of_the_future_is_not_known(lake: Lake) -> None:
    write(lake, "trades", trades(1))
    tomorrow = utc_now() + timedelta(days=1)
    reads: list[Callable[[], object]] = [
        lambda: lake.scan("trades", as_of=tomorrow),
        lambda: lake.available("trades", as_of=tomorrow),
        lambda: lake.sql("SELECT count(*) FROM trades", as_of=tomorrow),
        lambda: lake.bundles.pin("b", table="trades", as_of=tomorrow),
    ]
    for read in reads:
        with pytest.raises(UsageError, match="is in the future: it is"):
            read()


def test_as_of_does_not_depend_on_the_times_of_files(lake: Lake) -> None:
    write(lake, "trades", trades(1))
    time.sleep(0.003)
    between = utc_now()
    time.sleep(0.003)
    write(lake, "trades", trades(2))
    age(lake.root.path, days=400)
    assert lake.scan("trades", as_of=between).collect().height == 1


def test_as_of_includes_a_commit_of_the_very_time(lake: Lake) -> None:
    write(lake, "trades", trades(2))
    committed = lake.versions("trades")["time"].max()
    assert isinstance(committed, datetime)
    assert lake.scan("trades", as_of=committed).collect().height == 2


def test_before_the_first_commit_there_is_no_table(lake: Lake) -> None:
    write(lake, "trades", trades())
    with pytest.raises(UnknownNameError, match="trades did not exist at 2020-01-01T00:00:00Z") as e:
        lake.scan("trades", as_of=datetime(2020, 1, 1, tzinfo=UTC))
    assert e.value.hint.startswith("It begins at 2")


def test_a_table_that_was_never_written_is_named(lake: Lake) -> None:
    ways: list[dict[str, Any]] = [{}, {"version": 0}, {"as_of": utc_now()}]
    for arguments in ways:
        with pytest.raises(UnknownNameError, match="table trades does not exist yet"):
            lake.scan("trades", **arguments)


@pytest.mark.parametrize("version", [-1, 2, 99, 2**70])
def test_an_unknown_version_says_which_there_are(lake: Lake, version: int) -> None:
    write(lake, "trades", trades())
    with pytest.raises(UnknownNameError, match=f"has no version {version}") as caught:
        lake.scan("trades", version=version)
    assert caught.value.hint == "It has versions 0 to 1."


def test_a_time_without_zone_is_refused(lake: Lake) -> None:
    write(lake, "trades", trades())
    with pytest.raises(UsageError, match="has no time zone"):
        lake.scan("trades", as_of=NAIVE)


def test_version_and_time_exclude_each_other(lake: Lake) -> None:
    write(lake, "trades", trades())
    with pytest.raises(UsageError, match="exclude each other"):
        lake.scan("trades", version=1, as_of=utc_now())


def test_sql_reads_an_old_version(lake: Lake) -> None:
    write(lake, "trades", trades(2))
    write(lake, "trades", trades(5))
    query = "SELECT count(*) FROM trades"
    assert lake.sql(query).fetchall() == [(5,)]
    assert lake.sql(query, at={"trades": 1}).fetchall() == [(2,)]
    with pytest.raises(UnknownNameError, match="has no version 9"):
        lake.sql(query, at={"trades": 9})


def test_a_snapshot_stays_as_it_is_through_all_that_is_committed_later(lake: Lake) -> None:
    store = store_of(lake)
    for part in range(4):
        write(store, "trades", trades(3, first=3 * part, step=MINUTE))
    dataset = store.catalog.dataset("trades")
    latest = store.latest(dataset)
    handle = store.open(dataset)
    snapshot, seen = store.snapshot(dataset), latest.files()
    version, listed, rows = snapshot.version, snapshot.files(), snapshot.collect()
    now = store.now()
    rule = CompactionRule(before=now, settled=now)
    for batch in plan_batches(list_files(snapshot), dataset, rule):
        assert compact(handle, dataset, batch, rule, now=now, job_id="job") is not None
    write(store, "trades", trades(3, start=T0 + 9 * DAY, step=MINUTE))

    assert handle.version() > version
    assert latest.files().height < seen.height == listed.height
    assert snapshot.version == version
    assert_frame_equal(snapshot.files(), listed)
    assert_frame_equal(snapshot.collect(), rows)
