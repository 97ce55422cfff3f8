"""Missing rows and their reasons: by examples, and in recorded data with known gaps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from lake.model.time import TimeRange
from lake.quality.checks.completeness import CHECKS, LOSSES, NO_LOSSES, REASONS, gaps
from lake.quality.score import score_days
from lake.quality.slice import Slice
from tests.conftest import DAY, MINUTE, SECOND, T0, bars, trades
from tests.quality.real import (
    PERPETUAL,
    UNITTEST,
    XRP,
    needs_data,
    recorded_bars,
    recorded_trades,
)
from tests.quality.slices import collect_findings, outcome, reference_of, slice_of

HOUR = timedelta(hours=1)
HALF = TimeRange(T0, T0 + DAY / 2)


def reasons(rows: Slice) -> list[tuple[int, str]]:
    """Slots and reason of each gap."""
    return outcome(CHECKS, "gaps", rows).select("rows", "reason").rows()


def with_hole(**more: Any) -> Slice:
    """A minute bar is missing at T0 + 1 minute."""
    return slice_of("bars_1m", bars(2, step=2 * MINUTE), **more)


def test_nothing_known_is_unknown_and_a_loss() -> None:
    finding = outcome(CHECKS, "gaps", with_hole()).row(0, named=True)
    assert finding["reason"] == "unknown"
    assert finding["severity"] is None  # that of the check
    assert (finding["measured"], finding["expected"]) == (1.0, 0.0)
    assert finding["message"] == "1 bar is missing: the reason is unknown"


def test_trades_in_a_missing_bar_prove_that_it_is_lost() -> None:
    reference = reference_of("trades", trades(1, start=T0 + 90 * SECOND), coverage=(HALF,))
    assert reasons(with_hole(trades=reference, coverage=())) == [(1, "lost")]


def test_covered_trades_without_one_in_the_bar_prove_that_there_was_none() -> None:
    reference = reference_of("trades", trades(1, start=T0), coverage=(HALF,))
    assert reasons(with_hole(trades=reference)) == [(1, "no_trade")]


@pytest.mark.parametrize(("second", "reason"), [(1, "no_trade"), (2, "unknown")])
def test_only_ids_that_follow_each_other_prove_that_there_was_no_trade(
    second: int, reason: str
) -> None:
    rows = pl.concat([trades(1), trades(1, first=second, start=T0 + 2 * MINUTE)])
    assert reasons(with_hole(trades=reference_of("trades", rows))) == [(1, reason)]


def test_of_trades_of_one_time_the_highest_id_comes_before_and_the_lowest_after() -> None:
    """As text, 10 comes before 9."""
    rows = pl.concat(
        [
            trades(2, first=9, step=timedelta(0)),
            trades(2, first=11, start=T0 + 2 * MINUTE, step=timedelta(0)),
        ]
    )
    assert reasons(with_hole(trades=reference_of("trades", rows))) == [(1, "no_trade")]


def test_ids_that_are_no_numbers_prove_nothing() -> None:
    rows = trades(2, step=2 * MINUTE).with_columns(trade_id=pl.Series(["a", "b"]))
    assert reasons(with_hole(trades=reference_of("trades", rows))) == [(1, "unknown")]


def test_an_outage_explains_only_bars_that_it_holds_whole() -> None:
    outage = TimeRange(T0 + MINUTE, T0 + 2 * MINUTE)
    assert reasons(with_hole(outages=(outage,))) == [(1, "venue_outage")]
    shorter = TimeRange(T0 + MINUTE, T0 + 2 * MINUTE - SECOND)
    assert reasons(with_hole(outages=(shorter,))) == [(1, "unknown")]


def test_time_that_was_never_requested_is_not_fetched() -> None:
    assert reasons(with_hole(coverage=(TimeRange(T0, T0 + MINUTE),))) == [(1, "not_fetched")]
    assert reasons(with_hole(coverage=(HALF,))) == [(1, "unknown")]


def test_omitted_bars_prove_silence_only_in_covered_time() -> None:
    assert reasons(with_hole(omits_empty_bars=True, coverage=(HALF,))) == [(1, "no_trade")]
    assert reasons(with_hole(omits_empty_bars=True, coverage=())) == [(1, "not_fetched")]
    assert reasons(with_hole(omits_empty_bars=True)) == [(1, "unknown")]


def test_neighbouring_bars_of_different_reasons_are_different_gaps() -> None:
    reference = reference_of("trades", trades(1, start=T0 + 90 * SECOND), coverage=(HALF,))
    rows = slice_of("bars_1m", bars(2, step=4 * MINUTE), trades=reference)
    assert reasons(rows) == [(1, "lost"), (2, "no_trade")]


def test_only_losses_have_the_severity_of_the_check() -> None:
    assert set(LOSSES) | set(NO_LOSSES) == set(REASONS)
    outage = with_hole(outages=(HALF,))
    assert outcome(CHECKS, "gaps", outage)["severity"].to_list() == ["info"]


def test_bars_that_have_not_ended_are_not_missing() -> None:
    rows = slice_of("bars_1m", bars(2, step=10 * MINUTE), now=T0 + 5 * MINUTE + SECOND)
    assert reasons(rows) == [(4, "unknown")]
    ahead = slice_of("bars_1m", bars(2, step=10 * MINUTE), now=T0 - DAY)
    assert reasons(ahead) == []


def test_rows_of_impossible_times_make_no_gap() -> None:
    epoch = datetime(1970, 1, 20, tzinfo=T0.tzinfo)
    rows = slice_of("bars_1m", bars(2, start=epoch, step=10 * MINUTE), span=TimeRange(T0, T0 + DAY))
    assert reasons(rows) == []


def test_an_empty_slice_has_no_gap() -> None:
    day = TimeRange(T0, T0 + DAY)
    rows = slice_of("bars_1m", bars(0), start=day.start, end=day.end)
    assert reasons(rows) == []
    # Unless the market has rows before and after.
    around = TimeRange(T0 - DAY, T0 + 2 * DAY)
    assert reasons(replace(rows, span=around)) == [(1440, "unknown")]


def test_what_is_no_bar_has_no_gap() -> None:
    assert reasons(slice_of("trades", trades(2, step=DAY / 2))) == []


def uncovered(rows: Slice) -> list[tuple[datetime, datetime, int]]:
    return outcome(CHECKS, "uncovered", rows).select("start", "end", "rows").rows()


def test_time_that_was_never_requested_is_estimated_by_what_the_day_had() -> None:
    # A trade a second from 0 to 6 and from 12 to 24 o'clock; the rest of the day is unknown.
    first, second = trades(6 * 3600), trades(12 * 3600, first=12 * 3600)
    covered = (TimeRange(T0, T0 + 6 * HOUR), TimeRange(T0 + 12 * HOUR, T0 + DAY))
    frame = pl.concat([first, second])
    rows = slice_of("trades", frame, span=TimeRange(T0, T0 + DAY), coverage=covered)
    assert uncovered(rows) == [(T0 + 6 * HOUR, T0 + 12 * HOUR, 6 * 3600)]
    assert outcome(CHECKS, "uncovered", rows)["reason"].to_list() == ["not_fetched"]


def test_the_estimate_is_the_same_however_the_range_is_cut() -> None:
    # The second day is ten times as dense as the first.
    frame = pl.concat(
        [
            trades(1000, step=MINUTE),
            trades(9000, first=14_400, step=MINUTE / 10),
        ]
    )
    span = TimeRange(T0, T0 + 4 * DAY)
    covered = (
        TimeRange(T0, T0 + 20 * HOUR),
        TimeRange(T0 + 23 * HOUR, T0 + DAY + 20 * HOUR),
        TimeRange(T0 + 3 * DAY, T0 + 4 * DAY),
    )

    def uncovered_in(start: datetime, end: datetime) -> list[tuple[datetime, datetime, int]]:
        rows = slice_of("trades", frame, start=start, end=end, span=span, coverage=covered)
        return uncovered(replace(rows, rows_per_second=0.5))

    at_once = uncovered_in(T0, T0 + 3 * DAY)
    by_day = [
        finding for n in range(3) for finding in uncovered_in(T0 + n * DAY, T0 + (n + 1) * DAY)
    ]
    assert at_once == by_day
    assert [rows for _, _, rows in at_once] == [
        -(-1000 * 3 // 21),
        9000 * 4 // 20,
        43_200,  # nothing is covered: half a row a second
    ]


def test_a_whole_day_that_was_never_requested_is_no_complete_day() -> None:
    span, covered = (
        TimeRange(T0, T0 + 3 * DAY),
        (TimeRange(T0, T0 + DAY), TimeRange(T0 + 2 * DAY, T0 + 3 * DAY)),
    )
    rows = slice_of("trades", trades(0), start=T0 + DAY, end=T0 + 2 * DAY, span=span)
    finding = outcome(CHECKS, "uncovered", replace(rows, coverage=covered))
    assert finding.select("start", "rows", "measured").row(0) == (T0 + DAY, 1, 86_400.0)


def test_what_came_after_the_last_answer_is_not_settled_yet() -> None:
    span, covered = TimeRange(T0, T0 + 3 * DAY), (TimeRange(T0, T0 + DAY),)
    rows = slice_of("trades", trades(1, start=T0 + 2 * DAY), span=span, coverage=covered)
    assert uncovered(rows) == []


def test_nothing_is_uncovered_outside_the_rows_or_where_nothing_was_ever_fetched() -> None:
    frame, span = trades(10), TimeRange(T0, T0 + 10 * SECOND)
    assert uncovered(slice_of("trades", frame, span=span, coverage=(span,))) == []
    assert uncovered(slice_of("trades", frame, span=span)) == []
    assert uncovered(slice_of("bars_1m", bars(2, step=HOUR), span=span, coverage=())) == []


@needs_data
@pytest.mark.parametrize(("name", "missing"), [("ADA", 40), ("TRX", 6), ("ETH", 0), ("XLM", 0)])
def test_recorded_five_minute_bars_lack_what_is_known_to_be_missing(
    name: str, missing: int
) -> None:
    rows = slice_of("bars_5m", recorded_bars(f"binance_{name}-BTC_5m", UNITTEST))
    assert sums(rows) == Counter({"unknown": missing} if missing else {})


@needs_data
def test_717_recorded_minutes_are_missing_of_unknown_reason_and_count_as_losses() -> None:
    rows = slice_of("bars_1m", recorded_bars("binance_UNITTEST-BTC_1m", UNITTEST))
    assert sums(rows) == Counter(unknown=717)
    findings = collect_findings(gaps(rows)).with_columns(
        severity=pl.lit("error"), dimension=pl.lit("completeness")
    )
    days = score_days(days_of(rows), findings)
    assert days["expected"].sum() == 13_681 + 717
    assert (days["completeness"] < 1).any()


@needs_data
def test_1091_recorded_minutes_had_no_trade_as_the_trades_prove() -> None:
    # No coverage is recorded: the ids alone prove it.
    reference = reference_of("trades", recorded_trades())
    rows = slice_of("bars_1m", recorded_bars("binance_XRP-ETH_1m", XRP), trades=reference)
    assert sums(rows) == Counter(no_trade=1091)
    assert sums(replace(rows, trades=None)) == Counter(unknown=1091)


@needs_data
def test_the_recorded_perpetual_is_complete() -> None:
    rows = slice_of("bars_1m", recorded_bars("ftx_BTC-PERP_1m", PERPETUAL))
    assert sums(rows) == Counter()


def sums(rows: Slice) -> Counter[str]:
    """Missing slots by reason."""
    counts: Counter[str] = Counter()
    for slots, reason in reasons(rows):
        counts[reason] += slots
    return counts


def days_of(rows: Slice) -> pl.DataFrame:
    from lake.quality.run import run_checks

    return run_checks(rows, ()).days


def test_bars_that_the_source_no_longer_serves_are_losses_also_before_the_first_bar() -> None:
    lost = TimeRange(T0, T0 + 2 * MINUTE)
    rows = slice_of(
        "bars_1m",
        bars(2, start=T0 + 3 * MINUTE),
        span=TimeRange(T0 + 3 * MINUTE, T0 + 5 * MINUTE),
        coverage=(TimeRange(T0 + 2 * MINUTE, T0 + HOUR),),
        not_given=(lost,),
    )
    findings = outcome(CHECKS, "gaps", rows)
    assert findings.select("start", "rows", "reason", "severity").rows() == [
        (T0, 2, "not_given", "warning")
    ]


def test_a_hole_that_the_source_no_longer_serves_says_so() -> None:
    hole = TimeRange(T0 + MINUTE, T0 + 2 * MINUTE)
    rows = with_hole(coverage=(), not_given=(hole,))
    assert reasons(rows) == [(1, "not_given")]


def test_time_that_the_source_no_longer_serves_is_reported_for_each_day() -> None:
    lost = TimeRange(T0, T0 + DAY + HOUR)
    rows = slice_of(
        "trades",
        trades(0),
        start=T0,
        end=T0 + 2 * DAY,
        not_given=(lost,),
        rows_per_second=0.5,
    )
    findings = outcome(CHECKS, "not_given", rows)
    assert findings.select("start", "rows", "reason").rows() == [
        (T0, 43_200, "not_given"),
        (T0 + DAY, 1_800, "not_given"),
    ]
    assert outcome(CHECKS, "uncovered", rows).is_empty()
