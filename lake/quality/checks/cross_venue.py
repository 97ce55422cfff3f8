"""The same asset on several venues: prices that part for long, and clocks of another time zone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.ohlcv import OHLCV
from lake.model.time import DAY, MICROSECOND
from lake.model.timeframe import Timeframe
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck
from lake.quality.slice import Reference, Slice

_EDGE_PART = 0.8
"""How much of the deviation one bar must make to be a jump; the other venue makes the rest."""
_HALF_HOUR = timedelta(minutes=30)
_FARTHEST_HOURS = 14
_LEAST_POINTS = 20
"""Half hours of a day that must be there on both sides: fewer agree by chance."""
_THREE = 3


def venue_deviation(
    data: Slice, *, threshold_bps: float, duration: str, factor: float
) -> pl.LazyFrame:
    """Closes that are farther apart than `threshold_bps`, and that for longer than `duration`.

    One finding a run and other venue, of closed bars that the venues sent. Measured is the largest
    deviation in basis points of the other's close.

    `bad_data`: the prices differ by `factor`; or one stands still while the other moves; or it
    jumps away and back alone, with nothing traded in between. The message names the venue
    that is off, if one can be told: of three or more, the one far from their median. Where that is
    another venue, it is `info`.
    `arbitrage` (info): nothing of that: both trade, and both paths are whole.

    Parameters
    ----------
    duration
        From the first close to the last one, as `5m`.
    factor
        Above it, or below its inverse, the ratio of prices is no market's.
    """
    step = data.step
    if step is None or not data.others:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    seconds = Timeframe.parse(duration).seconds
    own = _select_bars(data.frame, data.dataset.time_column, "")
    found = []
    for other in data.others:
        theirs = _select_bars(other.frame, other.dataset.time_column, "_other")
        pair = own.join(theirs, on="time", how="inner", maintain_order="left")
        runs = _group_deviations(
            pair, data.others, threshold_bps, max(step, timedelta(seconds=seconds))
        )
        long = runs.filter(pl.col("_length") >= timedelta(seconds=seconds))
        found.append(_explain(long, str(data.market), str(other.market), threshold_bps, factor))
    return _split_by_day(pl.concat(found), step)


def time_shift(data: Slice, *, poor: float, excellent: float) -> pl.LazyFrame:
    """Days that fit another's prices only when moved by some hours: a mistaken time zone.

    The returns of half hours are compared, by rank, with those of other venues and with those of
    the market's trades. The reason is the shift, as `+8h`: so much later are the times of these
    rows. Bars of an hour and longer are compared by their own length, if it leaves enough of them.

    Parameters
    ----------
    poor
        The correlation without a shift, below which a day is looked at.
    excellent
        The correlation with one, from which on it is believed.
    """
    length = max(data.step or _HALF_HOUR, _HALF_HOUR)
    others = [(other, str(other.market)) for other in data.others]
    witnesses = [*others, *([(data.trades, "trades")] if data.trades else [])]
    if not witnesses or DAY / length < _LEAST_POINTS:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    own = _compute_returns(data, length)
    hours = pl.col("_lag") * (length / timedelta(hours=1))
    return pl.concat(
        _find_shifts(
            own, _compute_returns(witness, length), length, poor=poor, excellent=excellent
        ).select(
            start="_day",
            end=pl.min_horizontal(pl.col("_day").dt.offset_by("1d"), pl.lit(data.range.end)),
            rows="_rows",
            measured="_zero",
            expected="_best",
            reason=_format_hours(hours),
            against=pl.lit(name),
            message=pl.format(
                "Times are {} off those of {}: returns correlate by {} so, and by {} as they are",
                _format_hours(hours),
                pl.lit(name),
                pl.col("_best").round(2),
                pl.col("_zero").round(2),
            ),
        )
        for witness, name in witnesses
    )


def _select_bars(frame: pl.LazyFrame, time: str, suffix: str) -> pl.LazyFrame:
    """Closed bars that the venue sent, without those that were filled in."""
    return frame.filter(_is_observed()).select(
        pl.col(time).alias("time"),
        *(pl.col(name).alias(name + suffix) for name in OHLCV),
    )


def _is_observed() -> pl.Expr:
    return pl.col("closed") & pl.col("fill").is_null()


def _add_median(frame: pl.LazyFrame, others: tuple[Reference, ...]) -> pl.LazyFrame:
    """Adds `_median` of the closes of all venues, where three or more have one."""
    listed = ["close"]
    for number, other in enumerate(others):
        name = f"_close_{number}"
        closes = other.frame.filter(_is_observed()).select(
            pl.col(other.dataset.time_column).alias("time"), pl.col("close").alias(name)
        )
        # Few rows deviate: only the closes of their times are looked up.
        asked = closes.join(frame.select("time"), on="time", how="semi")
        frame = frame.join(asked, on="time", how="left", maintain_order="left")
        listed.append(name)
    closes_there = pl.concat_list(listed).list.drop_nulls()
    enough = closes_there.list.len() >= _THREE
    return frame.with_columns(_median=pl.when(enough).then(closes_there.list.median()))


def _group_deviations(
    pair: pl.LazyFrame, others: tuple[Reference, ...], threshold_bps: float, longest: timedelta
) -> pl.LazyFrame:
    """Runs of bars that deviate, with the evidence: one row each, whatever days they are in."""
    ratio = pl.col("close") / pl.col("close_other")
    away = ((ratio - 1) * 1e4).fill_nan(None)
    # What the bar after tells, if there is one: how the run ends.
    after = [pl.col(name).shift(-1).name.suffix("_next") for name in _PATHS]
    bad = pl.col("_away").abs() > threshold_bps
    cut = (
        (bad != bad.shift(1))
        | (pl.col("_away").sign() != pl.col("_away").shift(1).sign())
        | (pl.col("time").diff() > longest)
    )
    frame = (
        pair.with_columns(
            _away=away, _size=ratio.log().abs(), **_measure_path(""), **_measure_path("_other")
        )
        .with_columns(*after, _run=cut.fill_null(value=True).cum_sum())
        .filter(bad)
    )
    return (
        _add_median(frame, others)
        .group_by("_run", maintain_order=True)
        .agg(
            _times=pl.col("time"),
            _deviations=pl.col("_away"),
            _length=pl.col("time").last() - pl.col("time").first(),
            _ratio=ratio.median(),
            **_summarize_venue("", "_other"),
            **_summarize_venue("_other", ""),
        )
    )


_PATHS = ("_move", "_hole", "_move_other", "_hole_other")


def _measure_path(venue: str) -> dict[str, pl.Expr]:
    """How far a venue's price went since the close before: to the close, and to the open."""
    before = pl.col(f"close{venue}").shift(1)
    return {
        f"_move{venue}": (pl.col(f"close{venue}") / before).log().abs(),
        f"_hole{venue}": (pl.col(f"open{venue}") / before).log().abs(),
    }


