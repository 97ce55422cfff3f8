"""Find prices at a wrong level: days joined wrongly, and bars that are off by a factor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.model.time import MICROSECOND
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase, group_runs, select_few
from lake.quality.checks.bars import end_of_row, filter_observed, previous_value
from lake.quality.checks.second_opinions import (
    WITNESSES,
    find_agreeing_bars,
    judge_jumps,
    name_witnesses,
)
from lake.quality.slice import Slice

_EDGE = 0.9  # quantile of jumps between bars: the least size of a deviation, as in spikes
_SECONDS_A_DAY = 86_400
_MIN_ROWS = 20  # bars around midnight that are needed to measure how prices move
_ALMOST = 1 - 1e-9  # rounding errors must not lose a step at the bound
_RETURNED = 0.7  # largest difference of two jumps that cancel, as a logarithm: factor 2


def jumps(data: Slice, *, deviations: float, window_rows: int, min_return: float) -> pl.LazyFrame:
    """Report first bars of a day that open far from the last close: days joined wrongly.

    If trades, finer bars or other venues show the same jump, it is real; if they do not, it is an
    error.

    A deviation is the median return of the bars around midnight, or, if that is larger, the 90th
    percentile of the jumps between two of them.
    """
    timeframe = data.dataset.timeframe
    if timeframe is None or timeframe.seconds >= _SECONDS_A_DAY:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    half_day = timedelta(hours=12)
    around = min(half_day, window_rows // 2 * timedelta(seconds=timeframe.seconds))
    frame = _select_near_midnight(data, around)
    change = (pl.col("_close") / pl.col("_before")).log().abs()
    edge = pl.col("_jump").abs().quantile(_EDGE)
    scale = pl.max_horizontal(change.median(), edge, pl.lit(min_return))
    nights = frame.group_by("_midnight").agg(_scale=scale, _rows=pl.len())
    firsts = frame.filter(data.time == pl.col("_midnight"), "_next").join(nights, on="_midnight")
    far = pl.col("_jump").abs() > deviations * pl.col("_scale")
    suspects = select_few(
        firsts.filter(far & (pl.col("_rows") >= _MIN_ROWS)).with_columns(
            start=data.time, open="_open", _away="_jump"
        )
    )
    if suspects is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    judged = judge_jumps(data, suspects)
    return judged.filter(~pl.col("_confirmed").fill_null(value=False)).select(
        start="start",
        end=end_of_row(data),
        measured="_open",
        expected="_before",
        against="_against",
        severity=pl.when(pl.col("_confirmed").is_not_null()).then(pl.lit("error")),
        message=pl.format(
            "The day opens at {}, {} deviations from the last close of {}; {}",
            "_open",
            (pl.col("_jump").abs() / pl.col("_scale")).round(1),
            "_before",
            WITNESSES,
        ),
    )


def _select_near_midnight(data: Slice, around: timedelta) -> pl.LazyFrame:
    """Select the bars around each midnight, with the last close and whether no bar is between."""
    microseconds = around // MICROSECOND
    of_day = data.time.dt.timestamp("us") % (_SECONDS_A_DAY * 1_000_000)
    is_near = (of_day <= microseconds) | (of_day >= _SECONDS_A_DAY * 1_000_000 - microseconds)
    return (
        filter_observed(data)
        .select(
            data.time,
            _open="open",
            _before=previous_value(data, "close"),
            _close="close",
            _last=data.time.shift(1),
        )
        .filter(is_near)
        .with_columns(
            _midnight=(data.time + timedelta(hours=12)).dt.truncate("1d"),
            _next=data.time == pl.col("_last") + pl.lit(data.step),
            _jump=(pl.col("_open") / pl.col("_before")).log(),
        )
    )


def scale(data: Slice, *, factor: float) -> pl.LazyFrame:
    """Report bars whose prices are wrong by a factor: a wrong unit or decimal point.

    Bars that agree with trades, finer bars or another venue within the root of `factor` are real.

    Parameters
    ----------
    factor
        Smallest ratio of two consecutive closes: no market moves so far in one bar and later
        returns just as fast.
    """
    least = math.log(factor)
    time = data.dataset.time_column
    # Ratios are compared first: the logarithms of all would be dear.
    ratio, bound = pl.col("_ratio"), factor * _ALMOST
    bars = filter_observed(data).select(data.time, "close")
    steps = (
        filter_observed(data)
        .select(data.time, _ratio=pl.col("close") / previous_value(data, "close"))
        .filter((ratio >= bound) | (ratio <= 1 / bound))
        .select(data.time, _step=ratio.log())
        .filter(pl.col("_step").abs() >= least)
    )
    few = select_few(steps)
    if few is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    offsets = _measure_offsets(few, data, least - _RETURNED)
    times = pl.col("_away").median().exp().round_sig_figs(3)
    # Almost always no day is left here.
    suspects = _select_days(bars, offsets, data).join_asof(
        offsets, on=time, by="_day", strategy="backward", check_sortedness=False
    )
    closes = suspects.filter("_is_off").select("close", start=data.time)
    real = find_agreeing_bars(data, closes, least / 2).select(pl.col("start").alias(time))
    return group_runs(
        suspects.join(real.with_columns(_real=pl.lit(value=True)), on=time, how="left").sort(time),
        pl.col("_is_off") & pl.col("_real").is_null(),
        time=time,
        end=end_of_row(data),
        measured=times,
        expected=pl.lit(1.0),
        reason=pl.lit("factor"),
        message=pl.format(
            "{} wrong by a factor of about {}; {}",
            count_phrase(pl.len(), "bar is", "bars are"),
            times,
            pl.lit(name_witnesses(data)),
        ),
    )


def _select_days(bars: pl.LazyFrame, offsets: pl.LazyFrame, data: Slice) -> pl.LazyFrame:
    """Select the bars of the days of `offsets`, with their `_day`."""
    day = (data.time.dt.timestamp("us") // (_SECONDS_A_DAY * 1_000_000)).alias("_number")
    numbers = offsets.select(pl.col("_day").dt.timestamp("us") // (_SECONDS_A_DAY * 1_000_000))
    numbers = numbers.rename({"_day": "_number"}).unique()
    of_days = bars.with_columns(day).join(numbers, on="_number", how="semi", maintain_order="left")
    return of_days.drop("_number").with_columns(_day=data.time.dt.truncate("1d"))


def _measure_offsets(steps: pl.LazyFrame, data: Slice, least: float) -> pl.LazyFrame:
    """Measure how far prices are `_away` from normal after each step, and whether they are wrong.

    Only days with a step around them are returned. The normal offset is the one of most of the time
    around the day, or, if that is undecided, of the day itself. `_is_off` is false at the beginning
    and the end, because a return to normal cannot be seen there.
    """
    first, last = ((data.time + reach).dt.truncate("1d") for reach in (-data.reach, data.reach))
    by_day = steps.with_columns(_day=pl.datetime_ranges(first, last, "1d")).explode("_day")
    begin = (pl.col("_day") - data.reach).alias(data.dataset.time_column)
    begins = by_day.select("_day").unique().select(begin, "_day", _step=0.0)
    parts = (
        pl.concat([begins, by_day.select(begins.collect_schema().names())])
        .sort("_day", data.time, maintain_order=True)
        .with_columns(_offset=pl.col("_step").cum_sum().over("_day"), _long=_measure_lengths(data))
    )
    half = pl.col("_long").cum_sum().over("_day") * 2 >= pl.col("_long").sum().over("_day")
    normal = parts.sort("_day", "_offset").filter(half).group_by("_day").agg(pl.first("_offset"))
    off = pl.col("_away").abs() >= least
    run = (off != off.shift(1)).fill_null(value=False).cum_sum().over("_day")
    inner = (run > run.min().over("_day")) & (run < run.max().over("_day"))
    return (
        parts.join(normal, on="_day", suffix="_normal")
        .with_columns(_away=pl.col("_offset") - pl.col("_offset_normal"))
        .sort("_day", data.time)
        .select(data.time, "_day", "_away", _is_off=off & inner)
        .sort(data.time)
    )


def _measure_lengths(data: Slice) -> pl.Expr:
    """Measure how long each offset lasts around its day; time within the day hardly counts."""
    midnight, next_midnight = pl.col("_day"), pl.col("_day").dt.offset_by("1d")
    end = data.time.shift(-1).over("_day").fill_null(next_midnight + data.reach)
    within = pl.min_horizontal(end, next_midnight) - pl.max_horizontal(data.time, midnight)
    seconds = pl.max_horizontal(within.dt.total_seconds(), 0)
    return (end - data.time).dt.total_seconds() - seconds * (1 - 1e-6)


CHECKS: Mapping[str, BuiltinCheck] = {
    "jumps": BuiltinCheck(jumps, "accuracy"),
    "scale": BuiltinCheck(scale, "accuracy"),
}
