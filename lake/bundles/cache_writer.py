"""Fills the cache in the background: one thread, in order of submission, without delaying reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from lake.errors import LakeError
from lake.log import get_logger

_log = get_logger(__name__)


class CacheWriter:
    """Runs each task once in a background thread; the process waits for all tasks when it ends."""

    def __init__(self) -> None:
        self._submitted: dict[Hashable, Future[None]] = {}
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None

    def submit(self, name: Hashable, work: Callable[[], object]) -> None:
        """Schedule a task, unless a task with this name was submitted before."""
        with self._lock:
            if name in self._submitted:
                return
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="lake-cache")
            self._submitted[name] = self._thread.submit(_run, name, work)

    def finish(self) -> None:
        """Wait until all submitted tasks are done."""
        wait(list(self._submitted.values()))


def _run(name: Hashable, work: Callable[[], object]) -> None:
    try:
        work()
    except (
        LakeError
    ) as error:  # the reader already has its rows: a full disk must not fail the read
        _log.warning("cache not filled", entry=str(name), reason=error.message)
