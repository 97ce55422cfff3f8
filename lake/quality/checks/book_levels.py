"""Find amounts of levels that are wrong by a factor: the books before and after have other ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import polars as pl

from lake.quality.check import BuiltinCheck
from lake.quality.checks.digits import count_digits
from lake.quality.slice import Slice

_SIDES = ("bid", "ask")
_STEPS = (-2, -1, 1, 2)  # books beside one that it is compared with
_DEPTH = 10  # best levels of a side that are compared
_MIN_BOOKS = 20  # books of a day from which amounts are usual
_HIGH = 0.999  # quantile of a day's amounts that a level without an equal exceeds
_USUAL = 0.75  # quantile of a day's digits that most amounts have
_EXACT = 1e-9  # relative difference of a power of ten
_HELD = 0.5  # share of an amount that a book beside it has at the same price: then it is real


def level_spikes(data: Slice, *, factor: float, times: float) -> pl.LazyFrame:
    """Report amounts of the ten best levels that are wrong by a factor, in one book alone.

    `factor`: the amount is that of the same price in a book beside it times a power of ten: a wrong
    unit. `suspect`: it exceeds nearly all amounts of the day, and neither book beside it has half
    of it at any price. Days of fewer than 20 books raise nothing.

    Parameters
    ----------
    factor
        Smallest power of ten.
    times
        Smallest ratio of a suspect amount to the 99.9th percentile of the day's.
    """
    return pl.concat(_find_spikes(data, side, factor, times) for side in _SIDES)


def _find_spikes(data: Slice, side: str, factor: float, times: float) -> pl.LazyFrame:
    """Find wrong amounts of one side."""
    levels = _list_levels(data, side)
    few = _select_candidates(levels, factor, times)
    both = _add_amounts_beside(data, few, levels)
    amount, beside = pl.col("_amount"), (pl.col("_at-1"), pl.col("_at1"))
    by_factor = pl.any_horizontal(
        _is_power_of_ten(amount / pl.col(f"_at{step}"), factor) for step in _STEPS
    )
    held = pl.max_horizontal(beside).fill_null(0.0) >= _HELD * amount
    # The order may have had another price in the books beside.
    alone = amount * _HELD > pl.max_horizontal("_most-1", "_most1")
    high = (amount >= times * pl.col("_high")) & alone
    return (
        both.filter(~held & (by_factor.fill_null(value=False) | high))
        .with_columns(_by_factor=by_factor.fill_null(value=False))
        .group_by("_row", maintain_order=True)
        .agg(
            start=pl.col("_time").first(),
            measured=amount.max(),
            expected=pl.coalesce(*beside, "_high").get(amount.arg_max()),
            _levels=pl.len(),
            _by_factor=pl.col("_by_factor").any(),
        )
        .select(
            "start",
            "measured",
            "expected",
            reason=pl.when("_by_factor").then(pl.lit("factor")).otherwise(pl.lit("suspect")),
            against=pl.lit(side),
            severity=pl.lit("warning"),
            message=pl.format(
                "{} {} of the ten best {} {}; the books before and after have other ones",
                "_levels",
                pl.when(pl.col("_levels") == 1).then(pl.lit("amount")).otherwise(pl.lit("amounts")),
                pl.lit(f"{side}s"),
                pl.when("_by_factor")
                .then(pl.format("changed by a power of ten, to {}", "measured"))
                .otherwise(pl.format("jumped to {}, far above all of the day", "measured")),
            ),
        )
    )


def _add_amounts_beside(data: Slice, few: pl.LazyFrame, levels: pl.LazyFrame) -> pl.LazyFrame:
    """Add the amounts at the price in the books beside (`_at1`), and their largest (`_most1`)."""
    row = pl.col("_row")
    rows = pl.concat([few.select(row + step) for step in _STEPS]).unique()
    near = levels.join(rows, on="_row", how="semi").select("_row", "_time", "_price", "_amount")
    # A book farther away than the margin is there only if the days beside are checked, too.
    is_near = (pl.col("_then") - pl.col("_time")).abs() <= data.dataset.margin
    both = few
    for step in _STEPS:
        other = near.select(row - step, "_price", _then="_time", _other="_amount")
        amount = pl.when(is_near).then("_other").alias(f"_at{step}")
        both = both.join(other, on=["_row", "_price"], how="left").with_columns(amount)
        both = both.drop("_then", "_other")
    most = near.group_by("_row").agg(_then=pl.col("_time").first(), _other=pl.col("_amount").max())
    for step in (-1, 1):
        amount = pl.when(is_near).then("_other").alias(f"_most{step}")
        both = both.join(most.with_columns(row - step), on="_row", how="left").with_columns(amount)
        both = both.drop("_then", "_other")
    return both


def _list_levels(data: Slice, side: str) -> pl.LazyFrame:
    """List the best levels of all books: `_row`, `_time`, `_day`, `_price`, `_amount`."""
    price, amount = (pl.col(f"{side}_{name}").list.head(_DEPTH) for name in ("prices", "amounts"))
    return (
        data.frame.select(
            _row=pl.int_range(pl.len()),
            _time=data.time,
            _day=data.time.dt.date(),
            _price=price,
            _amount=amount,
        )
        .filter(pl.col("_price").list.len() == pl.col("_amount").list.len())
        .explode("_price", "_amount", empty_as_null=False)
    )


def _select_candidates(levels: pl.LazyFrame, factor: float, times: float) -> pl.LazyFrame:
    """Select the few levels with as few digits as an amount times `factor` has, or a high amount.

    `_high` is the quantile of the day's amounts.
    """
    zeros = round(math.log10(factor))
    digits = levels.with_columns(_digits=count_digits(pl.col("_amount")))
    days = digits.group_by("_day").agg(
        _high=pl.col("_amount").quantile(_HIGH),
        _usual=pl.col("_digits").quantile(_USUAL),
        _books=pl.col("_row").n_unique(),
    )
    is_short = pl.col("_digits") <= pl.col("_usual") - zeros
    return digits.join(days, on="_day").filter(
        is_short | (pl.col("_amount") >= times * pl.col("_high")), pl.col("_books") >= _MIN_BOOKS
    )


def _is_power_of_ten(ratio: pl.Expr, least: float) -> pl.Expr:
    """Whether a ratio is a power of ten of at least a size."""
    power = ratio.log10()
    return (ratio >= least * (1 - _EXACT)) & ((power - power.round()).abs() <= _EXACT)


CHECKS: Mapping[str, BuiltinCheck] = {"level_spikes": BuiltinCheck(level_spikes, "accuracy")}
