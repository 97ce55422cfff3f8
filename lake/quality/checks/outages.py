"""When a whole venue was silent, as its dense markets testify together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from lake.model.intervals import RangeSet
from lake.model.slots import slot_at, slot_of, start_of
from lake.model.time import MICROSECOND, TimeRange
from lake.model.timeframe import Timeframe

_MIN_MARKETS = 2
_MIN_DENSITY = 0.95
_MIN_ACTIVE = (
    0.5  # share of its time in which a market must have seen the venue at work, to testify
)


@dataclass(frozen=True)
class MarketBars:
    """Open times of the bars that a market has (Datetime us UTC), and from when to when it has."""

    times: pl.Series
    span: TimeRange


def find_outages(presences: Iterable[MarketBars], timeframe: Timeframe) -> RangeSet:
    """The time in which no market of a venue had a bar, though at least two should have had.

    Only markets testify that have at least 95 of 100 bars between their first and their last one,
    but for the time in which all were silent: that of two quiet markets none was traded for a
    minute is no outage.
    """
    seen = [_to_slots(presence, timeframe) for presence in presences]
    if len(seen) < _MIN_MARKETS:
        return ()
    alive = pl.concat(there for _, there in seen).unique()
    missing, spans = [], []
    for (first, after), there in seen:
        lived = alive.filter(pl.col("slot").is_between(first, after, closed="left")).height
        if lived >= _MIN_ACTIVE * (after - first) and there.height >= _MIN_DENSITY * lived > 0:
            slots = pl.int_range(first, after, eager=True).alias("slot").to_frame()
            missing.append(slots.join(there, on="slot", how="anti"))
            spans.append((first, after))
    if len(spans) < _MIN_MARKETS:
        return ()
    counted = pl.concat(missing).group_by("slot").agg(silent=pl.len())
    living = sum(
        (pl.col("slot").is_between(first, after, closed="left").cast(pl.Int64))
        for first, after in spans
    )
    silent = counted.filter((pl.col("silent") == living) & (living >= _MIN_MARKETS)).sort("slot")
    run = pl.col("slot") - pl.int_range(pl.len())
    runs = silent.group_by(run.alias("run"), maintain_order=True).agg(
        start=start_of(pl.col("slot").min(), timeframe),
        end=start_of(pl.col("slot").max() + 1, timeframe),
    )
    return tuple(TimeRange(*row) for row in runs.select("start", "end").iter_rows())


def _to_slots(presence: MarketBars, timeframe: Timeframe) -> tuple[tuple[int, int], pl.DataFrame]:
    """From which slot to before which one a market should have bars, and where it has."""
    first = slot_at(timeframe.ceiling(presence.span.start), timeframe)
    after = slot_at(presence.span.end - MICROSECOND, timeframe) + 1
    frame = presence.times.alias("time").to_frame()
    return (first, after), frame.select(slot=slot_of(pl.col("time"), timeframe)).unique()
