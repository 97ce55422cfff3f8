"""What is to be repaired: how far around a finding, and what is fetched again together."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lake.jobs.repairs.plan import Attempts, Group, Planner, Target
from lake.model.time import TimeRange
from tests.conftest import MINUTE, SECOND, T0
from tests.jobs.repairs.damage import BTC, finding, findings
from tests.model.everything import TEXT
from tests.replay.memory import catalog_with

POLICY = """
[repair]
margin = "5m"
join_within = "2h"

[columns]"""
CATALOG = catalog_with(TEXT.replace("[columns]", POLICY))
HOUR = timedelta(hours=1)


def span_of(table: str, start: timedelta, end: timedelta) -> TimeRange:
    """The span of the target of a finding."""
    planner = Planner(CATALOG.dataset, Attempts(frozenset(), {}), again=False, interpolate=False)
    plan = planner.plan(findings(finding(table, BTC, TimeRange(T0 + start, T0 + end))))
    [group] = plan.groups
    [target] = group.targets
    assert group.windows == (target.span,)
    return target.span


@pytest.mark.parametrize(
    ("table", "before", "after"),
    [
        ("trades", SECOND, SECOND),
        ("funding", MINUTE, MINUTE),
        ("orderbooks", 0 * SECOND, 0 * SECOND),
        ("everything", 5 * MINUTE, 5 * MINUTE),
        ("bars_1m", 10 * SECOND, 40 * SECOND),
        ("bars_1h", 10 * MINUTE + 10 * SECOND, 48 * MINUTE + 40 * SECOND),
    ],
)
def test_targets_are_widened_by_the_margin_or_to_whole_bars(
    table: str, before: timedelta, after: timedelta
) -> None:
    start, end = 10 * MINUTE + 10 * SECOND, 11 * MINUTE + 20 * SECOND
    assert span_of(table, start, end) == TimeRange(T0 + start - before, T0 + end + after)


@pytest.mark.parametrize(
    ("table", "joined"),
    [
        ("trades", 10 * MINUTE),
        ("funding", 30 * 24 * HOUR),
        ("everything", 2 * HOUR),
        ("bars_1m", HOUR),
        ("bars_1h", 60 * HOUR),
    ],
)
def test_findings_within_join_within_share_a_window(table: str, joined: timedelta) -> None:
    def windows(distance: timedelta) -> int:
        spans = [
            TimeRange(T0, T0 + HOUR),
            TimeRange(T0 + HOUR + distance, T0 + 2 * HOUR + distance),
        ]
        targets = [Target("", "suspect", span, "why") for span in spans]
        return len(Group.of(CATALOG.dataset(table), BTC, targets).windows)

    assert windows(joined) == 1
    assert windows(joined + SECOND) == 2
