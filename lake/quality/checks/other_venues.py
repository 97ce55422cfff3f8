"""Compare bars with those of other venues one by one: wicks that none shows, swapped neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.ohlcv import PRICES
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck
from lake.quality.checks.second_opinions import aggregate_market, pair_bars
from lake.quality.slice import NEAR_BARS, Reference, Slice

_MIN_BARS = 20  # bars of a day that both venues must have to know how they usually differ
_MIRRORED = 0.3  # moves of swapped bars are those of the other venue backwards, but for this share


def wicks(data: Slice, *, least_bps: float, times: float) -> pl.LazyFrame:
    """Report highs and lows that stand out much farther from their bar than on any other venue.

    Wicks are measured from open and close, so that a usual difference of prices does not matter.
    Trades and finer bars of the market decide instead, where they are complete. One market order
    can make a real wick on one venue: it is a warning.

    Parameters
    ----------
    least_bps
        Smallest difference of two wicks, in basis points.
    times
        The same as a multiple of the median difference on that day.
    """
    others = _find_same_bars(data)
    if not others:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    compared = [_compare_wicks(data, other) for other in others]
    far = pl.max_horizontal("high", "low")
    least = least_bps / 1e4
    opinions = [
        _judge_wicks(bars, bars.filter(far >= least), times).with_columns(
            _venue=pl.lit(str(other.market))
        )
        for bars, other in zip(compared, others, strict=True)
    ]
    bad = (
        pl.concat(opinions)
        .group_by("start", maintain_order=True)
        .agg(pl.all().sort_by(far).first())
    )
    for bars in compared:
        bad = bad.join(bars.filter(far < least), on="start", how="anti", maintain_order="left")
    for truth, _ in aggregate_market(data):
        bad = bad.join(truth, on="start", how="anti", maintain_order="left")
    which = pl.when(pl.col("high") >= pl.col("low"))
    return bad.select(
        start="start",
        end=pl.col("start") + pl.lit(data.step),
        measured=far * 1e4,
        expected=pl.max_horizontal(least_bps, times * pl.col("_usual") * 1e4),
        reason=pl.lit("contradicted"),
        severity=pl.lit("warning"),
        against="_venue",
        message=pl.format(
            "The {} is {} bps farther from open and close than on {}",
            which.then(pl.lit("high")).otherwise(pl.lit("low")),
            (far * 1e4).round(1),
            "_venue",
        ),
    )


def _compare_wicks(data: Slice, other: Reference) -> pl.LazyFrame:
    """Measure by how much wicks are longer than on another venue, as shares of the price."""
    own, theirs = _measure_wicks(""), _measure_wicks("_other")
    apart = {end: own[end] - theirs[end] for end in ("high", "low")}
    return pair_bars(data, other).select(start="time", **apart)


def _judge_wicks(bars: pl.LazyFrame, few: pl.LazyFrame, times: float) -> pl.LazyFrame:
    """Keep those of few bars whose wicks differ much more than usual on their day; add `_usual`."""
    day = pl.col("start").dt.date().alias("_day")
    few = few.with_columns(day)
    apart = pl.max_horizontal(pl.col("high").abs(), pl.col("low").abs())
    usual = (
        bars.with_columns(day)
        .join(few, on="_day", how="semi")
        .group_by("_day")
        .agg(_usual=apart.median(), _bars=pl.len())
    )
    return few.join(usual, on="_day", maintain_order="left").filter(
        pl.max_horizontal("high", "low") >= times * pl.col("_usual"), pl.col("_bars") >= _MIN_BARS
    )


def _measure_wicks(venue: str) -> dict[str, pl.Expr]:
    """Measure how far high and low are from open and close, as shares of the price."""
    ends = [pl.col(f"{name}{venue}") for name in ("open", "close")]
    return {
        "high": pl.col(f"high{venue}") / pl.max_horizontal(ends) - 1,
        "low": pl.min_horizontal(ends) / pl.col(f"low{venue}") - 1,
    }


def swapped(data: Slice, *, least_bps: float, times: float) -> pl.LazyFrame:
    """Report neighbouring bars of which each is that of the other's time on most other venues.

    From one bar to the next, all four prices move as on the other venue, but backwards.

    Parameters
    ----------
    least_bps
        Smallest distance of the moves on the two venues, averaged over the four prices.
    times
        The same as a multiple of the median distance of the moves of closes on that day.
    """
    others = _find_same_bars(data)
    if not others:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    pairs = [_find_mirrored(data, other, least_bps / 1e4, times) for other in others]
    return (
        pl.concat(pairs)
        .group_by("start", maintain_order=True)
        .agg(pl.exclude("start").first(), _venues=pl.len())
        .filter(pl.col("_venues") * 2 > len(others))
        .sort("start")
        .filter(~_is_outdone())
        .select(
            *("start", "end", "measured", "expected", "against"),
            rows=pl.lit(2, dtype=pl.Int64),
            reason=pl.lit("swapped"),
            message=pl.format(
                "The bar and the next one are swapped: each has the prices of the other's time "
                "on {}",
                "against",
            ),
        )
    )


def _is_outdone() -> pl.Expr:
    """Whether a pair beside it shares a bar and moves farther: half of a swap is mirrored, too."""
    start, end, size = pl.col("start"), pl.col("end"), pl.col("measured")
    day = start.dt.date()
    before = (start < end.shift(1).over(day)) & (size <= size.shift(1).over(day))
    after = (end > start.shift(-1).over(day)) & (size < size.shift(-1).over(day))
    return (before | after).fill_null(value=False)


def _find_mirrored(data: Slice, other: Reference, least: float, times: float) -> pl.LazyFrame:
    """Find bars from which all prices move backwards to the next bar."""
    pair = pair_bars(data, other)
    day = pl.col("time").dt.date().alias("_day")
    is_near = pl.col("time").shift(-1) - pl.col("time") <= NEAR_BARS * pl.lit(data.step)
    near = {name: pl.when(is_near).then(move) for name, move in _compare_moves("close").items()}
    closes = pair.select("time", **near).with_row_index("_row")
    few = closes.filter(
        pl.col("_apart") >= least / 2, pl.col("_left") <= pl.col("_apart") / 2
    ).with_columns(day)
    usual = (
        closes.select("_apart", day)
        .join(few, on="_day", how="semi")
        .group_by("_day")
        .agg(_usual=pl.col("_apart").median(), _bars=pl.len())
    )
    both = few.select(pl.int_ranges(pl.col("_row"), pl.col("_row") + 2)).explode("_row").unique()
    moves = {name: _compare_moves(name) for name in PRICES}
    bound = pl.max_horizontal(least, times * pl.col("_usual"))
    return (
        pair.with_row_index("_row")
        .join(both.with_columns(pl.col("_row").cast(pl.UInt32)), on="_row", how="semi",
              maintain_order="left")
        .with_columns(
            _next=pl.col("time").shift(-1),
            _apart=pl.mean_horizontal(moves[name]["_apart"] for name in PRICES),
            _left=pl.mean_horizontal(moves[name]["_left"] for name in PRICES),
        )
        .join(few.select("_row", "_day"), on="_row", maintain_order="left")
        .join(usual, on="_day", maintain_order="left")
        .filter(
            pl.col("_apart") >= bound,
            pl.col("_left") <= _MIRRORED * pl.col("_apart"),
            pl.col("_bars") >= _MIN_BARS,
        )
        .select(
            start="time",
            end=pl.col("_next") + pl.lit(data.step),
            measured=pl.col("_apart") * 1e4,
            expected=bound * 1e4,
            against=pl.lit(str(other.market)),
        )
    )  # fmt: skip


def _compare_moves(name: str) -> dict[str, pl.Expr]:
    """Compare moves to the next bar: how far apart (`_apart`), and how far from mirrored."""
    own = pl.col(name).shift(-1) / pl.col(name)
    theirs = pl.col(f"{name}_other").shift(-1) / pl.col(f"{name}_other")
    return {"_apart": (own / theirs - 1).abs(), "_left": (own * theirs - 1).abs()}


def _find_same_bars(data: Slice) -> list[Reference]:
    """Find the venues whose bars open at the same times."""
    return [other for other in data.others if data.grid is not None and other.grid == data.grid]


CHECKS: Mapping[str, BuiltinCheck] = {
    "wicks": BuiltinCheck(wicks, "accuracy"),
    "swapped": BuiltinCheck(swapped, "accuracy"),
}
