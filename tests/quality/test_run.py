"""Findings are limited and have neighbouring rows; days are counted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.errors import DamagedError
from lake.quality.checks.completeness import gaps
from lake.quality.configure import ConfiguredCheck, configure
from lake.quality.findings import as_rows
from lake.quality.run import FINDINGS, run_checks, run_groups
from lake.quality.score import DELAYS
from lake.quality.slice import Slice
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, bars, trades
from tests.quality.slices import BINANCE, slice_of

Function = Callable[[Slice], pl.LazyFrame]


def check(function: Function, name: str = "mine") -> ConfiguredCheck:
    return ConfiguredCheck(name, "warning", "accuracy", function, {})


def each(condition: pl.Expr, **more: pl.Expr) -> Function:
    """Return a check that reports every row with a true condition."""
    return lambda rows: rows.frame.filter(condition).select(start="timestamp", **more)


def context(row: dict[str, Any]) -> list[dict[str, Any]]:
    return list(json.loads(row["context"]))


def test_what_a_check_does_not_say_is_filled_in() -> None:
    seen = run_checks(slice_of("bars_1m", bars(1)), [check(each(pl.lit(value=True)))])
    assert dict(seen.findings.schema) == dict(FINDINGS)
    finding = seen.findings.row(0, named=True)
    assert finding["end"] == T0 + timedelta(microseconds=1)
    assert (finding["rows"], finding["reason"], finding["against"]) == (1, "", "")
    assert (finding["severity"], finding["dimension"], finding["check"]) == (
        "warning",
        "accuracy",
        "mine",
    )


def test_findings_outside_the_checked_range_are_ignored() -> None:
    rows = slice_of("bars_1m", bars(3, step=DAY), start=T0 + DAY, end=T0 + 2 * DAY)
    seen = run_checks(rows, [check(each(pl.lit(value=True)))])
    assert seen.findings["start"].to_list() == [T0 + DAY]
    assert seen.days.select("timestamp", "rows").rows() == [(T0 + DAY, 1)]


def test_without_findings_there_is_an_empty_frame() -> None:
    seen = run_checks(slice_of("bars_1m", bars(3)), [check(each(pl.lit(value=False)))])
    assert seen.findings.is_empty()
    assert dict(seen.findings.schema) == dict(FINDINGS)


@settings(max_examples=20)
@given(st.integers(0, 400), st.integers(0, 400), st.sampled_from([1, 3]), st.integers(1, 2))
def test_of_a_kind_and_day_a_hundred_are_kept_and_the_rest_is_one_finding(
    first: int, second: int, weight: int, kinds: int
) -> None:
    times = [T0 + n * MINUTE for n in range(first)]
    times += [T0 + DAY + n * MINUTE for n in range(second)]
    frame = bars(len(times), timestamp=times)
    kind = (pl.int_range(pl.len()) % kinds).cast(pl.String)
    report_all = each(pl.lit(value=True), reason=kind, rows=pl.lit(weight).cast(pl.Int64))
    seen = run_checks(slice_of("bars_1m", frame, start=T0, end=T0 + 2 * DAY), [check(report_all)])
    findings = seen.findings
    assert findings["rows"].sum() == weight * len(times)
    per_kind = findings.group_by(pl.col("start").dt.date(), "reason").len()
    assert per_kind["len"].max() in (None, *range(1, 102))
    folded = findings.filter(pl.col("message").str.contains("more like this"))
    assert findings.filter(pl.col("rows") > weight).height <= folded.height
    assert findings["end"].max() == (times[-1] + timedelta(microseconds=1) if times else None)


def test_the_hundred_are_the_first_and_the_rest_is_counted() -> None:
    seen = run_checks(slice_of("bars_1m", bars(150)), [check(each(pl.lit(value=True)))])
    assert seen.findings.height == 101
    last = seen.findings.row(-1, named=True)
    assert (last["start"], last["rows"]) == (T0 + 100 * MINUTE, 50)
    assert last["message"] == "50 more like this: reported by mine"


def test_findings_of_one_time_and_reason_are_one_that_counts_all() -> None:
    """Their ids would be equal, so that only the first would be stored."""
    frame = trades(7, timestamp=[T0] * 5 + [T0 + SECOND] * 2)
    number = pl.int_range(pl.len())
    report = each(
        pl.lit(value=True),
        end=pl.col("timestamp") + pl.lit(SECOND) * (number + 1),
        rows=number + 1,
        measured=number.cast(pl.Float64),
        severity=pl.when(number == 2).then(pl.lit("error")).otherwise(pl.lit("warning")),
        message=pl.when(number < 5)
        .then(pl.format("Trade {} is bad", number))
        .otherwise(pl.lit("bad")),
    )
    seen = run_checks(slice_of("trades", frame), [check(report)]).findings
    assert as_rows("trades", BINANCE, seen).height == seen.height == 2
    first, last = seen.rows(named=True)
    assert (first["rows"], first["end"]) == (15, T0 + 5 * SECOND)
    assert (first["severity"], first["measured"]) == ("error", 2.0)
    assert first["message"] == "Trade 2 is bad; Trade 0 is bad; Trade 1 is bad; and 2 more"
    assert (last["rows"], last["message"]) == (13, "bad (2 times)")
    two = run_checks(slice_of("trades", frame.head(2)), [check(report)]).findings
    assert two["message"].to_list() == ["Trade 0 is bad; Trade 1 is bad"]


def test_the_context_holds_three_rows_before_three_in_and_three_after() -> None:
    def long(rows: Slice) -> pl.LazyFrame:
        ends = (T0 + 10 * MINUTE, T0 + 30 * MINUTE)
        return rows.frame.head(1).select(start=pl.lit(ends[0]), end=pl.lit(ends[1]))

    frame = bars(60, volume=[float(n) for n in range(60)])
    finding = run_checks(slice_of("bars_1m", frame), [check(long)]).findings.row(0, named=True)
    assert [row["volume"] for row in context(finding)] == [7, 8, 9, 10, 11, 12, 30, 31, 32]
    assert context(finding)[0] == {
        "timestamp": "2024-01-01T00:07:00Z",
        "open": 100.0,
        "high": 100.0,
        "low": 100.0,
        "close": 100.0,
        "volume": 7.0,
        "closed": True,
    }


def test_the_context_of_a_gap_is_what_stands_on_both_sides() -> None:
    frame = bars(20, volume=[float(n) for n in range(20)]).filter(
        ~pl.col("volume").is_between(8, 9)
    )
    finding = run_checks(slice_of("bars_1m", frame), [check(gaps)]).findings.row(0, named=True)
    assert [row["volume"] for row in context(finding)] == [5, 6, 7, 10, 11, 12]


def test_the_context_at_the_edges_is_what_there_is() -> None:
    is_edge = pl.col("timestamp").is_in([T0, T0 + 4 * MINUTE])
    frame = bars(5, volume=[float(n) for n in range(5)])
    seen = run_checks(slice_of("bars_1m", frame), [check(each(is_edge))]).findings
    shown = [[row["volume"] for row in context(finding)] for finding in seen.iter_rows(named=True)]
    assert shown == [[0, 1, 2, 3], [1, 2, 3, 4]]


def test_the_first_twenty_findings_of_a_check_and_day_have_a_context_whatever_the_cut() -> None:
    frame = bars(100, step=30 * MINUTE)
    days = (T0, T0 + DAY, T0 + 2 * DAY, T0 + 3 * DAY)
    always = [check(each(pl.lit(value=True)))]
    at_once = run_checks(slice_of("bars_30m", frame), always).findings
    assert at_once.filter(pl.col("context") != "[]").height == 20 + 20 + 4
    by_day = [
        run_checks(slice_of("bars_30m", frame, start=start, end=start + DAY), always).findings
        for start in days[:3]
    ]
    assert pl.concat(by_day).equals(at_once)


def test_days_count_rows_and_say_how_late_they_came() -> None:
    delays = [n * 10 for n in range(101)]
    times = [T0 + n * SECOND for n in range(101)]
    received = [time + timedelta(milliseconds=d) for time, d in zip(times, delays, strict=True)]
    live = slice_of("trades", trades(101, received_at=received))
    assert run_checks(live, []).days.rows() == [(T0, 101, 500.0, 900.0, 990.0)]
    history = run_checks(slice_of("trades", trades(101)), []).days
    assert history.select(DELAYS).row(0) == (None, None, None)
    assert run_checks(slice_of("bars_1m", bars(5)), []).days.rows() == [(T0, 5, None, None, None)]


def test_a_bar_is_late_by_the_time_after_its_end() -> None:
    ends = [T0 + n * MINUTE for n in range(1, 6)]
    received = pl.Series([end + timedelta(milliseconds=80) for end in ends], dtype=TIME)
    live = slice_of("bars_1m", bars(5, received_at=received))
    assert run_checks(live, []).days.rows() == [(T0, 5, 80.0, 80.0, 80.0)]


def test_groups_are_checked_in_order_and_errors_arrive() -> None:
    groups = [[slice_of("bars_1m", bars(count))] for count in (3, 1, 2, 5)]
    builtin = configure(groups[0][0].dataset)
    rows = [result.days["rows"].sum() for _, result in run_groups(groups, builtin)]
    assert rows == [3, 1, 2, 5]

    def fail() -> Iterator[list[Slice]]:
        yield groups[0]
        raise DamagedError("a file is damaged")

    with pytest.raises(DamagedError, match="a file is damaged"):
        list(run_groups(fail(), builtin))


def test_own_checks_run_one_by_one_where_they_were_called() -> None:
    threads: set[int] = set()

    def remember(_: Slice) -> pl.LazyFrame:
        threads.add(threading.get_ident())
        return pl.LazyFrame(schema=FINDINGS).select("start")

    groups = [[slice_of("bars_1m", bars(2))] for _ in range(3)]
    assert len(list(run_groups(groups, [check(remember)]))) == 3
    assert threads == {threading.get_ident()}
