"""Aggregate a market's trades and finer bars to bars, to compare its bars with them."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.derive import nests
from lake.model.grid import Grid
from lake.model.intervals import RangeSet
from lake.model.ohlcv import aggregate_bars, aggregate_trades, mark_traded_prices, weigh_trades
from lake.model.slots import slot_of, start_of
from lake.quality.checks.bars import filter_observed
from lake.quality.slice import Reference, Slice

_EXCEPTIONS = 20  # trades of a day whose ids may run against the time by exception
_CONSECUTIVE = 0.5  # share of a day's trades from which ids count as consecutive


def aggregate_references(data: Slice, grid: Grid) -> list[tuple[pl.LazyFrame, str]]:
    """Aggregate the market's trades, and its next finer bars, to bars; with the table of each.

    Returns
    -------
    list
        Frames of `_slot`, `_open`, `_high`, `_low`, `_close`, `_volume`, …; `_complete`: whether
        no part is missing, provably; `_count`: trades; `_rows`, `_parts`: finer rows, and how many
        a bar has (null for trades). `_open` and `_close` are null where the order of trades is
        unknown, sums over amounts where their unit is.
    """
    bars = []
    if data.trades is not None:
        trades = data.trades
        made = data.share(f"trades {grid}", lambda: _aggregate_trades(data, trades, grid))
        bars.append((made, "trades"))
    nested = next((finer for finer in data.finer if finer.grid and nests(finer.grid, grid)), None)
    if nested is not None:
        made = data.share(f"finer {grid}", lambda: _aggregate_bars(data, nested, grid))
        bars.append((made, nested.dataset.name))
    return bars


def _aggregate_trades(data: Slice, trades: Reference, grid: Grid) -> pl.LazyFrame:
    """Aggregate trades to bars; those are complete whose trades provably are."""
    frame = _prepare_trades(data, trades, grid)
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
    if data.stretches is not None:
        market = data.stretches.number(start_of(pl.col("_slot"), grid))
        first, last = first.over(market), last.over(market)
    inner = pl.col("_slot").is_between(first, last, closed="none")
    sums = {name: pl.col(name).sum().over("_day") for name in ("_rows", "_follow")}
    bars = bars.sort("_slot").with_columns(
        _parts=pl.lit(None, dtype=pl.Int64),
        _complete=_is_unbroken(data, grid, sums["_follow"] / sums["_rows"]),
    )
    ordered = _correct_order(bars, frame)
    if trades.coverage is None:
        return ordered.with_columns(pl.col("_complete") & inner)
    covered = _add_is_covered(ordered, trades.coverage, grid)
    return covered.with_columns(pl.col("_complete") & pl.col("_covered"))


def _prepare_trades(data: Slice, trades: Reference, grid: Grid) -> pl.LazyFrame:
    """Select the trades with their slot and the columns that are summed.

    `_against`: whether a trade is later than the one before, and has a lower id.
    """
    number, time = pl.col("trade_id").cast(pl.Int64, strict=False), pl.col("timestamp")
    before = data.previous(number, time)
    return trades.frame.select(
        "timestamp",
        "price",
        _number=number,
        _follows=number - before == 1,
        _against=((time > time.shift(1)) & (number < before)).fill_null(value=False),
        _slot=slot_of(time, grid).set_sorted(),
        **weigh_trades(data.known_units),
    )


def _is_unbroken(data: Slice, grid: Grid, follow: pl.Expr) -> pl.Expr:
    """Whether no ids skip in and beside a slot; true if ids are not consecutive.

    Parameters
    ----------
    follow
        Share of the day's trades whose id follows that of the trade before.
    """
    inside = pl.col("_most") - pl.col("_least") + 1 == pl.col("_rows")
    last = data.previous(pl.col("_most"), start_of(pl.col("_slot"), grid))
    before = (pl.col("_least") - last == 1).fill_null(value=True)
    whole = inside & before & before.shift(-1, fill_value=True)
    return (whole | (follow < _CONSECUTIVE)).fill_null(value=True) | inside.is_null()


def _correct_order(bars: pl.LazyFrame, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Correct the first and last prices by time and number: as text, id 1000 sorts before 999.

    They are null where trades of one moment have several prices, and their ids do not tell which
    came first: they are no numbers, or run against the time.
    """
    number, time, price = pl.col("_number"), pl.col("timestamp"), pl.col("price")
    ends = {"first": time.min(), "last": time.max()}
    is_tied = {
        f"_{name}_tied": price.filter(time == end).n_unique() > 1 for name, end in ends.items()
    }
    unordered = number.is_null() | pl.col("_against") | pl.col("_disordered")
    sorted_ = (
        frame.join(_find_odd_slots(frame), on="_slot")
        .sort("timestamp", "_number")
        .group_by("_slot")
        .agg(_first=price.first(), _last=price.last(), _unordered=unordered.any(), **is_tied)
    )
    is_sure = {
        name: ~(pl.col(f"_{name}_tied") & pl.col("_unordered")).fill_null(value=False)
        for name in ends
    }
    return bars.join(sorted_, on="_slot", how="left").with_columns(
        _open=pl.when(is_sure["first"]).then(pl.coalesce("_first", "_open")),
        _close=pl.when(is_sure["last"]).then(pl.coalesce("_last", "_close")),
    )


