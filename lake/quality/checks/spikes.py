"""Find prices that jump away and return at once: errors, unless a reference shows the same move.

Jumps are measured in deviations, see `lake.quality.checks.jumps`.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import polars.selectors as cs

from lake.model.ohlcv import PRICES
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, select_few
from lake.quality.checks.jumps import (
    EDGE,
    MIN_BARS,
    add_neighbours,
    filter_beyond,
    measure_blocks,
    measure_jumps,
)
from lake.quality.checks.second_opinions import (
    WITNESSES,
    aggregate_market,
    compare_with_venues,
)
from lake.quality.slice import Slice

_RETURNS = 2.5  # a price has returned if the ways out and back differ by at most this factor
_RARE = 5.0  # without a witness, a spike must be this many times as far away as wicks usually go
_APART = 0.5  # share of the required deviations by which a reference must differ to contradict


def spikes(
    data: Slice,
    *,
    deviations: float,
    wick_deviations: float,
    reference_deviations: float,
    window_rows: int,
    min_return: float,
) -> pl.LazyFrame:
    """Report bars with a price that jumps away and returns at once, if no reference confirms it.

    `contradicted`: trades or finer bars of the market show another price, or other venues do not
    show the move (for a high or low, this is a warning). `suspect`: there is no reference, but the
    price jumped between two bars and back. A high or low alone is suspect only if it is absurd.

    Parameters
    ----------
    deviations, wick_deviations
        Smallest distance of a price, and of a high or low alone, without trades and finer bars.
    reference_deviations
        Smallest distance of a price that trades or finer bars contradict.
    window_rows
        Number of rows around a row over which a deviation is measured: at most half the margin.
    min_return
        Smallest size of a deviation, as a share of the price.
    """
    grid = data.grid
    if grid is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    path = measure_jumps(data, grid, window_rows)
    blocks = measure_blocks(data, path, min_return)
    market = aggregate_market(data)  # it decides: other venues are not compared
    findings = [
        _find_contradicted(data, path, blocks, bars, table, reference_deviations)
        for bars, table in market
    ]
    candidates = select_few(_classify(path, blocks, deviations, wick_deviations))
    if candidates is not None:
        scored = _score(candidates, path, blocks, window_rows, min_return)
        strong = scored.filter(_is_beyond(deviations, wick_deviations))
        for bars, _ in market:
            strong = strong.join(bars, on="start", how="anti")
        alone = pl.col("_confirmed").is_null() & _is_rare()
        suspects = compare_with_venues(data, strong).filter(~pl.col("_confirmed") | alone)
        findings.append(_to_findings(data, suspects))
    return pl.concat(findings) if findings else pl.LazyFrame(schema=CHECK_COLUMNS)


def _classify(
    path: pl.LazyFrame, blocks: pl.LazyFrame, deviations: float, wick: float
) -> pl.LazyFrame:
    """Find bars with a price that may be far enough away, with its shape and size.

    The shape is the price that jumps: `whole` (all prices), `close`, `open`, `high` or `low`.
    """
    least = pl.col("_least")
    jump_in, jump_out, body = pl.col("_in"), pl.col("_out"), pl.col("_body")
    both = pl.min_horizontal(jump_in.abs(), jump_out.abs())
    size = {
        "whole": pl.when(jump_in * jump_out < 0).then(both).otherwise(0.0),
        "close": _size_if_reversed(jump_out, body, pl.col("_later"), pl.col("_out_after")),
        "open": _size_if_reversed(jump_in, body, pl.col("_earlier"), pl.col("_in_before")),
    }
    away = pl.col("_size") >= pl.col("_far_bound")
    shape = pl.coalesce(pl.when(size[name] == pl.col("_size")).then(pl.lit(name)) for name in size)
    end = pl.when("_is_up").then(pl.lit("high")).otherwise(pl.lit("low"))
    few = select_few(filter_beyond(path, blocks, deviations * least, wick * least))
    if few is None:
        return path.clear()
    return (
        add_neighbours(few, path)
        .with_columns(_size=pl.max_horizontal(size.values()))
        .filter(away | (pl.col("_tail") >= pl.col("_tail_bound")))
        .with_columns(
            _shape=pl.when(away).then(shape).otherwise(end),
            _size=pl.when(away).then("_size").otherwise("_tail"),
        )
    )


def _size_if_reversed(jump: pl.Expr, body: pl.Expr, *others: pl.Expr) -> pl.Expr:
    """Return the size of the jump between two bars, if the change within one of them reverses it.

    If one of `others` reverses it better, the wrong price is in a neighbouring bar: then 0.
    """
    left = (jump + body).abs()
    better = pl.all_horizontal(
        ((jump + other).abs() >= left).fill_null(value=True) for other in others
    )
    back = (-body / jump).is_between(1 / _RETURNS, _RETURNS)
    return pl.when(back & better).then(jump.abs()).otherwise(0.0)


def _score(
    candidates: pl.LazyFrame,
    path: pl.LazyFrame,
    blocks: pl.LazyFrame,
    window_rows: int,
    min_return: float,
) -> pl.LazyFrame:
    """Score candidates in deviations of the window around them; add wrong and normal price."""
    place = pl.col("_row").cast(pl.Int64) - pl.col("_first").cast(pl.Int64)
    first = pl.col("_skip") + place - window_rows // 2
    window = (pl.max_horizontal(first, 0), window_rows + pl.min_horizontal(first, 0))
    median = pl.col("_returns").list.slice(*window).list.median()
    edge = pl.col("_jumps").list.slice(*window).list.eval(pl.element().quantile(EDGE)).list.first()
    before, after = pl.col("open") * (-pl.col("_in")).exp(), pl.col("close") * pl.col("_out").exp()
    ends = {"high": pl.max_horizontal("open", "close"), "low": pl.min_horizontal("open", "close")}
    shape = pl.col("_shape")
    price = pl.coalesce(pl.when(shape == name).then(name) for name in ("open", *ends))
    normal = pl.coalesce(pl.when(shape == name).then(end) for name, end in ends.items())
    scale = pl.max_horizontal(median, edge, pl.lit(min_return))
    return (
        _add_windows(candidates, path, blocks)
        .with_columns(_score=pl.col("_size") / scale)
        .drop(cs.contains("_returns", "_jumps"))
        .with_columns(
            _price=pl.coalesce(price, "close"),
            _normal=pl.coalesce(normal, (before * after).sqrt()),
        )
        .with_columns(_away=(pl.col("_price") / pl.col("_normal")).log())
    )


def _add_windows(
    candidates: pl.LazyFrame, path: pl.LazyFrame, blocks: pl.LazyFrame
) -> pl.LazyFrame:
    """Add returns and jumps of the block of a row and its neighbours, and the size of the first."""
    facts = ("_first", "_wick", "_bars")
    frame = candidates.join(blocks.select("_block", *facts), on="_block")
    near = pl.concat(candidates.select(pl.col("_block") + step) for step in (-1, 0, 1)).unique()
    change = (pl.col("_in") + pl.col("_body")).abs()
    # Almost always no block is left here.
    lists = (
        path.join(near, on="_block", how="semi")
        .group_by("_block", maintain_order=True)
        .agg(_returns=change, _jumps=pl.col("_in").abs())
    )
    for step in (-1, 0, 1):
        names = {"_returns": f"_returns{step}", "_jumps": f"_jumps{step}"}
        moved = lists.rename(names).with_columns(pl.col("_block") - step)
        frame = frame.join(moved, on="_block", how="left")
    none = pl.lit([], dtype=pl.List(pl.Float64))
    around = {
        name: pl.concat_list(pl.coalesce(f"{name}{step}", none) for step in (-1, 0, 1))
        for name in ("_returns", "_jumps")
    }
    before = pl.col("_returns-1").list.len().fill_null(0).cast(pl.Int64)
    return frame.with_columns(_skip=before, **around)


def _is_beyond(deviations: float, wick: float) -> pl.Expr:
    return pl.col("_score") >= pl.when(_is_wick()).then(wick).otherwise(deviations)


def _is_rare() -> pl.Expr:
    """Whether a price is farther away than wicks of the market go, by enough bars around it."""
    return (pl.col("_size") >= _RARE * pl.col("_wick")) & (pl.col("_bars") >= MIN_BARS)


def _is_wick() -> pl.Expr:
    return pl.col("_shape").is_in(["high", "low"])


def _find_contradicted(
    data: Slice,
    path: pl.LazyFrame,
    blocks: pl.LazyFrame,
    bars: pl.LazyFrame,
    table: str,
    deviations: float,
) -> pl.LazyFrame:
    """Find bars that jump and whose trades or finer bars show a different price."""
    bound = deviations * pl.col("_near")
    apart = {name: (pl.col(name) / pl.col(f"_{name}")).log().abs() for name in PRICES}
    worst = pl.max_horizontal(apart.values())
    shapes = ("close", "open", "high", "low")  # of equal distances, the close counts
    which = [(name, pl.when(apart[name] == pl.col("_worst"))) for name in shapes]
    return _to_findings(
        data,
        filter_beyond(path, blocks, bound, bound)
        .join(bars, on="start")
        .with_columns(_worst=worst)
        .filter(pl.col("_worst") >= _APART * deviations * pl.col("_near"))
        .with_columns(
            _shape=pl.coalesce(match.then(pl.lit(name)) for name, match in which),
            _price=pl.coalesce(match.then(name) for name, match in which),
            _normal=pl.coalesce(match.then(f"_{name}") for name, match in which),
            _score=pl.col("_worst") / pl.col("_near"),
            _confirmed=pl.lit(value=False),
            _against=pl.lit(table),
            _own=pl.lit(value=True),
        ),
    )


def _to_findings(data: Slice, candidates: pl.LazyFrame) -> pl.LazyFrame:
    alone = pl.col("_confirmed").is_null()
    mild = alone | (_is_wick() & ~pl.col("_own"))
    return candidates.select(
        start="start",
        end=pl.col("start") + pl.lit(data.step),
        rows=pl.lit(1, dtype=pl.Int64),
        measured="_price",
        expected="_normal",
        reason=pl.when(alone).then(pl.lit("suspect")).otherwise(pl.lit("contradicted")),
        against="_against",
        severity=pl.when(mild).then(pl.lit("warning")).otherwise(pl.lit("error")),
        message=pl.format(
            "The {} of {} is {} deviations away from {}; {}",
            pl.col("_shape").replace({"whole": "price"}),
            pl.col("_price").round_sig_figs(8),
            pl.col("_score").round(1),
            pl.col("_normal").round_sig_figs(8),
            WITNESSES,
        ),
    )


CHECKS: Mapping[str, BuiltinCheck] = {"spikes": BuiltinCheck(spikes, "accuracy")}
