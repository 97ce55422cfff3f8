"""Check order book snapshots: order of prices, amounts, spreads, update numbers, and change."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.quality.check import BuiltinCheck, count_phrase, group_runs
from lake.quality.slice import Reference, Slice

_SIDES = {"bid": "bid_prices", "ask": "ask_prices"}
_LISTS = ("bid_prices", "bid_amounts", "ask_prices", "ask_amounts")
_NORMAL = 1.4826  # standard deviation of a normal distribution, in median absolute deviations
_SECONDS = 1e6
_PHRASES: Mapping[str, tuple[str, str]] = {
    "unsorted": ("price follows a worse price", "prices follow a worse price"),
    "duplicate": ("price is a duplicate on its side", "prices are duplicates on their side"),
    "price": ("price is not a positive number", "prices are not positive numbers"),
    "amount": ("amount is not a positive number", "amounts are not positive numbers"),
}


def crossed(data: Slice) -> pl.LazyFrame:
    """Report books whose best bid is above the best ask (`crossed`) or equal to it (`locked`).

    The best prices are the highest bid and the lowest ask, at any place in their lists.
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
    """Report levels out of order (`unsorted`), and prices that a side has twice (`duplicate`).

    `measured` is the number of such levels. Prices that are NaN are ignored: see `bad_levels`.
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
            _group_by_count(data, frame, pl.col("_wrong"), "unsorted"),
            _group_by_count(data, frame, pl.col("_equal"), "duplicate"),
        ]
    )


def bad_levels(data: Slice) -> pl.LazyFrame:
    """Report levels whose amount (`amount`) or price (`price`) is not a positive number.

    `measured` is the number of such levels.
    """
    bad = ~((pl.element() > 0) & pl.element().is_finite()).fill_null(value=False)
    frame = data.frame.with_columns(
        _amounts=pl.sum_horizontal(_count(pl.col(f"{side}_amounts"), bad) for side in _SIDES),
        _prices=pl.sum_horizontal(_count(pl.col(name), bad) for name in _SIDES.values()),
    )
    return pl.concat(
        [
            _group_by_count(data, frame, pl.col("_prices"), "price"),
            _group_by_count(data, frame, pl.col("_amounts"), "amount"),
        ]
    )


def one_sided(data: Slice) -> pl.LazyFrame:
    """Report books without a bid (`no_bids`) or without an ask (`no_asks`)."""
    return pl.concat(
        group_runs(
            data.frame,
            pl.col(name).list.len().fill_null(0) == 0,
            time=data.dataset.time_column,
            reason=pl.lit(f"no_{side}s"),
            measured=pl.lit(0.0),
            expected=pl.lit(1.0),
            message=pl.lit(f"The book has no {side}"),
        )
        for side, name in _SIDES.items()
    )


def wide_spread(
    data: Slice, *, limit_bps: float, window_rows: int, mads: float, times: float, floor_bps: float
) -> pl.LazyFrame:
    """Report spreads above a limit (`beyond_limit`), or far above usual (`outlier`, info).

    The spread is `(ask - bid) / mid`, in basis points. An outlier exceeds all of `mads`, `times`
    and `floor_bps`.

    Parameters
    ----------
    limit_bps
        Largest spread that is accepted, in basis points.
    window_rows
        Number of rows around a row that its spread is compared with.
    mads
        Distance of an outlier from their median, in robust standard deviations: 1.4826 times the
        median absolute deviation.
    times
        Smallest ratio of an outlier to their median: spreads are few ticks, so that the deviation
        is often 0.
    floor_bps
        Smallest spread of an outlier, in basis points: the usual spread of a liquid market is one
        tick, and ten ticks are normal.
    """
    frame = _add_spreads(data, window_rows, mads, times, floor_bps)
    beyond = pl.col("_spread") > limit_bps
    outlier = (pl.col("_spread") > pl.col("_bound")) & ~beyond
    worst = pl.col("_spread").max()
    usual, bound = (pl.col(n).get(pl.col("_spread").arg_max()) for n in ("_median", "_bound"))
    limit, size = pl.lit(limit_bps), worst.round(1)
    above = pl.format("The spread of {} bps is above the limit of {} bps", size, limit)
    far = pl.format("The spread of {} bps is far above the usual {} bps", size, usual.round(1))
    time, severity = data.dataset.time_column, pl.lit(None, dtype=pl.String)
    beyond_facts = {"expected": limit, "severity": severity, "message": above}
    outlier_facts = {"expected": bound, "severity": pl.lit("info"), "message": far}
    reasons = (("beyond_limit", beyond, beyond_facts), ("outlier", outlier, outlier_facts))
    return pl.concat(
        group_runs(frame, bad, time=time, reason=pl.lit(reason), measured=worst, **facts)
        for reason, bad, facts in reasons
    )


def book_sequence(data: Slice) -> pl.LazyFrame:
    """Report update numbers that fall while time goes on, or that two different books have.

    `backwards`: the number is lower than that of the previous book. `restarted` (info): it falls
    below half and continues from there, as after a restart of the venue. `changed`: the number is
    that of the previous book, but the levels that both show differ.

    Numbers may jump between snapshots: that is not a defect.
    """
    before, number, after = (pl.col("sequence").shift(n) for n in (1, 0, -1))
    has_numbers = (before >= 0) & (number >= 0)
    falls = has_numbers & (number < before)
    restarted = falls & (number < before / 2) & (after >= number) & (after < before)
    changed = has_numbers & (number == before) & ~_has_same_levels()
    frame = data.frame.with_columns(_before=before)
    facts = {
        "measured": pl.col("sequence").first().cast(pl.Float64),
        "expected": pl.col("_before").first().cast(pl.Float64),
    }
    reasons = {
        "backwards": (
            falls & ~restarted.fill_null(value=False),
            "Update number {} follows the higher number {}",
        ),
        "restarted": (restarted, "Update numbers start again: {} follows {}"),
        "changed": (changed, "The book changed, but its update number {} did not (before: {})"),
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
        for reason, (bad, text) in reasons.items()
    )


def book_gaps(data: Slice, *, consecutive_share: float, min_rows: int) -> pl.LazyFrame:
    """Report missing updates between books, in tables that keep every update.

    The numbers of occasional snapshots say nothing about missing updates. A jump is a loss only if
    nearly all numbers are consecutive.

    Parameters
    ----------
    consecutive_share
        Smallest share of the steps of a day that must be 1.
    min_rows
        Smallest number of steps of a day.
    """
    number = pl.col("sequence")
    step = pl.when((number >= 0) & (number.shift(1) >= 0)).then(number - number.shift(1))
    frame = data.frame.with_columns(_step=step, _from=data.time.shift(1))
    day = data.time.dt.date()
    consecutive = ((pl.col("_step") == 1).mean().over(day) >= consecutive_share) & (
        pl.col("_step").count().over(day) >= min_rows
    )
    missing = pl.col("_step") - 1
    # From the previous book, within the same day, to this one.
    start = pl.max_horizontal(pl.col("_from").dt.offset_by("1us"), data.time.dt.truncate("1d"))
    return frame.filter(consecutive & (pl.col("_step") > 1)).select(
        start=pl.min_horizontal(start, data.time),
        end=pl.max_horizontal(data.time, start.dt.offset_by("1us")),
        rows=missing,
        measured=missing.cast(pl.Float64),
        expected=pl.lit(0.0),
        reason=pl.lit("unknown"),
        message=pl.format(
            "{} before {}",
            count_phrase(missing, "update number is missing", "update numbers are missing"),
            number,
        ),
    )


def stale_book(data: Slice, *, seconds: float) -> pl.LazyFrame:
    """Report books that do not change for longer than `seconds`, in several snapshots.

    `frozen`: the market traded meanwhile. `unchanged` (info): no trade shows that it should change.
    Times are receive times, because `timestamp` may not change with a frozen book.
    """
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in _LISTS)
    received = pl.col("received_at")
    # Unchanged since the previous book, within the day.
    since = pl.max_horizontal(data.time.shift(1), data.time.dt.truncate("1d"))
    frame = data.frame.with_columns(_same=same.fill_null(value=False), _since=since)
    frame = frame.with_columns(_run=(~pl.col("_same")).cum_sum())
    frame = frame.with_columns(
        _seconds=(received.max() - received.min()).dt.total_microseconds().over("_run") / _SECONDS
    ).filter("_same", pl.col("_seconds") > seconds)
    stale = frame.group_by("_run", data.time.dt.date().alias("_day"), maintain_order=True).agg(
        start=pl.col("_since").first(),
        end=data.time.last().dt.offset_by("1us"),
        rows=pl.len().cast(pl.Int64),
        measured=pl.col("_seconds").first(),
    )
    return _compare_with_trades(stale, data.trades, seconds)


def _compare_with_trades(
    stale: pl.LazyFrame, trades: Reference | None, seconds: float
) -> pl.LazyFrame:
    """Add whether the market traded while its book did not change."""
    if trades is None:
        stale = stale.with_columns(_trades=pl.lit(0))
    else:
        time = trades.dataset.time_column
        times = trades.frame.select(pl.col(time).alias("_at")).sort("_at")
        numbered = times.with_columns(_number=pl.int_range(1, pl.len() + 1))
        for edge in ("start", "end"):
            counts = numbered.select(pl.col("_at"), pl.col("_number").alias(f"_until_{edge}"))
            stale = stale.sort(edge).join_asof(
                counts, left_on=edge, right_on="_at", check_sortedness=False, coalesce=False
            )
            stale = stale.drop("_at")
        stale = stale.with_columns(
            _trades=pl.col("_until_end").fill_null(0) - pl.col("_until_start").fill_null(0)
        )
    frozen = pl.col("_trades") > 0
    text = pl.format("The book did not change for {} s", pl.col("measured").round(1))
    trade_count = count_phrase(pl.col("_trades"), "trade", "trades")
    return stale.sort("start").select(
        "start",
        "end",
        "rows",
        "measured",
        expected=pl.lit(seconds),
        reason=pl.when(frozen).then(pl.lit("frozen")).otherwise(pl.lit("unchanged")),
        against=pl.when(frozen).then(pl.lit("trades")),
        severity=pl.when(~frozen).then(pl.lit("info")),
        message=pl.when(frozen)
        .then(pl.format("{}, while the market had {}", text, trade_count))
        .otherwise(text),
    )


def _add_spreads(
    data: Slice, window_rows: int, mads: float, times: float, floor_bps: float
) -> pl.LazyFrame:
    """Add `_spread`, the `_median` of the spreads around it, and the `_bound` of an outlier."""
    middle = (_best_bid() + _best_ask()) / 2
    spread = (_best_ask() - _best_bid()) / middle * 1e4
    frame = data.frame.with_columns(_spread=spread.fill_nan(None))
    frame = frame.with_columns(_median=_rolling_median("_spread", window_rows))
    frame = frame.with_columns(_away=(pl.col("_spread") - pl.col("_median")).abs())
    deviation = _rolling_median("_away", window_rows) * _NORMAL
    median = pl.col("_median")
    bound = pl.max_horizontal(median + mads * deviation, median * times, floor_bps)
    return frame.with_columns(_bound=bound)


def _group_by_count(data: Slice, frame: pl.LazyFrame, count: pl.Expr, reason: str) -> pl.LazyFrame:
    """Group books with a count of bad levels above 0 into one finding each."""
    largest = pl.col("_count").max()
    return group_runs(
        frame.with_columns(_count=count),
        pl.col("_count") > 0,
        time=data.dataset.time_column,
        reason=pl.lit(reason),
        measured=largest.cast(pl.Float64),
        expected=pl.lit(0.0),
        message=count_phrase(largest, *_PHRASES[reason]),
    )


def _has_same_levels() -> pl.Expr:
    """Whether a book and the previous one have the same levels, as deep as both go."""
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
