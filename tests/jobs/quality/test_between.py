"""A hole between what is checked and what was touched is checked with it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.api import Lake
from lake.jobs.quality.between import widen_to_next
from lake.jobs.quality.check import check_touched
from lake.jobs.touched import Touched
from lake.model.time import EPOCH, TimeRange
from lake.query.unchecked import find_unchecked
from lake.store.chunks import to_day_number
from tests.conftest import DAY, T0, bars, store_of, write
from tests.jobs.conftest import NOW, MakeLake

HOUR = timedelta(hours=1)


def day(number: int, count: int = 1) -> TimeRange:
    return TimeRange(T0 + number * DAY, T0 + (number + count) * DAY)


FIRST = to_day_number(T0)


@pytest.mark.parametrize(
    ("touched", "checked", "expected"),
    [
        ([day(9)], [0, 1], [day(1, 9)]),
        ([day(0)], [5, 9], [day(0, 6)]),
        ([day(4)], [0, 9], [day(0, 10)]),
        ([day(9)], [0, 9], [day(9)]),
        ([day(9)], [], [day(9)]),
        ([day(0), day(9)], [], [day(0, 10)]),
        ([day(0), day(9)], [4], [day(0, 10)]),
        ([TimeRange(EPOCH, EPOCH + HOUR)], [5], [TimeRange(EPOCH, EPOCH + HOUR)]),
    ],
)
def test_ranges_reach_to_the_next_checked_day(
    touched: list[TimeRange], checked: list[int], expected: list[TimeRange]
) -> None:
    assert list(widen_to_next(touched, {FIRST + n for n in checked})) == expected


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12))
def test_no_day_between_rows_is_left_whatever_the_order(numbers: list[int]) -> None:
    checked: set[int] = set()
    for number in numbers:
        for item in widen_to_next([day(number)], checked):
            checked |= set(range(to_day_number(item.start), to_day_number(item.end)))
    assert checked == set(range(FIRST + min(numbers), FIRST + max(numbers) + 1))


def missing(lake: Lake, table: str) -> int:
    """Rows that findings call missing."""
    return int(lake.quality.findings(table, check=["gaps", "uncovered"])["rows"].sum())


def test_a_hole_that_an_ingestion_leaves_is_checked_with_it(make_lake: MakeLake) -> None:
    lake = make_lake()
    what = {"exchange": "binance", "symbol": "BTC/USDT"}
    lake.ingest("bars_1h", **what, since=NOW - 10 * DAY, until=NOW - 9 * DAY)  # type: ignore[arg-type]
    lake.ingest("bars_1h", **what, since=NOW - 3 * HOUR, until=NOW)  # type: ignore[arg-type]
    holes = lake.quality.gaps("bars_1h")["slots"].sum()
    assert missing(lake, "bars_1h") == holes
    assert holes > 8 * 24


@pytest.mark.parametrize("is_backward", [False, True])
def test_a_hole_that_a_commit_leaves_is_owed(lake: Lake, is_backward: bool) -> None:
    parts = [bars(60), bars(60, start=T0 + 5 * DAY)]
    for part in reversed(parts) if is_backward else parts:
        write(lake, "bars_1m", part)
        lake.quality.repair(offline=True)  # checks what is owed
    assert find_unchecked(store_of(lake)) == []
    assert missing(lake, "bars_1m") == 5 * 1440 - 60


def test_a_long_hole_of_minutes_is_checked_at_once(lake: Lake) -> None:
    write(lake, "bars_1m", bars(60))
    lake.quality.check()
    write(lake, "bars_1m", bars(60, start=T0 + 900 * DAY))
    [market] = [item.market for item in find_unchecked(store_of(lake))]
    touched = Touched("bars_1m", market, TimeRange(T0 + 900 * DAY, T0 + 900 * DAY + HOUR))
    report = check_touched(store_of(lake), lake.settings, [touched], "none")
    assert report is not None
    assert missing(lake, "bars_1m") == 900 * 1440 - 60
