"""Locks among processes and threads: the lock of a file or folder, and those of a lake.

The kernel releases a lock when its holder ends, however it ends: nobody waits for the dead. No
lock is reentrant: a holder that asks for its lock again waits for itself, until the timeout.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from lake.errors import CommitConflictError, StorageError
from lake.store.faults import find_reason
from lake.store.root import Root

LOCK = ".lock"
_REPAIR_LOCK = ".repair.lock"
TIMEOUT = timedelta(seconds=60)
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class FileLock:
    """The lock of a file or folder.

    Attributes
    ----------
    is_held
        False: somebody else still had it after the timeout.
    """

    path: Path
    is_held: bool
    _descriptor: int

    def is_in_place(self) -> bool:
        """Whether the path still names what is locked: nobody has moved or removed it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False


@contextmanager
def lock_file(
    path: Path,
    *,
    shared: bool = False,
    folder: bool = False,
    timeout: timedelta | None = None,
    poll_seconds: float = _POLL_SECONDS,
) -> Iterator[FileLock]:
    """Hold the lock of a file in the block. A file that does not exist is created, and stays.

    Parameters
    ----------
    shared
        Several holders may share it, but not together with one that does not share.
    folder
        Lock, and create, a folder instead of a file.
    timeout
        How long to wait for other holders; None: without end.
    poll_seconds
        How often to try: a holder that takes the lock again and again leaves it free that long.

    Raises
    ------
    StorageError
        It can be neither opened nor created, or the file system has no locks.
    """
    give_up = None if timeout is None else time.monotonic() + timeout.total_seconds()
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    lock = _acquire(path, kind, give_up, poll_seconds, folder=folder)
    try:
        yield lock
    finally:
        os.close(lock._descriptor)


def lock_for_pin(root: Root, timeout: timedelta = TIMEOUT) -> AbstractContextManager[None]:
    """Lock a lake while a bundle is made, so that nothing is deleted. Several may share the lock.

    Do not call `lock_for_deletion` in the block: it would wait for itself.

    Raises
    ------
    CommitConflictError
        Files are being deleted, and still were after the timeout.
    StorageError
        The lock cannot be opened: the lake is read-only, or its folder `bundles` is missing.
    """
    return _lock_lake(root, LOCK, timeout, "files are being deleted", shared=True)


def lock_for_deletion(root: Root, timeout: timedelta = TIMEOUT) -> AbstractContextManager[None]:
    """Lock a lake to delete files, so that no bundle is made meanwhile.

    Raises as `lock_for_pin` does.
    """
    return _lock_lake(root, LOCK, timeout, "a bundle is being made")


def lock_for_repair(root: Root, timeout: timedelta = TIMEOUT) -> AbstractContextManager[None]:
    """Lock a lake to repair it, or to undo a repair: an earlier unfinished repair has crashed.

    Raises as `lock_for_pin` does.
    """
    return _lock_lake(root, _REPAIR_LOCK, timeout, "it is being repaired")


@contextmanager
def _lock_lake(
    root: Root, name: str, timeout: timedelta, reason: str, *, shared: bool = False
) -> Iterator[None]:
    root.require_writer()
    with lock_file(root.bundles / name, shared=shared, timeout=timeout) as lock:
        if not lock.is_held:
            raise CommitConflictError(
                f"lake {root.path} is locked: {reason} by another process "
                f"(waited {timeout.total_seconds():g} s)",
                "Run the same command again when that has ended: nothing was changed.",
            )
        yield


def _acquire(
    path: Path, kind: int, give_up: float | None, poll: float, *, folder: bool
) -> FileLock:
    while True:
        descriptor = _open(path, folder=folder)
        try:
            lock = FileLock(path, _wait(path, descriptor, kind, give_up, poll), descriptor)
            is_done = not lock.is_held or lock.is_in_place()
        except BaseException:  # Ctrl-C too: only this function knows the descriptor
            os.close(descriptor)
            raise
        if is_done:
            return lock
        os.close(descriptor)  # its last holder has moved it away: lock what is there now


def _open(path: Path, *, folder: bool) -> int:
    """Open a file or folder anew: the kernel takes one descriptor for one holder."""
    try:
        while folder:
            path.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # its holder has just moved it away
                return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        reason = find_reason(error)
        raise StorageError(
            f"{path}: cannot be locked: {reason.what if reason else error.strerror}",
            reason.advice if reason else "Check that its folder exists.",
        ) from error


def _wait(path: Path, descriptor: int, kind: int, give_up: float | None, poll: float) -> bool:
    """Wait until the lock is free, or until the time to give up; return whether it is held."""
    while not _try_lock(path, descriptor, kind):
        if give_up is not None and time.monotonic() >= give_up:
            return False
        time.sleep(poll)
    return True


def _try_lock(path: Path, descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be locked, because the file system has no locks ({error.strerror})",
            "Keep it on a local disk, or on a file system that supports flock.",
        ) from error
    return True