def _summarize_venue(venue: str, other: str) -> dict[str, pl.Expr]:
    """What a run tells of one of the two venues.

    `_frozen`: its price stood still, and the other's moved. `_idle`: nothing was traded. `_jumped`:
    it went away and came back alone, each in one bar, and not by trading: a bar opens elsewhere.
    `_far`: how far it is from the median of the venues.
    """
    close = pl.col(f"close{venue}")
    flat = pl.col(f"high{venue}") == pl.col(f"low{venue}")
    moves = pl.col(f"close{other}").n_unique() > 1

    def alone(bar: str) -> pl.Expr:
        mine, theirs = pl.col(f"_move{venue}{bar}"), pl.col(f"_move{other}{bar}")
        size = pl.col("_size")
        return (mine >= _EDGE_PART * size) & (theirs <= (1 - _EDGE_PART) * size)

    def torn(bar: str) -> pl.Expr:
        return (pl.col(f"_hole{venue}{bar}") >= pl.col("_size") / 2).fill_null(value=False)

    came, went = alone("").first(), alone("_next").last()
    both = came.fill_null(value=True) & went.fill_null(value=True)
    known = came.is_not_null() | went.is_not_null()
    return {
        f"_frozen{venue}": (close.n_unique() == 1) & flat.slice(1).all() & moves,
        f"_idle{venue}": (pl.col(f"volume{venue}").slice(1) == 0).all(),
        f"_jumped{venue}": known & both & (torn("").first() | torn("_next").last()),
        f"_far{venue}": (close / pl.col("_median")).log().abs().median(),
    }


