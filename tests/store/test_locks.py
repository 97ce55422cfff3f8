"""The lake's lock: shared by pins, alone for what deletes, free when its holder dies."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing.synchronize import Event as ProcessEvent
from pathlib import Path
from threading import Event

import pytest

from lake.api import Lake
from lake.errors import CommitConflictError, StorageError
from lake.store.locks import lock_file, lock_for_deletion, lock_for_pin, lock_for_repair
from lake.store.root import Root
from tests import processes

SOON = timedelta(seconds=0.1)


def _hold(path: str, held: ProcessEvent) -> None:
    """Hold the lock for long, in a process of its own."""
    with lock_for_deletion(Root.open(path)):
        held.set()
        time.sleep(60)


def test_any_number_may_share_it(lake: Lake) -> None:
    with lock_for_pin(lake.root), lock_for_pin(lake.root, SOON), lock_for_pin(lake.root, SOON):
        pass


def test_nobody_has_it_alone_while_it_is_shared(lake: Lake) -> None:
    with (
        lock_for_pin(lake.root),
        pytest.raises(CommitConflictError, match="a bundle is being made") as caught,
        lock_for_deletion(lake.root, SOON),
    ):
        pass
    assert "Run the same command again" in caught.value.hint


def test_nobody_shares_it_while_one_has_it_alone(lake: Lake) -> None:
    with (
        lock_for_deletion(lake.root),
        pytest.raises(CommitConflictError, match="files are being deleted"),
        lock_for_pin(lake.root, SOON),
    ):
        pass


def test_one_repairs_while_others_pin(lake: Lake) -> None:
    with (
        lock_for_repair(lake.root),
        lock_for_pin(lake.root, SOON),
        pytest.raises(CommitConflictError, match="it is being repaired"),
        lock_for_repair(lake.root, SOON),
    ):
        pass


def test_it_is_free_after_an_error(lake: Lake) -> None:
    with pytest.raises(ValueError, match="mine"), lock_for_deletion(lake.root):
        raise ValueError("mine")
    with lock_for_deletion(lake.root, SOON):
        pass


def test_threads_of_one_process_wait_for_each_other(lake: Lake) -> None:
    begun = Event()
    order: list[str] = []

    def first() -> None:
        with lock_for_deletion(lake.root):
            begun.set()
            time.sleep(0.2)
            order.append("first")

    def second() -> None:
        begun.wait()
        with lock_for_pin(lake.root):
            order.append("second")

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda work: work(), (first, second)))
    assert order == ["first", "second"]


def test_a_killed_process_holds_nothing(lake: Lake) -> None:
    held = processes.CONTEXT.Event()
    holder = processes.start(_hold, str(lake.root.path), held)
    assert held.wait(60)
    with pytest.raises(CommitConflictError), lock_for_pin(lake.root, SOON):
        pass
    holder.kill()
    holder.join()
    with lock_for_deletion(lake.root, SOON):
        pass


def test_a_lake_without_the_folder_cannot_be_locked(lake: Lake) -> None:
    shutil.rmtree(lake.root.bundles)
    with pytest.raises(StorageError, match="cannot be locked"), lock_for_pin(lake.root):
        pass


def test_a_lock_that_cannot_be_opened_says_so(lake: Lake) -> None:
    (lake.root.bundles / ".lock").mkdir()  # refused to every user, also to root
    with pytest.raises(StorageError, match="cannot be locked") as caught, lock_for_pin(lake.root):
        pass
    assert "a folder where a file should be" in caught.value.message


def test_a_lock_is_not_reentrant(tmp_path: Path) -> None:
    with (
        lock_file(tmp_path / "lock") as first,
        lock_file(tmp_path / "lock", timeout=SOON) as again,
        lock_file(tmp_path / "lock", shared=True, timeout=SOON) as as_reader,
    ):
        assert (first.is_held, again.is_held, as_reader.is_held) == (True, False, False)
    with lock_file(tmp_path / "lock", timeout=SOON) as later:
        assert later.is_held


def test_whoever_waits_without_a_timeout_gets_the_lock_in_the_end(tmp_path: Path) -> None:
    begun = Event()

    def hold() -> float:
        with lock_file(tmp_path / "lock"):
            begun.set()
            time.sleep(0.3)
            return time.monotonic()

    with ThreadPoolExecutor(1) as threads:
        holder = threads.submit(hold)
        begun.wait()
        with lock_file(tmp_path / "lock") as lock:
            got = time.monotonic()
            assert lock.is_held
        assert holder.result() <= got


@pytest.mark.parametrize("folder", [False, True])
def test_what_its_holder_moved_away_is_locked_anew(tmp_path: Path, *, folder: bool) -> None:
    """Whoever waited for what has another name now must not take it for what it asked for."""
    path, moved = tmp_path / "here", tmp_path / "there"
    begun, waiting = Event(), Event()

    def move() -> bool:
        with lock_file(path, folder=folder) as lock:
            begun.set()
            waiting.wait()
            time.sleep(0.1)
            path.rename(moved)
            return lock.is_in_place()

    with ThreadPoolExecutor(1) as threads:
        holder = threads.submit(move)
        begun.wait()
        waiting.set()
        with lock_file(path, folder=folder) as lock:
            assert (lock.is_held, lock.is_in_place()) == (True, True)
            assert not path.samefile(moved)
            assert path.is_dir() is folder
        assert not holder.result()


@pytest.mark.parametrize("folder", [False, True])
def test_a_lock_in_a_folder_that_is_missing_is_refused(tmp_path: Path, *, folder: bool) -> None:
    with (
        pytest.raises(StorageError, match="cannot be locked"),
        lock_file(tmp_path / "missing" / "lock", folder=folder),
    ):
        pass
