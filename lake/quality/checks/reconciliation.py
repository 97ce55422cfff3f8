"""Reconcile bars with the market's trades, and with its bars of a finer timeframe."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.derive import nests
from lake.model.intervals import RangeSet
from lake.model.ohlcv import (
    PRICES,
    SUMS,
    aggregate_bars,
    aggregate_trades,
    mark_traded_prices,
    weigh_trades,
)
from lake.model.slots import slot_of, start_of
from lake.model.timeframe import Timeframe
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase
from lake.quality.checks.bars import filter_observed
from lake.quality.slice import Reference, Slice

_QUOTES = ("quote_volume", "taker_buy_quote_volume")
_BUYS = ("taker_buy_volume", "taker_buy_quote_volume")
_DIGITS = 12  # digits of prices in a message: more are rounding errors of doubles
_CONSECUTIVE = 0.5  # share of a day's trades from which ids count as consecutive


def reconciliation(
    data: Slice, *, price_tolerance: float, volume_tolerance: float, quote_rounding: float
) -> pl.LazyFrame:
    """Report bars that differ from the aggregate of their trades or finer bars.

    The reason lists the columns that differ. Only bars with complete trades or finer bars are
    compared: other checks report what is missing. Open and filled bars on both sides, and columns
    that are null, are ignored.

    Parameters
    ----------
    price_tolerance, volume_tolerance
        Largest relative difference of prices, and of all other columns: sums of doubles differ.
    quote_rounding
        Additional difference of quote volumes per trade: venues round the quote volume of each
        trade.
    """
    timeframe = data.dataset.timeframe
    if timeframe is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    references = aggregate_references(data, timeframe)
    if not references:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    bars = filter_observed(data).filter(data.is_inside())
    bars = bars.with_columns(_slot=slot_of(data.time, timeframe))
    tolerance = dict.fromkeys(PRICES, price_tolerance)
    tolerance |= dict.fromkeys(SUMS, volume_tolerance)
    names = [name for name in tolerance if name in data.dataset.polars_schema]
    findings = []
    for aggregate, name_of_reference in references:
        wrong = {
            name: _differs(name, tolerance[name], quote_rounding if name in _QUOTES else 0.0)
            for name in names
        }
        both = bars.join(aggregate, on="_slot").filter(pl.any_horizontal(wrong.values()))
        marked = both.with_columns(_mark_wrong(wrong))
        findings.append(_group_findings(data, marked, names, name_of_reference))
    return pl.concat(findings)


def aggregate_references(data: Slice, timeframe: Timeframe) -> list[tuple[pl.LazyFrame, str]]:
    """Aggregate the market's trades, and its next finer bars, to bars; with the table of each.

    Only bars without missing parts: `_slot`, `_open`, `_high`, `_low`, `_close`, `_volume`, …
    """
    bars = []
    if data.trades is not None:
        bars.append((_aggregate_trades(data.trades, timeframe), "trades"))
    nested = next((finer for finer in data.finer if _is_nested(finer, timeframe)), None)
    if nested is not None:
        bars.append((_aggregate_bars(data, nested, timeframe), nested.dataset.name))
    return bars


def _is_nested(finer: Reference, timeframe: Timeframe) -> bool:
    return finer.dataset.timeframe is not None and nests(finer.dataset.timeframe, timeframe)


def _differs(name: str, share: float, rounding: float) -> pl.Expr:
    ours, theirs = pl.col(name), pl.col(f"_{name}")
    allowed = share * pl.max_horizontal(ours.abs(), theirs.abs())
    if rounding:
        allowed = allowed + rounding * pl.col("_count")
    return ((ours - theirs).abs() > allowed).fill_null(value=False)


def _mark_wrong(wrong: Mapping[str, pl.Expr]) -> list[pl.Expr]:
    """Mark the columns of each bar that are wrong, with both values of the first such column."""

    def first(prefix: str) -> pl.Expr:
        return pl.coalesce(
            pl.when(bad).then(pl.col(prefix + name).cast(pl.Float64)) for name, bad in wrong.items()
        )

    marks = [bad.alias(f"_wrong_{name}") for name, bad in wrong.items()]
    return [*marks, first("").alias("_measured"), first("_").alias("_expected")]


def _group_findings(
    data: Slice, both: pl.LazyFrame, names: list[str], reference: str
) -> pl.LazyFrame:
    """Group neighbouring bars into one finding each, cut at midnight."""
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
            against=pl.lit(reference),
            message=pl.format(
                "{} from the {} in {}: {} instead of {}",
                count_phrase(pl.len(), "bar differs", "bars differ"),
                pl.lit(reference),
                columns,
                measured.round_sig_figs(_DIGITS),
                expected.round_sig_figs(_DIGITS),
            ),
        )
        .drop("_run", "_day")
    )


def _aggregate_trades(trades: Reference, timeframe: Timeframe) -> pl.LazyFrame:
    """Aggregate trades to bars, for slots whose trades are provably complete."""
    frame = _prepare_trades(trades, timeframe)
    bars = frame.group_by("_slot").agg(
        **_prefix_names(aggregate_trades()),
        _count=pl.coalesce("_inside", 1).sum(),
        _rows=pl.len().cast(pl.Int64),
        _least=pl.col("_number").min(),
        _most=pl.col("_number").max(),
        _follow=pl.col("_follows").sum(),
        _day=pl.col("timestamp").first().dt.date(),
    )
    # The slots of the first and the last trade may have had other trades.
    first, last = pl.col("_slot").min(), pl.col("_slot").max()
    inner = pl.col("_slot").is_between(first, last, closed="none")
    complete = _filter_unbroken(bars.sort("_slot").with_columns(_inner=inner))
    ordered = _correct_order(complete, frame)
    if trades.coverage is not None:
        return _add_is_covered(ordered, trades.coverage, timeframe).filter("_covered")
    return ordered.filter("_inner")


def _prepare_trades(trades: Reference, timeframe: Timeframe) -> pl.LazyFrame:
    """Select the trades with their slot and the columns that are summed."""
    number = pl.col("trade_id").cast(pl.Int64, strict=False)
    return trades.frame.select(
        "timestamp",
        "price",
        "amount",
        _number=number,
        _follows=number - number.shift(1) == 1,
        _slot=slot_of(pl.col("timestamp"), timeframe).set_sorted(),
        **weigh_trades(),
    )


def _filter_unbroken(bars: pl.LazyFrame) -> pl.LazyFrame:
    """Keep slots without skipped ids in and beside them; all slots if ids are not consecutive."""
    inside = pl.col("_most") - pl.col("_least") + 1 == pl.col("_rows")
    before = (pl.col("_least") - pl.col("_most").shift(1) == 1).fill_null(value=True)
    whole = inside & before & before.shift(-1, fill_value=True)
    follow = pl.col("_follow").sum().over("_day") / pl.col("_rows").sum().over("_day")
    return bars.filter(whole | (follow < _CONSECUTIVE) | inside.is_null())


def _correct_order(bars: pl.LazyFrame, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Correct the first and last prices by time and number: as text, id 1000 sorts before 999."""
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
    """Aggregate finer bars, for slots in which no bar with a trade is missing."""
    frame = filter_observed(finer).with_columns(
        _slot=slot_of(pl.col("timestamp"), timeframe).set_sorted(),
        **mark_traded_prices(),
    )
    bars = frame.group_by("_slot").agg(
        **_prefix_names(aggregate_bars()),
        _count=pl.coalesce("trade_count", 1).sum(),
        _rows=pl.len().cast(pl.Int64),
    )
    parts = _count_parts(finer, timeframe)
    if not data.omits_empty_bars or not finer.coverage:
        return bars.filter(pl.col("_rows") == parts)
    slots = _add_is_covered(bars, finer.coverage, timeframe)
    return slots.filter((pl.col("_rows") == parts) | pl.col("_covered"))


