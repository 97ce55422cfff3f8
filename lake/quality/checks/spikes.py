"""Prices that leave and come back alone: errors, unless somebody else saw them, too.

Jumps are measured in deviations: the median absolute return of the bars around, or, where that is
more, the jump from a close to the next open that one in ten there exceeds (prices of a thin market
go back and forth between bid and ask, so that its median tells nothing). Returns of short bars have
their median at zero: no other centre is taken.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import polars.selectors as cs

from lake.model.ohlcv import PRICES
from lake.model.slots import slot_of
from lake.model.timeframe import Timeframe
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck
from lake.quality.checks.bars import filter_observed, previous_value
from lake.quality.checks.second_opinions import aggregate_market, compare_with_venues
from lake.quality.slice import Slice

_EDGE = 0.9  # quantile of jumps between bars that a deviation is at least
_RETURNS = 2.5  # a price is back if way out and way back differ by no more than this factor
_UNSURE = 0.5  # scales of blocks differ from that of the window around a row by less than this
_WICK = 2.0  # bars have wicks more often than they jump: twice the deviations are asked for
_APART = 0.5  # share of the deviations of a move by which a witness must differ, to contradict


def spikes(
    data: Slice,
    *,
    deviations: float,
    wick_deviations: float,
    witnessed_deviations: float,
    window_rows: int,
    least_return: float,
) -> pl.LazyFrame:
    """Bars of which a price is away and back at once, which no witness confirms.

    `contradicted`: trades or finer bars of the market show another price, or other venues no such
    move (of a high or low then a warning). `suspect`: nobody testifies, but the price jumped
    between two bars, which a market seldom does, and back. A high or low alone is suspect only
    where it is absurd: nothing tells it from a real one.

    Parameters
    ----------
    deviations, wick_deviations
        How far away a price, or a high or low alone, is that trades and finer bars do not judge.
    witnessed_deviations
        From how far away these are asked.
    window_rows
        Rows around a row from which the size of a deviation comes: at most half of the margin.
    least_return
        Least size of a deviation, as a share of the price.
    """
    timeframe = data.dataset.timeframe
    if timeframe is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    path = _measure_jumps(data, timeframe, window_rows)
    blocks = _measure_blocks(path, least_return)
    wick = _WICK * deviations if data.others else wick_deviations
    shaped = _classify(path, blocks, deviations, wick)
    strong = _score(shaped, blocks, window_rows, least_return)
    strong, found = strong.filter(_is_beyond(deviations, wick)), []
    for bars, who in aggregate_market(data):  # they settle it: nobody else is asked
        strong = strong.join(bars, on="start", how="anti")
        found.append(_find_contradicted(data, path, blocks, bars, who, witnessed_deviations))
    alone = pl.col("_confirmed").is_null() & _is_beyond(deviations, wick_deviations)
    told = compare_with_venues(data, strong).filter(~pl.col("_confirmed") | alone)
    return pl.concat([*found, _to_findings(data, told)])


def _measure_jumps(data: Slice, timeframe: Timeframe, window_rows: int) -> pl.LazyFrame:
    """Each observed bar with its jump from the one before, and its own change, as logarithms.

    A block is half a window of slots, so that it is the same one whatever part is judged.
    """
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    up, down = pl.col("high") / top - 1, bottom / pl.col("low") - 1
    return (
        filter_observed(data)
        .select(
            *PRICES,
            start=data.time,
            _in=(pl.col("open") / previous_value(data, "close")).log(),
            _body=(pl.col("close") / pl.col("open")).log(),
            _block=slot_of(data.time, timeframe) // (window_rows // 2),
        )
        .with_row_index("_row")
        .with_columns(
            _out=pl.col("_in").shift(-1),
            _earlier=pl.col("_body").shift(1),
            _later=pl.col("_body").shift(-1),
            _in_before=pl.col("_in").shift(1),
            _out_after=pl.col("_in").shift(-2),
            _far=pl.max_horizontal(pl.col("_in").abs(), pl.col("_in").shift(-1).abs()),
            _tail=pl.max_horizontal(up, down),
            _is_up=up >= down,
        )
    )


def _measure_blocks(path: pl.LazyFrame, least_return: float) -> pl.LazyFrame:
    """Of each block of rows the size of a deviation, and what it comes from.

    `_least`: of it and its neighbours, and less by what is unsure; `_near`: by returns alone.
    """
    jump, change = pl.col("_in").abs(), (pl.col("_in") + pl.col("_body")).abs()
    blocks = (
        path.group_by("_block")
        .agg(
            _first=pl.col("_row").first(),
            _median=change.median(),
            _edge=jump.quantile(_EDGE),
            _returns=change,
            _jumps=jump,
        )
        .sort("_block")
        .with_columns(
            _deviation=pl.max_horizontal("_median", "_edge", pl.lit(least_return)),
            _near=pl.max_horizontal("_median", pl.lit(least_return)),
        )
    )
    around = [_neighbour_value("_deviation", step) for step in (-1, 0, 1)]
    return blocks.with_columns(_least=pl.min_horizontal(around) * _UNSURE)


def _neighbour_value(name: str, step: int) -> pl.Expr:
    """The value of the block so many further, if that has any bars."""
    other = pl.col("_block").shift(-step)
    return pl.when(other == pl.col("_block") + step).then(pl.col(name).shift(-step))


def _filter_beyond(
    path: pl.LazyFrame, blocks: pl.LazyFrame, far: pl.Expr, tail: pl.Expr
) -> pl.LazyFrame:
    """Bars with a jump beside them, or a wick, beyond a bound of their block.

    Almost all are ruled out by the least bound of all, without a look at their own.
    """
    bounds = blocks.select("_block", "_near", _far_bound=far, _tail_bound=tail)
    least = bounds.select(pl.col("_far_bound", "_tail_bound").min())
    beyond = (pl.col("_far") >= pl.col("_far_bound")) | (pl.col("_tail") >= pl.col("_tail_bound"))
    few = path.join(least, how="cross").filter(beyond).drop("_far_bound", "_tail_bound")
    return few.join(bounds, on="_block").filter(beyond)


def _classify(
    path: pl.LazyFrame, blocks: pl.LazyFrame, deviations: float, wick: float
) -> pl.LazyFrame:
    """Bars of which a price may be away by so many deviations, with its shape and size."""
    least = pl.col("_least")
    there, back, body = pl.col("_in"), pl.col("_out"), pl.col("_body")
    both = pl.min_horizontal(there.abs(), back.abs())
    size = {
        "whole": pl.when(there * back < 0).then(both).otherwise(0.0),
        "close": _size_if_reversed(back, body, pl.col("_later"), pl.col("_out_after")),
        "open": _size_if_reversed(there, body, pl.col("_earlier"), pl.col("_in_before")),
    }
    away = pl.col("_size") >= pl.col("_far_bound")
    shape = pl.coalesce(pl.when(size[name] == pl.col("_size")).then(pl.lit(name)) for name in size)
    end = pl.when("_is_up").then(pl.lit("high")).otherwise(pl.lit("low"))
    return (
        _filter_beyond(path, blocks, deviations * least, wick * least)
        .with_columns(_size=pl.max_horizontal(size.values()))
        .filter(away | (pl.col("_tail") >= pl.col("_tail_bound")))
        .with_columns(
            _shape=pl.when(away).then(shape).otherwise(end),
            _size=pl.when(away).then("_size").otherwise("_tail"),
        )
    )


def _size_if_reversed(jump: pl.Expr, body: pl.Expr, *others: pl.Expr) -> pl.Expr:
    """The jump between two bars, if the change within one of them takes it back.

    And takes it back better than any of `others` does, of which a neighbour is then accused.
    """
    left = (jump + body).abs()
    better = pl.all_horizontal(
        ((jump + other).abs() >= left).fill_null(value=True) for other in others
    )
    back = (-body / jump).is_between(1 / _RETURNS, _RETURNS)
    return pl.when(back & better).then(jump.abs()).otherwise(0.0)


def _score(
    shaped: pl.LazyFrame, blocks: pl.LazyFrame, window_rows: int, least_return: float
) -> pl.LazyFrame:
    """Sizes in deviations of the window around each; the price in question, and the normal one."""
    place = pl.col("_row").cast(pl.Int64) - pl.col("_first").cast(pl.Int64)
    first = pl.col("_skip") + place - window_rows // 2
    window = (pl.max_horizontal(first, 0), window_rows + pl.min_horizontal(first, 0))
    median = pl.col("_returns").list.slice(*window).list.median()
    edge = pl.col("_jumps").list.slice(*window).list.eval(pl.element().quantile(_EDGE)).list.first()
    before, after = pl.col("open") * (-pl.col("_in")).exp(), pl.col("close") * pl.col("_out").exp()
    ends = {"high": pl.max_horizontal("open", "close"), "low": pl.min_horizontal("open", "close")}
    shape = pl.col("_shape")
    price = pl.coalesce(pl.when(shape == name).then(name) for name in ("open", *ends))
    normal = pl.coalesce(pl.when(shape == name).then(end) for name, end in ends.items())
    scale = pl.max_horizontal(median, edge, pl.lit(least_return))
    return (
        _add_windows(shaped, blocks)
        .with_columns(_score=pl.col("_size") / scale)
        .drop(cs.contains("_returns", "_jumps"))
        .with_columns(
            _price=pl.coalesce(price, "close"),
            _normal=pl.coalesce(normal, (before * after).sqrt()),
        )
        .with_columns(_away=(pl.col("_price") / pl.col("_normal")).log())
    )


def _add_windows(few: pl.LazyFrame, blocks: pl.LazyFrame) -> pl.LazyFrame:
    """Adds returns and jumps of the block of a row and its neighbours; how many come before it."""
    few = few.join(blocks.select("_block", "_first"), on="_block")
    lists = blocks.select("_block", "_returns", "_jumps")
    for step in (-1, 0, 1):
        names = {"_returns": f"_returns{step}", "_jumps": f"_jumps{step}"}
        moved = lists.rename(names).with_columns(pl.col("_block") - step)
        few = few.join(moved, on="_block", how="left")
    none = pl.lit([], dtype=pl.List(pl.Float64))
    around = {
        name: pl.concat_list(pl.coalesce(f"{name}{step}", none) for step in (-1, 0, 1))
        for name in ("_returns", "_jumps")
    }
    before = pl.col("_returns-1").list.len().fill_null(0).cast(pl.Int64)
    return few.with_columns(_skip=before, **around)


def _is_beyond(deviations: float, wick: float) -> pl.Expr:
    return pl.col("_score") >= pl.when(_is_wick()).then(wick).otherwise(deviations)


def _is_wick() -> pl.Expr:
    return pl.col("_shape").is_in(["high", "low"])


def _find_contradicted(
    data: Slice,
    path: pl.LazyFrame,
    blocks: pl.LazyFrame,
    bars: pl.LazyFrame,
    who: str,
    deviations: float,
) -> pl.LazyFrame:
    """Bars that move and whose own trades or finer bars show a price far from theirs."""
    bound = deviations * pl.col("_near")
    apart = {name: (pl.col(name) / pl.col(f"_{name}")).log().abs() for name in PRICES}
    worst = pl.max_horizontal(apart.values())
    shapes = ("close", "open", "high", "low")  # of equals a close tells most
    which = [(name, pl.when(apart[name] == pl.col("_worst"))) for name in shapes]
    return _to_findings(
        data,
        _filter_beyond(path, blocks, bound, bound)
        .join(bars, on="start")
        .with_columns(_worst=worst)
        .filter(pl.col("_worst") >= _APART * deviations * pl.col("_near"))
        .with_columns(
            _shape=pl.coalesce(match.then(pl.lit(name)) for name, match in which),
            _price=pl.coalesce(match.then(name) for name, match in which),
            _normal=pl.coalesce(match.then(f"_{name}") for name, match in which),
            _score=pl.col("_worst") / pl.col("_near"),
            _confirmed=pl.lit(value=False),
            _against=pl.lit(who),
            _own=pl.lit(value=True),
        ),
    )


def _to_findings(data: Slice, judged: pl.LazyFrame) -> pl.LazyFrame:
    alone = pl.col("_confirmed").is_null()
    mild = alone | (_is_wick() & ~pl.col("_own"))
    return judged.select(
        start="start",
        end=pl.col("start") + pl.lit(data.step),
        rows=pl.lit(1, dtype=pl.Int64),
        measured="_price",
        expected="_normal",
        reason=pl.when(alone).then(pl.lit("suspect")).otherwise(pl.lit("contradicted")),
        against="_against",
        severity=pl.when(mild).then(pl.lit("warning")).otherwise(pl.lit("error")),
        message=pl.format(
            "The {} {} is {} deviations away from {}; {}",
            pl.col("_shape").replace({"whole": "close of the bar"}),
            pl.col("_price").round_sig_figs(8),
            pl.col("_score").round(1),
            pl.col("_normal").round_sig_figs(8),
            pl.when(alone)
            .then(pl.lit("the prices before and after it are normal, and nobody testifies"))
            .otherwise(pl.format("{} did not see it", "_against")),
        ),
    )


CHECKS: Mapping[str, BuiltinCheck] = {"spikes": BuiltinCheck(spikes, "accuracy")}
