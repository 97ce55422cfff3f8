"""Find missing rows and their reasons: slots without a bar, and time that was never requested.

A missing bar is a loss (`not_given`, `not_fetched`, `unknown`, `lost`), or it is not (`no_trade`,
`venue_outage`). A hole in the venue's answer proves nothing by itself: trades prove a loss or its
absence, or the venue is known to omit bars without trades.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.grid import Grid
from lake.model.interpolate import is_guess
from lake.model.intervals import RangeSet, intersect, split, subtract
from lake.model.slots import slot_of
from lake.model.time import DAY, TimeRange
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase, group_runs, select_few
from lake.quality.checks.conservation import add_conservation
from lake.quality.checks.missing_slots import find_missing_slots, find_slots_not_given
from lake.quality.slice import Reference, Slice

LOSSES = ("not_given", "not_fetched", "unknown", "lost")
NO_LOSSES = ("no_trade", "venue_outage")
REASONS = (*LOSSES, *NO_LOSSES)
"""Reasons that scores count one by one; a missing bar whose row was `refused` counts as `lost`."""

REASON_TEXTS: Mapping[str, str] = {
    "lost": "the market traded then",
    "no_trade": "nothing was traded",
    "venue_outage": "all markets of the venue were silent",
    "not_given": "the source no longer serves this time",
    "not_fetched": "this time was never requested",
    "unknown": "the reason is unknown",
    "refused": "the venue's rows were rejected",
    "gone": "rows were stored there, and are gone",
}
_MIN_SECONDS = 3600  # covered time of a day from which its row rate is measured


def gaps(data: Slice) -> pl.LazyFrame:
    """Report slots without a bar between the market's first and last bar, with the reason.

    Outside these, slots are reported that the source no longer serves, whose rows were stored and
    are `gone` (coverage counts them), or of which a user has written all bars. The first reason
    that applies counts: `no_trade` (the market's trades prove it, or a bar of a longer timeframe
    has exactly the volume of the other bars in it), `refused` (its row is in quarantine), `lost`
    (the market traded then), `venue_outage`, `not_given`, `not_fetched` (not covered), `no_trade`
    (the venue is known to omit such bars), `lost` (a longer bar has volume that is in no bar),
    `unknown`.
    """
    grid = data.grid
    if grid is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    missing = classify_missing(data, grid)
    return pl.LazyFrame(schema=CHECK_COLUMNS) if missing is None else _join_slots(missing)


def uncovered(data: Slice) -> pl.LazyFrame:
    """Report holes in the coverage between the market's first and last row.

    For bars `gaps` is more exact. `rows` is an estimate of at least 1, by the row rate of the day's
    covered time, or by the market's rate if that is less than an hour.
    """
    if not data.coverage or data.span is None or data.dataset.timeframe is not None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    # Time after the last final answer is not final yet: the next ingestion requests it again.
    requested = TimeRange(data.coverage[0].start, data.coverage[-1].end)
    checked = intersect(intersect([data.range], [data.span]), [requested])
    answered = [*data.coverage, *data.not_given]
    holes = [day for hole in subtract(checked, answered) for day in split(hole, DAY)]
    if not holes:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    length = (pl.col("end") - pl.col("start")).dt.total_microseconds() / 1e6
    usual = pl.lit(data.rows_per_second, dtype=pl.Float64)
    estimate = pl.coalesce(pl.col("_rate"), usual, 0.0) * pl.col("length")
    return (
        _to_frame(holes)
        .with_columns(length=length, _day=pl.col("start").dt.date())
        .join(_measure_rates(data, intersect(checked, data.coverage)), on="_day", how="left")
        .select(
            "start",
            "end",
            rows=pl.max_horizontal(estimate.ceil().cast(pl.Int64), 1),
            measured=pl.col("length"),
            reason=pl.lit("not_fetched"),
            message=pl.format("{} seconds were never requested", pl.col("length").round(3)),
        )
    )


def not_given(data: Slice) -> pl.LazyFrame:
    """Report time that was requested and that the source no longer serves, whatever is around it.

    Also time before the first and after the last row whose rows were stored and are `gone`. For
    bars, `gaps` reports both. `rows` is an estimate of at least 1, by the rate of the market.
    """
    if data.dataset.timeframe is not None or not (data.not_given or data.gone):
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    lost = (
        (data.not_given, "not_given", "the source no longer serves {} seconds"),
        (data.gone, "gone", "the rows of {} seconds are gone"),
    )
    return pl.concat(_report_time(data, *item) for item in lost)


def _report_time(data: Slice, ranges: RangeSet, reason: str, text: str) -> pl.LazyFrame:
    parts = [day for item in intersect([data.range], ranges) for day in split(item, DAY)]
    seconds = (pl.col("end") - pl.col("start")).dt.total_microseconds() / 1e6
    estimate = (seconds * (data.rows_per_second or 0.0)).ceil().cast(pl.Int64)
    return _to_frame(parts).select(
        "start",
        "end",
        rows=pl.max_horizontal(estimate, 1),
        measured=seconds,
        reason=pl.lit(reason),
        message=pl.format(text, seconds.round(3)),
    )


def _measure_rates(data: Slice, covered: RangeSet) -> pl.LazyFrame:
    """Measure rows per second (`_day`, `_rate`) of days with an hour or more of covered time."""
    seconds: dict[date, float] = {}
    for part in (day for item in covered for day in split(item, DAY)):
        day = part.start.date()
        seconds[day] = seconds.get(day, 0.0) + part.duration.total_seconds()
    days = {day: length for day, length in seconds.items() if length >= _MIN_SECONDS}
    lengths = pl.LazyFrame(
        {"_day": list(days), "_seconds": list(days.values())},
        schema={"_day": pl.Date(), "_seconds": pl.Float64()},
    )
    counts = data.frame.filter(data.is_inside()).group_by(_day=data.time.dt.date()).len("_count")
    return lengths.join(counts, on="_day", how="left").select(
        "_day", _rate=pl.col("_count").fill_null(0) / pl.col("_seconds")
    )


def guessed(data: Slice) -> pl.LazyFrame:
    """Report interpolated rows (`interpolated:last`, `:linear`): they still count as losses.

    Flat bars of intervals without a trade and rows derived from finer data do not.
    """
    if "fill" not in data.dataset.polars_schema:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    return group_runs(
        data.frame,
        is_guess(pl.col("fill")),
        time=data.dataset.time_column,
        reason=pl.lit("unknown"),
        measured=pl.len().cast(pl.Float64),
        expected=pl.lit(0.0),
        message=pl.format(
            "{} interpolated ({}): the venue's own rows are missing",
            count_phrase(pl.len(), "row is", "rows are"),
            pl.col("fill").first(),
        ),
    )


def loss_reason(time: pl.Expr, coverage: RangeSet | None) -> pl.Expr:
    """Return the reason of a loss: `unknown` if its time is covered, else `not_fetched`.

    Parameters
    ----------
    coverage
        Intervals that the source has answered; None: not recorded, and the reason is `unknown`.
    """
    if coverage is None:
        return pl.lit("unknown")
    covered = is_within(time, coverage)
    return pl.when(covered).then(pl.lit("unknown")).otherwise(pl.lit("not_fetched"))


def is_within(time: pl.Expr, ranges: RangeSet) -> pl.Expr:
    """Whether a time is in one of the ranges."""
    is_inside = [time.is_between(item.start, item.end, closed="left") for item in ranges]
    return pl.any_horizontal(is_inside) if is_inside else pl.lit(value=False)


def classify_missing(data: Slice, grid: Grid) -> pl.LazyFrame | None:
    """Find missing slots with their `reason`, and `_against`, the table that proves it.

    None if there are none.
    """
    slots = find_missing_slots(data, grid)
    if data.not_given or data.gone:
        slots = pl.concat([slots, find_slots_not_given(data, grid)]).unique("slot")
    missing = select_few(slots)
    if missing is None:
        return None
    missing = add_conservation(missing, data, grid)
    missing = _add_refused(_add_trades(missing, data), data, grid)
    missing = _add_is_within(missing, data.outages, "_silent")
    missing = _add_is_within(missing, data.coverage or (), "_covered")
    missing = _add_is_within(missing, data.not_given, "_not_given")
    missing = _add_is_within(missing, data.gone, "_gone")
    is_covered = pl.col("_covered") | pl.lit(data.coverage is None)
    is_empty, has_excess = pl.col("_is_empty"), pl.col("_excess").is_not_null()
    marked = missing.with_columns(
        reason=pl.when(~pl.col("_traded") & (pl.col("_quiet") | is_empty))
        .then(pl.lit("no_trade"))
        .when("_refused")
        .then(pl.lit("refused"))
        .when("_traded")
        .then(pl.lit("lost"))
        .when("_gone")
        .then(pl.lit("gone"))
        .when("_silent")
        .then(pl.lit("venue_outage"))
        .when("_not_given")
        .then(pl.lit("not_given"))
        .when(~is_covered)
        .then(pl.lit("not_fetched"))
        .when(pl.lit(data.omits_empty_bars and data.coverage is not None))
        .then(pl.lit("no_trade"))
        .when(has_excess)
        .then(pl.lit("lost"))
        .otherwise(pl.lit("unknown"))
    )
    by_sum = (
        pl.when(pl.col("_traded") | pl.col("_quiet"))
        .then(pl.lit(value=False))
        .when(pl.col("reason") == "no_trade")
        .then(is_empty)
        .otherwise((pl.col("reason") == "lost") & has_excess)
    )
    return marked.with_columns(
        _against=pl.when(by_sum).then("_table"), _excess=pl.when(by_sum).then("_excess")
    )


def _add_refused(missing: pl.LazyFrame, data: Slice, grid: Grid) -> pl.LazyFrame:
    """Add `_refused`: whether a row of the slot is in quarantine."""
    if data.quarantine is None or data.quarantine.is_empty():
        return missing.with_columns(_refused=pl.lit(value=False))
    rows = data.quarantine.lazy().select(slot=slot_of(pl.col("timestamp"), grid)).unique()
    marked = rows.with_columns(_refused=pl.lit(value=True))
    return missing.join(marked, on="slot", how="left").with_columns(
        pl.col("_refused").fill_null(value=False)
    )


def _add_trades(missing: pl.LazyFrame, data: Slice) -> pl.LazyFrame:
    """Add `_traded` (the slot has a trade) and `_quiet` (it provably has none).

    That it has none is proved by coverage of the trades, or by ids: the id before the slot and the
    id after it are consecutive.
    """
    trades = data.trades
    if trades is None:
        return missing.with_columns(_traded=pl.lit(value=False), _quiet=pl.lit(value=False))
    slots = (
        missing.sort("start")
        .join_asof(
            trades.frame.select(_before="timestamp"),
            left_on="start",
            right_on="_before",
            strategy="backward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .join_asof(
            trades.frame.select(_after="timestamp"),
            left_on="start",
            right_on="_after",
            strategy="forward",
            check_sortedness=False,
        )
    )
    if data.stretches is not None:  # the next trade may be that of another market
        number = data.stretches.number
        slots = slots.with_columns(
            pl.when(number(pl.col(name)) == number(pl.col("start"))).then(name).alias(name)
            for name in ("_before", "_after")
        )
    slots = _add_ids(_add_is_within(slots, trades.coverage or (), "_covered"), trades)
    traded = (pl.col("_after") < pl.col("end")).fill_null(value=False)
    follows = (pl.col("_first") - pl.col("_last") == 1).fill_null(value=False)
    quiet = ~traded & (pl.col("_covered") | follows)
    return slots.with_columns(_traded=traded, _quiet=quiet).drop("_covered")


def _add_ids(slots: pl.LazyFrame, trades: Reference) -> pl.LazyFrame:
    """Add the last id at the time `_before` (`_last`) and the first id at `_after` (`_first`)."""
    number = pl.col("trade_id").cast(pl.Int64, strict=False)
    times = pl.concat([slots.select(timestamp=name) for name in ("_before", "_after")]).unique()
    # Several trades may have the same time.
    ids = (
        trades.frame.join(times, on="timestamp", how="semi")
        .group_by("timestamp")
        .agg(
            _first=pl.coalesce("first_id", number).min(),
            _last=pl.coalesce("last_id", number).max(),
        )
    )
    before = ids.select("_last", _before="timestamp")
    after = ids.select("_first", _after="timestamp")
    return slots.join(before, on="_before", how="left").join(after, on="_after", how="left")


def _add_is_within(slots: pl.LazyFrame, ranges: RangeSet, name: str) -> pl.LazyFrame:
    """Add the column `name`: whether a slot lies completely in one of the ranges."""
    if not ranges:
        return slots.with_columns(pl.lit(value=False).alias(name))
    frame = _to_frame(ranges).select(pl.col("start").alias("_from"), pl.col("end").alias("_to"))
    joined = slots.sort("start").join_asof(
        frame, left_on="start", right_on="_from", strategy="backward", check_sortedness=False
    )
    inside = (pl.col("end") <= pl.col("_to")).fill_null(value=False)
    return joined.with_columns(inside.alias(name)).drop("_from", "_to")


def _join_slots(missing: pl.LazyFrame) -> pl.LazyFrame:
    """Join neighbouring slots of one reason, proof and UTC day into one interval."""
    run = pl.col("slot") - pl.int_range(pl.len())
    proof = ("reason", "_against", "_excess")
    return (
        missing.sort("slot")
        .with_columns(_run=run, _day=pl.col("start").dt.date(), _turn=pl.struct(proof).rle_id())
        .group_by("_run", "_day", "_turn", *proof)
        .agg(pl.col("start").min(), pl.col("end").max(), rows=pl.len().cast(pl.Int64))
        .sort("start")
        .select(
            "start",
            "end",
            "rows",
            "reason",
            measured=pl.col("rows").cast(pl.Float64),
            expected=pl.lit(0.0),
            against="_against",
            severity=pl.when(pl.col("reason").is_in(NO_LOSSES))
            .then(pl.lit("info"))
            .when(pl.col("reason") == "not_given")
            .then(pl.lit("warning")),
            message=_phrase_gap(),
        )
    )


def _phrase_gap() -> pl.Expr:
    phrase = count_phrase(pl.col("rows"), "bar is missing", "bars are missing")
    table, excess = pl.col("_against"), pl.col("_excess").round_sig_figs(8)
    text = pl.col("reason").replace_strict(REASON_TEXTS)
    return (
        pl.when(table.is_null())
        .then(pl.format("{}: {}", phrase, text))
        .when(excess.is_null())
        .then(pl.format("{}: {}: the other bars have all volume of {}", phrase, text, table))
        .otherwise(pl.format("{}: {} of the volume of {} is in no bar", phrase, excess, table))
    )


def _to_frame(ranges: RangeSet | list[TimeRange]) -> pl.LazyFrame:
    return pl.LazyFrame(
        {"start": [item.start for item in ranges], "end": [item.end for item in ranges]},
        schema={"start": TIMESTAMP, "end": TIMESTAMP},
    )


CHECKS: Mapping[str, BuiltinCheck] = {
    "gaps": BuiltinCheck(gaps, "completeness"),
    "uncovered": BuiltinCheck(uncovered, "completeness"),
    "not_given": BuiltinCheck(not_given, "completeness"),
    "guessed": BuiltinCheck(guessed, "completeness"),
}
