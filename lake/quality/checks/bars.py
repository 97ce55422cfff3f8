"""Check bars by themselves: rules, zero volume, frozen prices, jumps at midnight, wrong factors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.model.ohlcv import PRICES
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase, group_runs
from lake.quality.slice import Reference, Slice

_EDGE = 0.9  # quantile of jumps between bars: the least size of a deviation, as in spikes
_SECONDS_A_DAY = 86_400
_MIN_ROWS = 20  # bars around midnight that are needed to measure how prices move
_RETURNED = 0.7  # largest difference of two jumps that cancel, as a logarithm: factor 2


def filter_observed(bars: Slice | Reference) -> pl.LazyFrame:
    """Keep the closed bars of a venue: no open and no filled bars."""
    names = bars.dataset.polars_schema
    conditions = [pl.col("closed")] if "closed" in names else []
    conditions += [pl.col("fill").is_null()] if "fill" in names else []
    return bars.frame.filter(*conditions) if conditions else bars.frame


def broken_rules(data: Slice) -> pl.LazyFrame:
    """Report stored rows that break a rule of their dataset; the reason is the first such rule.

    Rows that `lake` stored obey the rules; rows that other engines wrote may not.
    """
    if not data.dataset.rules:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    broken = [(rule.name, ~rule.expression) for rule in data.dataset.rules]
    names = [pl.when(wrong).then(pl.lit(name)) for name, wrong in broken]
    bad = pl.any_horizontal(wrong for _, wrong in broken).fill_null(value=False)
    # Almost always no row is left here, so that grouping the rest is cheap.
    few = data.frame.with_row_index("_row").filter(bad).with_columns(_rule=pl.coalesce(names))
    follows = (pl.col("_row").diff() == 1) & (pl.col("_rule") == pl.col("_rule").shift(1))
    rule = pl.col("_rule").first()
    return (
        few.with_columns(_run=(~follows.fill_null(value=False)).cum_sum(), _day=data.time.dt.date())
        .group_by("_run", "_day", maintain_order=True)
        .agg(
            start=data.time.first(),
            end=_row_end(data).last(),
            rows=pl.len().cast(pl.Int64),
            reason=rule,
            measured=pl.len().cast(pl.Float64),
            expected=pl.lit(0.0),
            message=pl.format(
                "{} the rule {}", count_phrase(pl.len(), "row breaks", "rows break"), rule
            ),
        )
        .drop("_run", "_day")
    )


def zero_volume(data: Slice, *, min_rows: int, times: float) -> pl.LazyFrame:
    """Report runs of bars without volume that are much longer than usual for the market."""
    bad = pl.col("volume") == 0
    text = "{} consecutive bars have no volume; {} would be usual"
    return _find_long_runs(data, bad, text, min_rows=min_rows, times=times)


def stale(data: Slice, *, min_rows: int, times: float) -> pl.LazyFrame:
    """Report runs of bars with one price, though something was traded: a frozen feed.

    A market that trades in each bar rarely keeps its price to the last digit.
    """
    close = pl.col("close")
    same = pl.all_horizontal(
        close == previous_value(data, "close"), *(pl.col(name) == close for name in PRICES[:3])
    )
    text = "{} consecutive bars have the same price, with volume; {} would be usual"
    return _find_long_runs(
        data, same & (pl.col("volume") > 0), text, min_rows=min_rows, times=times
    )


def previous_value(data: Slice, name: str) -> pl.Expr:
    """Return the value of the previous bar; null if that is too far away, or has the same time."""
    distance = data.time - data.time.shift(1)
    is_near = (distance > timedelta(0)) & (distance <= data.reach)
    return pl.when(is_near).then(pl.col(name).shift(1))


def _find_long_runs(
    data: Slice, bad: pl.Expr, text: str, *, min_rows: int, times: float
) -> pl.LazyFrame:
    """Find runs of at least `min_rows` bars that are `times` longer than expected by chance.

    If a share p of all bars is bad, independently of each other, runs have 1 / (1 - p) bars on
    average, and one run in exp(n) is n times longer. Each day of a run gets the length of the whole
    run; p is the share in the day and `Slice.reach` around it.
    """
    marked = (
        filter_observed(data)
        .select(data.time.alias("_time"), _bad=bad.fill_null(value=False))
        .with_row_index("_row")
        .with_columns(_run=pl.col("_bad").rle_id(), _sum=pl.col("_bad").cum_sum())
    )
    length = pl.min_horizontal("_last", "_high") - pl.max_horizontal("_first", "_low") + 1
    usual = 1 / (1 - pl.col("_bad") / pl.col("_all")).clip(1e-6)
    return (
        _add_day_counts(_split_by_day(marked, data, min_rows), marked, data)
        .with_columns(measured=length.cast(pl.Float64), expected=usual)
        .filter(pl.col("measured") >= pl.max_horizontal(min_rows, times * pl.col("expected")))
        .select(
            *("start", "end", "rows", "measured", "expected"),
            message=pl.format(text, pl.col("measured").cast(pl.Int64), pl.col("expected").round(1)),
        )
    )


def _split_by_day(marked: pl.LazyFrame, data: Slice, min_rows: int) -> pl.LazyFrame:
    """Split runs that are long enough by day, with `_first` and `_last` row of the whole run."""
    return (
        marked.filter("_bad")
        .filter(pl.len().over("_run") >= min_rows)
        .with_columns(
            _first=pl.col("_row").min().over("_run"), _last=pl.col("_row").max().over("_run")
        )
        .group_by("_run", pl.col("_time").dt.truncate("1d").alias("_day"), maintain_order=True)
        .agg(
            pl.col("_first", "_last").first(),
            start=pl.col("_time").first(),
            end=_row_end(data, "_time").last(),
            rows=pl.len().cast(pl.Int64),
        )
    )


def _add_day_counts(parts: pl.LazyFrame, marked: pl.LazyFrame, data: Slice) -> pl.LazyFrame:
    """Add the first and last row of the day and its surroundings, and the number of bad rows."""
    low = marked.select("_time", _low="_row", _under=pl.col("_sum") - pl.col("_bad"))
    high = marked.select("_time", _high="_row", _over="_sum")
    return (
        parts.with_columns(
            _from=pl.col("_day") - data.reach,
            _to=pl.col("_day").dt.offset_by("1d") + data.reach,
        )
        .join_asof(low, left_on="_from", right_on="_time", strategy="forward")
        .join_asof(
            high, left_on="_to", right_on="_time", strategy="backward", allow_exact_matches=False
        )
        .with_columns(
            _bad=pl.col("_over").cast(pl.Int64) - pl.col("_under").cast(pl.Int64),
            _all=pl.col("_high").cast(pl.Int64) - pl.col("_low").cast(pl.Int64) + 1,
        )
    )


def jumps(data: Slice, *, deviations: float, window_rows: int, min_return: float) -> pl.LazyFrame:
    """Report first bars of a day that open far from the last close: days joined wrongly.

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
    return firsts.filter(far & (pl.col("_rows") >= _MIN_ROWS)).select(
        start=data.time,
        end=_row_end(data),
        measured="_open",
        expected="_before",
        message=pl.format(
            "The day opens at {}, {} deviations from the last close of {}",
            "_open",
            (pl.col("_jump").abs() / pl.col("_scale")).round(1),
            "_before",
        ),
    )


