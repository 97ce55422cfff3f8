"""Check prices and sides of trades."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl

from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, select_few
from lake.quality.slice import Slice

_ALMOST = 1 - 1e-9  # rounding errors of logarithms must not lose a trade at the bound
_EDGE = 0.9  # quantile of price changes that is a deviation: most trades do not change the price
_BLOCK = ("_day", "_block")


def trade_spikes(
    data: Slice, *, deviations: float, window_rows: int, min_return: float
) -> pl.LazyFrame:
    """Report single trades at a price far from the prices before and after, which agree.

    Large orders move the price for a moment, so that only absurd prices are reported, as
    `suspect`. The check `reconciliation` compares bars with trades.

    Parameters
    ----------
    deviations
        Smallest distance, in deviations: a deviation is the 90th percentile of price changes.
    window_rows
        Number of trades in a block of a day, over which a deviation is measured; the last block of
        a day is longer.
    min_return
        Smallest size of a deviation, as a share of the price.
    """
    price, may_reverse = pl.col("price"), _may_reverse(deviations * min_return)
    ratios = data.frame.select(_ratio=price / price.shift(1))
    changes = ratios.with_columns(_next=pl.col("_ratio").shift(-1))
    if select_few(changes.filter(may_reverse)) is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    path = _measure_changes(data, window_rows)
    scale = pl.max_horizontal(pl.col("_in").abs().quantile(_EDGE), pl.lit(min_return))
    far = path.filter(may_reverse)
    # Mostly no trade is as far away as the least deviation requires, and no block is measured.
    near = path.join(far.select(_BLOCK).unique(), on=_BLOCK, how="semi")
    blocks = near.with_columns(_in=pl.col("_ratio").log()).group_by(_BLOCK).agg(_deviation=scale)
    away, back = pl.col("_ratio").log(), pl.col("_next").log()
    size = pl.min_horizontal(away.abs(), back.abs())
    return (
        far.with_columns(_size=pl.when(away * back < 0).then(size))
        .join(blocks, on=_BLOCK)
        .with_columns(_score=pl.col("_size") / pl.col("_deviation"))
        .filter(pl.col("_score") >= deviations)
        .select(
            start=data.time,
            measured="price",
            expected="_normal",
            reason=pl.lit("suspect"),
            message=pl.format(
                "A trade at {} is {} deviations away from {}, the price before and after it",
                "price",
                pl.col("_score").round(1),
                pl.col("_normal").round_sig_figs(8),
            ),
        )
    )


def _measure_changes(data: Slice, window_rows: int) -> pl.LazyFrame:
    """Measure the ratio of each price to the one before, and the price around each trade."""
    price = pl.col("price")
    path = (
        data.frame.select(
            data.time,
            "price",
            _day=data.time.dt.date(),
            _ratio=price / price.shift(1),
            _normal=(price.shift(1) * price.shift(-1)).sqrt(),
        )
        .with_row_index("_row")
        .with_columns(_next=pl.col("_ratio").shift(-1))
    )
    days = path.group_by("_day").agg(_first=pl.col("_row").min(), _rows=pl.len())
    last_block = (pl.col("_rows").cast(pl.Int64) // window_rows - 1).clip(0)
    place = (pl.col("_row") - pl.col("_first")).cast(pl.Int64)
    block = pl.min_horizontal(place // window_rows, last_block)
    return path.join(days, on="_day", maintain_order="left").with_columns(_block=block)


def _may_reverse(least: float) -> pl.Expr:
    """Whether a price is at least about `least` away, and the next one goes the other way.

    Ratios are compared, not their logarithms: those of all trades would be dear.
    """
    up, down = math.exp(least * _ALMOST), math.exp(-least * _ALMOST)
    ratio, following = pl.col("_ratio"), pl.col("_next")
    return ((ratio >= up) & (following <= down)) | ((ratio <= down) & (following >= up))


def sides_unknown(data: Slice) -> pl.LazyFrame:
    """Report days of trades of which none has a side."""
    if "side" not in data.dataset.polars_schema:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    return (
        data.frame.group_by(_day=data.time.dt.date())
        .agg(
            start=data.time.min(),
            end=data.time.max().dt.offset_by("1us"),
            rows=pl.len().cast(pl.Int64),
            message=pl.format("None of {} trades has a side", pl.len()),
            _has_sides=pl.col("side").is_not_null().any(),
        )
        .filter(~pl.col("_has_sides"))
        .drop("_day", "_has_sides")
    )


CHECKS: Mapping[str, BuiltinCheck] = {
    "trade_spikes": BuiltinCheck(trade_spikes, "accuracy"),
    "sides_unknown": BuiltinCheck(sides_unknown, "accuracy"),
}
