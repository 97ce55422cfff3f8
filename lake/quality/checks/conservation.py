"""Conservation of volume: a bar has the volume of its parts, whether or not all are stored."""

from __future__ import annotations

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.derive import nests
from lake.model.grid import Grid
from lake.model.ohlcv import PRICES, sum_all
from lake.model.slots import slot_of, start_of
from lake.model.time import DAY
from lake.quality.checks.bars import filter_observed
from lake.quality.slice import Reference, Slice

_EPSILON = 2.0**-52
_TOLERANCE = 1e-9  # share of a volume by which sums of venues differ
_SAME_PRICE = 1e-9  # share by which one price differs in two tables
_COLUMNS = pl.Schema(
    {"_is_empty": pl.Boolean(), "_excess": pl.Float64(), "_table": pl.String(), "slot": pl.Int64()}
)


def is_same_sum(ours: pl.Expr, theirs: pl.Expr, parts: pl.Expr) -> pl.Expr:
    """Whether two volumes are equal but for the rounding of doubles when parts are summed.

    A volume that was rounded by the venue to a multiple of its lot is far coarser than that.
    """
    error = _EPSILON * (parts + 1) * pl.max_horizontal(ours.abs(), theirs.abs())
    return ((ours - theirs).abs() <= error).fill_null(value=False)


def add_conservation(missing: pl.LazyFrame, data: Slice, grid: Grid) -> pl.LazyFrame:
    """Add what longer bars prove of missing slots.

    Parameters
    ----------
    missing
        `slot`, `start` and `end` of slots without a bar.

    Returns
    -------
    LazyFrame
        `_is_empty`: a longer bar has exactly the volume and the prices of the bars in it, so that
        nothing was traded in the missing ones. A volume of 0 proves it only with equal trade
        counts, or one price in the whole bar: the volumes of some markets are always 0.
        `_excess`: the volume of a longer bar that is in no bar, null if there is none. `_table`:
        the table of the longer bar.
    """
    nested = [other for other in data.coarser if other.grid and nests(grid, other.grid)]
    if not nested or "volume" not in data.dataset.polars_schema:
        nothing = {name: pl.lit(None, dtype=dtype) for name, dtype in _COLUMNS.items()}
        nothing["_is_empty"] = pl.lit(value=False)
        return missing.with_columns(**{n: e for n, e in nothing.items() if n != "slot"})
    proofs = pl.concat(_compare_sums(missing, data, other) for other in nested)
    # A proof that slots are empty counts more than volume that is in one of several slots.
    best = (
        proofs.sort("_is_empty", descending=True, maintain_order=True)
        .unique("slot", keep="first", maintain_order=True)
        .select(list(_COLUMNS))
    )
    return missing.join(best, on="slot", how="left").with_columns(
        pl.col("_is_empty").fill_null(value=False)
    )


def _compare_sums(missing: pl.LazyFrame, data: Slice, coarser: Reference) -> pl.LazyFrame:
    """Compare the volume of longer bars with the sum of the bars in them, for missing slots."""
    grid = coarser.grid
    assert grid is not None  # noqa: S101 - the caller selects bars
    needed = missing.select("slot", "start", _bar=slot_of(pl.col("start"), grid))
    bars = filter_observed(coarser).select(
        *PRICES, "volume", "trade_count", _bar=slot_of(pl.col(coarser.dataset.time_column), grid)
    )
    parts = (
        filter_observed(data)
        .with_columns(_bar=slot_of(data.time, grid))
        .join(needed.select("_bar").unique(), on="_bar", how="semi")
        .group_by("_bar")
        .agg(
            _sum=sum_all(pl.col("volume")),
            _trades=sum_all(pl.col("trade_count")),
            _rows=pl.len(),
            **_summarize_parts(data),
        )
    )
    volume, total = pl.col("volume"), pl.col("_sum")
    excess = volume - total
    return (
        needed.join(bars, on="_bar")
        .join(parts, on="_bar", how="left")
        # Without a bar in it, the sums are 0; a sum of which a part is unknown is null.
        .with_columns(
            pl.when(pl.col("_rows").is_null()).then(0).otherwise(name).alias(name)
            for name in ("_sum", "_trades", "_rows")
        )
        .filter(_is_readable(data, grid) & total.is_not_null())
        .select(
            "slot",
            _is_empty=_proves_empty(),
            _excess=pl.when(excess > _TOLERANCE * volume).then(excess),
            _table=pl.lit(coarser.dataset.name),
        )
        .filter(pl.col("_is_empty") | pl.col("_excess").is_not_null())
    )


def _summarize_parts(data: Slice) -> dict[str, pl.Expr]:
    """Return sums of volumes without rounding where these are large, and prices, of stored bars."""
    volume, time = pl.col("volume"), data.time
    return {
        "_whole": volume.floor().cast(pl.Int64, strict=False).sum(),
        "_rest": (volume - volume.floor()).sum(),
        "_least": volume.filter(volume > 0).min(),
        "_open": pl.col("open").sort_by(time).first(),
        "_high": pl.col("high").max(),
        "_low": pl.col("low").min(),
        "_close": pl.col("close").sort_by(time).last(),
    }


def _proves_empty() -> pl.Expr:
    """Whether a longer bar proves that nothing was traded outside the stored bars in it."""
    counts = pl.col("trade_count") == pl.col("_trades")
    is_flat = pl.col("high") == pl.col("low")
    has_volume = pl.col("volume") > 0
    by_volume = has_volume & _has_same_volume() & _has_same_prices()
    by_zero = ~has_volume & (pl.col("_sum") == 0) & (counts | is_flat)
    by_zero &= _has_same_prices() | (pl.col("_rows") == 0)
    return ((by_volume | by_zero) & counts.fill_null(value=True)).fill_null(value=False)


def _has_same_volume() -> pl.Expr:
    """Whether volumes are equal but for the rounding of the values as they were given.

    Whole parts are summed as integers, so that the rounding of a sum hides nothing. A difference as
    large as the least volume of a bar may be that of a missing one.
    """
    volume, rows = pl.col("volume"), pl.col("_rows")
    whole = volume.floor().cast(pl.Int64, strict=False) - pl.col("_whole")
    difference = whole + (volume - volume.floor() - pl.col("_rest"))
    summed = _EPSILON * (rows + 1) * pl.min_horizontal(volume, rows)
    bound = pl.min_horizontal(_EPSILON * volume + summed, pl.col("_least") / 2)
    return difference.abs() <= bound


def _has_same_prices() -> pl.Expr:
    """Whether the stored bars have the first, highest, lowest and last price of the longer bar."""
    return pl.all_horizontal(
        (pl.col(name) - pl.col(f"_{name}")).abs() <= _SAME_PRICE * pl.col(name).abs()
        for name in PRICES
    )


def _is_readable(data: Slice, grid: Grid) -> pl.Expr:
    """Whether a longer bar lies within the rows that a check of the slot's day has.

    So the findings of a day do not depend on the days that are checked with it.
    """
    margin = data.dataset.margin
    day = pl.col("start").dt.truncate("1d")
    first = pl.max_horizontal(day - margin, pl.lit(data.range.start - margin, dtype=TIMESTAMP))
    last = pl.min_horizontal(day + DAY + margin, pl.lit(data.range.end + margin, dtype=TIMESTAMP))
    return (start_of(pl.col("_bar"), grid) >= first) & (start_of(pl.col("_bar") + 1, grid) <= last)