def _select_near_midnight(data: Slice, around: timedelta) -> pl.LazyFrame:
    """Select the bars around each midnight, with the last close and whether no bar is between."""
    return (
        filter_observed(data)
        .select(
            data.time,
            _open="open",
            _before=previous_value(data, "close"),
            _close="close",
            _midnight=(data.time + timedelta(hours=12)).dt.truncate("1d"),
            _next=data.time == data.time.shift(1) + pl.lit(data.step),
        )
        .filter((data.time - pl.col("_midnight")).abs() <= around)
        .with_columns(_jump=(pl.col("_open") / pl.col("_before")).log())
    )


def scale(data: Slice, *, factor: float) -> pl.LazyFrame:
    """Report bars whose prices are wrong by a factor: a wrong unit or decimal point.

    Parameters
    ----------
    factor
        Smallest ratio of two consecutive closes: no market moves so far in one bar and later
        returns just as fast.
    """
    least = math.log(factor)
    time = data.dataset.time_column
    step = (pl.col("close") / previous_value(data, "close")).log()
    bars = filter_observed(data).select(data.time, _step=step, _day=data.time.dt.truncate("1d"))
    steps = bars.filter(pl.col("_step").abs() >= least).select(data.time, "_step")
    offsets = _measure_offsets(steps, data, least - _RETURNED)
    times = pl.col("_away").median().exp().round_sig_figs(3)
    return group_runs(
        # Almost always no day is left here.
        bars.join(offsets, on="_day", how="semi").join_asof(
            offsets, on=time, by="_day", strategy="backward", check_sortedness=False
        ),
        pl.col("_is_off"),
        time=time,
        end=_row_end(data),
        measured=times,
        expected=pl.lit(1.0),
        reason=pl.lit("factor"),
        message=pl.format(
            "{} wrong by a factor of about {}",
            count_phrase(pl.len(), "bar is", "bars are"),
            times,
        ),
    )


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


def _row_end(data: Slice, time: str | None = None) -> pl.Expr:
    """Return the end of a row."""
    start = pl.col(time or data.dataset.time_column)
    return start + pl.lit(data.step) if data.step else start.dt.offset_by("1us")


CHECKS: Mapping[str, BuiltinCheck] = {
    "broken_rules": BuiltinCheck(broken_rules, "accuracy"),
    "zero_volume": BuiltinCheck(zero_volume, "accuracy"),
    "stale": BuiltinCheck(stale, "accuracy"),
    "jumps": BuiltinCheck(jumps, "accuracy"),
    "scale": BuiltinCheck(scale, "accuracy"),
}
