"""Find sides of order books at wrong prices: trades of the market, or other venues, testify."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.model.timeframe import Timeframe
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck
from lake.quality.slice import Reference, Slice

_MIN_BOOKS = 10  # books of a day from which the usual distance is known
_SIDES: Mapping[str, pl.Expr] = {
    "bid": pl.col("bid_prices").list.max().fill_nan(None),
    "ask": pl.col("ask_prices").list.min().fill_nan(None),
}


def side_off(data: Slice, *, floor_bps: float, times: float, max_age: str) -> pl.LazyFrame:
    """Report best prices far from what the market's trades, or other venues, show at that time.

    `bid_off` or `ask_off`: only this side is far from it. `both_off`: the whole book is, which is a
    warning. A price is compared with the trades next before and after it, between which it may be
    anywhere, and with the same side of the next book before it of each other venue. How far it is
    from them usually, on that day, is subtracted. Without a witness nothing is reported.

    Parameters
    ----------
    floor_bps
        Smallest distance beyond the usual one, in basis points.
    times
        Smallest distance beyond it, in median deviations from the usual one.
    max_age
        Longest time between a book and what it is compared with.
    """
    age = timedelta(seconds=Timeframe.parse(max_age).seconds)
    books = data.frame.select(
        _time=data.time, _day=data.time.dt.date(), **{f"_{n}": best for n, best in _SIDES.items()}
    )
    measured = []
    if data.trades is not None:
        measured.append(_compare_with_trades(books, data.trades, age))
    measured += [
        _compare_with_venue(books, other, age)
        for other in data.others
        if other.dataset.event == data.dataset.event
    ]
    if not measured:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    findings = (_find_far(frame, floor_bps / 1e4, times) for frame in measured)
    return pl.concat(findings).unique(["start", "reason"], keep="first", maintain_order=True)


def _compare_with_trades(books: pl.LazyFrame, trades: Reference, age: timedelta) -> pl.LazyFrame:
    """Add the distance of each side from the trades around; above them it is positive."""
    time = trades.dataset.time_column
    prices = trades.frame.select(pl.col(time).alias("_time"), "price").sort("_time")
    around = books.sort("_time")
    for name, strategy in (("_before", "backward"), ("_after", "forward")):
        around = around.join_asof(
            prices.rename({"price": name}),
            on="_time",
            strategy=strategy,  # type: ignore[arg-type]
            tolerance=age,
        )
    low, high = pl.min_horizontal("_before", "_after"), pl.max_horizontal("_before", "_after")
    away = {
        f"_{side}_away": pl.max_horizontal((pl.col(f"_{side}") / high).log(), 0.0)
        + pl.min_horizontal((pl.col(f"_{side}") / low).log(), 0.0)
        for side in _SIDES
    }
    shown = (low * high).sqrt()
    return around.filter(low.is_not_null()).with_columns(
        **away, _bid_shown=shown, _ask_shown=shown, _against=pl.lit("trades")
    )


def _compare_with_venue(books: pl.LazyFrame, other: Reference, age: timedelta) -> pl.LazyFrame:
    """Add the distance of each side from the same side of the venue's last book."""
    time = pl.col(other.dataset.time_column)
    shown = {f"_{side}_shown": best for side, best in _SIDES.items()}
    theirs = other.frame.select(_time=time, **shown).sort("_time")
    away = {f"_{s}_away": (pl.col(f"_{s}") / pl.col(f"_{s}_shown")).log() for s in _SIDES}
    return (
        books.sort("_time")
        .join_asof(theirs, on="_time", strategy="backward", tolerance=age)
        .with_columns(**away, _against=pl.lit(str(other.market)))
    )


def _find_far(measured: pl.LazyFrame, floor: float, times: float) -> pl.LazyFrame:
    """Find books of which a side is much farther away than usual."""
    columns: dict[str, pl.Expr] = {}
    for side in _SIDES:
        away = pl.col(f"_{side}_away")
        usual = away.median().over("_day")
        spread = (away - usual).abs().median().over("_day")
        bound = pl.max_horizontal(times * spread, pl.lit(floor))
        columns[f"_{side}_off"] = ((away - usual).abs() >= bound).fill_null(value=False)
    bid, ask = pl.col("_bid_off"), pl.col("_ask_off")
    both = pl.when(bid & ask).then(pl.lit("both"))
    name = both.when(bid).then(pl.lit("bid")).otherwise(pl.lit("ask"))
    price = pl.when(bid).then("_bid").otherwise("_ask")
    shown = pl.when(bid).then("_bid_shown").otherwise("_ask_shown")
    return (
        measured.with_columns(**columns, _books=pl.len().over("_day"))
        .filter(bid | ask, pl.col("_books") >= _MIN_BOOKS)
        .select(
            start="_time",
            measured=price,
            expected=shown,
            reason=pl.format("{}_off", name),
            against="_against",
            severity=pl.when(bid & ask).then(pl.lit("warning")),
            message=pl.format(
                "The best {} is at {}, and {} at {}",
                name.replace({"both": "bid and ask, the bid"}),
                price.round_sig_figs(8),
                pl.when(pl.col("_against") == "trades")
                .then(pl.lit("the trades before and after"))
                .otherwise("_against"),
                shown.round_sig_figs(8),
            ),
        )
    )


CHECKS: Mapping[str, BuiltinCheck] = {"side_off": BuiltinCheck(side_off, "accuracy")}
