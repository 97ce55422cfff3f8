"""Find trades that the bars of their market contradict: too large for the bar, or outside of it."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.ohlcv import weigh_trades
from lake.model.slots import slot_of
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck
from lake.quality.checks.bars import filter_observed
from lake.quality.slice import Slice

_AGREEING = 0.5  # share of a day's bars whose volume must be at least what is stored of its trades


def contradicted_trades(
    data: Slice, *, volume_tolerance: float, price_tolerance: float
) -> pl.LazyFrame:
    """Report trades that cannot be in the bar of their time.

    `amount`: the trades of a bar sum up to more than its volume; the trade that explains the
    excess best is reported. `price`: the price is above the high or below the low of the bar. Bars
    are those of the finest table of the market; open and filled ones do not testify. Days on which
    most bars have less volume than their trades are left out: the units differ.

    Parameters
    ----------
    volume_tolerance, price_tolerance
        Largest relative excess: sums of doubles differ.
    """
    bars = data.bars
    if bars is None or bars.grid is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    slots = filter_observed(bars).select(
        "high",
        "low",
        "volume",
        _slot=slot_of(pl.col(bars.dataset.time_column), bars.grid),
    )
    trades = data.frame.select(
        "price",
        _time=data.time,
        _day=data.time.dt.date(),
        _slot=slot_of(data.time, bars.grid),
        _amount=weigh_trades(data.known_units)["amount"],
    )
    excess = _measure_excess(trades, slots, volume_tolerance)
    return pl.concat(
        [
            _find_large(trades, excess, bars.dataset.name),
            _find_outside(trades, slots, bars.dataset.name, price_tolerance),
        ]
    )


def _measure_excess(trades: pl.LazyFrame, slots: pl.LazyFrame, tolerance: float) -> pl.LazyFrame:
    """Return the bars with less volume than their trades: `_slot`, `volume`, `_excess`."""
    both = (
        trades.group_by("_slot")
        .agg(_sum=pl.col("_amount").sum(), _day=pl.col("_day").first())
        .join(slots.select("_slot", "volume"), on="_slot")
    )
    excess = pl.col("_sum") - pl.col("volume")
    is_over = (excess > tolerance * pl.col("_sum")).fill_null(value=False)
    return (
        both.with_columns(_excess=excess, _is_over=is_over)
        .filter("_is_over", is_over.mean().over("_day") <= 1 - _AGREEING)
        .select("_slot", "volume", "_sum", "_excess")
    )


def _find_large(trades: pl.LazyFrame, excess: pl.LazyFrame, table: str) -> pl.LazyFrame:
    """Find the trade of each bar whose amount is next above the excess; of none such, the largest.

    A trade that is too large by the excess has at least that amount.
    """
    rest = pl.col("_amount") - pl.col("_excess")
    explains = rest >= 0
    order = pl.when(explains).then(rest).otherwise(-rest)
    return (
        trades.join(excess, on="_slot")
        .sort("_slot", ~explains, order, "_time", "price")
        .group_by("_slot", maintain_order=True)
        .first()
        .select(
            start="_time",
            measured="_amount",
            expected=pl.max_horizontal(rest, 0.0),
            reason=pl.lit("amount"),
            against=pl.lit(table),
            message=pl.format(
                "The trades of this bar sum up to {}, and {} has a volume of {}: a trade of {} is "
                "too large, or not of this time",
                pl.col("_sum").round_sig_figs(8),
                pl.lit(table),
                pl.col("volume").round_sig_figs(8),
                pl.col("_amount").round_sig_figs(8),
            ),
        )
    )


def _find_outside(
    trades: pl.LazyFrame, slots: pl.LazyFrame, table: str, tolerance: float
) -> pl.LazyFrame:
    """Find trades at prices outside of their bars."""
    above = pl.col("price") > pl.col("high") * (1 + tolerance)
    below = pl.col("price") < pl.col("low") * (1 - tolerance)
    edge = pl.when(above).then("high").otherwise("low")
    return (
        trades.join(slots.select("_slot", "high", "low"), on="_slot")
        .filter(above | below)
        .select(
            start="_time",
            measured="price",
            expected=edge,
            reason=pl.lit("price"),
            against=pl.lit(table),
            message=pl.format(
                "A trade at {} is {} of {} in {}",
                pl.col("price").round_sig_figs(8),
                pl.when(above).then(pl.lit("above the high")).otherwise(pl.lit("below the low")),
                edge.round_sig_figs(8),
                pl.lit(table),
            ),
        )
    )


CHECKS: Mapping[str, BuiltinCheck] = {
    "contradicted_trades": BuiltinCheck(contradicted_trades, "consistency")
}
