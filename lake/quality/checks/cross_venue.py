"""Compare an asset across venues: prices that differ for long."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.model.ohlcv import OHLCV
from lake.model.time import DAY
from lake.model.timeframe import Timeframe
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck
from lake.quality.checks.other_assets import find_agreeing
from lake.quality.checks.second_opinions import pair_bars
from lake.quality.slice import NEAR_BARS, Reference, Slice

_EDGE_PART = 0.8
"""Share of the deviation that one bar must make to be a jump; the other venue may make the rest."""
_LEAST_USUAL_BPS = 5.0
_MIN_VENUES = 3


def venue_deviation(
    data: Slice, *, threshold_bps: float, duration: str, times: float, factor: float
) -> pl.LazyFrame:
    """Report closes that differ by more than `threshold_bps` for longer than `duration`.

    Two bars are enough for bad data of which all closes differ by `times` the usual difference.

    One finding per run, other venue and day, over closed bars of the venues. `measured` is the
    largest deviation of the day, in basis points of the other close. A day sees of a run what is
    at most a day, or 24 bars, and at most `Slice.reach` from it.

    `bad_data`: the prices differ by `factor`; or one does not move while the other does; or it
    jumps away and back alone, without trades in between. The message names the wrong venue, if it
    can be identified: of three or more venues, the one far from their median. If that is the other
    venue, the severity is `info`.
    `arbitrage` (info): none of these; both venues trade, and prices move without jumps.
    `another_asset` (info): the other venue has another asset with this symbol. It is reported for
    one of the two markets, and neither its prices nor its moves are compared.

    Parameters
    ----------
    duration
        Time from the first close to the last close, such as `5m`.
    times
        Multiple of the median difference on that day, of at least 5 bps.
    factor
        No market has a ratio of prices above it, or below its inverse.
    """
    step = data.step
    if step is None:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    agreeing = () if data.others else find_agreeing(data.strangers)
    strangers = [
        _report_stranger(data, other, threshold_bps, is_odd=agreeing[:1] == (other,))
        for other in data.strangers
        if other not in agreeing[1:]
    ]
    if not data.others:
        return pl.concat(strangers) if strangers else pl.LazyFrame(schema=CHECK_COLUMNS)
    seconds = Timeframe.parse(duration).seconds
    explained = []
    for other in data.others:
        pair = pair_bars(data, other)
        least = timedelta(seconds=seconds)
        runs = _group_deviations(data, pair, threshold_bps, max(step, least))
        runs = _explain(runs, str(data.market), str(other.market), threshold_bps, factor)
        enormous = pl.col("_nearest") >= times * pl.col("_usual")
        short = (pl.col("_length") >= step) & enormous & (pl.col("reason") == "bad_data")
        explained.append(runs.filter((pl.col("_length") >= least) | short))
    return pl.concat([_split_by_day(pl.concat(explained), step), *strangers], how="diagonal")


def _report_stranger(
    data: Slice, other: Reference, threshold_bps: float, *, is_odd: bool
) -> pl.LazyFrame:
    """Report each day once for two assets with one symbol, for the first of the two markets.

    `is_odd`: other venues agree with `other`. Then it is reported for this market in any case.
    """
    own = _select_bars(data.frame, data.dataset.time_column, "")
    theirs = _select_bars(other.frame, other.dataset.time_column, "_other")
    ratio = (pl.col("close") / pl.col("close_other")).median()
    pair = own.join(theirs, on="time", how="inner", maintain_order="left")
    days = pair.filter(pl.lit(is_odd or str(data.market) < str(other.market)))
    return (
        days.group_by(pl.col("time").dt.date().alias("_day"), maintain_order=True)
        .agg(
            start=pl.col("time").first(),
            end=pl.col("time").last() + data.step,
            rows=pl.len().cast(pl.Int64),
            measured=((ratio - 1) * 1e4).abs(),
            expected=pl.lit(threshold_bps),
            reason=pl.lit("another_asset"),
            severity=pl.lit("warning" if is_odd else "info"),
            against=pl.lit(str(other.market)),
            message=pl.format(
                "Prices are {} times those of {}, and do not follow them: two assets share this "
                "symbol{}",
                ratio.round_sig_figs(4),
                pl.lit(str(other.market)),
                pl.lit(", or prices are wrong here: other venues agree" if is_odd else ""),
            ),
        )
        .drop("_day")
    )


def _select_bars(frame: pl.LazyFrame, time: str, suffix: str) -> pl.LazyFrame:
    """Select the closed bars of a venue, without filled bars."""
    return frame.filter(_is_observed()).select(
        pl.col(time).alias("time"),
        *(pl.col(name).alias(name + suffix) for name in OHLCV),
    )


def _is_observed() -> pl.Expr:
    return pl.col("closed") & pl.col("fill").is_null()


def _add_median(frame: pl.LazyFrame, others: tuple[Reference, ...]) -> pl.LazyFrame:
    """Add `_median` of the closes of all venues, if three or more have one."""
    names = ["close"]
    for number, other in enumerate(others):
        name = f"_close_{number}"
        closes = other.frame.filter(_is_observed()).select(
            pl.col(other.dataset.time_column).alias("time"), pl.col("close").alias(name)
        )
        # Few rows deviate: only closes of their times are needed.
        needed = closes.join(frame.select("time"), on="time", how="semi")
        frame = frame.join(needed, on="time", how="left", maintain_order="left")
        names.append(name)
    all_closes = pl.concat_list(names).list.drop_nulls()
    enough = all_closes.list.len() >= _MIN_VENUES
    return frame.with_columns(_median=pl.when(enough).then(all_closes.list.median()))


def _group_deviations(
    data: Slice, pair: pl.LazyFrame, threshold_bps: float, longest: timedelta
) -> pl.LazyFrame:
    """Group bars that deviate into runs, for each `_day` that they touch, with facts about both.

    A day has the part of a run around it, also across midnight.
    """
    ratio = pl.col("close") / pl.col("close_other")
    away = ((ratio - 1) * 1e4).fill_nan(None)
    bad = pl.col("_away").abs() > threshold_bps
    cut = (
        (bad != bad.shift(1))
        | (pl.col("_away").sign() != pl.col("_away").shift(1).sign())
        | (pl.col("time").diff() > longest)
    ).fill_null(value=True)
    day = pl.col("time").dt.truncate("1d").alias("_day")
    least = pl.lit(_LEAST_USUAL_BPS)
    usual = pair.group_by(day).agg(_usual=pl.max_horizontal(away.abs().median(), least))
    measured = pair.with_columns(_away=away, _size=ratio.log().abs())
    frame = _mark_runs(measured, data.reach, bad, cut)
    around = min(data.reach, max(DAY, NEAR_BARS * (data.step or DAY)))
    return (
        _spread_over_days(_add_median(frame, data.others), around)
        .join(usual, on="_day", maintain_order="left")
        .group_by("_run", "_day", maintain_order=True)
        .agg(
            _times=pl.col("time"),
            _deviations=pl.col("_away"),
            _length=pl.col("time").last() - pl.col("time").first(),
            _ratio=ratio.median(),
            _nearest=pl.col("_away").abs().min(),
            _usual=pl.col("_usual").first(),
            **_summarize_venue("", "_other"),
            **_summarize_venue("_other", ""),
        )
    )


def _mark_runs(pair: pl.LazyFrame, most: timedelta, bad: pl.Expr, cut: pl.Expr) -> pl.LazyFrame:
    """Number the runs of bad bars as `_run`, with the paths into their first and out of their last.

    Of a run that begins or ends out of sight of a day, the day does not know how.
    """
    # The bar after a run, if there is one, shows how the run ends.
    after = [pl.col(name).shift(-1).name.suffix("_next") for name in _PATHS]
    begins = [pl.when("_begins").then(name).alias(name) for name in _PATHS]
    ends = [pl.when("_ends").then(f"{name}_next").alias(f"{name}_next") for name in _PATHS]
    return (
        pair.with_columns(**_measure_path("", most), **_measure_path("_other", most))
        .with_columns(*after, _run=cut.cum_sum(), _begins=cut, _ends=cut.shift(-1, fill_value=True))
        .filter(bad)
        .with_columns(*begins, *ends)
    )


def _spread_over_days(frame: pl.LazyFrame, around: timedelta) -> pl.LazyFrame:
    """Repeat rows of runs for each `_day` that the run touches and they are near."""
    time, own = pl.col("time"), pl.col("time").dt.truncate("1d")
    days = frame.select("_run", _day=own).unique()
    first, last = ((time + reach).dt.truncate("1d") for reach in (-around, around))
    return (
        frame.with_columns(_day=pl.datetime_ranges(first, last, "1d"))
        .explode("_day")
        .filter(time < pl.col("_day").dt.offset_by("1d") + around)
        .join(days, on=["_run", "_day"], how="semi")
        .sort("_day", "time")
    )


_PATHS = ("_move", "_hole", "_move_other", "_hole_other")


def _measure_path(venue: str, most: timedelta) -> dict[str, pl.Expr]:
    """Measure how far the price of a venue moved since the last close: to close, and to open.

    Null if that close is farther back than `most`.
    """
    is_near = pl.col("time").diff() <= most
    before = pl.when(is_near).then(pl.col(f"close{venue}").shift(1))
    return {
        f"_move{venue}": (pl.col(f"close{venue}") / before).log().abs(),
        f"_hole{venue}": (pl.col(f"open{venue}") / before).log().abs(),
    }


def _summarize_venue(venue: str, other: str) -> dict[str, pl.Expr]:
    """Summarize a run for one of the two venues.

    `_frozen`: its price did not move, and the other one did. `_idle`: nothing was traded.
    `_jumped`: it moved away and back alone, each in one bar, and not by trading, because a bar
    opens at another price. `_far`: distance from the median of the venues.
    """
    close = pl.col(f"close{venue}")
    flat = pl.col(f"high{venue}") == pl.col(f"low{venue}")
    moves = pl.col(f"close{other}").n_unique() > 1

    def moves_alone(bar: str) -> pl.Expr:
        mine, theirs = pl.col(f"_move{venue}{bar}"), pl.col(f"_move{other}{bar}")
        size = pl.col("_size")
        return (mine >= _EDGE_PART * size) & (theirs <= (1 - _EDGE_PART) * size)

    def opens_far(bar: str) -> pl.Expr:
        return (pl.col(f"_hole{venue}{bar}") >= pl.col("_size") / 2).fill_null(value=False)

    away, back = moves_alone("").first(), moves_alone("_next").last()
    both = away.fill_null(value=True) & back.fill_null(value=True)
    is_known = away.is_not_null() | back.is_not_null()
    return {
        f"_frozen{venue}": (close.n_unique() == 1) & flat.slice(1).all() & moves,
        f"_idle{venue}": (pl.col(f"volume{venue}").slice(1) == 0).all(),
        f"_jumped{venue}": is_known & both & (opens_far("").first() | opens_far("_next").last()),
        f"_far{venue}": (close / pl.col("_median")).log().abs().median(),
    }


def _explain(
    runs: pl.LazyFrame, own: str, other: str, threshold_bps: float, factor: float
) -> pl.LazyFrame:
    """Add `reason`, `severity`, `against` and `_explanation` to runs."""
    by_factor = (pl.col("_ratio") > factor) | (pl.col("_ratio") < 1 / factor)
    broken = [pl.col(name) for name in ("_frozen", "_jumped", "_frozen_other", "_jumped_other")]
    bad = by_factor | pl.any_horizontal(broken)
    wrong = _identify_venue(own, other, pl.lit(threshold_bps / 1e4))
    how = (
        pl.when(pl.col("_frozen") | pl.col("_frozen_other"))
        .then(pl.lit("did not move while the other did"))
        .when(by_factor)
        .then(pl.format("is wrong by a factor of {}", pl.col("_ratio").round_sig_figs(4)))
        .when(bad)
        .then(pl.lit("jumped away or back alone"))
        .otherwise(pl.lit("is far from the median of all venues, without signs of an error"))
    )
    no_sign = pl.lit("neither venue shows signs of an error")
    explanation = (
        pl.when(wrong.is_not_null() | bad)
        .then(pl.format("{} {}", pl.coalesce(wrong, pl.lit("one of the two")), how))
        .otherwise(no_sign)
    )
    idle = (wrong == own) & pl.col("_frozen") & pl.col("_idle")
    return runs.with_columns(
        reason=pl.when(bad).then(pl.lit("bad_data")).otherwise(pl.lit("arbitrage")),
        severity=pl.when(~bad | (wrong == other))
        .then(pl.lit("info"))
        .when(idle)
        .then(pl.lit("warning")),
        expected=pl.lit(threshold_bps),
        against=pl.lit(other),
        _explanation=explanation,
    )


def _identify_venue(own: str, other: str, near: pl.Expr) -> pl.Expr:
    """Return the wrong one of two venues: the only broken one, or the one far from the median."""
    own_broken = pl.col("_frozen") | pl.col("_jumped")
    other_broken = pl.col("_frozen_other") | pl.col("_jumped_other")
    own_far = (pl.col("_far") > near) & (pl.col("_far_other") <= near)
    other_far = (pl.col("_far_other") > near) & (pl.col("_far") <= near)
    return (
        pl.when(own_broken & ~other_broken)
        .then(pl.lit(own))
        .when(other_broken & ~own_broken)
        .then(pl.lit(other))
        .when(own_far)
        .then(pl.lit(own))
        .when(other_far)
        .then(pl.lit(other))
    )


def _split_by_day(runs: pl.LazyFrame, step: timedelta) -> pl.LazyFrame:
    """Keep the part of runs in their day: one finding per run, venue and day."""
    away = pl.col("_deviations")
    most = away.get(away.abs().arg_max())
    facts = [pl.col(name).first() for name in ("expected", "reason", "severity")]
    return (
        runs.explode("_times", "_deviations")
        .filter(pl.col("_times").dt.truncate("1d") == pl.col("_day"))
        .group_by("_run", "against", "_day", maintain_order=True)
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
                pl.col("_explanation").first(),
            ),
        )
        .drop("_run", "_day")
    )


CHECKS: Mapping[str, BuiltinCheck] = {
    "venue_deviation": BuiltinCheck(venue_deviation, "consistency"),
}
