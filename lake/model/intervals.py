"""Algebra of time ranges: union, subtraction, splitting. A set is a sorted, disjoint tuple."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from lake.model.time import EPOCH, TimeRange

RangeSet = tuple[TimeRange, ...]


def union(ranges: Iterable[TimeRange]) -> RangeSet:
    """The ranges as a set: sorted, with those that touch or overlap joined."""
    joined: list[TimeRange] = []
    for item in sorted(ranges):
        if joined and item.start <= joined[-1].end:
            joined[-1] = TimeRange(joined[-1].start, max(joined[-1].end, item.end))
        else:
            joined.append(item)
    return tuple(joined)


def subtract(wanted: Iterable[TimeRange], taken: Iterable[TimeRange]) -> RangeSet:
    """What of `wanted` is not in `taken`."""
    left: list[TimeRange] = []
    takers = union(taken)
    for item in union(wanted):
        start = item.start
        for taker in takers:
            if taker.end <= start:
                continue
            if taker.start >= item.end:
                break
            if taker.start > start:
                left.append(TimeRange(start, taker.start))
            start = taker.end
        if start < item.end:
            left.append(TimeRange(start, item.end))
    return tuple(left)


def intersect(first: Iterable[TimeRange], second: Iterable[TimeRange]) -> RangeSet:
    """What is in both."""
    first = union(first)
    return subtract(first, subtract(first, second))


def split(item: TimeRange, step: timedelta) -> Iterator[TimeRange]:
    """Windows that tile the range, cut at multiples of `step` from the epoch."""
    start = item.start
    while start < item.end:
        end = min(_find_next_multiple(start, step), item.end)
        yield TimeRange(start, end)
        start = end


def _find_next_multiple(time: datetime, step: timedelta) -> datetime:
    return EPOCH + ((time - EPOCH) // step + 1) * step
