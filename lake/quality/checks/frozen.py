"""Find frozen feeds: bars that repeat the bar before, and a price that stands still alone."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.ohlcv import OHLCV, PRICES, SUMS
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase, select_few
from lake.quality.checks.bars import (
    end_of_row,
    filter_observed,
    find_long_runs,
    measure_runs,
    previous_value,
)
from lake.quality.checks.conservation import is_same_sum
from lake.quality.checks.second_opinions import aggregate_market
from lake.quality.slice import Reference, Slice

_HABIT = 10  # repeats on a day from which they are a habit: orders cut into equal parts
_SHORT = 2  # repeats of a bar with one price that may be chance, however rare its volume
_LEAST_SHARE = 0.02  # share of bars that keep their price, at least: rare events are not counted
_MOVING = 0.5  # share of a venue's bars that must have several prices while a price stands still
_DAY_US = 86_400_000_000
_FAR = 3.0  # usual differences between two venues by which one must move meanwhile


def repeated(data: Slice, *, min_rows: int, chance: float) -> pl.LazyFrame:
    """Report bars that are equal to the bar before in all prices, volume and counts.

    A bar with several prices that comes twice is suspect, and more often an error. A bar with one
    price may come again by chance, or where an order was cut into equal parts: it is suspect if
    such a repeat is unlikely on its day, and an error only from `min_rows` repeats on.

    Parameters
    ----------
    min_rows
        Repeats of a bar with one price that are an error.
    chance
        Largest probability of a single repeat of a bar with one price: the share of the bars of the
        day that keep their price, times the share that have its volume.
    """
    names = [name for name in (*OHLCV, *SUMS[1:]) if name in data.dataset.polars_schema]
    bars = filter_observed(data).select(
        *names,
        _time=data.time,
        _before=previous_value(data, "close"),
        _volume_before=pl.col("volume").shift(1),
    )
    bars = bars.with_row_index("_row").collect().lazy()
    repeats = _find_repeats(bars, names)
    if repeats is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    runs = _group_repeats(data, _drop_real(data, repeats))
    flat = pl.col("_flat")
    rare = pl.col("_kept_share") * pl.col("_volume_share") <= chance
    usual = pl.col("_habit") > _HABIT
    long = pl.col("rows") >= min_rows
    sudden = ~usual & (~flat | (pl.col("rows") > _SHORT) | rare)
    certain = long | (~flat & (pl.col("rows") > 1))
    return (
        _add_likelihood(bars, runs)
        .filter(sudden | certain)
        .select(
            *("start", "end", "rows"),
            measured=pl.col("rows").cast(pl.Float64),
            expected=pl.lit(0.0),
            reason=pl.lit("same_bar"),
            severity=pl.when(~certain).then(pl.lit("warning")),
            message=pl.format(
                "{} the bar before in all prices and the volume of {}; no trades or finer bars "
                "show this",
                count_phrase(pl.col("rows"), "bar repeats", "bars repeat"),
                pl.col("volume").round_sig_figs(8),
            ),
        )
    )


def _find_repeats(bars: pl.LazyFrame, names: list[str]) -> pl.LazyFrame | None:
    """Find the bars with volume that are equal to the bar before, with their `_day`; or None."""
    volume, close = pl.col("volume"), pl.col("close")
    same = [pl.col(name).eq_missing(pl.col(f"{name}_last")) for name in names if name in SUMS]
    same += [pl.col(name) == pl.col(f"{name}_last") for name in PRICES[:3]]
    few = select_few(
        bars.filter(close == pl.col("_before"), volume == pl.col("_volume_before"), volume > 0)
    )
    if few is None:
        return None
    last = [pl.col(name).alias(f"{name}_last") for name in names]
    before = bars.select(pl.col("_row") + 1, *last).join(few, on="_row", how="semi")
    return select_few(
        few.join(before, on="_row", maintain_order="left")
        .filter(*same)
        .with_columns(_day=pl.col("_time").dt.date())
    )


def _keeps_price(before: pl.Expr) -> pl.Expr:
    """Whether all prices of a bar with volume are the close before it."""
    return (pl.col("close") == before) & _is_flat() & (pl.col("volume") > 0)


def _is_flat() -> pl.Expr:
    close = pl.col("close")
    return (pl.col("high") == close) & (pl.col("low") == close) & (pl.col("open") == close)


def _drop_real(data: Slice, repeats: pl.LazyFrame) -> pl.LazyFrame:
    """Drop bars that are equal to the aggregate of their trades or finer bars."""
    for truth, _ in aggregate_market(data, "volume"):
        same = is_same_sum(pl.col("volume"), pl.col("_volume"), pl.col("_rows"))
        prices = [pl.col(name) == pl.col(f"_{name}") for name in ("high", "low")]
        real = repeats.join(truth, left_on="_time", right_on="start").filter(same, *prices)
        repeats = repeats.join(real, on="_row", how="anti", maintain_order="left")
    return repeats


def _group_repeats(data: Slice, repeats: pl.LazyFrame) -> pl.LazyFrame:
    """Group repeats into runs, cut at midnight; almost always there is none."""
    cut = (pl.col("_row").diff() != 1) | (pl.col("_day") != pl.col("_day").shift(1))
    return (
        repeats.with_columns(_run=cut.fill_null(value=True).cum_sum())
        .group_by("_run", maintain_order=True)
        .agg(
            pl.col("_day", "volume").first(),
            start=pl.col("_time").first(),
            end=end_of_row(data, "_time").last(),
            rows=pl.len().cast(pl.Int64),
            _flat=(pl.col("high") == pl.col("low")).first(),
        )
        .with_columns(_habit=pl.col("_flat").sum().over("_day"))
    )


def _add_likelihood(bars: pl.LazyFrame, runs: pl.LazyFrame) -> pl.LazyFrame:
    """Add the shares of the bars of the day that keep their price, and that have the volume."""
    # Numbers of days are much cheaper than dates, and mostly no day is left.
    number = pl.col("_time").dt.timestamp("us") // _DAY_US
    days = runs.select(_number=pl.col("start").dt.timestamp("us") // _DAY_US).unique()
    of_days = (
        bars.with_columns(_number=number)
        .join(days, on="_number", how="semi", maintain_order="left")
        .with_columns(_day=pl.col("_time").dt.date())
    )
    kept = _keeps_price(pl.col("_before")).fill_null(value=False)
    days = of_days.group_by("_day").agg(_kept_share=kept.mean(), _bars=pl.len())
    volumes = of_days.group_by("_day", "volume").agg(_count=pl.len())
    return (
        runs.join(days, on="_day")
        .join(volumes, on=["_day", "volume"])
        .with_columns(_volume_share=pl.col("_count") / pl.col("_bars"))
    )


def stale(
    data: Slice, *, min_rows: int, times: float, venue_rows: int, surprise: float
) -> pl.LazyFrame:
    """Report runs of bars with one price, though something was traded.

    Alone this is suspect only if it lasts much longer than is usual for the market: a calm market
    keeps its price. It is an error if another venue moves meanwhile, and nothing if it stands
    still, too.

    Parameters
    ----------
    min_rows, times
        Least length of a run without a witness: in bars, and as a multiple of the usual length.
    venue_rows
        Least length of a run that another venue contradicts.
    surprise
        Least surprise of such a run: its length times the negative logarithm of the share of bars
        that keep their price.
    """
    same = _keeps_price(previous_value(data, "close"))
    text = "{} consecutive bars have the same price, with volume; {} would be usual; {}"
    alone = find_long_runs(data, same, min_rows=min_rows, times=times)
    nobody = pl.lit("no other venue testifies")
    suspects = alone.with_columns(
        reason=pl.lit("suspect"),
        severity=pl.lit("warning"),
        message=_format_run(text, nobody),
    )
    others = [other for other in data.others if other.grid == data.grid]
    if not others:
        return suspects
    runs = measure_runs(data, same, venue_rows)
    judged = pl.concat(_judge_runs(data, runs, other) for other in others)
    verdicts = judged.group_by("start").agg(
        pl.col("_contradicts").all(), against=pl.col("_venue").first()
    )
    share = (1 - 1 / pl.col("expected")).clip(_LEAST_SHARE, 1.0)
    surprised = pl.col("measured") * -share.log() >= surprise
    moved = pl.format("{} moved meanwhile", "against")
    errors = (
        runs.filter(surprised)
        .join(verdicts.filter("_contradicts"), on="start")
        .select(
            *("start", "end", "rows", "measured", "expected", "against"),
            reason=pl.lit("contradicted"),
            message=_format_run(text, moved),
        )
    )
    return pl.concat([errors, suspects.join(verdicts, on="start", how="anti")], how="diagonal")


def _format_run(text: str, witness: pl.Expr) -> pl.Expr:
    usual = pl.col("expected").round(1)
    return pl.format(text, pl.col("measured").cast(pl.Int64), usual, witness)


def _judge_runs(data: Slice, runs: pl.LazyFrame, other: Reference) -> pl.LazyFrame:
    """Judge by another venue whether it moved during runs: `start`, `_contradicts`, `_venue`."""
    time = data.dataset.time_column
    spans = runs.select("start", "end").sort("start")
    own = filter_observed(data).select(_time=data.time, _own="close", _day=data.time.dt.date())
    theirs = filter_observed(other).select("close", "high", "low", _time=pl.col(time))
    days = spans.select(_day=pl.col("start").dt.date()).unique()
    pair = own.join(days, on="_day", how="semi").join(theirs, on="_time").sort("_time")
    basis = (pl.col("_own") / pl.col("close")).log()
    usual = pair.group_by("_day").agg(_usual=(basis - basis.median()).abs().median())
    inside = pair.join_asof(spans, left_on="_time", right_on="start", strategy="backward").filter(
        pl.col("_time") < pl.col("end")
    )
    moved = (pl.col("high").max() / pl.col("low").min()).log()
    return (
        inside.group_by("start")
        .agg(
            pl.col("_day").first(),
            _moving=(pl.col("high") > pl.col("low")).mean(),
            _moved=moved,
        )
        .join(usual, on="_day")
        .select(
            "start",
            _contradicts=(pl.col("_moving") >= _MOVING)
            & (pl.col("_moved") > 0)
            & (pl.col("_moved") >= _FAR * pl.col("_usual")),
            _venue=pl.lit(str(other.market)),
        )
    )


CHECKS: Mapping[str, BuiltinCheck] = {
    "repeated": BuiltinCheck(repeated, "accuracy"),
    "stale": BuiltinCheck(stale, "accuracy"),
}
