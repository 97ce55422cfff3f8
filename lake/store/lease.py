"""A lock of the lake among processes and threads: pins share it, what deletes has it alone.

The kernel releases it when its holder ends, however it ends: nobody waits for the dead.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

from lake.errors import CommitConflictError, StorageError
from lake.store.root import Root

LOCK = ".lock"
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
    return _held(root, fcntl.LOCK_SH, timeout)


def exclusive(root: Root, timeout: timedelta = TIMEOUT) -> AbstractContextManager[None]:
    """Have the lake alone, to delete what nobody needs: no bundle is being made meanwhile.

    Raises as `shared` does.
    """
    return _held(root, fcntl.LOCK_EX, timeout)


@contextmanager
def _held(root: Root, kind: int, timeout: timedelta) -> Iterator[None]:
    descriptor = _opened(root)
    try:
        _wait(root, descriptor, kind, timeout)
        yield
    finally:
        os.close(descriptor)


def _opened(root: Root) -> int:
    path = root.bundles / LOCK
    try:
        # Opened anew each time: the kernel takes one descriptor for one holder.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StorageError(
            f"{path}: not writable, so that the lake cannot be locked ({error.strerror})",
            "Check that the folder is there, and its owner and permissions.",
        ) from error


def _wait(root: Root, descriptor: int, kind: int, timeout: timedelta) -> None:
    give_up = time.monotonic() + timeout.total_seconds()
    while not _taken(root, descriptor, kind):
        if time.monotonic() >= give_up:
            doing = "a bundle is being made" if kind == fcntl.LOCK_EX else "files are being deleted"
            raise CommitConflictError(
                f"lake {root.path} is locked: {doing} by another process "
                f"(waited {timeout.total_seconds():g} s)",
                "Run the same command again when that has ended: nothing was changed.",
            )
        time.sleep(_POLL_SECONDS)


def _taken(root: Root, descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageError(
            f"{root.bundles / LOCK}: the file system has no locks ({error.strerror})",
            "Keep the lake on a local disk, or on a file system that supports flock.",
        ) from error
    return True
