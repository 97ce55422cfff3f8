"""Scores equal their formulas: by hand, and for random findings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.quality.checks.completeness import NO_LOSSES, REASONS
from lake.quality.score import DAYS, DELAYS, DIMENSIONS, MEASURES, combine_scores, score_days
from tests.conftest import DAY, T0, TIME

SEVERITIES = ("info", "warning", "error", "critical")
SCHEMA = {
    "start": TIME,
    "rows": pl.Int64(),
    "reason": pl.String(),
    "severity": pl.String(),
    "dimension": pl.String(),
}
Finding = tuple[datetime, int, str | None, str, str]


def days(*rows: int) -> pl.DataFrame:
    """Days with so many rows; None: no such day."""
    frame = pl.DataFrame(
        {"timestamp": [T0 + n * DAY for n in range(len(rows))], "rows": list(rows)},
        schema={"timestamp": TIME, "rows": pl.Int64()},
    )
    return frame.with_columns(pl.lit(None, dtype=DAYS[name]).alias(name) for name in DELAYS)


def score_day(rows: int, *findings: Finding) -> dict[str, Any]:
    """The score of one day."""
    frame = pl.DataFrame(list(findings), schema=SCHEMA, orient="row")
    return score_days(days(rows), frame).row(0, named=True)


def loss(rows: int, reason: str | None = "unknown", severity: str = "error") -> Finding:
    return (T0, rows, reason, severity, "completeness")


def wrong(rows: int, severity: str = "error", dimension: str = "accuracy") -> Finding:
    return (T0, rows, "", severity, dimension)


def test_a_day_without_findings_is_whole() -> None:
    scores = score_day(10)
    assert {scores[name] for name in MEASURES} == {1.0}
    assert (scores["rows"], scores["expected"]) == (10, 10)


def test_only_real_losses_lower_completeness() -> None:
    scores = score_day(
        90, loss(7), loss(2, "lost"), loss(1, "not_fetched"), loss(1000, "no_trade", "info")
    )
    assert scores["completeness"] == 0.9
    assert scores["score"] == 0.9
    assert [scores[reason] for reason in REASONS] == [0, 1, 7, 2, 1000, 0]
    assert scores["expected"] == 100


def test_losses_of_other_reasons_are_lost() -> None:
    for reason in ("skipped_ids", "", None):
        scores = score_day(9, loss(1, reason))
        assert (scores["lost"], scores["completeness"]) == (1, 0.9)


def test_losses_of_severity_info_do_not_lower_the_score() -> None:
    assert score_day(9, loss(1, severity="info"))["completeness"] == 1.0
    assert score_day(9, loss(1, severity="warning"))["completeness"] == 0.9


@pytest.mark.parametrize("dimension", DIMENSIONS[1:])
@pytest.mark.parametrize(
    ("severity", "value"), [("info", 1.0), ("warning", 0.98), ("error", 0.8), ("critical", 0.8)]
)
def test_wrong_rows_weigh_by_their_severity(dimension: str, severity: str, value: float) -> None:
    scores = score_day(100, wrong(20, severity, dimension))
    assert scores[dimension] == pytest.approx(value)
    assert scores["score"] == pytest.approx(value)
    assert all(scores[name] == 1.0 for name in set(DIMENSIONS) - {dimension})


def test_the_score_is_the_product() -> None:
    scores = score_day(
        80, loss(20), wrong(8), wrong(8, "error", "consistency"), wrong(8, "warning", "timeliness")
    )
    assert scores["score"] == pytest.approx(0.8 * 0.9 * 0.9 * 0.99)


def test_more_wrong_than_there_is_gives_nothing() -> None:
    assert score_day(3, wrong(5))["accuracy"] == 0.0
    assert score_day(0, wrong(1))["accuracy"] == 0.0


def test_a_day_of_which_all_is_lost_is_not_complete() -> None:
    lost = [(T0 + DAY, 1440, "unknown", "error", "completeness")]
    both = score_days(days(1440), pl.DataFrame(lost, schema=SCHEMA, orient="row"))
    assert both["timestamp"].to_list() == [T0, T0 + DAY]
    assert both["completeness"].to_list() == [1.0, 0.0]
    assert combine_scores(both)["completeness"] == 0.5


def test_a_day_in_which_nothing_should_be_is_whole() -> None:
    assert score_day(0, loss(1440, "no_trade", "info"))["completeness"] == 1.0


def test_over_several_days_the_measures_are_means_weighted_by_what_should_be_there() -> None:
    frame = pl.DataFrame(
        [(T0, 10, "unknown", "error", "completeness"), (T0 + DAY, 75, "", "error", "accuracy")],
        schema=SCHEMA,
        orient="row",
    )
    whole = combine_scores(score_days(days(90, 300), frame))
    assert whole["completeness"] == pytest.approx((0.9 * 100 + 1.0 * 300) / 400)
    assert whole["accuracy"] == pytest.approx((1.0 * 100 + 0.75 * 300) / 400)
    assert whole["score"] == pytest.approx((0.9 * 100 + 0.75 * 300) / 400)


def test_nothing_has_no_score() -> None:
    empty = score_days(days(), pl.DataFrame(schema=SCHEMA))
    assert combine_scores(empty) == dict.fromkeys(MEASURES)


some_findings = st.lists(
    st.tuples(
        st.just(T0),
        st.integers(1, 50),
        st.sampled_from([*REASONS, ""]),
        st.sampled_from(SEVERITIES),
        st.sampled_from(DIMENSIONS),
    ),
    max_size=8,
)


def counts(finding: Finding) -> bool:
    """Whether a finding is of something lost or wrong."""
    _, _, reason, severity, dimension = finding
    if severity == "info":
        return False
    return dimension != "completeness" or reason not in NO_LOSSES


@given(st.integers(0, 100), some_findings)
def test_measures_lie_between_0_and_1_and_are_1_where_nothing_is_lost_or_wrong(
    rows: int, findings: list[Finding]
) -> None:
    scores = score_day(rows, *findings)
    assert all(0.0 <= scores[name] <= 1.0 for name in MEASURES)
    assert (scores["score"] == 1.0) == (not any(map(counts, findings)))


@given(st.integers(1, 100), some_findings, some_findings)
def test_more_findings_never_raise_a_score(
    rows: int, findings: list[Finding], more: list[Finding]
) -> None:
    before, after = score_day(rows, *findings), score_day(rows, *findings, *more)
    assert all(after[name] <= before[name] for name in MEASURES)


several_days = st.lists(
    st.tuples(
        st.integers(0, 3).map(lambda n: T0 + n * DAY),
        st.integers(1, 50),
        st.sampled_from([*REASONS, "", None]),
        st.sampled_from(SEVERITIES),
        st.sampled_from(DIMENSIONS),
    ),
    max_size=12,
)


def by_the_docs(rows: int, findings: list[Finding]) -> tuple[int, dict[str, float]]:
    """Expected rows and measures of a day: the docstring of the module in plain Python."""
    weight = {"info": 0.0, "warning": 0.1, "error": 1.0, "critical": 1.0}
    lost = sum(
        concerned
        for _, concerned, reason, severity, dimension in findings
        if dimension == "completeness"
        and reason not in ("no_trade", "venue_outage")
        and severity != "info"
    )
    measures = {"completeness": rows / (rows + lost) if rows + lost else 1.0}
    for name in ("accuracy", "consistency", "timeliness"):
        wrong = sum(weight[severity] * n for _, n, _, severity, what in findings if what == name)
        measures[name] = max(0.0, 1.0 - wrong / max(rows, 1))
    product = (
        measures["completeness"]
        * measures["accuracy"]
        * measures["consistency"]
        * measures["timeliness"]
    )
    return rows + lost, {**measures, "score": product}


@given(st.lists(st.integers(0, 100), min_size=1, max_size=4), several_days)
def test_scores_are_what_the_docs_say(rows: list[int], findings: list[Finding]) -> None:
    counts = {T0 + n * DAY: count for n, count in enumerate(rows)}
    frame = pl.DataFrame(findings, schema=SCHEMA, orient="row")
    seen = score_days(days(*rows), frame)
    expected = {
        day: by_the_docs(counts.get(day, 0), [finding for finding in findings if finding[0] == day])
        for day in sorted({*counts, *(finding[0] for finding in findings)})
    }
    assert seen["timestamp"].to_list() == list(expected)
    assert seen["expected"].to_list() == [total for total, _ in expected.values()]
    weights = [max(total, 1) for total, _ in expected.values()]
    whole = combine_scores(seen)
    for name in MEASURES:
        values = [measures[name] for _, measures in expected.values()]
        assert seen[name].to_list() == pytest.approx(values)
        mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        assert whole[name] == pytest.approx(mean)
