"""Ranges against a naive model: sets of grid cells."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lake.model.intervals import RangeSet, intersect, split, subtract, union
from lake.model.time import EPOCH, TimeRange

CELL = timedelta(minutes=7)


def ranges(cells: tuple[int, int]) -> TimeRange:
    return TimeRange(EPOCH + cells[0] * CELL, EPOCH + cells[1] * CELL)


bounds = st.tuples(st.integers(-12, 12), st.integers(-12, 12)).filter(lambda b: b[0] < b[1])
some = st.lists(bounds.map(ranges), max_size=6)


def cells(items: list[TimeRange] | RangeSet) -> set[int]:
    """The grid cells that ranges cover."""
    return {
        cell
        for item in items
        for cell in range((item.start - EPOCH) // CELL, (item.end - EPOCH) // CELL)
    }


def is_canonical(items: RangeSet) -> bool:
    """Sorted, and no two touch."""
    return all(a.end < b.start for a, b in pairwise(items))


@given(some)
def test_union_covers_the_same_cells_in_as_few_ranges_as_can_be(items: list[TimeRange]) -> None:
    result = union(items)
    assert cells(result) == cells(items)
    assert is_canonical(result)


@given(some, some)
def test_subtract_is_the_difference_of_cells(
    wanted: list[TimeRange], taken: list[TimeRange]
) -> None:
    result = subtract(wanted, taken)
    assert cells(result) == cells(wanted) - cells(taken)
    assert is_canonical(result)


@given(some, some)
def test_intersect_is_the_common_cells(first: list[TimeRange], second: list[TimeRange]) -> None:
    result = intersect(first, second)
    assert cells(result) == cells(first) & cells(second)
    assert is_canonical(result)


@given(bounds.map(ranges), st.integers(1, 30))
def test_split_tiles_the_range_and_cuts_at_multiples_of_the_step(
    item: TimeRange, step: int
) -> None:
    width = step * timedelta(minutes=1)
    parts = list(split(item, width))
    assert (parts[0].start, parts[-1].end) == (item.start, item.end)
    assert all(a.end == b.start for a, b in pairwise(parts))
    assert all((part.end - EPOCH) % width == timedelta(0) for part in parts[:-1])
    assert all(part.duration <= width for part in parts)
