"""Find volumes of bars that are wrong by a factor: far above usual, and nothing testifies to them.

Real volumes burst: a bar may trade fifty times the usual amount. What real bursts rarely do is to
end in zeros where all bars around have more digits, as an amount in a wrong unit does, or to exceed
all of the bars around by far.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.grid import Grid
from lake.model.slots import slot_of, start_of
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, select_few
from lake.quality.checks.bars import filter_observed
from lake.quality.checks.digits import count_digits, count_figures
from lake.quality.checks.references import aggregate_references
from lake.quality.slice import Reference, Slice

_MIN_ROWS = 60  # bars around one that are needed to say what is usual
_RARE, _RARE_IF_FAR = 0.05, 0.15  # share of the bars around with so few digits, or fewer
_FIGURES = 0.02  # least share of the bars around with no more significant figures
_NEAR_TOP = 0.3  # least share of the highest volume around
_ABOVE_ALL = 5.0  # how far a volume without a trait of a wrong unit exceeds all others around
_SEEN = 0.1  # share of a burst that confirms it if another venue has it
_ALMOST = 1 - 1e-9  # rounding errors must not lose a bar at the bound
_COLUMNS = (
    *("start", "end", "rows", "measured", "expected"),
    *("reason", "against", "severity", "message"),
)
_OFF = 2.0  # factor by which the average price of a bar cannot be outside its high and low


def volume_spikes(data: Slice, *, times: float, far_times: float, window_rows: int) -> pl.LazyFrame:
    """Report volumes far above usual that look like a wrong unit, if no reference confirms them.

    `suspect`: the volume has fewer digits than nearly all around it, or exceeds them all by far.
    `contradicted`: other venues do not show it (a warning, too), or the quote volume gives a price
    that the bar does not have (an error). Trades and finer bars decide where they are complete:
    `reconciliation` compares them. Fewer than 60 bars around raise nothing.

    Parameters
    ----------
    times
        Smallest ratio to the usual volume, the median of the bars around, of one with few digits.
    far_times
        Smallest ratio of one that exceeds all around by far; from it on, more bars around may have
        few digits.
    window_rows
        Number of slots around a bar in which it is compared, rounded to whole blocks of half of it.
    """
    grid = data.grid
    if grid is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    has_quotes = "quote_volume" in data.dataset.polars_schema
    quotes = ("high", "low", "quote_volume") if has_quotes else ()
    path = _select_bars(data, grid, window_rows, *quotes).collect().lazy()
    blocks = _measure_blocks(path, **(_measure_averages() if has_quotes else {})).collect().lazy()
    findings = [pl.LazyFrame(schema=CHECK_COLUMNS).select(_COLUMNS)]
    high = select_few(_find_high(path, _summarize_blocks(blocks), times))
    if high is not None:
        suspects = _find_suspects(high, path, far_times)
        for parts, _ in aggregate_references(data, grid):
            suspects = _leave_to_parts(suspects, parts, grid)
        witnessed = _compare_with_venues(suspects, data, grid, window_rows)
        findings.append(_to_findings(data, witnessed).select(_COLUMNS))
    spread = select_few(_select_spread(path, blocks)) if has_quotes else None
    if spread is not None:
        findings.append(_find_wrong_averages(data, spread).select(_COLUMNS))
    return pl.concat(findings)


def _select_bars(bars: Slice | Reference, grid: Grid, window_rows: int, *more: str) -> pl.LazyFrame:
    """Select the bars with a volume: `start`, `volume`, their `_block` of slots, and `more`."""
    time = pl.col(bars.dataset.time_column)
    block = slot_of(time, grid) // (window_rows // 2)
    return (
        filter_observed(bars)
        .filter(pl.col("volume") > 0)
        .select("volume", *more, start=time, _block=block)
    )


def _measure_blocks(path: pl.LazyFrame, **more: pl.Expr) -> pl.LazyFrame:
    """Measure the volumes of each block."""
    volume = pl.col("volume")
    return path.group_by("_block").agg(
        _median=volume.median(), _rows=pl.len(), _most=volume.max(), **more
    )


def _summarize_blocks(blocks: pl.LazyFrame) -> pl.LazyFrame:
    """Return the `_usual` volume of each block and its neighbours, null with few bars, and `_most`.

    `_most` is the highest volume of the block.
    """
    near = [_neighbour("_median", step) for step in (-1, 0, 1)]
    rows = pl.sum_horizontal(_neighbour("_rows", step) for step in (-1, 0, 1))
    return (
        blocks.sort("_block")
        .with_columns(_usual=pl.concat_list(near).list.median(), _around=rows)
        .select("_block", "_most", _usual=pl.when(pl.col("_around") > _MIN_ROWS).then("_usual"))
    )


def _neighbour(name: str, step: int) -> pl.Expr:
    """Return the value of the block `step` blocks later; null if that block has no bars."""
    other = pl.col("_block").shift(-step)
    return pl.when(other == pl.col("_block") + step).then(pl.col(name).shift(-step))


def _find_high(path: pl.LazyFrame, blocks: pl.LazyFrame, times: float) -> pl.LazyFrame:
    """Find bars whose volume is `_ratio` times the `_usual` one: most blocks have none."""
    ratio = pl.col("volume") / pl.col("_usual")
    bursting = blocks.filter(pl.col("_most") / pl.col("_usual") >= times)
    return (
        path.join(bursting.select("_block", "_usual"), on="_block", maintain_order="left")
        .with_columns(_ratio=ratio)
        .filter(pl.col("_ratio") >= times)
    )


def _find_suspects(high: pl.LazyFrame, path: pl.LazyFrame, far_times: float) -> pl.LazyFrame:
    """Keep high volumes with few digits, or above all others around: `_rare` is their share."""
    digits = _add_digits(_select_near(path, high))
    counts = digits.group_by("_block", "_digits", "_figures").agg(
        _rows=pl.len(), _most=pl.col("volume").top_k(2)
    )
    names = {"_digits": "_own_digits", "_figures": "_own_figures"}
    own = _add_digits(high).rename(names)
    near = own.with_columns(_near=pl.concat_list(pl.col("_block") + n for n in (-1, 0, 1)))
    rows = pl.col("_rows")
    most = pl.col("_most").list.explode(keep_nulls=False, empty_as_null=False)
    few = rows.filter(pl.col("_digits") <= pl.col("_own_digits")).sum() - 1
    short = rows.filter(pl.col("_figures") <= pl.col("_own_figures")).sum() - 1
    others = rows.sum() - 1
    seen = (
        near.explode("_near")
        .join(counts, left_on="_near", right_on="_block")
        .group_by("start")
        .agg(_rare=few / others, _short=short / others, _most=most.sort().get(-2))
    )
    is_far = pl.col("_ratio") >= far_times
    rare = pl.when(is_far).then(_RARE_IF_FAR).otherwise(_RARE)
    # People order round amounts, which have few significant figures.
    is_round = (pl.col("_rare") <= rare) & (pl.col("_short") >= _FIGURES)
    is_round &= pl.col("volume") >= _NEAR_TOP * pl.col("_most")
    is_above = is_far & (pl.col("volume") >= _ABOVE_ALL * pl.col("_most"))
    return own.join(seen, on="start").filter(is_round | is_above).with_columns(_is_round=is_round)


def _select_near(path: pl.LazyFrame, bars: pl.LazyFrame) -> pl.LazyFrame:
    """Select the rows of the blocks of some bars and of the blocks beside them: mostly none."""
    blocks = pl.concat(bars.select(pl.col("_block") + step) for step in (-1, 0, 1)).unique()
    return path.join(blocks, on="_block", how="semi", maintain_order="left")


def _leave_to_parts(suspects: pl.LazyFrame, parts: pl.LazyFrame, grid: Grid) -> pl.LazyFrame:
    """Leave out bars whose trades or finer bars are complete, or show a good part of the volume."""
    start = start_of(pl.col("_slot"), grid).alias("start")
    seen = suspects.join(parts.select(start, "_complete", "_volume"), on="start", how="left")
    shows = pl.col("_complete") | (pl.col("_volume") >= _SEEN * pl.col("volume"))
    return seen.filter(~shows.fill_null(value=False)).drop("_complete", "_volume")


def _add_digits(bars: pl.LazyFrame) -> pl.LazyFrame:
    """Add `_digits`, after the decimal point, and `_figures`, the significant ones."""
    volume = pl.col("volume")
    counted = bars.with_columns(_digits=count_digits(volume))
    return counted.with_columns(_figures=count_figures(volume, "_digits"))


def _compare_with_venues(
    suspects: pl.LazyFrame, data: Slice, grid: Grid, window_rows: int
) -> pl.LazyFrame:
    """Leave out what another venue shows, too; add `_against`, the first one that does not."""
    others = [other for other in data.others if other.grid == grid]
    if not others:
        return suspects.with_columns(_against=pl.lit(None, dtype=pl.String))
    bursts = []
    for other in others:
        path = _select_bars(other, grid, window_rows)
        usual = _summarize_blocks(_measure_blocks(_select_near(path, suspects))).drop("_most")
        ratio = pl.col("volume") / pl.col("_usual")
        bursts.append(
            path.join(suspects.select("start"), on="start", how="semi")
            .join(usual, on="_block")
            .select("start", _seen=ratio, _venue=pl.lit(str(other.market)))
        )
    verdicts = (
        pl.concat(bursts)
        .filter(pl.col("_seen").is_not_null())
        .group_by("start", maintain_order=True)
        .agg(pl.col("_seen").max(), _against=pl.col("_venue").first())
    )
    is_seen = (pl.col("_seen") >= _SEEN * pl.col("_ratio")).fill_null(value=False)
    return suspects.join(verdicts, on="start", how="left").filter(~is_seen)


def _find_wrong_averages(data: Slice, spread: pl.LazyFrame) -> pl.LazyFrame:
    """Find bars whose quote volume by volume is a price far outside of the bar."""
    bars = spread.filter(pl.col("quote_volume") > 0).with_columns(_average=_average())
    # Contracts have a size: the usual ratio of average and price need not be 1.
    size = (pl.col("_average") / (pl.col("high") * pl.col("low")).sqrt()).median()
    usual = bars.group_by("_block").agg(_size=size, _rows=pl.len())
    price = pl.col("_average") / pl.col("_size")
    is_off = (price > _OFF * pl.col("high")) | (price < pl.col("low") / _OFF)
    wrong = bars.join(usual, on="_block").filter(is_off & (pl.col("_rows") >= _MIN_ROWS // 2))
    middle = (pl.col("high") * pl.col("low")).sqrt()
    return wrong.select(
        start="start",
        end=pl.col("start") + pl.lit(data.step),
        rows=pl.lit(1, dtype=pl.Int64),
        measured="volume",
        expected=pl.col("volume") * price / middle,
        reason=pl.lit("contradicted"),
        against=pl.lit("quote_volume"),
        severity=pl.lit(None, dtype=pl.String),
        message=pl.format(
            "The volume of {} gives with the quote volume an average price of {}, "
            "and the bar is at {}",
            pl.col("volume").round_sig_figs(8),
            price.round_sig_figs(6),
            middle.round_sig_figs(6),
        ),
    ).sort("start")


def _average() -> pl.Expr:
    """Return the average price of a bar by its volumes; null without a quote volume."""
    quotes = pl.col("quote_volume")
    return pl.when(quotes > 0).then(quotes / pl.col("volume"))


def _measure_averages() -> dict[str, pl.Expr]:
    """Measure between what the size of the contract is, by the highs and lows of a block."""
    return {
        "_least": (_average() / pl.col("high")).min(),
        "_greatest": (_average() / pl.col("low")).max(),
    }


def _select_spread(bars: pl.LazyFrame, blocks: pl.LazyFrame) -> pl.LazyFrame:
    """Select the bars of blocks in which an average price may be outside of its bar: mostly none.

    The size of the contract is between the least ratio of an average to a high and the largest one
    to a low: if these are near each other, no average is far outside. Medians would be dear.
    """
    is_near = pl.col("_greatest") < _OFF * _ALMOST * pl.col("_least")
    spread = blocks.filter(~is_near.fill_null(value=False))
    return bars.join(spread.select("_block"), on="_block", how="semi", maintain_order="left")


def _to_findings(data: Slice, suspects: pl.LazyFrame) -> pl.LazyFrame:
    alone = pl.col("_against").is_null()
    rare = pl.format("has fewer digits than {} % of the bars around", _percent(1 - pl.col("_rare")))
    far = pl.format("is {} times the highest around", _times(pl.col("volume") / pl.col("_most")))
    return suspects.sort("start").select(
        start="start",
        end=pl.col("start") + pl.lit(data.step),
        rows=pl.lit(1, dtype=pl.Int64),
        measured="volume",
        expected="_usual",
        reason=pl.when(alone).then(pl.lit("suspect")).otherwise(pl.lit("contradicted")),
        against="_against",
        severity=pl.lit("warning"),
        message=pl.format(
            "The volume of {} is {} times the usual, and {}; {}",
            pl.col("volume").round_sig_figs(8),
            _times(pl.col("_ratio")),
            pl.when("_is_round").then(rare).otherwise(far),
            pl.when(alone)
            .then(pl.lit("there is no reference"))
            .otherwise(pl.format("{} does not confirm it", "_against")),
        ),
    )


def _times(ratio: pl.Expr) -> pl.Expr:
    return ratio.round_sig_figs(2)


def _percent(share: pl.Expr) -> pl.Expr:
    return (share * 100).round(1)


CHECKS: Mapping[str, BuiltinCheck] = {"volume_spikes": BuiltinCheck(volume_spikes, "accuracy")}
