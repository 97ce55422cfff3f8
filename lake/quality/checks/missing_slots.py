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
    before = slot_at(grid.ceiling(data.range.start), grid) - 1
    after = slot_at(data.range.end - MICROSECOND, grid) + 1
    after = min(after, slot_at(data.now, grid))
    if after <= before:
        return pl.LazyFrame(schema=_MISSING)
    present = data.frame.select(slot=slot_of(data.time, grid))
    if data.span is not None:
        # Rows at impossible times are outside the span and must not create a gap.
        low, high = slot_at(data.span.start, grid), slot_at(data.span.end - MICROSECOND, grid)
        ends = pl.LazyFrame({"slot": [low, high]}, schema={"slot": pl.Int64})
        present = pl.concat([present.filter(pl.col("slot").is_between(low, high)), ends])
    nearby = present.select(pl.col("slot").clip(before, after)).sort("slot")
    holes = nearby.with_columns(previous=pl.col("slot").shift(1)).filter(
        pl.col("slot") - pl.col("previous") > 1
    )
    between = (
        holes.select(slot=pl.int_ranges(pl.col("previous") + 1, pl.col("slot")))
        .explode("slot")
        .with_columns(start=start_of(pl.col("slot"), grid), end=start_of(pl.col("slot") + 1, grid))
    )
    if not data.claimed:
        return between
    claimed = _find_slots_outside(data, grid, data.claimed).filter(pl.col("end") <= data.now)
    return pl.concat([between, claimed]).unique("slot").sort("slot")


def find_slots_not_given(data: Slice, grid: Grid) -> pl.LazyFrame:
    """Find the slots outside the market's rows that were not given, or are gone: `_MISSING`."""
    return _find_slots_outside(data, grid, [*data.not_given, *data.gone])


def _find_slots_outside(data: Slice, grid: Grid, ranges: Sequence[TimeRange]) -> pl.LazyFrame:
    """Find the slots of ranges outside the market's rows that have no bar: `_MISSING`."""
    asked = intersect([data.range], ranges)
    outside = subtract(asked, [data.span]) if data.span is not None else asked
    bounds = [
        (slot_at(grid.ceiling(item.start), grid), slot_at(item.end - MICROSECOND, grid))
        for item in outside
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
        .filter(pl.col("start") >= data.range.start)
    )
