"""Find the rows whose time does not fit their place in an order: the fewest that must go."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

Integers = np.ndarray[Any, np.dtype[np.int64]]


def find_misplaced(times: Integers, tolerance: int) -> Integers:
    """Find the rows that must be taken out so that all other times never fall.

    Parameters
    ----------
    times
        Times of rows in the order of their numbers.
    tolerance
        A row counts only if its time differs by more from the rows around it that stay.

    Returns
    -------
    Integers
        Numbers of the rows, and beside each how much too late it is (n, 2); negative: too early.
    """
    none = np.empty((0, 2), dtype=np.int64)
    if len(times) < 2:  # nothing to compare with
        return none
    latest, earliest = _running_bounds(times)
    is_mixed = latest[:-1] > earliest[1:] + tolerance  # a row and a later one are in wrong order
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_mixed, [False]]).astype(np.int8)))
    parts = [
        _measure(times, first, last + 1, tolerance) for first, last in edges.reshape(-1, 2).tolist()
    ]
    return np.concatenate(parts) if parts else none


def _running_bounds(times: Integers) -> tuple[Integers, Integers]:
    """Return the latest time up to each row, and the earliest from it on."""
    return np.maximum.accumulate(times), np.minimum.accumulate(times[::-1])[::-1]


def _measure(times: Integers, first: int, end: int, tolerance: int) -> Integers:
    """Measure the misplaced rows of a part in which all wrong pairs are."""
    part = times[first:end]
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
    rows = np.stack([gone + first, away], axis=1)
    return rows[np.abs(away) > tolerance]


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
