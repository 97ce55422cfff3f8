"""Planning: what is fetched is exactly what is wanted and not covered."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import UsageError
from lake.jobs.ingest import plan
from lake.model.catalog import builtin
from lake.model.grid import Grid
from lake.model.intervals import RangeSet, intersect, subtract, union
from lake.model.market import Market
from lake.model.time import EPOCH, TimeRange
from lake.model.timeframe import Timeframe
from lake.sources.base import FetchRequest

NOW = datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC)
BARS = builtin().dataset("bars_1m")
TRADES = builtin().dataset("trades")
MARKET = Market("binance", "BTC/USDT")
REQUEST = FetchRequest(BARS, MARKET)

minutes = st.integers(0, 500)


def _range(first: int, last: int) -> TimeRange:
    return TimeRange(EPOCH + timedelta(minutes=first), EPOCH + timedelta(minutes=last))


ranges = st.tuples(minutes, st.integers(1, 100)).map(lambda t: _range(t[0], t[0] + t[1]))


@given(asked=ranges, covered=st.lists(ranges, max_size=8), step=st.integers(1, 90))
def test_tasks_tile_exactly_what_is_missing(
    asked: TimeRange, covered: list[TimeRange], step: int
) -> None:
    missing = subtract([asked], covered)
    tasks = plan.plan_tasks({REQUEST: missing}, lambda _: timedelta(minutes=step), 1)
    windows = [task.window for task in tasks]
    assert all(task.requests == (REQUEST,) for task in tasks)
    assert union(windows) == missing
    assert sum((w.duration for w in windows), timedelta()) == sum(
        (gap.duration for gap in missing), timedelta()
    )
    assert all(window.duration <= timedelta(minutes=step) for window in windows)
    assert intersect(windows, covered) == ()


@given(
    covered=st.lists(st.lists(ranges, max_size=3), min_size=1, max_size=7),
    batch_size=st.integers(1, 4),
)
def test_requests_that_miss_the_same_window_share_tasks(
    covered: list[list[TimeRange]], batch_size: int
) -> None:
    gaps = {
        FetchRequest(BARS, Market("binance", f"C{number}/USDT")): subtract([_range(0, 600)], own)
        for number, own in enumerate(covered)
    }
    tasks = plan.plan_tasks(gaps, lambda _: timedelta(minutes=100), batch_size)
    for request, missing in gaps.items():
        own = [task.window for task in tasks if request in task.requests]
        assert union(own) == missing
        assert len(set(own)) == len(own)
    assert all(len(set(task.requests)) == len(task.requests) for task in tasks)
    # No two tasks of one window could have been one.
    sizes = Counter[TimeRange]()
    for task in tasks:
        sizes[task.window] += len(task.requests)
    of_window = Counter(task.window for task in tasks)
    assert all(of_window[window] == -(-size // batch_size) for window, size in sizes.items())
    assert [task.window.start for task in tasks] == sorted(task.window.start for task in tasks)


def _wanted(
    since: datetime | None, until: datetime | None, covered: RangeSet = ()
) -> TimeRange | None:
    return plan.resolve_range(BARS, MARKET, covered, since, until, NOW)


def test_days_are_asked_for_where_those_of_the_venue_begin() -> None:
    days, hour = builtin().dataset("bars_1d"), timedelta(hours=1)
    since, until = (datetime(2026, 3, day, tzinfo=UTC) for day in (1, 5))
    grid = Grid(Timeframe.parse("1d"), 16 * hour)
    asked = plan.resolve_range(days, MARKET, (), since, until, NOW, grid)
    assert asked == TimeRange(since + 16 * hour, until + 16 * hour)


def test_bars_are_asked_for_whole() -> None:
    since = datetime(2026, 3, 10, 11, 0, 30, tzinfo=UTC)
    until = datetime(2026, 3, 10, 11, 5, 1, tzinfo=UTC)
    asked = _wanted(since, until)
    assert asked is not None
    assert (asked.start.minute, asked.start.second) == (1, 0)
    assert (asked.end.minute, asked.end.second) == (6, 0)


def test_no_bar_begins_in_a_range_inside_one() -> None:
    since = datetime(2026, 3, 10, 11, 0, 10, tzinfo=UTC)
    assert _wanted(since, since + timedelta(seconds=20)) is None


def test_without_since_it_goes_on_from_where_the_coverage_begins() -> None:
    covered = (_range(10, 20), _range(30, 40))
    asked = plan.resolve_range(TRADES, MARKET, covered, None, None, NOW)
    assert asked == TimeRange(covered[0].start, NOW)


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        (None, None, "bars_1m of binance BTC/USDT has no coverage"),
        (NOW + timedelta(days=1), None, "since 2026-03-11T12:00:30Z is in the future"),
        (NOW - timedelta(days=1), NOW + timedelta(days=1), "until 2026-03-11T12:00:30Z is in the"),
        (NOW - timedelta(days=1), NOW - timedelta(days=2), "reversed"),
        (NOW - timedelta(days=1), NOW - timedelta(days=1), "empty or reversed"),
    ],
)
def test_a_range_that_cannot_be_met_is_refused(
    since: datetime | None, until: datetime | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        _wanted(since, until)
    assert ("--until" in (caught.value.hint or "")) == ("until 2026" in words)


def test_there_is_nothing_to_ask_where_no_bar_opens() -> None:
    second, minute = timedelta(seconds=1), timedelta(minutes=1)
    grid = Grid(Timeframe(1, "m"))
    inside = TimeRange(EPOCH + second, EPOCH + minute)
    over = TimeRange(EPOCH + 61 * second, EPOCH + 2 * minute + second)
    assert plan.select_holding_bars((inside, over), grid) == (over,)