def _prefix_names(aggregates: Mapping[str, pl.Expr]) -> dict[str, pl.Expr]:
    """Name the aggregates apart from the columns of the bars that they are compared with."""
    return {f"_{name}": aggregate for name, aggregate in aggregates.items()}


def _count_parts(finer: Reference, timeframe: Timeframe) -> pl.Expr:
    """Count the finer bars of a slot."""
    part = finer.dataset.timeframe
    if part is None or part.unit == "M":
        return pl.lit(timeframe.count // part.count if part else 1)
    length = start_of(pl.col("_slot") + 1, timeframe) - start_of(pl.col("_slot"), timeframe)
    return length.dt.total_seconds() // part.seconds


def _add_is_covered(slots: pl.LazyFrame, ranges: RangeSet, timeframe: Timeframe) -> pl.LazyFrame:
    """Add `_covered`: whether a slot lies completely in one of the ranges."""
    frame = pl.LazyFrame(
        {"_from": [item.start for item in ranges], "_to": [item.end for item in ranges]},
        schema={"_from": TIMESTAMP, "_to": TIMESTAMP},
    )
    end = start_of(pl.col("_slot") + 1, timeframe)
    return (
        slots.with_columns(_start=start_of(pl.col("_slot"), timeframe))
        .sort("_start")
        .join_asof(frame, left_on="_start", right_on="_from", check_sortedness=False)
        .with_columns(_covered=(end <= pl.col("_to")).fill_null(value=False))
        .drop("_start", "_from", "_to")
    )


CHECKS: Mapping[str, BuiltinCheck] = {"reconciliation": BuiltinCheck(reconciliation, "consistency")}
