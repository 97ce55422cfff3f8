"""Check prices and sides of trades."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.quality.check import CHECK_COLUMNS, BuiltinCheck
from lake.quality.slice import Slice

_EDGE = 0.9  # quantile of price changes that is a deviation: most trades do not change the price


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
        Number of trades in a block, over which a deviation is measured.
    min_return
        Smallest size of a deviation, as a share of the price.
    """
    path = _measure_changes(data, window_rows)
    scale = pl.max_horizontal(pl.col("_in").abs().quantile(_EDGE), pl.lit(min_return))
    blocks = path.group_by("_block").agg(_deviation=scale)
    least = blocks.select(_least=pl.col("_deviation").min() * deviations)
    return (
        path.join(least, how="cross")
        .filter(pl.col("_size") >= pl.col("_least"))
        .join(blocks, on="_block")
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
    """Measure changes that the next trade reverses, and the price around each trade."""
    price, away, back = pl.col("price"), pl.col("_in"), pl.col("_in").shift(-1)
    size = pl.min_horizontal(away.abs(), back.abs())
    return (
        data.frame.select(data.time, "price", _in=(price / price.shift(1)).log())
        .with_row_index("_row")
        .with_columns(
            _block=pl.col("_row") // window_rows,
            _size=pl.when(away * back < 0).then(size),
            _normal=(price.shift(1) * price.shift(-1)).sqrt(),
        )
    )


def sides_unknown(data: Slice) -> pl.LazyFrame:
    """Report days of trades without sides, if none of the trades at hand has one."""
    if "side" not in data.dataset.polars_schema:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    return (
        data.frame.filter(pl.col("side").is_null().all())
        .group_by(_day=data.time.dt.date())
        .agg(
            start=data.time.min(),
            end=data.time.max().dt.offset_by("1us"),
            rows=pl.len().cast(pl.Int64),
            message=pl.format("None of {} trades has a side", pl.len()),
        )
        .drop("_day")
    )


CHECKS: Mapping[str, BuiltinCheck] = {
    "trade_spikes": BuiltinCheck(trade_spikes, "accuracy"),
    "sides_unknown": BuiltinCheck(sides_unknown, "accuracy"),
}