def _find_odd_slots(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Find slots whose trades may be in another order; `_disordered`: ids tell none on that day."""
    number, day = pl.col("_number"), pl.col("timestamp").dt.date().alias("_day")
    same_moment = pl.col("timestamp") == pl.col("timestamp").shift(1)
    tied = same_moment & (pl.col("price") != pl.col("price").shift(1))
    behind = same_moment & (number < number.shift(1))
    is_odd = behind | pl.col("_against") | (tied & number.is_null())
    few = frame.select("_slot", "timestamp", _is_odd=is_odd, _tied=tied).filter(
        pl.col("_is_odd") | pl.col("_tied")
    )
    against = frame.filter("_against").group_by(day).len("_count")
    days = against.select("_day", _disordered=pl.col("_count") > _EXCEPTIONS)
    return (
        few.with_columns(day)
        .join(days, on="_day", how="left")
        .filter(pl.col("_is_odd") | pl.col("_disordered"))
        .group_by("_slot")
        .agg(pl.col("_disordered").any())
    )


def _aggregate_bars(data: Slice, finer: Reference, grid: Grid) -> pl.LazyFrame:
    """Aggregate finer bars; those are complete in which no bar with a trade is missing."""
    frame = filter_observed(finer).with_columns(
        _slot=slot_of(pl.col("timestamp"), grid).set_sorted(),
        **mark_traded_prices(),
    )
    bars = frame.group_by("_slot").agg(
        **_prefix_names(aggregate_bars()),
        _count=pl.coalesce("trade_count", 1).sum(),
        _rows=pl.len().cast(pl.Int64),
    )
    bars = bars.with_columns(_parts=_count_parts(finer, grid))
    whole = pl.col("_rows") == pl.col("_parts")
    if not data.omits_empty_bars or not finer.coverage:
        return bars.with_columns(_complete=whole)
    slots = _add_is_covered(bars, finer.coverage, grid)
    return slots.with_columns(_complete=whole | pl.col("_covered"))


def _prefix_names(aggregates: Mapping[str, pl.Expr]) -> dict[str, pl.Expr]:
    """Name the aggregates apart from the columns of the bars that they are compared with."""
    return {f"_{name}": aggregate for name, aggregate in aggregates.items()}


def _count_parts(finer: Reference, grid: Grid) -> pl.Expr:
    """Count the finer bars of a slot."""
    part = finer.dataset.timeframe
    if part is None or part.unit == "M":
        return pl.lit(grid.timeframe.count // part.count if part else 1, dtype=pl.Int64)
    length = start_of(pl.col("_slot") + 1, grid) - start_of(pl.col("_slot"), grid)
    return length.dt.total_seconds() // part.seconds


def _add_is_covered(slots: pl.LazyFrame, ranges: RangeSet, grid: Grid) -> pl.LazyFrame:
    """Add `_covered`: whether a slot lies completely in one of the ranges."""
    frame = pl.LazyFrame(
        {"_from": [item.start for item in ranges], "_to": [item.end for item in ranges]},
        schema={"_from": TIMESTAMP, "_to": TIMESTAMP},
    )
    end = start_of(pl.col("_slot") + 1, grid)
    return (
        slots.with_columns(_start=start_of(pl.col("_slot"), grid))
        .sort("_start")
        .join_asof(frame, left_on="_start", right_on="_from", check_sortedness=False)
        .with_columns(_covered=(end <= pl.col("_to")).fill_null(value=False))
        .drop("_start", "_from", "_to")
    )
