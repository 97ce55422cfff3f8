"""Rows that coverage counts and a table lost are shown by status, and refuse a complete pin."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.errors import QualityError
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.query import shortage
from lake.query.shortage import find_shortages
from lake.store.checksums import FOLDER
from lake.store.coverage import CoveredRange, part_of
from lake.store.ledger import Ledger
from lake.store.log import locate_log_file, read_latest_version
from lake.store.store import Origin
from tests.conftest import MINUTE, SECOND, T0, NewLake, bars, store_of, trades, write

BTC = Market("binance", "BTC/USDT")
HOUR = 60 * MINUTE


def cover(
    lake: Lake, table: str, start: datetime, end: datetime, rows: int, source: str = "a"
) -> None:
    answer = [CoveredRange(TimeRange(start, end), rows)]
    Ledger(store_of(lake)).record_coverage({part_of(table, BTC): answer}, Origin("job", source))


def missing_of(lake: Lake, table: str) -> int:
    return int(lake.status().filter(table=table)["rows_missing"].item())


def count_missing(lake: Lake, table: str) -> list[tuple[int, int]]:
    """Expected and stored rows of the intervals that a complete pin refuses."""
    store = store_of(lake)
    snapshot = store.snapshot(store.catalog.dataset(table))
    found = find_shortages(snapshot, Ledger(store).read_coverage(Selection()))
    return [(item.expected, item.stored) for item in found]


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """Two hours of bars in two commits, and their coverage."""
    for number in range(2):
        start = T0 + number * HOUR
        write(lake, "bars_1m", bars(60, start=start))
        cover(lake, "bars_1m", start, start + HOUR, 60)
    return lake


def lose_last_commit(lake: Lake, table: str = "bars_1m") -> None:
    """Move the last commit and its record away, as the error of a damaged one says."""
    folder = lake.root.tables / table
    commit = locate_log_file(folder, read_latest_version(folder))
    commit.rename(folder / "away")
    (folder / FOLDER / f"{commit.stem}.sha256").rename(folder / "away.sha256")


def pin(lake: Lake) -> None:
    lake.bundles.pin("b", table="bars_1m", check=False, require_complete=True)


def test_nothing_is_missing_where_all_rows_are_there(filled: Lake) -> None:
    assert missing_of(filled, "bars_1m") == 0
    pin(filled)


def test_a_lost_commit_is_shown_and_refused(filled: Lake) -> None:
    lose_last_commit(filled)
    later = Lake(filled.settings)
    assert missing_of(later, "bars_1m") == 60
    with pytest.raises(QualityError, match=r"bars_1m of binance BTC/USDT: .* 60 of 120") as caught:
        pin(later)
    assert "--refetch" in caught.value.hint
    later.bundles.pin("c", table="bars_1m", check=False)
    write(later, "bars_1m", bars(60, start=T0 + HOUR))
    assert missing_of(later, "bars_1m") == 0
    pin(later)


def test_filled_rows_do_not_count_for_fetched_ones(filled: Lake) -> None:
    lose_last_commit(filled)
    later = Lake(filled.settings)
    write(later, "bars_1m", bars(60, start=T0 + HOUR, fill=["derived:trades"] * 60))
    with pytest.raises(QualityError, match="has 60 of 120 rows"):
        pin(later)


def test_of_several_sources_the_largest_count_counts(filled: Lake) -> None:
    cover(filled, "bars_1m", T0, T0 + HOUR, 50, "b")
    assert count_missing(filled, "bars_1m") == []
    cover(filled, "bars_1m", T0, T0 + HOUR, 61, "c")
    assert count_missing(filled, "bars_1m") == [(61, 60)]
    assert missing_of(filled, "bars_1m") == 1


def test_overlapping_answers_count_each_row_once(filled: Lake) -> None:
    cover(filled, "bars_1m", T0 + 30 * MINUTE, T0 + HOUR, 30)
    cover(filled, "bars_1m", T0 + 30 * MINUTE, T0 + 2 * HOUR, 90)
    assert count_missing(filled, "bars_1m") == []
    assert missing_of(filled, "bars_1m") == 0
    pin(filled)


def test_rows_elsewhere_do_not_hide_what_one_interval_lacks(filled: Lake) -> None:
    lose_last_commit(filled)
    later = Lake(filled.settings)
    write(later, "bars_1m", bars(600, start=T0 + 3 * HOUR))
    assert count_missing(later, "bars_1m") == [(120, 60)]
    assert missing_of(later, "bars_1m") == 60


def test_a_row_may_be_stored_within_the_tolerance_of_an_edge(lake: Lake) -> None:
    write(lake, "trades", trades(1, start=T0 - SECOND / 2))
    cover(lake, "trades", T0, T0 + HOUR, 1)
    assert count_missing(lake, "trades") == []
    cover(lake, "trades", T0 + SECOND, T0 + HOUR, 1, "b")
    assert count_missing(lake, "trades") == [(1, 0)]


def test_a_market_without_any_row_left_is_refused_too(filled: Lake) -> None:
    eth = bars(5, symbol="ETH/USDT")
    write(filled, "bars_1m", eth)
    answers = {
        part_of("bars_1m", Market("binance", "ETH/USDT")): [
            CoveredRange(TimeRange(T0, T0 + HOUR), 5)
        ]
    }
    Ledger(store_of(filled)).record_coverage(answers, Origin("job", "a"))
    lose_last_commit(filled)
    later = Lake(filled.settings)
    assert later.status().filter(symbol="ETH/USDT")["rows_missing"].to_list() == [5]
    with pytest.raises(QualityError, match=r"binance ETH/USDT: .* has 0 of 5 rows"):
        pin(later)


def test_answers_without_rows_need_none(lake: Lake, tmp_path: Path) -> None:
    del tmp_path
    write(lake, "bars_1m", bars(1))
    cover(lake, "bars_1m", T0 + HOUR, T0 + 2 * HOUR, 0)
    assert count_missing(lake, "bars_1m") == []


@pytest.fixture(scope="module")
def minutes(new_lake: NewLake) -> Lake:
    """Bars of the first hour but every seventh."""
    lake = new_lake()
    write(lake, "bars_1m", bars(60).gather([n for n in range(60) if n % 7]))
    return lake


@st.composite
def answers(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    starts = draw(st.lists(st.integers(0, 59), min_size=1, max_size=8))
    return [(start, draw(st.integers(start + 1, 60)), draw(st.integers(0, 40))) for start in starts]


@settings(max_examples=60)
@given(listed=answers())
def test_each_answer_and_each_run_of_answers_is_compared(
    minutes: Lake, listed: list[tuple[int, int, int]]
) -> None:
    store = store_of(minutes)
    dataset = store.catalog.dataset("bars_1m")
    coverage = pl.DataFrame(
        [
            {
                "exchange": BTC.exchange,
                "symbol": BTC.symbol,
                "dataset": "bars_1m",
                "timestamp": T0 + start * MINUTE,
                "end": T0 + end * MINUTE,
                "status": "fetched",
                "rows": rows,
            }
            for start, end, rows in listed
        ],
        schema_overrides={"timestamp": pl.Datetime("us", "UTC"), "end": pl.Datetime("us", "UTC")},
    )
    found = find_shortages(store.snapshot(dataset), coverage)

    def stored(start: int, end: int) -> int:
        return sum(1 for n in range(start, end) if n % 7)

    is_short = any(rows > stored(start, end) for start, end, rows in listed)
    is_short |= largest_sum(listed) > stored(0, 60)
    assert bool(found) or not is_short
    for item in found:
        low, high = ((t - T0) // MINUTE for t in (item.range.start, item.range.end))
        inside = [answer for answer in listed if low <= answer[0] and answer[1] <= high]
        assert item.stored == stored(low, high) < item.expected <= largest_sum(inside)


def largest_sum(listed: list[tuple[int, int, int]]) -> int:
    """Try all choices of answers that do not overlap."""
    best = 0
    for number, (start, end, rows) in enumerate(listed):
        apart = [other for other in listed[number + 1 :] if other[0] >= end or other[1] <= start]
        best = max(best, rows + largest_sum(apart))
    return best


def test_the_step_of_times_is_kept_apart_from_the_tolerance() -> None:
    pieces = pl.DataFrame(
        {"first": [T0], "last": [T0 + timedelta(milliseconds=5)], "rows": [7]},
        schema_overrides={"first": pl.Datetime("us", "UTC"), "last": pl.Datetime("us", "UTC")},
    )
    counter = shortage._Counter.build(pieces, timedelta(milliseconds=1))
    edges = (
        pl.Series([T0 + timedelta(microseconds=n) for n in (5999, 6000)]).to_physical().to_numpy()
    )
    assert counter.count(edges, edges + 1).tolist() == [7, 0]
