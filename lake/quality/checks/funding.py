"""Check funding: missing events, events off schedule or repeated, and implausible rates.

Venues settle every 8, 4 or 1 hours, and change that occasionally. The interval at a time is the
usual one around it, in whole hours.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.time import EPOCH, MICROSECOND
from lake.model.timeframe import Timeframe
from lake.quality.check import BuiltinCheck, count_phrase, group_runs
from lake.quality.checks.completeness import REASON_TEXTS, is_within, loss_reason
from lake.quality.slice import Slice

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_AUTO = "auto"
_AROUND = 21
"""Events around one that its usual interval is taken from; odd, so that its own side of a change
of interval wins."""
_MIN_EVENTS = 3
_LONGEST_HOURS = 8
"""Longest interval that a venue changes to; longer steps are missing events."""
_HALF = 0.5
_NORMAL = 1.4826  # standard deviation of a normal distribution, in median absolute deviations


def funding_gaps(data: Slice, *, interval: str) -> pl.LazyFrame:
    """Report missing events between the market's first and last event.

    `not_fetched`: that time was never requested. `unknown`: it was, or that was not recorded.

    Parameters
    ----------
    interval
        Time between events, such as `8h`; `auto`: the usual one of at least three events around.
    """
    length = pl.col("_length")
    count = ((pl.col("_to") - pl.col("_from")) / length).round().cast(pl.Int64)
    midnight = (pl.col("_us") // _DAY_US + 1) * _DAY_US
    missing = (
        _pair_events(data, interval)
        .filter(count > 1)
        .with_columns(_number=pl.int_ranges(1, count))
        .explode("_number")
        .select(length, _us=pl.col("_from") + pl.col("_number") * length)
        .sort("_us")
        .with_columns(
            start=pl.col("_us").cast(TIMESTAMP),
            end=pl.min_horizontal(pl.col("_us") + length, midnight).cast(TIMESTAMP),
        )
        .filter(pl.col("start").is_between(data.range.start, data.range.end, closed="left"))
        .filter(~is_within(pl.col("start"), data.not_given))
        .with_columns(_reason=loss_reason(pl.col("start"), data.coverage))
    )
    return _join_events(missing)


def funding_schedule(data: Slice, *, interval: str, tolerance_seconds: float) -> pl.LazyFrame:
    """Report events that are off the grid of the interval, or too soon after another event.

    `off_schedule`: more than the tolerance away from its time; measured in seconds. `repeated`:
    less than half an hour after the previous event. `more_often` (info): an additional event on
    the hour, after a fraction of the usual interval, as venues add in volatile markets.
    """
    frame = _add_reasons(_add_intervals(data, interval), data.time, tolerance_seconds)
    after, seconds = pl.col("_after").min(), pl.col("_off").get(pl.col("_off").abs().arg_max())
    usual = pl.col("_length").first() / 1e6
    reasons = {
        "off_schedule": (seconds, pl.lit(0.0), "An event is {} s off its schedule"),
        "repeated": (after, usual, "An event follows the previous one after only {} s"),
        "more_often": (after, usual, "Events follow each other every {} s"),
    }
    return pl.concat(
        group_runs(
            frame,
            pl.col("_reason") == reason,
            time=data.dataset.time_column,
            reason=pl.lit(reason),
            measured=measured,
            expected=expected.cast(pl.Float64),
            severity=pl.lit("info" if reason == "more_often" else None, dtype=pl.String),
            message=pl.format(text, measured.round(3)),
        )
        for reason, (measured, expected, text) in reasons.items()
    )


def funding_bounds(
    data: Slice, *, limit: float, usual_limit: float, window_rows: int
) -> pl.LazyFrame:
    """Report rates that the venue never applies (`beyond_limit`), or that are in percent (`unit`).

    Parameters
    ----------
    limit
        Largest absolute rate of an interval, as a fraction, where that of the contract is unknown.
    usual_limit
        Largest usual rate: the median of the absolute rates of `window_rows` around.
    """
    limit = limit if data.funding_limit is None else data.funding_limit
    size = pl.col("funding_rate").abs()
    usual = size.rolling_median(window_rows, center=True, min_samples=min(_MIN_EVENTS, window_rows))
    frame = data.frame.with_columns(_size=size, _usual=usual)
    unit = pl.col("_usual") > usual_limit
    worst = pl.col("funding_rate").get(pl.col("_size").arg_max())
    beyond = group_runs(
        frame,
        (~unit).fill_null(value=True) & (pl.col("_size") > limit),
        time=data.dataset.time_column,
        reason=pl.lit("beyond_limit"),
        measured=worst,
        expected=pl.lit(limit),
        message=pl.format("The rate {} is outside [{}, {}]", worst, pl.lit(-limit), pl.lit(limit)),
    )
    usual_here = pl.col("_usual").max()
    percent = group_runs(
        frame,
        unit,
        time=data.dataset.time_column,
        reason=pl.lit("unit"),
        measured=usual_here,
        expected=pl.lit(usual_limit),
        message=pl.format("The usual rate is {}, probably in percent, not a fraction", usual_here),
    )
    return pl.concat([beyond, percent])


def funding_outliers(data: Slice, *, window_rows: int, mads: float, floor: float) -> pl.LazyFrame:
    """Report rates far from those around them. Such rates occur, and may be correct.

    Parameters
    ----------
    window_rows
        Number of events around an event that it is compared with.
    mads
        Smallest distance from their median, in robust standard deviations: 1.4826 times the median
        absolute deviation.
    floor
        Smallest distance from their median, as a fraction: in calm times all rates are the same,
        and the deviation is 0.
    """
    rate = pl.col("funding_rate")
    frame = data.frame.with_columns(
        _median=rate.rolling_median(window_rows, center=True, min_samples=1)
    ).with_columns(_away=(rate - pl.col("_median")).abs())
    deviation = pl.col("_away").rolling_median(window_rows, center=True, min_samples=1) * _NORMAL
    worst = pl.col("_away").arg_max()
    measured, usual = rate.get(worst), pl.col("_median").get(worst)
    return group_runs(
        frame.with_columns(_bound=pl.max_horizontal(mads * deviation, pl.lit(floor))),
        pl.col("_away") > pl.col("_bound"),
        time=data.dataset.time_column,
        measured=measured,
        expected=usual,
        severity=pl.lit("info"),
        message=pl.format("The rate {} is far from the usual rate of {}", measured, usual),
    )


def _add_reasons(frame: pl.LazyFrame, time: pl.Expr, tolerance_seconds: float) -> pl.LazyFrame:
    """Add `_off` and `_after` in seconds, and the `_reason` of a defect."""
    us = time.dt.timestamp("us")
    off = (us - (us / _HOUR_US).round() * _HOUR_US) / 1e6
    phase = pl.col("_phase_off") * _HOUR_US / 1e6
    before = us - us.shift(1)
    repeated = before < _HOUR_US * _HALF
    hours, usual_hours = pl.col("_hours"), pl.col("_usual")
    soon = (hours <= usual_hours * _HALF) | (phase != 0)
    # Beside a displaced event, a step does not divide the interval.
    steps = (hours, hours.shift(-1))
    parts = [(usual_hours % step == 0) & (step < usual_hours) for step in steps]
    between = pl.all_horizontal(part.fill_null(value=True) for part in parts)
    unscheduled = (off.abs() > tolerance_seconds) | ((phase != 0) & ~between)
    return frame.with_columns(
        _off=off + phase.fill_null(0.0),
        _after=before / 1e6,
        _reason=pl.when(repeated)
        .then(pl.lit("repeated"))
        .when(unscheduled.fill_null(value=False))
        .then(pl.lit("off_schedule"))
        .when(soon)
        .then(pl.lit("more_often")),
    )


def _add_intervals(data: Slice, interval: str) -> pl.LazyFrame:
    """Add `_length` (us), the usual interval that ends at the row, and `_phase_off` (hours).

    The latter is the distance of the row from the usual hours of the interval, unless the interval
    changes there. Both are null if there are too few events.
    """
    time = data.time.dt.timestamp("us")
    hours = ((time - time.shift(1)) / _HOUR_US).round()
    fixed = None if interval == _AUTO else Timeframe.parse(interval).seconds / 3600
    usual = _usual_interval() if fixed is None else pl.lit(fixed, dtype=pl.Float64)
    frame = data.frame.with_columns(_hours=pl.when(hours > 0).then(hours)).with_columns(
        _usual=usual
    )
    frame = frame.with_columns(_length=(pl.col("_usual") * _HOUR_US).cast(pl.Int64))
    phase = (time / _HOUR_US).round() % pl.col("_usual")
    common = _usual_value(pl.col("_phase")).over(pl.col("_usual").rle_id())
    frame = frame.with_columns(_phase=phase).with_columns(_common=common)
    off = pl.col("_phase") - pl.col("_common")
    half = pl.col("_usual") / 2
    nearest = (off + half) % pl.col("_usual") - half
    near = [pl.col("_usual").shift(n) for n in (1, 0, -1)]
    steady = pl.max_horizontal(near) == pl.min_horizontal(near)
    return frame.with_columns(_phase_off=pl.when(steady).then(nearest))


def _usual_interval() -> pl.Expr:
    """Return the usual hours around; for the first and the last events, if they agree, their own.

    The interval may have changed recently, or soon after the first event.
    """
    hours = pl.col("_hours")
    first, last = hours.get(1, null_on_oob=True), hours.last()
    leading = (_equal(hours, first) | (pl.int_range(pl.len()) == 0)).cast(pl.Int8).cum_min() == 1
    trailing = _equal(hours, last).cast(pl.Int8).cum_min(reverse=True) == 1
    new = trailing & (trailing.sum() >= _MIN_EVENTS) & (last <= _LONGEST_HOURS)
    early = leading & (leading.sum() > _MIN_EVENTS) & (first <= _LONGEST_HOURS)
    return pl.when(new).then(last).when(early).then(first).otherwise(_usual_value(hours))


def _equal(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    return (left == right).fill_null(value=False)


def _usual_value(value: pl.Expr) -> pl.Expr:
    """Return the median of the rows around; null if it is between two different values."""
    low, high = (
        value.rolling_quantile(
            0.5, interpolation=how, window_size=_AROUND, center=True, min_samples=_MIN_EVENTS
        )
        for how in ("lower", "higher")
    )
    return pl.when(low == high).then(low)


def _pair_events(data: Slice, interval: str) -> pl.LazyFrame:
    """Pair neighbouring events: `_from` and `_to`, rounded to hours, and `_length`, in us.

    If the market has events outside the rows at hand, a pair reaches out of the range, and all grid
    points between count as missing.
    """
    hour = ((data.time.dt.timestamp("us") / _HOUR_US).round() * _HOUR_US).cast(pl.Int64)
    length = pl.col("_length")
    events = _add_intervals(data, interval).select("_length", _us=hour)
    at = pl.col("_us")
    pairs = [events.select("_length", _from=at.shift(1), _to=at)]
    latest = min(data.range.end, data.now)
    start, end = ((limit - EPOCH) // MICROSECOND for limit in (data.range.start, latest))
    if data.span is not None and data.span.start < data.range.start:
        outside = at - ((at - start) // length + 1) * length
        first = events.with_columns(length.fill_null(strategy="backward")).first()
        pairs.append(first.filter(at > start).select("_length", _from=outside, _to=at))
    if data.span is not None and data.span.end > latest:
        outside = at + ((end - at) // length + 1) * length
        last = events.with_columns(length.fill_null(strategy="forward")).last()
        pairs.append(last.filter(at < end).select("_length", _from=at, _to=outside))
    return pl.concat(pairs).drop_nulls()


def _join_events(missing: pl.LazyFrame) -> pl.LazyFrame:
    """Join neighbouring missing events of one reason and UTC day into one interval."""
    day = pl.col("start").dt.date()
    other = (
        (pl.col("start") != pl.col("end").shift(1))
        | (pl.col("_reason") != pl.col("_reason").shift(1))
        | (day != day.shift(1))
    )
    return (
        missing.with_columns(_run=other.fill_null(value=True).cum_sum())
        .group_by("_run", maintain_order=True)
        .agg(
            pl.col("start").first(),
            pl.col("end").last(),
            rows=pl.len().cast(pl.Int64),
            measured=pl.len().cast(pl.Float64),
            expected=pl.lit(0.0),
            reason=pl.col("_reason").first(),
            message=pl.format(
                "{} missing: {}",
                count_phrase(pl.len(), "event is", "events are"),
                pl.col("_reason").first().replace_strict(REASON_TEXTS),
            ),
        )
        .drop("_run")
    )


CHECKS: Mapping[str, BuiltinCheck] = {
    "funding_gaps": BuiltinCheck(funding_gaps, "completeness"),
    "funding_schedule": BuiltinCheck(funding_schedule, "consistency"),
    "funding_bounds": BuiltinCheck(funding_bounds, "accuracy"),
    "funding_outliers": BuiltinCheck(funding_outliers, "accuracy"),
}
