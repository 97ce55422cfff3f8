"""Find outages of a whole venue, when none of its dense markets had a bar."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from lake.model.grid import Grid
from lake.model.intervals import RangeSet
from lake.model.slots import slot_at, slot_of, start_of
from lake.model.time import MICROSECOND, TimeRange

_MIN_MARKETS = 2
_MIN_DENSITY = 0.95
_MIN_ACTIVE = 0.5  # share of a market's time in which any market of the venue must have bars


@dataclass(frozen=True)
class MarketBars:
    """Open times of the bars of a market (Datetime us UTC), and its span from first to last."""

    times: pl.Series
    span: TimeRange


def find_outages(markets: Iterable[MarketBars], grid: Grid) -> RangeSet:
    """Find the time in which no market of a venue had a bar, though at least two should have.

    Only dense markets count: those with at least 95 % of the bars between their first and last one,
    without the time in which all were silent. Two quiet markets that do not trade for a minute are
    not an outage.
    """
    slots = [_to_slots(market, grid) for market in markets]
    if len(slots) < _MIN_MARKETS:
        return ()
    active = pl.concat(present for _, present in slots).unique()
    missing, spans = [], []
    for (first, after), present in slots:
        expected = active.filter(pl.col("slot").is_between(first, after, closed="left")).height
        is_active = expected >= _MIN_ACTIVE * (after - first)
        if is_active and present.height >= _MIN_DENSITY * expected > 0:
            wanted = pl.int_range(first, after, eager=True).alias("slot").to_frame()
            missing.append(wanted.join(present, on="slot", how="anti"))
            spans.append((first, after))
    if len(spans) < _MIN_MARKETS:
        return ()
    counts = pl.concat(missing).group_by("slot").agg(silent=pl.len())
    listed = sum(
        (pl.col("slot").is_between(first, after, closed="left").cast(pl.Int64))
        for first, after in spans
    )
    silent = counts.filter((pl.col("silent") == listed) & (listed >= _MIN_MARKETS)).sort("slot")
    run = pl.col("slot") - pl.int_range(pl.len())
    runs = silent.group_by(run.alias("run"), maintain_order=True).agg(
        start=start_of(pl.col("slot").min(), grid),
        end=start_of(pl.col("slot").max() + 1, grid),
    )
    return tuple(TimeRange(*row) for row in runs.select("start", "end").iter_rows())


def _to_slots(market: MarketBars, grid: Grid) -> tuple[tuple[int, int], pl.DataFrame]:
    """Return the first slot and the slot after the last one of a market, and those with a bar."""
    first = slot_at(grid.ceiling(market.span.start), grid)
    after = slot_at(market.span.end - MICROSECOND, grid) + 1
    frame = market.times.alias("time").to_frame()
    return (first, after), frame.select(slot=slot_of(pl.col("time"), grid)).unique()
