"""Snapshots of order books: prices in order and apart, amounts, spreads, numbers, and change."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.quality.check import BuiltinCheck, group_runs
from lake.quality.slice import Reference, Slice

_SIDES = {"bid": "bid_prices", "ask": "ask_prices"}
_LISTS = ("bid_prices", "bid_amounts", "ask_prices", "ask_amounts")
_NORMAL = 1.4826  # MADs of a normal distribution that make its standard deviation
_SECONDS = 1e6


def crossed(data: Slice) -> pl.LazyFrame:
    """Books in which somebody bids more than another asks (`crossed`), or as much (`locked`).

    Best prices are the highest bid and the lowest ask, wherever they stand in their lists.
    """
    frame = data.frame.with_columns(_bid=_best_bid(), _ask=_best_ask())
    worst = (pl.col("_bid") - pl.col("_ask")).arg_max()
    bid, ask = pl.col("_bid").get(worst), pl.col("_ask").get(worst)
    facts = {"measured": bid, "expected": ask}
    above = group_runs(
        frame,
        pl.col("_bid") > pl.col("_ask"),
        time=data.dataset.time_column,
        reason=pl.lit("crossed"),
        severity=pl.lit(None, dtype=pl.String),
        message=pl.format("The best bid {} is above the best ask {}", bid, ask),
        **facts,
    )
    equal = group_runs(
        frame,
        pl.col("_bid") == pl.col("_ask"),
        time=data.dataset.time_column,
        reason=pl.lit("locked"),
        severity=pl.lit("info"),
        message=pl.format("The best bid equals the best ask {}", ask),
        **facts,
    )
    return pl.concat([above, equal])


def unsorted(data: Slice) -> pl.LazyFrame:
    """Levels out of order (`unsorted`), or a price that stands twice on a side (`duplicate`).

    Measured is how many levels stand wrong. What is no number has no place: see `bad_levels`.
    """
    steps = {
        "bid": pl.col("bid_prices").list.diff(),
        "ask": pl.col("ask_prices").list.diff() * -1,
    }
    worse = (pl.element() > 0) & pl.element().is_not_nan()
    wrong = {side: _count(step, worse) for side, step in steps.items()}
    equal = {side: _count(step, pl.element() == 0) for side, step in steps.items()}
    frame = data.frame.with_columns(
        _wrong=pl.sum_horizontal(*wrong.values()), _equal=pl.sum_horizontal(*equal.values())
    )
    return pl.concat(
        [
            _group_by_count(
                data, frame, pl.col("_wrong"), "unsorted", "Prices behind a worse one: {}"
            ),
            _group_by_count(
                data, frame, pl.col("_equal"), "duplicate", "Prices that stand twice on a side: {}"
            ),
        ]
    )


def bad_levels(data: Slice) -> pl.LazyFrame:
    """Levels with no positive amount (`amount`) or price (`price`); measured is how many."""
    nothing = ~((pl.element() > 0) & pl.element().is_finite()).fill_null(value=False)
    frame = data.frame.with_columns(
        _amounts=pl.sum_horizontal(_count(pl.col(f"{side}_amounts"), nothing) for side in _SIDES),
        _prices=pl.sum_horizontal(_count(pl.col(name), nothing) for name in _SIDES.values()),
    )
    return pl.concat(
        [
            _group_by_count(
                data, frame, pl.col("_prices"), "price", "Prices that are not positive numbers: {}"
            ),
            _group_by_count(
                data,
                frame,
                pl.col("_amounts"),
                "amount",
                "Amounts that are not positive numbers: {}",
            ),
        ]
    )


def one_sided(data: Slice) -> pl.LazyFrame:
    """Books with no bid (`no_bids`) or no ask (`no_asks`)."""
    found = []
    for side, name in _SIDES.items():
        found.append(
            group_runs(
                data.frame,
                pl.col(name).list.len().fill_null(0) == 0,
                time=data.dataset.time_column,
                reason=pl.lit(f"no_{side}s"),
                measured=pl.lit(0.0),
                expected=pl.lit(1.0),
                message=pl.lit(f"Nobody {side}s"),
            )
        )
    return pl.concat(found)


def wide_spread(
    data: Slice, *, limit_bps: float, window_rows: int, mads: float, times: float, floor_bps: float
) -> pl.LazyFrame:
    """Spreads beyond a bound (`beyond_limit`), or far beyond those around them (`outlier`, info).

    The spread is `(ask - bid) / mid`, in basis points.

    Parameters
    ----------
    limit_bps
        What no spread should exceed.
    window_rows
        Rows around a row that its spread is compared with.
    mads
        An outlier is so many (robust) standard deviations above their median: 1.4826 times the
        median absolute deviation.
    times
        And so many times their median: spreads count few ticks, so that deviations are often 0.
    floor_bps
        And at least so much: of a liquid market the usual spread is a tick, and ten are nothing.
    """
    frame = _add_spreads(data, window_rows, mads, times, floor_bps)
    worst, beyond = pl.col("_spread").max(), pl.col("_spread") > limit_bps
    usual, bound = (pl.col(n).get(pl.col("_spread").arg_max()) for n in ("_median", "_bound"))
    limit, size = pl.lit(limit_bps), worst.round(1)
    above = pl.format("The spread of {} bps is beyond {} bps", size, limit)
    far = pl.format("The spread of {} bps is far above the usual {} bps", size, usual.round(1))
    told = {
        "beyond_limit": (beyond, limit, None, above),
        "outlier": ((pl.col("_spread") > pl.col("_bound")) & ~beyond, bound, "info", far),
    }
    return pl.concat(
        group_runs(
            frame,
            bad,
            time=data.dataset.time_column,
            reason=pl.lit(reason),
            severity=pl.lit(severity, dtype=pl.String),
            measured=worst,
            expected=expected,
            message=message,
        )
        for reason, (bad, expected, severity, message) in told.items()
    )


def book_sequence(data: Slice) -> pl.LazyFrame:
    """Update numbers that fall while time goes on, or name two different books.

    `backwards`: one is lower than that of the book before. `restarted` (info): it falls below half,
    and goes on from there, as after a restart of the venue. `changed`: the number is that of the
    book before, and the levels that both show are not the same.

    Numbers may jump between snapshots: that is no defect.
    """
    before, number, after = (pl.col("sequence").shift(n) for n in (1, 0, -1))
    known = (before >= 0) & (number >= 0)
    falls = known & (number < before)
    restarted = falls & (number < before / 2) & (after >= number) & (after < before)
    changed = known & (number == before) & ~_has_same_levels()
    frame = data.frame.with_columns(_before=before)
    facts = {
        "measured": pl.col("sequence").first().cast(pl.Float64),
        "expected": pl.col("_before").first().cast(pl.Float64),
    }
    words = {
        "backwards": (falls & ~restarted.fill_null(value=False), "Number {} comes after {}"),
        "restarted": (restarted, "The numbers start again: {} comes after {}"),
        "changed": (changed, "The book changed, but not its number {} (it was {} before)"),
    }
    severities = {"restarted": "info"}
    return pl.concat(
        group_runs(
            frame,
            bad,
            time=data.dataset.time_column,
            reason=pl.lit(reason),
            severity=pl.lit(severities.get(reason), dtype=pl.String),
            message=pl.format(text, pl.col("sequence").first(), pl.col("_before").first()),
            **facts,
        )
        for reason, (bad, text) in words.items()
    )


def book_gaps(data: Slice, *, consecutive_share: float, least_rows: int) -> pl.LazyFrame:
    """Updates that are missing between books, where all are kept.

    Snapshots are taken now and then, and their numbers tell nothing of what is missing. Only where
    nearly every number follows the one before is a jump a loss.

    Parameters
    ----------
    consecutive_share
        Which part of the steps must be one, that is nearly all.
    least_rows
        How many steps must be seen to tell.
    """
    number = pl.col("sequence")
    step = pl.when((number >= 0) & (number.shift(1) >= 0)).then(number - number.shift(1))
    frame = data.frame.with_columns(_step=step, _from=data.time.shift(1))
    consecutive = ((pl.col("_step") == 1).mean() >= consecutive_share) & (
        pl.col("_step").count() >= least_rows
    )
    missing = pl.col("_step") - 1
    # From the book before it, in the same day, to this one.
    start = pl.max_horizontal(pl.col("_from").dt.offset_by("1us"), data.time.dt.truncate("1d"))
    return frame.filter(consecutive & (pl.col("_step") > 1)).select(
        start=pl.min_horizontal(start, data.time),
        end=pl.max_horizontal(data.time, start.dt.offset_by("1us")),
        rows=missing,
        measured=missing.cast(pl.Float64),
        expected=pl.lit(0.0),
        reason=pl.lit("unknown"),
        message=pl.format("Update numbers missing before {}: {}", number, missing),
    )


def stale_book(data: Slice, *, seconds: float) -> pl.LazyFrame:
    """Books that stay the same for longer than `seconds` while they are asked for again.

    `frozen`: the market traded meanwhile. `unchanged` (info): nothing says that it should change.
    The time is that of reception: `timestamp` may stand still with the book.
    """
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in _LISTS)
    received = pl.col("received_at")
    # Unchanged since the book before, told within a day.
    since = pl.max_horizontal(data.time.shift(1), data.time.dt.truncate("1d"))
    frame = data.frame.with_columns(_same=same.fill_null(value=False), _since=since)
    frame = frame.with_columns(_run=(~pl.col("_same")).cum_sum())
    frame = frame.with_columns(
        _seconds=(received.max() - received.min()).dt.total_microseconds().over("_run") / _SECONDS
    ).filter("_same", pl.col("_seconds") > seconds)
    found = frame.group_by("_run", data.time.dt.date().alias("_day"), maintain_order=True).agg(
        start=pl.col("_since").first(),
        end=data.time.last().dt.offset_by("1us"),
        rows=pl.len().cast(pl.Int64),
        measured=pl.col("_seconds").first(),
    )
    return _compare_with_trades(found, data.trades, seconds)


def _compare_with_trades(
    found: pl.LazyFrame, trades: Reference | None, seconds: float
) -> pl.LazyFrame:
    """Whether the market traded while its book stood still."""
    if trades is None:
        found = found.with_columns(_trades=pl.lit(0))
    else:
        time = trades.dataset.time_column
        times = trades.frame.select(pl.col(time).alias("_at")).sort("_at")
        counted = times.with_columns(_number=pl.int_range(1, pl.len() + 1))
        for edge in ("start", "end"):
            counts = counted.select(pl.col("_at"), pl.col("_number").alias(f"_until_{edge}"))
            found = found.sort(edge).join_asof(
                counts, left_on=edge, right_on="_at", check_sortedness=False, coalesce=False
            )
            found = found.drop("_at")
        found = found.with_columns(
            _trades=pl.col("_until_end").fill_null(0) - pl.col("_until_start").fill_null(0)
        )
    frozen = pl.col("_trades") > 0
    told = pl.col("measured").round(1)
    return found.sort("start").select(
        "start",
        "end",
        "rows",
        "measured",
        expected=pl.lit(seconds),
        reason=pl.when(frozen).then(pl.lit("frozen")).otherwise(pl.lit("unchanged")),
        against=pl.when(frozen).then(pl.lit("trades")),
        severity=pl.when(~frozen).then(pl.lit("info")),
        message=pl.when(frozen)
        .then(
            pl.format("The book stood still for {} s; trades made meanwhile: {}", told, "_trades")
        )
        .otherwise(pl.format("The book stood still for {} s", told)),
    )


def _add_spreads(
    data: Slice, window_rows: int, mads: float, times: float, floor_bps: float
) -> pl.LazyFrame:
    """Books with `_spread`, the `_median` of those around, and the `_bound` of an outlier."""
    middle = (_best_bid() + _best_ask()) / 2
    spread = (_best_ask() - _best_bid()) / middle * 1e4
    frame = data.frame.with_columns(_spread=spread.fill_nan(None))
    frame = frame.with_columns(_median=_rolling_median("_spread", window_rows))
    frame = frame.with_columns(_away=(pl.col("_spread") - pl.col("_median")).abs())
    deviation = _rolling_median("_away", window_rows) * _NORMAL
    median = pl.col("_median")
    bound = pl.max_horizontal(median + mads * deviation, median * times, floor_bps)
    return frame.with_columns(_bound=bound)


def _group_by_count(
    data: Slice, frame: pl.LazyFrame, count: pl.Expr, reason: str, words: str
) -> pl.LazyFrame:
    """Runs of rows with a count above 0 of levels that are bad."""
    return group_runs(
        frame.with_columns(_count=count),
        pl.col("_count") > 0,
        time=data.dataset.time_column,
        reason=pl.lit(reason),
        measured=pl.col("_count").max().cast(pl.Float64),
        expected=pl.lit(0.0),
        message=pl.format(words, pl.col("_count").max()),
    )


def _has_same_levels() -> pl.Expr:
    """Whether a book and the one before have the same levels, as deep as both are."""
    same = []
    for name in _LISTS:
        here, before = pl.col(name), pl.col(name).shift(1)
        depth = pl.min_horizontal(here.list.len(), before.list.len())
        same.append(here.list.head(depth) == before.list.head(depth))
    return pl.all_horizontal(same)


def _rolling_median(name: str, window_rows: int) -> pl.Expr:
    return pl.col(name).rolling_median(window_rows, center=True, min_samples=1)


def _count(lists: pl.Expr, condition: pl.Expr) -> pl.Expr:
    return lists.list.eval(condition.cast(pl.Int64)).list.sum()


def _best_bid() -> pl.Expr:
    return pl.col("bid_prices").list.max().fill_nan(None)


def _best_ask() -> pl.Expr:
    return pl.col("ask_prices").list.min().fill_nan(None)


CHECKS: Mapping[str, BuiltinCheck] = {
    "crossed": BuiltinCheck(crossed, "accuracy"),
    "unsorted": BuiltinCheck(unsorted, "accuracy"),
    "bad_levels": BuiltinCheck(bad_levels, "accuracy"),
    "one_sided": BuiltinCheck(one_sided, "accuracy"),
    "wide_spread": BuiltinCheck(wide_spread, "accuracy"),
    "book_sequence": BuiltinCheck(book_sequence, "consistency"),
    "book_gaps": BuiltinCheck(book_gaps, "completeness"),
    "stale_book": BuiltinCheck(stale_book, "timeliness"),
}
