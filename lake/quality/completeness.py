"""What is missing, and why: slots without a bar, and time that was never asked for.

A missing bar is a real loss (`not_fetched`, `unknown`, `lost`) or none (`no_trade`,
`venue_outage`).
A hole in what a venue answered proves nothing by itself: only trades do, or the venue's own habit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.intervals import RangeSet, intersect, split, subtract
from lake.model.time import MICROSECOND, TimeRange
from lake.model.timeframe import Timeframe
from lake.quality.check import FOUND, Builtin, Slice, Witness
from lake.quality.slots import slot_at, slot_of, start_of

LOSSES = ("not_fetched", "unknown", "lost")
NO_LOSSES = ("no_trade", "venue_outage")
REASONS = (*LOSSES, *NO_LOSSES)

_MEANINGS: Mapping[str, str] = {
    "lost": "trades prove that bars should be there",
    "no_trade": "nothing was traded",
    "venue_outage": "all markets of the venue were silent",
    "not_fetched": "it was never asked for",
    "unknown": "nothing is known of why",
}
_DAY = timedelta(days=1)


def gaps(rows: Slice) -> pl.LazyFrame:
    """Slots of the grid without a bar, between the market's first and last one, with the reason.

    In order of precedence: `lost` (the market traded then), `no_trade` (its trades are known to
    have none), `venue_outage`, `not_fetched` (not covered), `no_trade` again (the venue is known to
    leave such bars out), `unknown`.
    """
    timeframe = rows.dataset.timeframe
    if timeframe is None:
        return pl.LazyFrame(schema=FOUND)
    return _intervals(_reasoned(missing_slots(rows, timeframe), rows))


def uncovered(rows: Slice) -> pl.LazyFrame:
    """Time between the market's first and last row that was never asked for.

    Of bars `gaps` tells more exactly. `rows` is an estimate: what the day's covered time had.
    """
    if rows.covered is None or rows.span is None or rows.dataset.timeframe is not None:
        return pl.LazyFrame(schema=FOUND)
    judged = intersect([rows.range], [rows.span])
    known = intersect(judged, rows.covered)
    holes = [day for hole in subtract(judged, rows.covered) for day in split(hole, _DAY)]
    if not holes:
        return pl.LazyFrame(schema=FOUND)
    seconds = sum(item.duration.total_seconds() for item in known) or 1.0
    found = _frame(holes).with_columns(
        length=(pl.col("end") - pl.col("start")).dt.total_microseconds() / 1e6
    )
    count = rows.rows.filter(rows.inside()).select(_count=pl.len())
    return found.join(count, how="cross").select(
        "start",
        "end",
        rows=(pl.col("_count") * pl.col("length") / seconds).ceil().cast(pl.Int64),
        measured=pl.col("length"),
        reason=pl.lit("not_fetched"),
        message=pl.format("{} seconds were never asked for", pl.col("length").round(3)),
    )


def missing_slots(rows: Slice, timeframe: Timeframe) -> pl.LazyFrame:
    """The slots that open in the judged range and have no bar: `slot`, `start`, `end`."""
    slot = slot_of(rows.time, timeframe)
    # The slots next to the range count as there, unless the market's own rows end before.
    before = slot_at(timeframe.ceiling(rows.range.start), timeframe) - 1
    after = slot_at(rows.range.end - MICROSECOND, timeframe) + 1
    if rows.span is None:
        ends = rows.rows.select(slot=pl.concat_list(slot.min(), slot.max())).explode("slot")
    else:
        first, last = rows.span.start, rows.span.end - MICROSECOND
        numbers = [slot_at(first, timeframe), slot_at(last, timeframe)]
        ends = pl.LazyFrame({"slot": numbers}, schema={"slot": pl.Int64})
    present = pl.concat([rows.rows.select(slot=slot), ends.select(pl.col("slot").cast(pl.Int64))])
    here = present.select(pl.col("slot").clip(before, after)).unique().sort("slot")
    holes = here.with_columns(previous=pl.col("slot").shift(1)).filter(
        pl.col("slot") - pl.col("previous") > 1
    )
    return (
        holes.select(slot=pl.int_ranges(pl.col("previous") + 1, pl.col("slot")))
        .explode("slot")
        .with_columns(
            start=start_of(pl.col("slot"), timeframe), end=start_of(pl.col("slot") + 1, timeframe)
        )
    )


def _reasoned(missing: pl.LazyFrame, rows: Slice) -> pl.LazyFrame:
    """The missing slots with their `reason`."""
    missing = _traded(missing, rows.trades)
    missing = _within(missing, rows.outages, "_silent")
    missing = _within(missing, rows.covered or (), "_asked")
    asked = pl.col("_asked") | pl.lit(rows.covered is None)
    return missing.with_columns(
        reason=pl.when("_traded")
        .then(pl.lit("lost"))
        .when("_quiet")
        .then(pl.lit("no_trade"))
        .when("_silent")
        .then(pl.lit("venue_outage"))
        .when(~asked)
        .then(pl.lit("not_fetched"))
        .when(pl.lit(rows.omits_empty_bars and rows.covered is not None))
        .then(pl.lit("no_trade"))
        .otherwise(pl.lit("unknown"))
    )


def _traded(missing: pl.LazyFrame, trades: Witness | None) -> pl.LazyFrame:
    """Adds `_traded` (there is a trade in the slot) and `_quiet` (it is proved that none is).

    None is proved by coverage of the trades, or by ids: the last before and the first after the
    slot follow each other.
    """
    nothing = pl.lit(value=False)
    if trades is None:
        return missing.with_columns(_traded=nothing, _quiet=nothing)
    number = pl.col("trade_id").cast(pl.Int64, strict=False)
    listed = trades.rows.select(
        time="timestamp",
        first=pl.coalesce("first_id", number),
        last=pl.coalesce("last_id", number),
    ).sort("time", maintain_order=True)
    # Several trades share a time: the highest id before, the lowest after.
    times = listed.group_by("time", maintain_order=True).agg(
        pl.col("first").min(), pl.col("last").max()
    )
    found = (
        missing.sort("start")
        .join_asof(
            times.select(pl.col("time").alias("_before"), pl.col("last").alias("_last")),
            left_on="start",
            right_on="_before",
            strategy="backward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .join_asof(
            times.select(pl.col("time").alias("_after"), pl.col("first").alias("_first")),
            left_on="start",
            right_on="_after",
            strategy="forward",
            check_sortedness=False,
        )
    )
    found = _within(found, trades.covered or (), "_known")
    traded = (pl.col("_after") < pl.col("end")).fill_null(value=False)
    follows = (pl.col("_first") - pl.col("_last") == 1).fill_null(value=False)
    return found.with_columns(_traded=traded, _quiet=~traded & (pl.col("_known") | follows))


def _within(slots: pl.LazyFrame, ranges: RangeSet, name: str) -> pl.LazyFrame:
    """Adds whether a slot lies wholly in one of the ranges."""
    if not ranges:
        return slots.with_columns(pl.lit(value=False).alias(name))
    known = _frame(ranges).select(pl.col("start").alias("_from"), pl.col("end").alias("_to"))
    joined = slots.sort("start").join_asof(
        known, left_on="start", right_on="_from", strategy="backward", check_sortedness=False
    )
    inside = (pl.col("end") <= pl.col("_to")).fill_null(value=False)
    return joined.with_columns(inside.alias(name)).drop("_from", "_to")


def _intervals(missing: pl.LazyFrame) -> pl.LazyFrame:
    """Neighbouring slots of one reason and UTC day as one interval."""
    run = pl.col("slot") - pl.int_range(pl.len())
    counted = (
        pl.when(pl.col("rows") == 1)
        .then(pl.lit("1 bar is missing"))
        .otherwise(pl.format("{} bars are missing", "rows"))
    )
    return (
        missing.sort("slot")
        .with_columns(_run=run, _day=pl.col("start").dt.date())
        .group_by("_run", "_day", "reason", pl.col("reason").rle_id().alias("_turn"))
        .agg(
            pl.col("start").min(),
            pl.col("end").max(),
            rows=pl.len().cast(pl.Int64),
        )
        .sort("start")
        .select(
            "start",
            "end",
            "rows",
            "reason",
            measured=pl.col("rows").cast(pl.Float64),
            expected=pl.lit(0.0),
            severity=pl.when(pl.col("reason").is_in(NO_LOSSES)).then(pl.lit("info")),
            message=pl.format("{}: {}", counted, pl.col("reason").replace_strict(_MEANINGS)),
        )
    )


def _frame(ranges: RangeSet | list[TimeRange]) -> pl.LazyFrame:
    return pl.LazyFrame(
        {"start": [item.start for item in ranges], "end": [item.end for item in ranges]},
        schema={"start": TIMESTAMP, "end": TIMESTAMP},
    )


CHECKS: Mapping[str, Builtin] = {
    "gaps": Builtin(gaps, "completeness"),
    "uncovered": Builtin(uncovered, "completeness"),
}
