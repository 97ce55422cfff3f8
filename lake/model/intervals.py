"""Algebra of time ranges: union, subtraction, splitting. A set is a sorted, disjoint tuple."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from lake.model.time import EPOCH, TimeRange

RangeSet = tuple[TimeRange, ...]


def union(ranges: Iterable[TimeRange]) -> RangeSet:
    """Join ranges that touch or overlap, and sort them."""
    joined: list[TimeRange] = []
    for item in sorted(ranges):
        if joined and item.start <= joined[-1].end:
            joined[-1] = TimeRange(joined[-1].start, max(joined[-1].end, item.end))
        else:
            joined.append(item)
    return tuple(joined)


def subtract(ranges: Iterable[TimeRange], others: Iterable[TimeRange]) -> RangeSet:
    """Return the parts of ranges that are in none of the others."""
    rest: list[TimeRange] = []
    others = union(others)
    for item in union(ranges):
        start = item.start
        for other in others:
            if other.end <= start:
                continue
            if other.start >= item.end:
                break
            if other.start > start:
                rest.append(TimeRange(start, other.start))
            start = other.end
        if start < item.end:
            rest.append(TimeRange(start, item.end))
    return tuple(rest)


def intersect(first: Iterable[TimeRange], second: Iterable[TimeRange]) -> RangeSet:
    """Return the parts that are in both."""
    first = union(first)
    return subtract(first, subtract(first, second))


def split(item: TimeRange, step: timedelta) -> Iterator[TimeRange]:
    """Split a range at multiples of `step` from the epoch."""
    start = item.start
    while start < item.end:
        end = min(_find_next_multiple(start, step), item.end)
        yield TimeRange(start, end)
        start = end


def _find_next_multiple(time: datetime, step: timedelta) -> datetime:
    return EPOCH + ((time - EPOCH) // step + 1) * step
