"""Reconcile bars with the market's trades, and with its bars of a finer timeframe."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.ohlcv import PRICES, SUMS
from lake.model.slots import slot_of
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase
from lake.quality.checks.bars import filter_observed
from lake.quality.checks.conservation import is_same_sum
from lake.quality.checks.references import aggregate_references
from lake.quality.slice import Slice

_QUOTES = ("quote_volume", "taker_buy_quote_volume")
_AMOUNTS = ("volume", "taker_buy_volume", *_QUOTES)
_DIGITS = 12  # digits of prices in a message: more are rounding errors of doubles
_AGREEING = 0.5  # share of a day's bars that must agree in volume if the units are unknown
_MIN_PARTS = 0.5  # share of finer bars from which the volume of the missing ones is estimated
_PLAUSIBLE = 5.0  # missing finer bars are busier than the others by at most this factor


def reconciliation(
    data: Slice, *, price_tolerance: float, volume_tolerance: float, quote_rounding: float
) -> pl.LazyFrame:
    """Report bars that differ from the aggregate of their trades or finer bars.

    The reason lists the columns that differ. Bars whose trades or finer bars are complete must be
    equal to their aggregate; equal volumes prove that they are. For other bars it is a bound: none
    has less volume, a lower high or a higher low than what is stored of its parts. A volume that
    the missing finer bars could hold only if they were far busier than the others is a warning.
    Open and filled bars on both sides, and columns that are null, are ignored; so are the first
    and last price where several trades of one moment have no known order, and amounts of trades
    whose unit is unknown and that agree with less than half of the day's bars.

    Parameters
    ----------
    price_tolerance, volume_tolerance
        Largest relative difference of prices, and of all other columns: sums of doubles differ.
    quote_rounding
        Additional difference of quote volumes per trade: venues round the quote volume of each
        trade. Also of volumes of contracts that are converted by the price.
    """
    grid = data.grid
    if grid is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    references = aggregate_references(data, grid)
    if not references:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    bars = filter_observed(data).filter(data.is_inside())
    bars = bars.with_columns(_slot=slot_of(data.time, grid))
    tolerance = dict.fromkeys(PRICES, price_tolerance)
    tolerance |= dict.fromkeys(SUMS, volume_tolerance)
    tolerance = {n: share for n, share in tolerance.items() if n in data.dataset.polars_schema}
    findings = []
    for aggregate, table in references:
        both = bars.join(aggregate, on="_slot")
        findings.append(_compare(data, both, table, tolerance, quote_rounding))
    return pl.concat(findings)


def _compare(
    data: Slice,
    both: pl.LazyFrame,
    table: str,
    tolerance: Mapping[str, float],
    quote_rounding: float,
) -> pl.LazyFrame:
    """Compare bars with one reference."""
    rounded = _AMOUNTS if table == "trades" and data.known_units.inverse else _QUOTES
    allowed = {
        name: _allow(name, share, quote_rounding if name in rounded else 0.0)
        for name, share in tolerance.items()
    }
    if table == "trades" and data.known_units.is_unknown:
        both = _ignore_other_units(both, data, allowed["volume"])
    both = both.with_columns(_complete=pl.col("_complete") | _has_all_volume(data))
    wrong = {name: _is_wrong(name, bound) for name, bound in allowed.items()}
    strict = pl.any_horizontal(wrong.values())
    wrong["volume"] = wrong["volume"] | _is_implausible()
    bad = both.with_columns(_strict=strict).filter(pl.any_horizontal(wrong.values()))
    return _group_findings(data, bad.with_columns(_mark_wrong(wrong)), list(allowed), table)


def _allow(name: str, share: float, rounding: float) -> pl.Expr:
    """Return the largest difference of a column that is no finding."""
    allowed = share * pl.max_horizontal(pl.col(name).abs(), pl.col(f"_{name}").abs())
    return allowed + rounding * pl.col("_count") if rounding else allowed


def _has_all_volume(data: Slice) -> pl.Expr:
    """Whether a bar has exactly the volume of its aggregate: then the missing parts are empty.

    Numbers of trades must agree, too, if both sides have them.
    """
    same = is_same_sum(pl.col("volume"), pl.col("_volume"), pl.col("_rows"))
    if "trade_count" not in data.dataset.polars_schema:
        return same
    return same & (pl.col("trade_count") == pl.col("_trade_count")).fill_null(value=True)


def _is_wrong(name: str, allowed: pl.Expr) -> pl.Expr:
    """Whether a column differs from a complete aggregate, or contradicts a partial one."""
    excess = pl.col(f"_{name}") - pl.col(name)
    if name in ("open", "close"):
        beyond = pl.lit(value=False)
    else:
        beyond = (-excess if name == "low" else excess) > allowed
    differs = excess.abs() > allowed
    return pl.when("_complete").then(differs).otherwise(beyond).fill_null(value=False)


def _is_implausible() -> pl.Expr:
    """Whether a bar has more volume than its finer bars and the missing ones are likely to have."""
    parts, rows = pl.col("_parts"), pl.col("_rows")
    usual = pl.col("_volume") / rows
    excess = pl.col("volume") - pl.col("_volume")
    most = rows >= _MIN_PARTS * parts
    beyond = excess > _PLAUSIBLE * (parts - rows) * usual
    return (~pl.col("_complete") & most & (parts > rows) & beyond).fill_null(value=False)


def _ignore_other_units(both: pl.LazyFrame, data: Slice, allowed: pl.Expr) -> pl.LazyFrame:
    """Set the sums of amounts to null on days on which they agree with few bars."""
    agrees = (pl.col("volume") - pl.col("_volume")).abs() <= allowed
    share = agrees.filter(pl.col("_complete")).mean().over(data.time.dt.date())
    is_same = (share >= _AGREEING).fill_null(value=False)
    return both.with_columns(
        pl.when(is_same).then(f"_{name}").alias(f"_{name}") for name in _AMOUNTS
    )


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
            severity=pl.when(~pl.col("_strict").any()).then(pl.lit("warning")),
            message=pl.format(
                "{} from {} in {}: {} instead of {}{}",
                count_phrase(pl.len(), "bar differs", "bars differ"),
                pl.lit(reference),
                columns,
                measured.round_sig_figs(_DIGITS),
                expected.round_sig_figs(_DIGITS),
                pl.when(pl.col("_complete").first())
                .then(pl.lit(""))
                .when(pl.col("_strict").first())
                .then(pl.lit(" of its stored parts"))
                .otherwise(pl.lit(", too much for the parts that are missing")),
            ),
        )
        .drop("_run", "_day")
    )


CHECKS: Mapping[str, BuiltinCheck] = {"reconciliation": BuiltinCheck(reconciliation, "consistency")}
