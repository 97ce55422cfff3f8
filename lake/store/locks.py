"""Locks of the lake among processes and threads: pins share one, what deletes has it alone.

The kernel releases it when its holder ends, however it ends: nobody waits for the dead.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

from lake.errors import CommitConflictError, StorageError
from lake.store.root import Root

LOCK = ".lock"
_REPAIR_LOCK = ".repair.lock"
TIMEOUT = timedelta(seconds=60)
_POLL_SECONDS = 0.02


def shared(root: Root, timeout: timedelta = TIMEOUT) -> AbstractContextManager[None]:
    """Hold the lake while a bundle is made: nothing is deleted meanwhile. Any number may.

    It is not reentrant: who holds it must not ask for `exclusive`.

    Raises
    ------
    CommitConflictError
        Somebody has it alone, and still had it after the timeout.
    StorageError
        The lock cannot be opened: the lake is read-only, or its folder `bundles` is gone.
    """
    return _held(root, LOCK, fcntl.LOCK_SH, timeout, "files are being deleted")


def exclusive(root: Root, timeout: timedelta = TIMEOUT) -> AbstractContextManager[None]:
    """Have the lake alone, to delete what nobody needs: no bundle is being made meanwhile.

    Raises as `shared` does.
    """
    return _held(root, LOCK, fcntl.LOCK_EX, timeout, "a bundle is being made")


def repairing(root: Root, timeout: timedelta = TIMEOUT) -> AbstractContextManager[None]:
    """Be the only one that repairs, or undoes a repair: whoever began to before is dead.

    Raises as `shared` does.
    """
    return _held(root, _REPAIR_LOCK, fcntl.LOCK_EX, timeout, "it is being repaired")


@contextmanager
def _held(root: Root, name: str, kind: int, timeout: timedelta, doing: str) -> Iterator[None]:
    path = root.bundles / name
    descriptor = _opened(path)
    try:
        give_up = time.monotonic() + timeout.total_seconds()
        while not _taken(path, descriptor, kind):
            if time.monotonic() >= give_up:
                raise CommitConflictError(
                    f"lake {root.path} is locked: {doing} by another process "
                    f"(waited {timeout.total_seconds():g} s)",
                    "Run the same command again when that has ended: nothing was changed.",
                )
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        # Opened anew each time: the kernel takes one descriptor for one holder.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StorageError(
            f"{path}: not writable, so that the lake cannot be locked ({error.strerror})",
            "Check that the folder is there, and its owner and permissions.",
        ) from error


def _taken(path: Path, descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageError(
            f"{path}: the file system has no locks ({error.strerror})",
            "Keep the lake on a local disk, or on a file system that supports flock.",
        ) from error
    return True
