"""Wrong times are found at any place, each with its reason; correct times never are."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.quality.check import group_runs
from lake.quality.checks.times import CHECKS
from lake.quality.slice import Slice
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, bars, trades
from tests.quality.slices import collect_findings, outcome, slice_of

HOUR = timedelta(hours=1)
COUNT = 2000
COUNTS = st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=10)
NOW = T0 + timedelta(minutes=COUNT)


@cache
def minutes(table: str = "bars_1m") -> Slice:
    """Sound rows of every minute."""
    frame = bars(COUNT) if table == "bars_1m" else trades(COUNT, step=MINUTE)
    return slice_of(table, frame, now=NOW)


def with_rows(rows: Slice, frame: pl.DataFrame) -> Slice:
    """The same slice of rows in any order."""
    return replace(rows, frame=frame.lazy())


def at(numbers: set[int]) -> pl.Expr:
    return pl.int_range(pl.len()).is_in(list(numbers))


def all_found(name: str, rows: Slice, **thresholds: float) -> pl.DataFrame:
    """Findings of a check, also outside the checked range."""
    declared = {check.name: check.thresholds for check in rows.dataset.checks}
    return collect_findings(CHECKS[name].function(rows, **{**declared.get(name, {}), **thresholds}))


@pytest.mark.parametrize("table", ["bars_1m", "trades"])
def test_sound_rows_have_sound_times(table: str) -> None:
    rows = minutes(table)
    for name in {check.name for check in rows.dataset.checks} & set(CHECKS):
        assert outcome(CHECKS, name, rows).is_empty(), name


SCALES = {
    "too_small_unit": pl.col("timestamp").dt.timestamp("us") // 1000,
    "too_large_unit": pl.col("timestamp").dt.timestamp("us") * 1000,
    "ahead": (pl.col("timestamp") + pl.duration(hours=10)).dt.timestamp("us"),
    "impossible": (pl.col("timestamp") + pl.duration(days=40)).dt.timestamp("us"),
}


@pytest.mark.parametrize("reason", list(SCALES))
@given(numbers=COUNTS)
def test_each_time_of_a_mistaken_unit_or_zone_is_found_as_what_it_is(
    reason: str, numbers: set[int]
) -> None:
    rows = minutes()
    # What is ahead is so only near the present.
    numbers = {COUNT - 1 - n % 500 for n in numbers}
    wrong = pl.when(at(numbers)).then(SCALES[reason].cast(TIME)).otherwise("timestamp")
    frame = rows.frame.collect().with_columns(timestamp=wrong)
    for given_rows in (frame, frame.sort("timestamp")):
        findings = all_found("implausible_time", with_rows(rows, given_rows))
        assert findings["rows"].sum() == len(numbers)
        assert set(findings["reason"]) == {reason}


def test_neighbouring_impossible_times_are_separate_findings_by_reason() -> None:
    ahead, far = NOW + HOUR, NOW + 5 * DAY
    rows = slice_of("bars_1m", bars(3, timestamp=[T0, ahead, far]), now=NOW)
    findings = all_found("implausible_time", rows).select("reason", "rows").rows()
    assert findings == [("ahead", 1), ("impossible", 1)]


def test_an_impossible_time_is_reported_with_its_limit() -> None:
    wrong = datetime(1970, 1, 20, tzinfo=T0.tzinfo)
    rows = slice_of("bars_1m", bars(1, timestamp=[wrong]), now=NOW)
    finding = outcome(CHECKS, "implausible_time", rows).row(0, named=True)
    assert finding["measured"] == wrong.timestamp()
    assert finding["expected"] == datetime(2009, 1, 3, tzinfo=T0.tzinfo).timestamp()
    assert "probably seconds read as milliseconds" in finding["message"]


def test_clocks_may_be_ahead_by_the_threshold() -> None:
    rows = slice_of("trades", trades(1, start=NOW + 60 * SECOND), now=NOW)
    assert outcome(CHECKS, "implausible_time", rows, ahead_seconds=60.0).is_empty()
    assert outcome(CHECKS, "implausible_time", rows, ahead_seconds=59.0).height == 1


@pytest.mark.parametrize("table", ["bars_1m", "trades"])
@given(numbers=COUNTS)
def test_each_repeated_row_is_found_also_out_of_order(table: str, numbers: set[int]) -> None:
    rows = minutes(table)
    frame = rows.frame.collect()
    repeated = frame.filter(at(numbers))
    for given_rows in (pl.concat([frame, repeated]), pl.concat([repeated, frame])):
        findings = all_found("duplicates", with_rows(rows, given_rows))
        assert findings["rows"].sum() == len(numbers)
    ordered = all_found("duplicates", with_rows(rows, given_rows.sort("timestamp")))
    assert ordered["rows"].sum() == len(numbers)


def test_several_trades_of_one_time_are_no_duplicates() -> None:
    rows = slice_of("trades", trades(5, step=timedelta(0)))
    assert outcome(CHECKS, "duplicates", rows).is_empty()


@given(numbers=COUNTS)
def test_each_row_before_which_time_goes_back_is_found(numbers: set[int]) -> None:
    rows = minutes()
    frame = rows.frame.collect()
    late = frame.filter(~at(numbers))
    findings = all_found("order", with_rows(rows, pl.concat([late, frame.filter(at(numbers))])))
    # They stand behind all others, in their own order: time goes back once, unless they are last.
    last = max(set(range(COUNT)) - numbers)
    assert findings["rows"].sum() == int(min(numbers) < last)
    backwards = all_found("order", with_rows(rows, frame.reverse()))
    assert backwards["rows"].sum() == COUNT - 1
    assert backwards["measured"].to_list() == [60.0, 60.0]


@given(numbers=COUNTS, seconds=st.integers(1, 59))
def test_each_bar_off_the_grid_is_found(numbers: set[int], seconds: int) -> None:
    rows = minutes()
    shifted = pl.col("timestamp") + pl.duration(seconds=seconds)
    frame = rows.frame.collect().with_columns(
        timestamp=pl.when(at(numbers)).then(shifted).otherwise("timestamp")
    )
    findings = outcome(CHECKS, "off_grid", with_rows(rows, frame))
    assert findings["rows"].sum() == len(numbers)
    assert set(findings["measured"]) == {float(seconds)}


@pytest.mark.parametrize(("table", "off"), [("bars_1w", 1), ("bars_1mo", 3), ("bars_1d", 0)])
def test_weeks_open_on_monday_and_months_on_the_first(table: str, off: int) -> None:
    opens = [T0 + n * DAY for n in (0, 31, 60, 91)]  # the first of January to April
    if table == "bars_1w":
        opens = [T0, T0 + 7 * DAY, T0 + 13 * DAY]
    if table == "bars_1mo":
        opens = [T0, *(time + DAY for time in opens[1:])]
    rows = slice_of(table, bars(len(opens), timestamp=opens))
    assert outcome(CHECKS, "off_grid", rows)["rows"].sum() == off


@given(numbers=COUNTS)
@pytest.mark.parametrize(("milliseconds", "reason"), [(-251, "ahead"), (60_001, "late")])
def test_each_row_whose_receipt_does_not_fit_its_time_is_found(
    milliseconds: int, reason: str, numbers: set[int]
) -> None:
    rows = minutes("trades")
    delay = pl.when(at(numbers)).then(milliseconds).otherwise(60_000)
    received = pl.col("timestamp") + pl.duration(milliseconds=delay)
    frame = rows.frame.collect().with_columns(received_at=received)
    findings = outcome(CHECKS, "clock_skew", with_rows(rows, frame))
    assert findings["rows"].sum() == len(numbers)
    assert set(findings["reason"]) == {reason}
    assert set(findings["measured"]) == {float(milliseconds)}


def test_history_without_receive_times_has_no_skew() -> None:
    assert outcome(CHECKS, "clock_skew", minutes("trades")).is_empty()


def test_bars_have_no_receive_time() -> None:
    assert all_found("clock_skew", minutes(), ahead_ms=0.0, late_ms=0.0).is_empty()


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_runs_are_the_longest_of_neighbouring_bad_rows_within_a_day(bad: list[bool]) -> None:
    times = [T0 + n * HOUR for n in range(len(bad))]
    frame = pl.DataFrame({"time": times, "bad": bad}, schema={"time": TIME, "bad": pl.Boolean()})
    findings = collect_findings(group_runs(frame.lazy(), pl.col("bad"), time="time"))
    expected: list[tuple[datetime, datetime, int]] = []
    for n, time in enumerate(times):
        if bad[n] and n and bad[n - 1] and time.hour:
            expected[-1] = (expected[-1][0], time + timedelta(microseconds=1), expected[-1][2] + 1)
        elif bad[n]:
            expected.append((time, time + timedelta(microseconds=1), 1))
    assert findings.select("start", "end", "rows").rows() == expected