def _explain(
    found: pl.LazyFrame, own: str, other: str, threshold_bps: float, factor: float
) -> pl.LazyFrame:
    """Runs with `reason`, `severity`, `against` and `message`."""
    by_factor = (pl.col("_ratio") > factor) | (pl.col("_ratio") < 1 / factor)
    torn = [pl.col(name) for name in ("_frozen", "_jumped", "_frozen_other", "_jumped_other")]
    bad = by_factor | pl.any_horizontal(torn)
    off = _identify_venue(own, other, pl.lit(threshold_bps / 1e4))
    how = (
        pl.when(pl.col("_frozen") | pl.col("_frozen_other"))
        .then(pl.lit("stood still while the other moved"))
        .when(by_factor)
        .then(pl.format("is off by a factor of {}", pl.col("_ratio").round_sig_figs(4)))
        .when(bad)
        .then(pl.lit("jumped away or back alone"))
        .otherwise(pl.lit("is far from the median of all, but nothing says that it is wrong"))
    )
    unnamed = (
        pl.when(bad)
        .then(pl.lit("one of the two"))
        .otherwise(pl.lit("nothing says that one is wrong"))
    )
    told = (
        pl.when(off.is_not_null() | bad)
        .then(pl.format("{} {}", pl.coalesce(off, unnamed), how))
        .otherwise(unnamed)
    )
    idle = (off == own) & pl.col("_frozen") & pl.col("_idle")
    return found.with_columns(
        reason=pl.when(bad).then(pl.lit("bad_data")).otherwise(pl.lit("arbitrage")),
        severity=pl.when(~bad | (off == other))
        .then(pl.lit("info"))
        .when(idle)
        .then(pl.lit("warning")),
        expected=pl.lit(threshold_bps),
        against=pl.lit(other),
        _told=told,
    )


def _identify_venue(own: str, other: str, near: pl.Expr) -> pl.Expr:
    """Which of the two venues is off: the only torn one, or the one far from the median of all."""
    own_off = pl.col("_frozen") | pl.col("_jumped")
    other_off = pl.col("_frozen_other") | pl.col("_jumped_other")
    own_far = (pl.col("_far") > near) & (pl.col("_far_other") <= near)
    other_far = (pl.col("_far_other") > near) & (pl.col("_far") <= near)
    return (
        pl.when(own_off & ~other_off)
        .then(pl.lit(own))
        .when(other_off & ~own_off)
        .then(pl.lit(other))
        .when(own_far)
        .then(pl.lit(own))
        .when(other_far)
        .then(pl.lit(other))
    )


def _split_by_day(found: pl.LazyFrame, step: timedelta) -> pl.LazyFrame:
    """Runs of all venues as one finding a day."""
    day = pl.col("_times").dt.date().alias("_day")
    away = pl.col("_deviations")
    most = away.get(away.abs().arg_max())
    facts = [pl.col(name).first() for name in ("expected", "reason", "severity")]
    told = pl.col("_told").first()
    return (
        found.explode("_times", "_deviations")
        .group_by("_run", "against", day, maintain_order=True)
        .agg(
            *facts,
            start=pl.col("_times").first(),
            end=pl.col("_times").last() + step,
            rows=pl.len().cast(pl.Int64),
            measured=away.abs().max(),
            message=pl.format(
                "Closes are up to {} bps {} those of {} for {} minutes: {}",
                most.abs().round(1),
                pl.when(most > 0).then(pl.lit("above")).otherwise(pl.lit("below")),
                pl.col("against").first(),
                pl.col("_length").first().dt.total_minutes(),
                told,
            ),
        )
        .drop("_run", "_day")
    )


