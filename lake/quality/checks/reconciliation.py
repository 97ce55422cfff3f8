"""Bars against what they are made of: the market's trades, and its bars of a finer timeframe."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.derive import nests
from lake.model.intervals import RangeSet
from lake.model.ohlcv import PRICES
from lake.model.slots import slot_of, start_of
from lake.model.timeframe import Timeframe
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase
from lake.quality.checks.bars import filter_observed
from lake.quality.slice import Reference, Slice

_SUMS = ("volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")
_QUOTES = ("quote_volume", "taker_buy_quote_volume")
_BUYS = ("taker_buy_volume", "taker_buy_quote_volume")
_DIGITS = 12  # of prices in a message: more are noise of doubles
_HABIT = 0.5  # share of a day's trades from which ids are taken to follow each other


def reconciliation(
    data: Slice, *, price_tolerance: float, volume_tolerance: float, quote_rounding: float
) -> pl.LazyFrame:
    """Bars that differ from the aggregate of their trades or finer bars; the reason is the columns.

    Compared are only bars below which nothing is missing: what is missing is found by other checks.
    Left out are bars that were open or filled in, above and below, and columns that are null.

    Parameters
    ----------
    price_tolerance, volume_tolerance
        How much prices, and all others, may differ, as a share: sums of doubles do.
    quote_rounding
        How much a quote volume may differ for each trade: venues round each to their decimals.
    """
    timeframe = data.dataset.timeframe
    if timeframe is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    made = aggregate_references(data, timeframe)
    if not made:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    bars = filter_observed(data).filter(data.is_inside())
    bars = bars.with_columns(_slot=slot_of(data.time, timeframe))
    tolerance = dict.fromkeys(PRICES, price_tolerance)
    tolerance |= dict.fromkeys(_SUMS, volume_tolerance)
    names = [name for name in tolerance if name in data.dataset.polars_schema]
    found = []
    for below, who in made:
        wrong = {
            name: _differs(name, tolerance[name], quote_rounding if name in _QUOTES else 0.0)
            for name in names
        }
        both = bars.join(below, on="_slot").filter(pl.any_horizontal(wrong.values()))
        found.append(_group_findings(data, both.with_columns(_mark_wrong(wrong)), names, who))
    return pl.concat(found)


def aggregate_references(data: Slice, timeframe: Timeframe) -> list[tuple[pl.LazyFrame, str]]:
    """Bars made of the market's trades, and of its next finer bars, and what they are made of.

    Only those with nothing missing below: `_slot`, `_open`, `_high`, `_low`, `_close`, `_volume`, …
    """
    made = [] if data.trades is None else [(_aggregate_trades(data.trades, timeframe), "trades")]
    nested = [bars for bars in data.finer if _is_nested(bars, timeframe)]
    made += [(_aggregate_bars(data, bars, timeframe), bars.dataset.name) for bars in nested[:1]]
    return made


def _is_nested(finer: Reference, timeframe: Timeframe) -> bool:
    return finer.dataset.timeframe is not None and nests(finer.dataset.timeframe, timeframe)


def _differs(name: str, share: float, rounding: float) -> pl.Expr:
    ours, theirs = pl.col(name), pl.col(f"_{name}")
    allowed = share * pl.max_horizontal(ours.abs(), theirs.abs())
    if rounding:
        allowed = allowed + rounding * pl.col("_count")
    return ((ours - theirs).abs() > allowed).fill_null(value=False)


def _mark_wrong(wrong: Mapping[str, pl.Expr]) -> list[pl.Expr]:
    """Of each bar whether a column is wrong, and the two values of the first that is."""

    def first(prefix: str) -> pl.Expr:
        return pl.coalesce(
            pl.when(bad).then(pl.col(prefix + name).cast(pl.Float64)) for name, bad in wrong.items()
        )

    marks = [bad.alias(f"_wrong_{name}") for name, bad in wrong.items()]
    return [*marks, first("").alias("_measured"), first("_").alias("_expected")]


def _group_findings(data: Slice, both: pl.LazyFrame, names: list[str], who: str) -> pl.LazyFrame:
    """Neighbouring bars as one finding each, cut at midnight."""
    columns = pl.concat_str(
        [pl.when(pl.col(f"_wrong_{name}").any()).then(pl.lit(name)) for name in names],
        separator=",",
        ignore_nulls=True,
    )
    apart = (pl.col("_slot").diff() != 1).fill_null(value=True)
    measured, expected = pl.col("_measured").first(), pl.col("_expected").first()
    return (
        both.sort("_slot")
        .with_columns(_run=apart.cum_sum(), _day=data.time.dt.date())
        .group_by("_run", "_day", maintain_order=True)
        .agg(
            start=data.time.first(),
            end=(data.time + pl.lit(data.step)).last(),
            rows=pl.len().cast(pl.Int64),
            measured=measured,
            expected=expected,
            reason=columns,
            against=pl.lit(who),
            message=pl.format(
                "{} from the {} below in {}: {} instead of {}",
                count_phrase(pl.len(), "bar differs", "bars differ"),
                pl.lit(who),
                columns,
                measured.round_sig_figs(_DIGITS),
                expected.round_sig_figs(_DIGITS),
            ),
        )
        .drop("_run", "_day")
    )


def _aggregate_trades(trades: Reference, timeframe: Timeframe) -> pl.LazyFrame:
    """Bars of trades, of all slots that are surely complete."""
    frame = _prepare_trades(trades, timeframe)
    sides = pl.col("_sided").all()
    bars = frame.group_by("_slot").agg(
        _open=pl.col("price").first(),
        _high=pl.col("price").max(),
        _low=pl.col("price").min(),
        _close=pl.col("price").last(),
        _volume=pl.col("amount").sum(),
        _quote_volume=pl.col("_quote").sum(),
        _trade_count=pl.when(pl.col("_inside").null_count() == 0).then(pl.col("_inside").sum()),
        _taker_buy_volume=pl.when(sides).then(pl.col("_buy").sum()),
        _taker_buy_quote_volume=pl.when(sides).then(pl.col("_buy_quote").sum()),
        _count=pl.coalesce("_inside", 1).sum(),
        _rows=pl.len().cast(pl.Int64),
        _least=pl.col("_number").min(),
        _most=pl.col("_number").max(),
        _follow=pl.col("_follows").sum(),
        _day=pl.col("timestamp").first().dt.date(),
    )
    # Nobody knows what was before the first trade and after the last one.
    first, last = pl.col("_slot").min(), pl.col("_slot").max()
    inner = pl.col("_slot").is_between(first, last, closed="none")
    complete = _filter_unbroken(bars.sort("_slot").with_columns(_inner=inner))
    ordered = _correct_order(complete, frame)
    if trades.coverage is not None:
        return _add_is_covered(ordered, trades.coverage, timeframe).filter("_known")
    return ordered.filter("_inner")


def _prepare_trades(trades: Reference, timeframe: Timeframe) -> pl.LazyFrame:
    """Trades with the number of their slot, and what is summed up of them."""
    buy = pl.col("side") == "buy"
    quote = pl.col("price") * pl.col("amount")
    number = pl.col("trade_id").cast(pl.Int64, strict=False)
    return trades.frame.select(
        "timestamp",
        "price",
        "amount",
        _number=number,
        _follows=number - number.shift(1) == 1,
        _slot=slot_of(pl.col("timestamp"), timeframe).set_sorted(),
        _quote=quote,
        _buy=pl.when(buy).then("amount").otherwise(0.0),
        _buy_quote=pl.when(buy).then(quote).otherwise(0.0),
        _inside=pl.col("last_id") - pl.col("first_id") + 1,
        _sided=pl.col("side").is_not_null(),
    )


def _filter_unbroken(bars: pl.LazyFrame) -> pl.LazyFrame:
    """Slots in and beside which no id is skipped, where ids follow each other at all."""
    here = pl.col("_most") - pl.col("_least") + 1 == pl.col("_rows")
    before = (pl.col("_least") - pl.col("_most").shift(1) == 1).fill_null(value=True)
    whole = here & before & before.shift(-1, fill_value=True)
    follow = pl.col("_follow").sum().over("_day") / pl.col("_rows").sum().over("_day")
    return bars.filter(whole | (follow < _HABIT) | here.is_null())


def _correct_order(bars: pl.LazyFrame, frame: pl.LazyFrame) -> pl.LazyFrame:
    """First and last prices by time and number: ids that are texts sort 1000 before 999."""
    number, time = pl.col("_number"), pl.col("timestamp")
    odd = frame.filter((time == time.shift(1)) & (number < number.shift(1))).select("_slot")
    sorted_ = (
        frame.join(odd, on="_slot", how="semi")
        .sort("timestamp", "_number")
        .group_by("_slot")
        .agg(_first=pl.col("price").first(), _last=pl.col("price").last())
    )
    return bars.join(sorted_, on="_slot", how="left").with_columns(
        _open=pl.coalesce("_first", "_open"), _close=pl.coalesce("_last", "_close")
    )


def _aggregate_bars(data: Slice, finer: Reference, timeframe: Timeframe) -> pl.LazyFrame:
    """Bars of finer ones, of all slots in which none is missing, or none that had a trade.

    Bars without volume tell the last price from before: prices come from the others, if any.
    """
    quiet = pl.col("volume") <= 0
    frame = filter_observed(finer).with_columns(
        _slot=slot_of(pl.col("timestamp"), timeframe).set_sorted(),
        **{f"_{name}": pl.when(~quiet).then(name) for name in PRICES},
    )
    price = {name: (pl.col(f"_{name}"), pl.col(name)) for name in PRICES}
    bars = frame.group_by("_slot").agg(
        _open=pl.coalesce(part.first(ignore_nulls=True) for part in price["open"]),
        _high=pl.coalesce(part.max() for part in price["high"]),
        _low=pl.coalesce(part.min() for part in price["low"]),
        _close=pl.coalesce(part.last(ignore_nulls=True) for part in price["close"]),
        _count=pl.coalesce("trade_count", 1).sum(),
        _rows=pl.len().cast(pl.Int64),
        **{f"_{name}": _sum_of_all(name) for name in _SUMS},
    )
    parts = _count_parts(finer, timeframe)
    if not data.omits_empty_bars or not finer.coverage:
        return bars.filter(pl.col("_rows") == parts)
    known = _add_is_covered(bars, finer.coverage, timeframe)
    return known.filter((pl.col("_rows") == parts) | pl.col("_known"))


def _sum_of_all(name: str) -> pl.Expr:
    return pl.when(pl.col(name).null_count() == 0).then(pl.col(name).sum())


def _count_parts(finer: Reference, timeframe: Timeframe) -> pl.Expr:
    """How many finer bars a slot has."""
    below = finer.dataset.timeframe
    if below is None or below.unit == "M":
        return pl.lit(timeframe.count // below.count if below else 1)
    length = start_of(pl.col("_slot") + 1, timeframe) - start_of(pl.col("_slot"), timeframe)
    return length.dt.total_seconds() // below.seconds


def _add_is_covered(slots: pl.LazyFrame, ranges: RangeSet, timeframe: Timeframe) -> pl.LazyFrame:
    """Adds whether a slot lies wholly in one of the ranges: `_known`."""
    known = pl.LazyFrame(
        {"_from": [item.start for item in ranges], "_to": [item.end for item in ranges]},
        schema={"_from": TIMESTAMP, "_to": TIMESTAMP},
    )
    end = start_of(pl.col("_slot") + 1, timeframe)
    return (
        slots.with_columns(_start=start_of(pl.col("_slot"), timeframe))
        .sort("_start")
        .join_asof(known, left_on="_start", right_on="_from", check_sortedness=False)
        .with_columns(_known=(end <= pl.col("_to")).fill_null(value=False))
        .drop("_start", "_from", "_to")
    )


CHECKS: Mapping[str, BuiltinCheck] = {"reconciliation": BuiltinCheck(reconciliation, "consistency")}
