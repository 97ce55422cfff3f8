"""Conditions of findings and of the age of rows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from lake.alerts.conditions import NEWEST, Condition, find_conditions, format_duration, matches
from lake.settings import AlertRule
from tests.alerts.conftest import NOW, findings, rule

NOTHING = pl.DataFrame(schema=NEWEST)


def held(frame: pl.DataFrame, **values: Any) -> tuple[Condition, ...]:
    return find_conditions([AlertRule(**rule(**values))], frame, NOTHING, NOW)


def test_closed_findings_do_not_count() -> None:
    both = pl.concat([findings(2, status="closed"), findings(1, first=2)])
    assert [condition.count for condition in held(both)] == [1]


def test_a_condition_shows_the_worst_finding_and_of_these_the_latest() -> None:
    hour = timedelta(hours=1)
    frame = pl.concat(
        [
            findings(1, check="a", severity="error", found_at=NOW - 2 * hour),
            findings(1, check="b", severity="critical", found_at=NOW - 3 * hour),
            findings(1, check="c", severity="critical", found_at=NOW - 2 * hour),
            findings(1, check="d", severity="warning", found_at=NOW),
        ]
    )
    (condition,) = held(frame)
    assert (condition.severity, condition.count, condition.since) == ("critical", 4, NOW - 3 * hour)
    assert condition.text.endswith("since 2024-01-01T21:00:00Z; a c of one minute")


def test_each_table_and_market_is_a_condition_in_order() -> None:
    markets = [("trades", "b"), ("bars_1m", "b"), ("bars_1m", "a")]
    frame = pl.concat(findings(1, dataset=table, symbol=symbol) for table, symbol in markets)
    assert [(condition.subject.dataset, condition.subject.symbol) for condition in held(frame)] == [
        ("bars_1m", "a"),
        ("bars_1m", "b"),
        ("trades", "b"),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.2 s"),
        (59, "59 s"),
        (60, "1 min"),
        (5400, "1.5 h"),
        (86_400, "1 d"),
        (86_400 * 1060.06, "1060.1 d"),
    ],
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*", "BTC/USDT:USDT", True),
        ("BTC/*", "BTC/USDT", True),
        ("btc/*", "BTC/USDT", False),
        ("BTC", "BTC/USDT", False),
        ("bars_1?", "bars_1m", True),
    ],
)
def test_a_pattern_fits_whole_names(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits


@pytest.mark.parametrize(("dataset", "count"), [("*", 0), ("bars_?m", 0), ("bars_1m", 1)])
def test_only_a_table_that_is_named_must_have_rows(dataset: str, count: int) -> None:
    stale = AlertRule(name="stale", freshness_seconds=9, dataset=dataset, channels=("log",))
    assert len(find_conditions([stale], findings(0), NOTHING, NOW)) == count
