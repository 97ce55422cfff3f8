"""Jobs while they run, and after a kill or a full disk: no reader takes a dead one for running."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from lake.api import Lake
from lake.errors import StorageError
from lake.jobs.job import WriteCounts, record_job
from lake.settings import Settings
from lake.store.ledger import Ledger
from lake.store.running import RunningJobs
from tests import processes
from tests.conftest import store_of
from tests.store.test_storage_faults import disk, fill

__all__ = ["disk"]


def work(path: str, *, for_ever: bool = True) -> None:
    """Run a job in this process until it is killed."""
    store = store_of(Lake(Settings(uri=path)))
    with record_job(Ledger(store), "wait", {"n": 1}, WriteCounts()):
        time.sleep(600 if for_ever else 0)


def start(lake: Lake, *, for_ever: bool = True) -> BaseProcess:
    """Start a job in a process of its own, and wait for its file."""
    path, before = lake.root.path, statuses(lake)
    child = processes.CONTEXT.Process(target=work, args=(str(path),), kwargs={"for_ever": for_ever})
    child.start()
    deadline = time.monotonic() + 60
    while statuses(lake) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    return child


def kill(child: BaseProcess) -> None:
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def statuses(lake: Lake) -> list[str]:
    return Ledger(store_of(lake)).read_jobs()["status"].to_list()


def files(lake: Lake) -> list[Path]:
    return list((lake.root.path / "jobs").iterdir())


def recorded(lake: Lake) -> list[str]:
    """Statuses in the table, as SQL reads it."""
    return list(lake.sql("SELECT status FROM jobs ORDER BY timestamp").pl()["status"])


def test_a_job_is_one_commit_and_leaves_no_file(lake: Lake) -> None:
    store = store_of(lake)
    for _ in range(3):
        with record_job(Ledger(store), "test", {}, WriteCounts()):
            assert statuses(lake)[-1] == "running"
    assert lake.versions("jobs").filter(operation="MERGE").height == 3
    assert statuses(lake) == recorded(lake) == ["ok"] * 3
    assert files(lake) == []


def test_a_killed_job_is_interrupted_for_all_and_recorded_by_the_next(lake: Lake) -> None:
    child = start(lake)
    assert statuses(lake) == ["running"]
    assert lake.jobs()["status"].to_list() == ["running"]
    kill(child)
    assert statuses(lake) == ["interrupted"]
    assert not lake.root.tables.joinpath("jobs").exists()
    with record_job(Ledger(store_of(lake)), "next", {}, WriteCounts()):
        pass
    assert recorded(lake) == ["interrupted", "ok"]
    [killed, _] = lake.jobs().iter_rows(named=True)
    assert (killed["command"], killed["arguments"]) == ("wait", '{"n": 1}')
    assert killed["finished_at"] is None
    assert files(lake) == []


def test_a_job_that_runs_is_left_alone(lake: Lake) -> None:
    child = start(lake)
    Ledger(store_of(lake)).record_interrupted()
    assert statuses(lake) == ["running"]
    kill(child)


def test_a_job_killed_after_its_record_stays_what_it_was(lake: Lake) -> None:
    store = store_of(lake)
    ledger = Ledger(store)
    job = ledger.start_job("test", {})
    [path] = files(lake)
    content = path.read_bytes()
    ledger.finish_job(job, "ok", {})
    path.write_bytes(content)  # a kill between record and removal leaves both
    assert statuses(lake) == ["ok"]
    ledger.record_interrupted()
    assert recorded(lake) == ["ok"]
    assert files(lake) == []


def test_two_processes_record_a_dead_job_once(lake: Lake) -> None:
    for child in [start(lake) for _ in range(3)]:
        kill(child)
    rivals = [start(lake, for_ever=False) for _ in range(3)]
    for rival in rivals:
        rival.join()
    jobs = Ledger(store_of(lake)).read_jobs()
    assert sorted(jobs["status"]) == ["interrupted"] * 3 + ["ok"] * 3
    commits = lake.versions("jobs").filter(operation="MERGE")
    assert commits["inserted"].sum() == 6
    assert files(lake) == []


def test_a_job_that_a_full_disk_ends_is_interrupted(disk: Path) -> None:
    lake = Lake.create(Settings(uri=str(disk / "lake")))
    ledger = Ledger(store_of(lake))
    with record_job(ledger, "first", {}, WriteCounts()):
        pass
    with (
        pytest.raises(StorageError, match="the disk is full"),
        record_job(ledger, "second", {}, WriteCounts()),
    ):
        filler = fill(disk, 0)
    assert statuses(lake) == ["ok", "interrupted"]
    with pytest.raises(StorageError, match="the disk is full"):
        ledger.start_job("third", {})
    filler.unlink()
    with record_job(ledger, "fourth", {}, WriteCounts()):
        pass
    assert recorded(lake) == ["ok", "interrupted", "ok"]


def test_more_dead_jobs_than_a_process_may_open_files_stop_nothing(lake: Lake) -> None:
    folder, limits = lake.root.path / "jobs", resource.getrlimit(resource.RLIMIT_NOFILE)
    folder.mkdir()
    for number in range(600):
        facts = {"job_id": f"{number}", "command": "test", "arguments": "{}", "version": "1"}
        text = json.dumps({**facts, "started_at": "2024-01-01T00:00:00+00:00"})
        (folder / f"20240101T000000-{number:03}.json").write_text(text)
    ledger = Ledger(store_of(lake))
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    try:
        for _ in range(3):
            with record_job(ledger, "test", {}, WriteCounts()):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert files(lake) == []
    assert Counter(recorded(lake)) == {"interrupted": 600, "ok": 3}


FACTS = {
    "job_id": "1",
    "command": "test",
    "arguments": "{}",
    "started_at": "2024-01-01T00:00:00+00:00",
    "version": "1",
}
DAMAGED: dict[str, str | dict[str, str]] = {
    "cut": "{",
    "nested": "[" * 100_000,
    "no zone": {"started_at": "2024-01-01T00:00:00"},
    "before all times": {"started_at": "0001-01-01T00:00:00+14:00"},
    "after all times": {"started_at": "9999-12-31T23:59:59.999999+00:00"},
    "no text": {"command": "\ud800"},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_of_a_job_stops_nothing(lake: Lake, name: str) -> None:
    folder, damage = lake.root.path / "jobs", DAMAGED[name]
    folder.mkdir()
    text = damage if isinstance(damage, str) else json.dumps({**FACTS, **damage})
    (folder / "20260101T000000-0.json").write_text(text)
    assert RunningJobs(lake.root.path).read() == []
    with record_job(Ledger(store_of(lake)), "test", {}, WriteCounts()):
        pass
    assert recorded(lake) == ["ok"]
    assert files(lake) == []


def test_a_pipe_and_a_folder_among_the_files_of_jobs_are_left_alone(lake: Lake) -> None:
    folder = lake.root.path / "jobs"
    (folder / "folder.json").mkdir(parents=True)
    os.mkfifo(folder / "pipe.json")
    with record_job(Ledger(store_of(lake)), "test", {}, WriteCounts()):
        assert statuses(lake) == ["running"]
    assert recorded(lake) == ["ok"]
    assert {path.name for path in files(lake)} == {"folder.json", "pipe.json"}


def test_a_copied_file_of_a_job_is_recorded_once_and_removed(lake: Lake) -> None:
    folder = lake.root.path / "jobs"
    folder.mkdir()
    for name in ("first", "second"):
        (folder / f"{name}.json").write_text(json.dumps(FACTS))
    with record_job(Ledger(store_of(lake)), "test", {}, WriteCounts()):
        assert files(lake) != []
    assert sorted(recorded(lake)) == ["interrupted", "ok"]
    assert files(lake) == []
