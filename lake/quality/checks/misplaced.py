"""Find the rows whose time does not fit their place in an order: the fewest that must go."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

_DAY = 86_400_000_000  # microseconds

Integers = np.ndarray[Any, np.dtype[np.int64]]


def find_misplaced(times: Integers, tolerance: int, around: int | None = None) -> Integers:
    """Find the rows that must be taken out so that all other times never fall.

    Parameters
    ----------
    times
        Times of rows in the order of their numbers, in microseconds.
    tolerance
        A row counts only if its time differs by more from the rows around it that stay.
    around
        Time around each UTC day, in microseconds, within which the rows of the day are compared: so
        that they do not depend on which other days are there. None: all are compared with all.

    Returns
    -------
    Integers
        Numbers of the rows, and beside each how much too late it is (n, 2); negative: too early.
    """
    found = [
        _measure(times, rows, tolerance)
        if around is None
        else _measure_by_day(times, rows, tolerance, around)
        for rows in _find_mixed(times, tolerance)
    ]
    return np.concatenate([np.empty((0, 2), dtype=np.int64), *found])


def _find_mixed(times: Integers, tolerance: int) -> list[Integers]:
    """Find the parts in which all pairs of rows in wrong order are: the rows of each."""
    if len(times) < 2:  # nothing to compare with
        return []
    latest, earliest = _running_bounds(times)
    is_mixed = latest[:-1] > earliest[1:] + tolerance  # a row and a later one are in wrong order
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_mixed, [False]]).astype(np.int8)))
    return [np.arange(first, last + 1) for first, last in edges.reshape(-1, 2).tolist()]


def _measure_by_day(times: Integers, rows: Integers, tolerance: int, around: int) -> Integers:
    """Measure the misplaced rows of each day, compared with rows around the day."""
    days = times[rows] // _DAY
    found = []
    for day in np.unique(days).tolist():
        near = (times[rows] >= day * _DAY - around) & (times[rows] < (day + 1) * _DAY + around)
        for part in _find_mixed(times[rows[near]], tolerance):
            misplaced = _measure(times, rows[near][part], tolerance)
            found.append(misplaced[times[misplaced[:, 0]] // _DAY == day])
    return np.concatenate([np.empty((0, 2), dtype=np.int64), *found])


def _running_bounds(times: Integers) -> tuple[Integers, Integers]:
    """Return the latest time up to each row, and the earliest from it on."""
    return np.maximum.accumulate(times), np.minimum.accumulate(times[::-1])[::-1]


def _measure(times: Integers, rows: Integers, tolerance: int) -> Integers:
    """Measure the misplaced rows of a part in which all wrong pairs are."""
    part = times[rows]
    stays = np.zeros(len(part), dtype=np.bool_)
    stays[_find_longest_rise(part.tolist())] = True
    kept = np.flatnonzero(stays)
    gone = np.flatnonzero(~stays)
    place = np.searchsorted(kept, gone)
    low, high = np.iinfo(np.int64).min // 4, np.iinfo(np.int64).max // 4
    before = np.concatenate([[low], part[kept]])[place]
    after = np.concatenate([part[kept], [high]])[place]
    late, early = np.maximum(part[gone] - after, 0), np.maximum(before - part[gone], 0)
    away = np.where(late > 0, late, -early)
    return np.stack([rows[gone], away], axis=1)[np.abs(away) > tolerance]


def _find_longest_rise(values: list[int]) -> list[int]:
    """Find a longest series of rows whose values never fall; of several, an early one.

    The usual algorithm in O(n log n): `ends[k]` is the smallest last value of a series of `k + 1`.
    """
    ends: list[int] = []
    rows: list[int] = []
    before: list[int] = []
    for row, value in enumerate(values):
        length = bisect_right(ends, value)
        before.append(rows[length - 1] if length else -1)
        if length == len(ends):
            ends.append(value)
            rows.append(row)
        else:
            ends[length], rows[length] = value, row
    series, row = [], rows[-1]
    while row >= 0:
        series.append(row)
        row = before[row]
    return series[::-1]
