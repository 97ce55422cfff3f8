"""Find trades of another market among those of a market: blocks at another level of prices."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl

from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase, select_few
from lake.quality.slice import Slice

_LOW = 0.25  # quantile of price changes: also where every second trade is foreign, it is small
_RETURNED = 0.25  # share of a jump by which the price before a block and the one after it differ
_MOST_LEVELS = 3  # neighbouring blocks of different levels that are seen as foreign together
_FAR = math.log(1.3)  # thin order books have spreads and wicks of some per cent, and recover
_FEW_ROWS = 5  # fewer foreign trades of a day may be real trades at absurd prices


def foreign_trades(data: Slice, *, min_jump: float, deviations: float) -> pl.LazyFrame:
    """Report blocks of trades at another level than the trades before and after, which agree.

    The price must jump to the level and back, each between two trades, and the block must be
    farther from the day's main price (the median, weighted by time) than the trades around it. A
    single trade is a block, too. Fewer than five such trades on a day are a warning, and so is a
    level that is at most 30 % away: real trades of a thin order book reach it.

    Parameters
    ----------
    min_jump
        Smallest jump, as the logarithm of the ratio of two prices.
    deviations
        Smallest jump in deviations: a deviation is the 25th percentile of the price changes of a
        day that are not zero. Foreign trades themselves hardly raise it.
    """
    near = select_few(_select_days(data, min_jump))
    if near is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    rows = _mark_edges(near, min_jump, deviations).cache()
    foreign = _find_foreign(_summarize_segments(rows))
    marked = rows.join(foreign, on="_segment", how="inner", maintain_order="left")
    main = pl.col("_main").first()
    is_far = _distance(pl.col("price").median(), main) > _distance(pl.col("_around").first(), main)
    blocks = (
        marked.group_by("_segment", "_day", maintain_order=True)
        .agg(
            start=pl.col("_time").first(),
            end=pl.col("_time").last().dt.offset_by("1us"),
            rows=pl.len().cast(pl.Int64),
            measured=pl.col("price").median(),
            expected=pl.col("_around").first(),
            _is_far=is_far,
        )
        .filter("_is_far")
    )
    few = pl.col("rows").sum().over("_day") < _FEW_ROWS
    is_near = _distance(pl.col("measured"), pl.col("expected")) <= _FAR
    return blocks.with_columns(
        reason=pl.lit("other_level"),
        severity=pl.when(few | is_near).then(pl.lit("warning")),
        message=pl.format(
            "{} at about {}, and the trades before and after at about {}: {}",
            count_phrase(pl.col("rows"), "trade is", "trades are"),
            pl.col("measured").round_sig_figs(6),
            pl.col("expected").round_sig_figs(6),
            pl.when(is_near)
            .then(pl.lit("of a thin order book, or of another market"))
            .otherwise(pl.lit("probably of another market")),
        ),
    ).drop("_segment", "_day", "_is_far")


def _select_days(data: Slice, min_jump: float) -> pl.LazyFrame:
    """Select the trades of days with a jump, and of the days beside them: mostly none."""
    price, before = pl.col("price"), pl.col("price").shift(1)
    ratio, day = price / before, data.time.dt.date()
    up = math.exp(min_jump)
    jumps = data.frame.select(data.time, _ratio=ratio).filter(
        (pl.col("_ratio") >= up) | (pl.col("_ratio") <= 1 / up)
    )
    near = [day.dt.offset_by(step) for step in ("-1d", "0d", "1d")]
    few = select_few(jumps)
    if few is None:
        return data.frame.clear()
    days = few.select(pl.concat_list(near).alias("_day")).explode("_day").unique()
    path = data.frame.with_row_index("_row").select(
        "_row", "price", _time=data.time, _day=day, _before=before
    )
    near_days = path.join(days, on="_day", how="semi").sort("_row")
    return near_days.with_columns(_ratio=price / pl.col("_before"))


def _mark_edges(path: pl.LazyFrame, min_jump: float, deviations: float) -> pl.LazyFrame:
    """Cut the trades into segments at jumps; add the day's main price."""
    change = pl.col("_change").abs()
    held = (pl.col("_time").shift(-1) - pl.col("_time")).dt.total_microseconds().fill_null(0) + 1
    order = pl.col("price")
    halfway = pl.col("_held").sort_by(order).cum_sum() >= pl.col("_held").sum() / 2
    days = (
        path.with_columns(_change=pl.col("_ratio").log(), _held=held)
        .group_by("_day")
        .agg(
            _scale=change.filter(change > 0).quantile(_LOW),
            _main=pl.col("price").sort().get(halfway.arg_max()),
        )
    )
    bound = pl.max_horizontal(deviations * pl.col("_scale"), pl.lit(min_jump))
    return (
        path.join(days, on="_day", how="left")
        .sort("_row")
        .with_columns(_jump=pl.col("_ratio").log())
        .with_columns(_is_edge=(pl.col("_jump").abs() >= bound).fill_null(value=False))
        .with_columns(_segment=pl.col("_is_edge").cum_sum())
    )


def _summarize_segments(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return `_segment`, `_before` (the price before), `_jump` into it, and `_first`."""
    return rows.group_by("_segment", maintain_order=True).agg(
        pl.col("_before").first(), pl.col("_jump").first(), _first=pl.col("price").first()
    )


def _find_foreign(segments: pl.LazyFrame) -> pl.LazyFrame:
    """Find segments after whose end, or after some more, the price is back: with `_around`."""
    before, jump = pl.col("_before"), pl.col("_jump").abs()
    counts = range(1, _MOST_LEVELS + 1)
    returned = [
        pl.when(_distance(pl.col("_first").shift(-n), before) <= _RETURNED * jump).then(n)
        for n in counts
    ]
    length = pl.coalesce(returned)
    return (
        segments.with_columns(_length=length)
        .filter(pl.col("_length").is_not_null() & pl.col("_before").is_not_null())
        .select(
            _segment=pl.int_ranges(
                pl.col("_segment").cast(pl.Int64),
                pl.col("_segment").cast(pl.Int64) + pl.col("_length"),
            ),
            _around="_before",
        )
        .explode("_segment")
        .with_columns(pl.col("_segment").cast(pl.UInt32))
        .unique("_segment", keep="first", maintain_order=True)
    )


def _distance(price: pl.Expr, other: pl.Expr) -> pl.Expr:
    return (price / other).log().abs()


CHECKS: Mapping[str, BuiltinCheck] = {"foreign_trades": BuiltinCheck(foreign_trades, "accuracy")}
