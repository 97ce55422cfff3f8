"""Plan what to fetch: what is requested minus what is covered, cut into windows. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lake.errors import UsageError
from lake.model.dataset import Dataset
from lake.model.grid import Grid
from lake.model.intervals import RangeSet, split
from lake.model.market import Market
from lake.model.time import TimeRange, iso
from lake.sources.base import FetchRequest


@dataclass(frozen=True, slots=True)
class Task:
    """One fetch: a window, small enough for memory, large enough to be quick, and its requests."""

    requests: tuple[FetchRequest, ...]
    window: TimeRange


def resolve_range(
    dataset: Dataset,
    market: Market,
    covered: RangeSet,
    since: datetime | None,
    until: datetime | None,
    now: datetime,
    grid: Grid | None = None,
) -> TimeRange | None:
    """Return the range that a request means; None if no bar begins in it.

    Without `since` it begins where the coverage begins, so that holes are filled too; without
    `until` it ends now. For bars it is widened to whole bars: all whose open time is in
    `[since, until)`.

    Parameters
    ----------
    grid
        Where bars open; by default where those of the timeframe do.

    Raises
    ------
    UsageError
        It reaches into the future, is empty or reversed, or has no beginning.
    """
    if since is None and not covered:
        raise UsageError(
            f"{dataset.name} of {market} has no coverage yet to continue from",
            "Give a beginning: --since 30d, or --since 2026-01-01.",
        )
    _require_past(since, until, now)
    start = covered[0].start if since is None else since
    end = now if until is None else until
    if until is not None and start >= end:
        TimeRange(start, end)  # raises: the range is empty or reversed
    if dataset.timeframe is not None:
        grid = grid or Grid(dataset.timeframe)
        start, end = grid.ceiling(start), grid.ceiling(end)
    return TimeRange(start, end) if start < end else None


def _require_past(since: datetime | None, until: datetime | None, now: datetime) -> None:
    hints = {
        "since": "Give an earlier beginning.",
        "until": "Leave --until out to fetch up to now.",
    }
    for (name, hint), time in zip(hints.items(), (since, until), strict=True):
        if time is not None and time > now:
            raise UsageError(f"{name} {iso(time)} is in the future: it is {iso(now)}", hint)


def select_holding_bars(gaps: RangeSet, grid: Grid) -> RangeSet:
    """Return the gaps in which a bar opens; there is nothing to ask in the others."""
    return tuple(gap for gap in gaps if grid.ceiling(gap.start) < gap.end)


def plan_tasks(
    gaps: Mapping[FetchRequest, Iterable[TimeRange]],
    step: Callable[[Dataset], timedelta],
    batch_size: int,
) -> list[Task]:
    """Plan windows that tile exactly what is missing, each within a multiple of a step.

    Requests that miss the same window share a task. Tasks are in order of time, so that all
    markets come forward together.

    Parameters
    ----------
    gaps
        What is missing of each request.
    step
        How much time one fetch of a dataset spans.
    batch_size
        How many requests share a task at most.
    """
    by_window: dict[TimeRange, list[FetchRequest]] = defaultdict(list)
    for request, missing in gaps.items():
        for gap in missing:
            for window in split(gap, step(request.dataset)):
                by_window[window].append(request)
    tasks = [
        Task(batch, window)
        for window, requests in by_window.items()
        for batch in _cut_batches(sorted(requests, key=_sort_key), batch_size)
    ]
    return sorted(tasks, key=lambda task: (task.window.start, *_sort_key(task.requests[0])))


def _cut_batches(requests: Sequence[FetchRequest], size: int) -> Iterator[tuple[FetchRequest, ...]]:
    for first in range(0, len(requests), size):
        yield tuple(requests[first : first + size])


def _sort_key(request: FetchRequest) -> tuple[Market, str]:
    return request.market, request.dataset.name
