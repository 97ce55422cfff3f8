"""An outage of a venue needs several dense markets without bars."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lake.model.grid import Grid
from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe
from lake.quality.checks.outages import MarketBars, find_outages
from tests.conftest import MINUTE, SECOND, T0, TIME

MINUTES = Grid(Timeframe(1, "m"))
COUNT = 200


def market(missing: Collection[int] = (), first: int = 0, after: int = COUNT) -> MarketBars:
    """Minute bars from number `first` to before `after`, but for those that are missing."""
    times = [T0 + n * MINUTE for n in range(first, after) if n not in missing]
    span = TimeRange(T0 + first * MINUTE, T0 + (after - 1) * MINUTE + SECOND)
    return MarketBars(pl.Series(times, dtype=TIME), span)


def silent(*markets: MarketBars) -> list[tuple[float, float]]:
    """Outages as minutes: first and last."""
    ranges = find_outages(markets, MINUTES)
    return [((range_.start - T0) / MINUTE, (range_.end - T0) / MINUTE) for range_ in ranges]


def test_minutes_that_two_dense_markets_lack_are_an_outage() -> None:
    assert silent(market({5, 6, 90}), market({5, 6, 7})) == [(5, 7)]


def test_a_long_silence_of_dense_markets_is_an_outage() -> None:
    """For example a venue that was closed for a week."""
    week = set(range(50, 95))
    assert silent(market(week), market(week | {7})) == [(50, 95)]
    assert silent(market(week), market(week), market(week - {60})) == [(50, 60), (61, 95)]


def test_markets_with_few_common_bars_show_no_outage() -> None:
    few = set(range(1, COUNT - 1)) - {90}
    assert silent(market(few), market(few)) == []


def test_one_market_proves_nothing() -> None:
    assert silent(market({5})) == []
    assert silent() == []


def test_one_market_that_traded_proves_the_opposite() -> None:
    assert silent(market({5}), market({5}), market()) == []


def test_quiet_markets_show_no_outage() -> None:
    quiet = market(set(range(5, 20)))
    assert silent(market({5}), quiet) == []
    assert silent(market({5}), market({5}), quiet) == [(5, 6)]
    # Nor do they show that the venue was active.
    busy_then = market(set(range(20, 100)))
    assert silent(market({5}), market({5}), busy_then) == [(5, 6)]


def test_a_market_shows_no_outage_before_its_first_or_after_its_last_bar() -> None:
    assert silent(market({5}), market(first=6)) == []
    assert silent(market({5}), market({5}), market(first=6)) == [(5, 6)]
    assert silent(market({150}), market({150}), market(after=140)) == [(150, 151)]


def test_a_bar_that_opened_before_the_span_is_not_expected() -> None:
    weeks = Grid(Timeframe(1, "w"))
    # The month begins on a Wednesday: the bar of its first days belongs to the month before.
    span = TimeRange(T0 + 2 * 1440 * MINUTE, T0 + 30 * 1440 * MINUTE)
    opens = [T0 + n * 7 * 1440 * MINUTE for n in range(1, 5)]
    presence = MarketBars(pl.Series(opens, dtype=TIME), span)
    assert find_outages([presence, presence], weeks) == ()


@given(st.lists(st.sets(st.integers(1, COUNT - 2), max_size=10), min_size=2, max_size=4))
def test_outages_are_the_minutes_that_all_lack(missing: list[set[int]]) -> None:
    ranges = silent(*map(market, missing))
    minutes = {n for start, end in ranges for n in range(int(start), int(end))}
    assert minutes == set.intersection(*missing)
    assert all(before[1] < other[0] for before, other in pairwise(ranges))
