"""A repair that is killed: nothing that it changed goes without a record, and a rerun completes."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.jobs.repairs.records import Records, recover
from lake.jobs.repairs.repair import undo
from lake.sandbox import Sandbox
from tests import processes
from tests.conftest import copy_lake
from tests.jobs.conftest import NOW, MakeLake, settings_for
from tests.jobs.repairs.damage import (
    BTC,
    SINCE,
    UNTIL,
    delete,
    finding,
    findings,
    minutes,
    repair,
    rows,
    store_of,
)

TABLES = ("bars_1m", "bars_5m", "bars_15m")
GAPS = [minutes(60, SINCE + timedelta(hours=hour)) for hour in (2, 8, 14, 20)]
FOUND = findings(*(finding(table, BTC, gap) for table in TABLES for gap in GAPS))


def start(path: Path, url: str, *, dies: bool) -> BaseProcess:
    """Start a repair in a child; it may kill itself between its first commit and the record."""
    return processes.start(run, path, url, dies)


def run(path: Path, url: str, dies: bool) -> None:
    """Repair what was found, in this process."""
    if dies:
        Records.record_commits = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    repair(Lake(settings_for(path, url), now=lambda: NOW), FOUND)


def _slots() -> int:
    return sum(60 // length * len(GAPS) for length in (1, 5, 15))


@pytest.fixture(scope="module")
def truth(quiet_lake: MakeLake) -> Lake:
    lake = quiet_lake()
    for table in TABLES:
        lake.ingest(table, exchange="binance", symbol="BTC/USDT", since=SINCE, until=UNTIL)
    return lake


@pytest.fixture(scope="module")
def damaged_lake(truth: Lake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = copy_lake(truth, tmp_path_factory.mktemp("damaged") / "lake")
    for table in TABLES:
        for gap in GAPS:
            delete(lake, table, BTC, gap)
    return lake


@pytest.fixture
def make_damaged(damaged_lake: Lake, sandbox: Sandbox, tmp_path: Path) -> Callable[[], Lake]:
    """Makes copies of the damaged lake that ask the sandbox."""
    numbers = itertools.count()

    def make() -> Lake:
        path = copy_lake(damaged_lake, tmp_path / f"damaged-{next(numbers)}").root.path
        return Lake(settings_for(path, sandbox.url), now=lambda: NOW)

    return make


def test_killed_between_commit_and_record_the_next_run_writes_the_record(
    make_damaged: Callable[[], Lake], sandbox: Sandbox, truth: Lake
) -> None:
    lake = make_damaged()
    damaged = rows(lake, "bars_1m")
    child = start(lake.root.path, sandbox.url, dies=True)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert rows(lake, "bars_1m").height == 1440
    assert "repairs" not in lake.tables()["table"].to_list()

    report = repair(lake, FOUND)
    assert [one.window for one in report.recovered] == GAPS
    assert {one.table for one in report.applied} == {"bars_5m", "bars_15m"}
    recorded = rows(lake, "repairs")
    assert recorded["inserted"].sum() == _slots()
    first = recorded.filter(dataset="bars_1m")
    assert first["findings"].to_list() == [[one] for one in FOUND["finding_id"].head(4)]
    jobs = lake.jobs().filter(command="quality repair")
    assert sorted(jobs["status"]) == ["interrupted", "ok"]
    for table in TABLES:
        assert_frame_equal(rows(lake, table), rows(truth, table))
    assert not repair(lake, FOUND).recovered

    for repair_id in first["repair_id"]:
        undo(store_of(lake), repair_id)
    assert_frame_equal(rows(lake, "bars_1m"), damaged)


def test_what_a_killed_run_changed_can_be_undone(
    make_damaged: Callable[[], Lake], sandbox: Sandbox
) -> None:
    lake = make_damaged()
    damaged = rows(lake, "bars_1m")
    start(lake.root.path, sandbox.url, dies=True).join()
    store = store_of(lake)
    found = recover(store)
    assert not recover(store)
    for one in found:
        assert undo(store, one.repair_id).removed == 60
    assert_frame_equal(rows(lake, "bars_1m"), damaged)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_at_random_moments_every_row_is_on_record(
    make_damaged: Callable[[], Lake], sandbox: Sandbox, truth: Lake
) -> None:
    dice = random.Random(20260310)
    timed = make_damaged()
    begun = time.monotonic()
    start(timed.root.path, sandbox.url, dies=False).join()
    duration = time.monotonic() - begun
    for _ in range(6):
        lake = make_damaged()
        child = start(lake.root.path, sandbox.url, dies=False)
        time.sleep(dice.uniform(0.3, 1.0) * duration)
        child.kill()
        child.join()
        repair(lake, FOUND)
        for table in TABLES:
            assert_frame_equal(rows(lake, table), rows(truth, table))
        assert rows(lake, "repairs")["inserted"].sum() == _slots()
        assert not repair(lake, FOUND).applied
