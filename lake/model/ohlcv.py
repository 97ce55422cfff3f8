"""Bars as aggregates of trades, or of finer bars: their columns, and how each is made. Pure.

The expressions are for rows of one market, in order of time, grouped by bar.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.units import Units

PRICES = ("open", "high", "low", "close")
OHLCV = (*PRICES, "volume")
SUMS = ("volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")
"""Columns of a bar that are sums over its trades."""


def aggregate_price(name: str, prices: pl.Expr, *, ignore_nulls: bool = False) -> pl.Expr:
    """Aggregate prices to one of a bar.

    Parameters
    ----------
    name
        `open` is the first, `high` the highest, `low` the lowest, `close` the last.
    ignore_nulls
        Whether a first or last price that is null is passed over.
    """
    match name:
        case "open":
            return prices.first(ignore_nulls=ignore_nulls)
        case "high":
            return prices.max()
        case "low":
            return prices.min()
        case _:
            return prices.last(ignore_nulls=ignore_nulls)


def sum_all(values: pl.Expr) -> pl.Expr:
    """Sum values; null where one of them is: a sum of which a part is unknown is unknown."""
    return pl.when(values.null_count() == 0).then(values.sum())


_BASE = Units()


def weigh_trades(units: Units = _BASE) -> Mapping[str, pl.Expr]:
    """Return the columns that `aggregate_trades` needs beside `price`.

    They are made of `price`, `amount`, `side`, `first_id`, `last_id`. `amount` becomes the amount
    in the unit of volumes, as it is where a unit is unknown. Amounts of buys are null for other
    trades; `_inside`, the number of trades in an aggregated one, is null where it is unknown.
    """
    is_buy = pl.col("side") == "buy"
    price, amount = pl.col("price"), pl.col("amount")
    volume, quote = amount, price * amount
    if not units.is_unknown:
        unknown = pl.lit(None, dtype=pl.Float64)
        converted = units.convert(amount, price, units.amount, units.volume)
        volume = unknown if converted is None else converted
        converted = units.convert(amount, price, units.amount, "quote")
        quote = unknown if converted is None else converted
    return {
        "amount": volume,
        "_quote": quote,
        "_buy": pl.when(is_buy).then(volume),
        "_buy_quote": pl.when(is_buy).then(quote),
        "_inside": pl.col("last_id") - pl.col("first_id") + 1,
        "_sided": pl.col("side").is_not_null(),
    }


def aggregate_trades() -> Mapping[str, pl.Expr]:
    """Aggregate trades, with the columns of `weigh_trades`, to `PRICES` and `SUMS` of a bar.

    Where the side of a trade is unknown, the sums over buys are null; where the number of trades in
    one is, `trade_count` is.
    """
    has_sides = pl.col("_sided").all()
    return {
        **{name: aggregate_price(name, pl.col("price")) for name in PRICES},
        "volume": pl.col("amount").sum(),
        "quote_volume": pl.col("_quote").sum(),
        "trade_count": sum_all(pl.col("_inside")),
        "taker_buy_volume": pl.when(has_sides).then(pl.col("_buy").sum()),
        "taker_buy_quote_volume": pl.when(has_sides).then(pl.col("_buy_quote").sum()),
    }


def mark_traded_prices() -> Mapping[str, pl.Expr]:
    """Return the columns that `aggregate_bars` needs beside those of bars.

    They are the prices of bars with a volume, else null: a bar without trades repeats the last
    price from before.
    """
    is_quiet = pl.col("volume") <= 0
    return {f"_traded_{name}": pl.when(~is_quiet).then(name) for name in PRICES}


def aggregate_bars() -> Mapping[str, pl.Expr]:
    """Aggregate finer bars, with the columns of `mark_traded_prices`, to `PRICES` and `SUMS`.

    Prices are those of bars with a volume, if there are any. A sum is null where one of its parts
    is.
    """
    prices = {
        name: pl.coalesce(
            aggregate_price(name, pl.col(f"_traded_{name}"), ignore_nulls=True),
            aggregate_price(name, pl.col(name)),
        )
        for name in PRICES
    }
    return prices | {name: sum_all(pl.col(name)) for name in SUMS}
