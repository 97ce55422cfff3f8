"""Check times of rows: plausible, ordered, unique, on the grid, and close to the receive time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.model.dataset import RECEIVED_AT
from lake.model.literals import time_literal
from lake.model.schedule import scheduled_at
from lake.model.slots import slot_of, start_of
from lake.model.time import FIRST_TIME
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase, group_runs, select_few
from lake.quality.slice import Slice

_UNIT = 1000  # seconds, milliseconds and microseconds are a thousand apart
_FARTHEST_ZONE = timedelta(hours=14)
_IMPOSSIBLE: Mapping[str, str] = {
    "too_small_unit": "probably seconds read as milliseconds, or similar",
    "too_large_unit": "probably milliseconds read as seconds, or similar",
    "ahead": "up to 14 hours ahead of the clock, probably a local time",
    "impossible": "before the first Bitcoin block, or in the future",
}


def implausible_time(data: Slice, *, ahead_seconds: float) -> pl.LazyFrame:
    """Report rows before the first market, or after the present: wrong units, or a local time."""
    latest = data.now + timedelta(seconds=ahead_seconds)
    time, first_time, last_time = data.time, time_literal(FIRST_TIME), time_literal(latest)
    farthest = time_literal(latest + _FARTHEST_ZONE)
    us = time.dt.timestamp("us")
    low, high = (int(t.timestamp()) * 1_000_000 for t in (FIRST_TIME, latest))
    reason = (
        pl.when((us < low) & (us * _UNIT).is_between(low, high))
        .then(pl.lit("too_small_unit"))
        .when((us // _UNIT).is_between(low, high))
        .then(pl.lit("too_large_unit"))
        .when((time > last_time) & (time <= farthest))
        .then(pl.lit("ahead"))
        .otherwise(pl.lit("impossible"))
    )
    bad = select_few(data.frame.filter((time < first_time) | (time > last_time)))
    if bad is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    bad = bad.with_columns(_reason=reason)
    return pl.concat(
        group_runs(
            bad,
            pl.col("_reason") == name,
            time=data.dataset.time_column,
            reason=pl.lit(name),
            measured=us.first() / 1e6,
            expected=pl.when(time.first() < first_time).then(low / 1e6).otherwise(high / 1e6),
            message=pl.format(
                "{} an impossible time: {}",
                count_phrase(pl.len(), "row has", "rows have"),
                pl.lit(text),
            ),
        )
        for name, text in _IMPOSSIBLE.items()
    )


def order(data: Slice) -> pl.LazyFrame:
    """Report rows that follow a row of a later time, in the given order."""
    behind = data.time.shift(1) - data.time
    return group_runs(
        data.frame.with_columns(_behind=behind.dt.total_microseconds() / 1e6),
        pl.col("_behind") > 0,
        time=data.dataset.time_column,
        measured=pl.col("_behind").max(),
        expected=pl.lit(0.0),
        message=pl.format(
            "{} earlier than the previous row", count_phrase(pl.len(), "row is", "rows are")
        ),
    )


def duplicates(data: Slice) -> pl.LazyFrame:
    """Report rows with the key of another row, or of the same scheduled event.

    Tables have several only if their times differ by more than the tolerance of the dataset; files
    of other origin may have any. Trades with an id of another time, price or amount are reported by
    `conflicting_ids` instead, if the dataset has that check.
    """
    key = data.dataset.key
    if key == (data.dataset.time_column,):
        # Rows are mostly sorted, and then this is much cheaper than looking for distinct keys.
        frame = data.frame.select(key).sort(key).with_row_index("_row")
        event = scheduled_at(data.dataset, data.time)
        frame = frame.with_columns(_again=event == event.shift(1))
    else:
        frame = _mark_repeated(data)
    return group_runs(
        frame,
        pl.col("_again"),
        place=pl.col("_row"),
        time=data.dataset.time_column,
        measured=pl.len().cast(pl.Float64) + 1,
        expected=pl.lit(1.0),
        message=pl.format(
            "{} the key of another row", count_phrase(pl.len(), "row repeats", "rows repeat")
        ),
    )


def _mark_repeated(data: Slice) -> pl.LazyFrame:
    """Mark rows as `_again` whose key came before, except conflicting ones.

    Only rows that may repeat a key are returned, with their place (`_row`) in the frame.
    """
    key = list(data.dataset.key)
    is_compared = any(check.name == "conflicting_ids" for check in data.dataset.checks)
    values = [data.dataset.time_column, *(("price", "amount") if is_compared else ())]
    rows = _select_repeated(data, list(dict.fromkeys([*values, *key])))
    again = pl.int_range(pl.len()).over(key) > 0
    if is_compared:
        is_number = pl.col("trade_id").cast(pl.Int64, strict=False).is_not_null()
        differs = pl.any_horizontal(pl.col(name) != pl.col(name).shift(1) for name in values)
        again &= ~(is_number & differs.over(key)).fill_null(value=False)
    return rows.with_columns(_again=again)


def _select_repeated(data: Slice, names: list[str]) -> pl.LazyFrame:
    """Select the rows whose key may be that of another row, with their place: mostly none.

    Sorting numbers is much cheaper than looking for distinct texts, above all if they are sorted.
    """
    key = data.dataset.key
    number = pl.struct(key).hash() if len(key) > 1 else pl.col(key[0]).hash()
    number = number.reinterpret(signed=True)
    if key == ("trade_id",):
        number = pl.coalesce(pl.col("trade_id").cast(pl.Int64, strict=False), number)
    rows = data.frame.select(*names, _number=number).with_row_index("_row")
    ordered = rows.select(pl.col("_number").sort())
    several = ordered.filter(pl.col("_number") == pl.col("_number").shift(1)).unique()
    return rows.join(several, on="_number", how="semi", maintain_order="left").drop("_number")


def off_grid(data: Slice) -> pl.LazyFrame:
    """Report bars that do not open on the grid of their timeframe, or on that of the venue."""
    grid = data.grid
    if grid is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    off = data.time - start_of(slot_of(data.time, grid), grid)
    return group_runs(
        data.frame.with_columns(_off=off.dt.total_microseconds() / 1e6),
        pl.col("_off") != 0,
        time=data.dataset.time_column,
        measured=pl.col("_off").max(),
        expected=pl.lit(0.0),
        message=pl.format(
            "{} up to {} s off the grid of {}",
            count_phrase(pl.len(), "bar opens", "bars open"),
            pl.col("_off").max(),
            pl.lit(str(grid)),
        ),
    )


def clock_skew(data: Slice, *, ahead_ms: float, late_ms: float) -> pl.LazyFrame:
    """Report rows received before they happened (`ahead`), or long after that (`late`)."""
    if not data.dataset.records_receipt:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    delay = (pl.col(RECEIVED_AT) - data.dataset.happened_at()).dt.total_microseconds() / 1e3
    return pl.concat(
        [
            _group_delays(data, delay, delay < -ahead_ms, "ahead", -ahead_ms),
            _group_delays(data, delay, delay > late_ms, "late", late_ms),
        ]
    )


def _group_delays(
    data: Slice, delay: pl.Expr, bad: pl.Expr, reason: str, bound_ms: float
) -> pl.LazyFrame:
    worst = delay.min() if reason == "ahead" else delay.max()
    texts = {
        "ahead": "{} up to {} ms before their own time: the clocks differ",
        "late": "{} up to {} ms after their own time",
    }
    rows = count_phrase(pl.len(), "row arrived", "rows arrived")
    return group_runs(
        data.frame,
        bad,
        time=data.dataset.time_column,
        reason=pl.lit(reason),
        measured=worst,
        expected=pl.lit(bound_ms),
        message=pl.format(texts[reason], rows, worst.abs()),
    )


CHECKS: Mapping[str, BuiltinCheck] = {
    "implausible_time": BuiltinCheck(implausible_time, "accuracy"),
    "order": BuiltinCheck(order, "consistency"),
    "duplicates": BuiltinCheck(duplicates, "consistency"),
    "off_grid": BuiltinCheck(off_grid, "accuracy"),
    "clock_skew": BuiltinCheck(clock_skew, "timeliness"),
}
