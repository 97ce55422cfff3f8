"""Find the slots of a market without a bar."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.grid import Grid
from lake.model.intervals import intersect, subtract
from lake.model.slots import slot_at, slot_of, start_of
from lake.model.time import MICROSECOND, TimeRange
from lake.quality.slice import Slice

_MISSING = pl.Schema({"slot": pl.Int64(), "start": TIMESTAMP, "end": TIMESTAMP})


def find_missing_slots(data: Slice, grid: Grid) -> pl.LazyFrame:
    """Find the slots that open in the checked range, have ended and have no bar: `_MISSING`.

    They are between the market's rows, or before and after them in `Slice.claimed`.
    """
    # The slots next to the range count as present, unless the market's rows end before them.
    bounds = [_find_bounds(one, grid) for one in data.markets]
    if all(after <= before for before, after in bounds):
        return pl.LazyFrame(schema=_MISSING)
    slot, own = pl.col("slot"), start_of(pl.col("slot"), grid)
    nearby = _select_present(data, grid, bounds).sort("slot")
    holes = nearby.with_columns(previous=data.previous(slot, own)).filter(
        slot - pl.col("previous") > 1
    )
    between = (
        holes.select(slot=pl.int_ranges(pl.col("previous") + 1, slot))
        .explode("slot")
        .with_columns(start=own, end=start_of(slot + 1, grid))
    )
    claimed = [one.claimed for one in data.markets]
    if not any(claimed):
        return between
    now = data.choose_time([one.now for one in data.markets], pl.col("start"))
    outside = _find_slots_outside(data, grid, claimed).filter(pl.col("end") <= now)
    return pl.concat([between, outside]).unique("slot").sort("slot")


def _select_present(data: Slice, grid: Grid, bounds: Sequence[tuple[int, int]]) -> pl.LazyFrame:
    """Select the slots that have a bar, those out of bounds as the bounds; and a market's ends."""
    slot, own = pl.col("slot"), start_of(pl.col("slot"), grid)
    before, after = (data.choose(side, own) for side in zip(*bounds, strict=True))
    present = data.frame.select(slot=slot_of(data.time, grid))
    spans = [_find_span(one, grid) for one in data.markets if one.span is not None]
    if not spans:
        return present.with_columns(slot.clip(before, after))
    # Rows at impossible times are outside the span and must not create a gap.
    low, high = (data.choose(side, own) for side in zip(*spans, strict=True))
    ends = [
        min(max(end, first), last)
        for span, (first, last) in zip(spans, bounds, strict=True)
        for end in span
    ]
    inside = present.filter(slot.is_between(low, high)).with_columns(slot.clip(before, after))
    return pl.concat([inside, pl.LazyFrame({"slot": ends}, schema={"slot": pl.Int64})])


def _find_bounds(data: Slice, grid: Grid) -> tuple[int, int]:
    """Return the slots next to those that a market may have in the checked range."""
    before = slot_at(grid.ceiling(data.range.start), grid) - 1
    after = slot_at(data.range.end - MICROSECOND, grid) + 1
    return before, max(before, min(after, slot_at(data.now, grid)))


def _find_span(data: Slice, grid: Grid) -> tuple[int, int]:
    """Return the slots of the first and the last row of a market."""
    assert data.span is not None  # noqa: S101 - the caller selects them
    return slot_at(data.span.start, grid), slot_at(data.span.end - MICROSECOND, grid)


def find_slots_not_given(data: Slice, grid: Grid) -> pl.LazyFrame:
    """Find the slots outside the market's rows that were not given, or are gone: `_MISSING`."""
    return _find_slots_outside(data, grid, [[*one.not_given, *one.gone] for one in data.markets])


def _find_slots_outside(
    data: Slice, grid: Grid, ranges: Sequence[Sequence[TimeRange]]
) -> pl.LazyFrame:
    """Find the slots of each market's ranges outside its rows that have no bar: `_MISSING`."""
    bounds = [
        (slot_at(grid.ceiling(item.start), grid), slot_at(item.end - MICROSECOND, grid))
        for one, asked in zip(data.markets, ranges, strict=True)
        for item in subtract(intersect([one.range], asked), [one.span] if one.span else [])
    ]
    frame = pl.LazyFrame(bounds, schema={"first": pl.Int64, "last": pl.Int64}, orient="row")
    slot = pl.int_ranges(pl.col("first"), pl.col("last") + 1).alias("slot")
    present = data.frame.select(slot=slot_of(data.time, grid))
    return (
        frame.select(slot)
        .explode("slot")
        .drop_nulls()
        .join(present, on="slot", how="anti")
        .with_columns(start=start_of(pl.col("slot"), grid), end=start_of(pl.col("slot") + 1, grid))
    )
