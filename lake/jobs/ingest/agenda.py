"""What to ask a source next, and what to leave after a refusal: one stops nothing else. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from lake.errors import SourceError, SourceRefusedError
from lake.jobs.ingest.plan import Task
from lake.model.time import TimeRange
from lake.sources.base import FetchRequest

PATIENCE = 3
"""Failures in a row after which the rest of a market, or of an exchange, is not asked any more."""
_FINEST_SHARE = 32
"""A window that is too long ago is halved until it is this much shorter than it was."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A window that a source did not give, or that was not asked after other failures."""

    request: FetchRequest
    window: TimeRange
    error: SourceError


class Agenda:
    """The tasks of one exchange, in an order that depends on its answers.

    Where a window is too long ago, so are all windows before it: they are not asked. The first one
    that the venue gives is found by halving.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._waiting = deque(tasks)
        self._failures: list[Failed] = []
        self._running: Counter[FetchRequest] = Counter()
        self._failed_in_row: Counter[FetchRequest] = Counter()
        self._down_in_row = 0
        self._too_old: dict[FetchRequest, TimeRange] = {}  # the last such window of each
        self._searched: set[FetchRequest] = set()
        self._finest: dict[FetchRequest, timedelta] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def failures(self) -> tuple[Failed, ...]:
        """What the source did not give so far."""
        return tuple(self._failures)

    def take(self) -> Task | None:
        """Take the next task; None if none waits. Report its end by `complete` or `fail`."""
        if not self._waiting:
            return None
        at = self._choose()
        task = self._waiting[at]
        del self._waiting[at]
        self._running.update(task.requests)
        return task

    def complete(self, task: Task) -> None:
        """Note that the source answered a task completely."""
        self._down_in_row = 0
        self._running.subtract(task.requests)
        for request in task.requests:
            self._failed_in_row[request] = 0
            self._searched.discard(request)
            self._halve(request)

    def fail(self, task: Task, error: SourceError) -> None:
        """Note that the source did not answer a task, and drop what it would not answer either."""
        self._running.subtract(task.requests)
        is_refused = isinstance(error, SourceRefusedError)
        self._down_in_row = 0 if is_refused else self._down_in_row + 1
        if is_refused and len(task.requests) > 1:  # it may concern only some of them
            alone = [Task((request,), task.window) for request in task.requests]
            self._waiting.extendleft(reversed(alone))
            return
        for request in task.requests:
            self._failures.append(Failed(request, task.window, error))
            self._failed_in_row[request] += 1
            self._drop(self._find_hopeless(request, task.window, error), error)
            self._halve(request)

    def _choose(self) -> int:
        """Return the place of the next task: the first, or while its market is searched a middle.

        Between a window that is too long ago and one that is given, each answer halves what is
        unknown.
        """
        first = self._waiting[0].requests[0]
        if first not in self._searched:
            return 0
        places = [n for n, task in enumerate(self._waiting) if first in task.requests]
        return places[len(places) // 2]

    def _find_hopeless(
        self, request: FetchRequest, window: TimeRange, error: SourceError
    ) -> Callable[[FetchRequest, TimeRange], bool]:
        """Return which of the waiting windows the source would not answer either."""
        reason = error.reason if isinstance(error, SourceRefusedError) else None
        if reason is None and self._down_in_row >= PATIENCE:
            return lambda _request, _window: True
        if reason == "not_listed":
            return lambda other, _: other.market == request.market
        if reason == "too_long_ago":
            self._failed_in_row[request] = 0
            last = max(window, self._too_old.get(request, window))
            self._too_old[request] = last
            self._searched.add(request)
            return lambda other, item: other == request and item.start < last.start
        if reason == "forbidden" or self._failed_in_row[request] >= PATIENCE:
            return lambda other, _: other == request
        return lambda _request, _window: False

    def _drop(self, is_hopeless: Callable[[FetchRequest, TimeRange], bool], e: SourceError) -> None:
        kept: deque[Task] = deque()
        for task in self._waiting:
            hopeless = [r for r in task.requests if is_hopeless(r, task.window)]
            self._failures.extend(Failed(request, task.window, e) for request in hopeless)
            rest = tuple(request for request in task.requests if request not in hopeless)
            if rest:
                kept.append(Task(rest, task.window))
        self._waiting = kept

    def _halve(self, request: FetchRequest) -> None:
        """Ask for the halves of the last window that is too long ago: part of it may be given."""
        window = self._too_old.get(request)
        if window is None or self._running[request] or self._is_waiting(request):
            return
        finest = self._finest.setdefault(request, window.duration / _FINEST_SHARE)
        middle = _find_middle(request, window)
        if middle is None or window.duration / 2 < finest:
            return
        self._failures = [
            item for item in self._failures if (item.request, item.window) != (request, window)
        ]
        del self._too_old[request]
        self._searched.add(request)  # the later half comes first
        halves = TimeRange(window.start, middle), TimeRange(middle, window.end)
        self._waiting.extendleft(Task((request,), half) for half in reversed(halves))

    def _is_waiting(self, request: FetchRequest) -> bool:
        return any(request in task.requests for task in self._waiting)


def _find_middle(request: FetchRequest, window: TimeRange) -> datetime | None:
    """Return the middle of a window, of bars at the start of one; None if it has no middle."""
    middle = window.start + window.duration / 2
    timeframe = request.dataset.timeframe
    if timeframe is not None:
        middle = timeframe.floor(middle)
    return middle if window.start < middle < window.end else None
