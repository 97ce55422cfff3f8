"""Bars against themselves: rules, silence, frozen prices, jumps at midnight, mistaken factors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.model.dataset import Dataset
from lake.quality.check import FOUND, Builtin, Slice, runs

_PRICES = ("open", "high", "low", "close")
_EDGE = 0.9  # quantile of jumps between bars that a deviation is at least, as with spikes
_SECONDS_A_DAY = 86_400
_LEAST_ROWS = 20  # bars around midnight, without which nothing is known of how prices move
_RETURNED = 0.7  # of two jumps by a factor, how much they may differ, as a logarithm: factor 2


def observed(rows: Slice) -> pl.LazyFrame:
    """The bars that the venue sent and that had ended."""
    return observed_of(rows.dataset, rows.rows)


def observed_of(dataset: Dataset, rows: pl.LazyFrame) -> pl.LazyFrame:
    """The bars that a venue sent and that had ended, of any rows of bars."""
    names = dataset.polars_schema
    there = [pl.col("closed")] if "closed" in names else []
    there += [pl.col("fill").is_null()] if "fill" in names else []
    return rows.filter(*there) if there else rows


def broken_rules(rows: Slice) -> pl.LazyFrame:
    """Stored rows that a rule of their dataset would refuse; the reason is the first such rule.

    What ingestion stores has passed; what other engines wrote, or a file of a user's, may not.
    """
    if not rows.dataset.rules:
        return pl.LazyFrame(schema=FOUND)
    broken = [(rule.name, ~rule.expression) for rule in rows.dataset.rules]
    names = [pl.when(wrong).then(pl.lit(name)) for name, wrong in broken]
    bad = pl.any_horizontal(wrong for _, wrong in broken).fill_null(value=False)
    # Almost always nothing is left here: runs are made of what is.
    few = rows.rows.with_row_index("_row").filter(bad).with_columns(_rule=pl.coalesce(names))
    follows = (pl.col("_row").diff() == 1) & (pl.col("_rule") == pl.col("_rule").shift(1))
    rule = pl.col("_rule").first()
    return (
        few.with_columns(_run=(~follows.fill_null(value=False)).cum_sum(), _day=rows.time.dt.date())
        .group_by("_run", "_day", maintain_order=True)
        .agg(
            start=rows.time.first(),
            end=_end(rows).last(),
            rows=pl.len().cast(pl.Int64),
            reason=rule,
            measured=pl.len().cast(pl.Float64),
            expected=pl.lit(0.0),
            message=pl.format("{} rows break the rule {}", pl.len(), rule),
        )
        .drop("_run", "_day")
    )


def zero_volume(rows: Slice, *, least_rows: int, times: float) -> pl.LazyFrame:
    """Bars in a row without volume, many more than is usual for the market."""
    bad = pl.col("volume") == 0
    words = "{} bars in a row have no volume; {} would be usual"
    return _unusual(rows, bad, words, least_rows=least_rows, times=times)


def stale(rows: Slice, *, least_rows: int, times: float) -> pl.LazyFrame:
    """Bars in a row that all repeat one price, though something was traded: a frozen feed.

    A market that trades within each bar seldom keeps its price to the last digit.
    """
    close = pl.col("close")
    same = pl.all_horizontal(
        close == close.shift(1), *(pl.col(name) == close for name in _PRICES[:3])
    )
    words = "{} bars in a row have one price and volume; {} would be usual"
    return _unusual(rows, same & (pl.col("volume") > 0), words, least_rows=least_rows, times=times)


def _unusual(
    rows: Slice, bad: pl.Expr, words: str, *, least_rows: int, times: float
) -> pl.LazyFrame:
    """Runs of at least so many rows, and so many times longer than chance makes them.

    If a share p of all bars were bad independently of each other, a run had 1 / (1 - p) bars on
    average, and one n times longer would come up once in exp(n) runs.
    """
    # The share is that of all rows at hand, of which one frozen part is a small one.
    usual = 1 / (1 - pl.col("_bad").mean()).clip(1e-6)
    marked = (
        observed(rows).select(rows.time, _bad=bad.fill_null(value=False)).with_columns(_usual=usual)
    )
    return runs(
        marked,
        pl.col("_bad"),
        time=rows.dataset.time_column,
        end=_end(rows),
        measured=pl.len().cast(pl.Float64),
        expected=pl.col("_usual").first(),
        message=pl.format(words, pl.len(), pl.col("_usual").first().round(1)),
    ).filter((pl.col("rows") >= least_rows) & (pl.col("rows") >= times * pl.col("expected")))


def jumps(rows: Slice, *, deviations: float, window_rows: int, least_return: float) -> pl.LazyFrame:
    """First bars of a day that open far from the last close: days stitched together wrongly.

    A deviation is the larger of the median return of the bars around midnight, and of what one jump
    in ten between two of them exceeds.
    """
    timeframe = rows.dataset.timeframe
    if timeframe is None or timeframe.seconds >= _SECONDS_A_DAY:
        return pl.LazyFrame(schema=FOUND)
    half_day = timedelta(hours=12)
    around = min(half_day, window_rows // 2 * timedelta(seconds=timeframe.seconds))
    frame = _near_midnight(rows, around)
    change = (pl.col("_close") / pl.col("_before")).log().abs()
    edge = pl.col("_jump").abs().quantile(_EDGE)
    scale = pl.max_horizontal(change.median(), edge, pl.lit(least_return))
    nights = frame.group_by("_midnight").agg(_scale=scale, _rows=pl.len())
    firsts = frame.filter(rows.time == pl.col("_midnight"), "_next").join(nights, on="_midnight")
    far = pl.col("_jump").abs() > deviations * pl.col("_scale")
    return firsts.filter(far & (pl.col("_rows") >= _LEAST_ROWS)).select(
        start=rows.time,
        end=_end(rows),
        measured="_open",
        expected="_before",
        message=pl.format(
            "The day opens at {}, {} deviations from the last close {}",
            "_open",
            (pl.col("_jump").abs() / pl.col("_scale")).round(1),
            "_before",
        ),
    )


def _near_midnight(rows: Slice, around: timedelta) -> pl.LazyFrame:
    """Bars around each midnight with the one before, and whether that is the bar just before."""
    before = pl.col("close").shift(1)
    return (
        observed(rows)
        .select(
            rows.time,
            _open="open",
            _before=before,
            _close="close",
            _midnight=(rows.time + timedelta(hours=12)).dt.truncate("1d"),
            _next=rows.time == rows.time.shift(1) + pl.lit(rows.step),
        )
        .filter((rows.time - pl.col("_midnight")).abs() <= around)
        .with_columns(_jump=(pl.col("_open") / pl.col("_before")).log())
    )


def scale(rows: Slice, *, factor: float) -> pl.LazyFrame:
    """Prices that are off by a factor for some bars, and back: a mistaken unit or decimal point.

    Parameters
    ----------
    factor
        How much a close differs from the one before it, at least: no market moves so much within
        a bar and later returns just as fast.
    """
    least = math.log(factor)
    step = (pl.col("close") / pl.col("close").shift(1)).log()
    frame = (
        observed(rows)
        .select(rows.time, "close", _step=pl.when(step.abs() >= least).then(step).otherwise(0.0))
        .with_columns(_level=pl.col("_step").fill_null(0.0).cum_sum())
    )
    first, last = pl.col("_level").first(), pl.col("_level").last()
    off = (pl.col("_level") - first).abs() >= least - _RETURNED
    back = (first - last).abs() <= _RETURNED
    times = pl.col("_off").median().exp().round_sig_figs(3)
    return runs(
        frame.with_columns(_off=pl.col("_level") - first),
        off & back,
        time=rows.dataset.time_column,
        end=_end(rows),
        measured=times,
        expected=pl.lit(1.0),
        reason=pl.lit("factor"),
        message=pl.format("{} bars are off by a factor of about {}, and back", pl.len(), times),
    )


def _end(rows: Slice) -> pl.Expr:
    """Where a row ends."""
    return rows.time + pl.lit(rows.step) if rows.step else rows.time.dt.offset_by("1us")


CHECKS: Mapping[str, Builtin] = {
    "broken_rules": Builtin(broken_rules, "accuracy"),
    "zero_volume": Builtin(zero_volume, "accuracy"),
    "stale": Builtin(stale, "accuracy"),
    "jumps": Builtin(jumps, "accuracy"),
    "scale": Builtin(scale, "accuracy"),
}