def _compute_returns(witness: Reference | Slice, length: timedelta) -> pl.LazyFrame:
    """Returns of intervals of a length: `_slot` (counted from the epoch), `_return`, `_rows`."""
    dataset = witness.dataset
    frame = witness.frame
    price = "price"
    if dataset.timeframe is not None:
        frame, price = frame.filter("closed"), "close"
    microseconds = length // MICROSECOND
    slot = pl.col(dataset.time_column).dt.timestamp("us") // microseconds
    moved = (pl.col("_price") / pl.col("_price").shift(1)).log()
    return (
        frame.group_by(slot.alias("_slot"))
        .agg(_price=pl.col(price).last(), _rows=pl.len().cast(pl.Int64))
        .sort("_slot")
        .with_columns(_return=pl.when(pl.col("_slot").diff() == 1).then(moved))
        .drop_nulls("_return")
        .select("_slot", "_return", "_rows")
    )


def _find_shifts(
    own: pl.LazyFrame, other: pl.LazyFrame, length: timedelta, *, poor: float, excellent: float
) -> pl.LazyFrame:
    """Days (`_day`) that fit only with a shift: `_lag` in slots, `_zero`, `_best`, `_rows`."""
    microseconds = length // MICROSECOND
    most = int(timedelta(hours=_FARTHEST_HOURS) / length)
    correlation = pl.corr("_return", "_return_other", method="spearman").fill_nan(None)
    enough = pl.len() >= _LEAST_POINTS
    theirs = other.select(pl.col("_slot").alias("_at"), pl.col("_return").alias("_return_other"))
    days = own.with_columns(_day=(pl.col("_slot") * microseconds).cast(TIMESTAMP).dt.truncate("1d"))
    suspects = (
        days.join(theirs, left_on="_slot", right_on="_at")
        .group_by("_day")
        .agg(_zero=pl.when(enough).then(correlation), _rows=pl.col("_rows").sum())
        .filter(pl.col("_zero") < poor)
    )
    lags = pl.lit(pl.Series(range(-most, most + 1), dtype=pl.Int64)).implode()
    return (
        days.drop("_rows")
        .join(suspects, on="_day")
        .with_columns(_lag=lags)
        .explode("_lag")
        .with_columns(_at=pl.col("_slot") - pl.col("_lag"))
        .join(theirs, on="_at")
        .group_by("_day", "_zero", "_rows", "_lag")
        .agg(_fit=pl.when(enough).then(correlation))
        .sort("_day", "_lag")
        .group_by("_day", "_zero", "_rows", maintain_order=True)
        .agg(_lag=pl.col("_lag").get(pl.col("_fit").arg_max()), _best=pl.col("_fit").max())
        .filter(pl.col("_best") >= excellent)
    )


def _format_hours(hours: pl.Expr) -> pl.Expr:
    """`+8h`, `-5h30m`."""
    sign = pl.when(hours < 0).then(pl.lit("-")).otherwise(pl.lit("+"))
    minutes = (hours.abs() * 60).round().cast(pl.Int64)
    rest = pl.when(minutes % 60 == 0).then(pl.lit("")).otherwise(pl.format("{}m", minutes % 60))
    return pl.format("{}{}h{}", sign, minutes // 60, rest)


CHECKS: Mapping[str, BuiltinCheck] = {
    "venue_deviation": BuiltinCheck(venue_deviation, "consistency"),
    "time_shift": BuiltinCheck(time_shift, "accuracy"),
}
