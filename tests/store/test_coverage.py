"""Coverage: its sources stay apart, and what was not given does not cover."""

from __future__ import annotations

from datetime import datetime

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lake.api import Lake
from lake.model.dataset import TIMESTAMP
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.settings import Settings
from lake.store.coverage import NOT_GIVEN, CoveredRange, add_answers, part_of
from lake.store.ledger import Ledger
from lake.store.store import Origin
from tests import processes
from tests.conftest import DAY, MINUTE, T0, store_of

HOUR = 60 * MINUTE
MARKET = Market("binance", "BTC/USDT")
FIRST, SECOND = TimeRange(T0, T0 + DAY), TimeRange(T0 + DAY, T0 + 2 * DAY)


def record(lake: Lake, source: str, *ranges: CoveredRange, job: str = "job") -> None:
    Ledger(store_of(lake)).record_coverage({part_of("trades", MARKET): ranges}, Origin(job, source))


def rows(lake: Lake) -> pl.DataFrame:
    return lake.scan("coverage").collect().sort("timestamp", "source")


def intervals(lake: Lake, source: str = "a") -> list[tuple[object, ...]]:
    own = rows(lake).filter(source=source)
    return own.select("timestamp", "end", "status", "rows", "job_id").rows()


def bounds(item: TimeRange) -> tuple[datetime, datetime]:
    return item.start, item.end


def test_each_source_keeps_its_own_answer(lake: Lake) -> None:
    record(lake, "ccxt:binance", CoveredRange(FIRST, 0, NOT_GIVEN))
    record(lake, "files:binance", CoveredRange(FIRST, 7, "imported"))
    assert rows(lake).select("source", "status", "rows").rows() == [
        ("ccxt:binance", "not_given", 0),
        ("files:binance", "imported", 7),
    ]
    assert lake.coverage("trades").select("start", "end").rows() == [(FIRST.start, FIRST.end)]


def test_what_was_not_given_does_not_cover(lake: Lake) -> None:
    record(lake, "ccxt:binance", CoveredRange(FIRST, 0, NOT_GIVEN), CoveredRange(SECOND, 1))
    assert Ledger(store_of(lake)).read_covered("trades", MARKET) == (SECOND,)
    assert lake.coverage("trades").select("start", "end").rows() == [(SECOND.start, SECOND.end)]


def test_the_same_interval_asked_again_names_the_last_job(lake: Lake) -> None:
    record(lake, "ccxt:binance", CoveredRange(FIRST, 3), job="first")
    record(lake, "ccxt:binance", CoveredRange(FIRST, 4), job="second")
    assert rows(lake).select("job_id", "rows").rows() == [("second", 4)]


def test_neighbours_of_one_status_are_joined_with_the_stored_ones(lake: Lake) -> None:
    third = TimeRange(SECOND.end, SECOND.end + DAY)
    record(lake, "a", CoveredRange(third, 0, NOT_GIVEN), CoveredRange(FIRST, 1), job="first")
    record(lake, "a", CoveredRange(SECOND, 2), job="second")
    assert intervals(lake) == [
        (FIRST.start, SECOND.end, "fetched", 3, "second"),
        (*bounds(third), "not_given", 0, "first"),
    ]


def test_an_answer_between_two_intervals_makes_one_of_them(lake: Lake) -> None:
    third = TimeRange(SECOND.end, SECOND.end + DAY)
    record(lake, "a", CoveredRange(FIRST, 1), CoveredRange(third, 3))
    record(lake, "a", CoveredRange(SECOND, 2), job="between")
    assert intervals(lake) == [(FIRST.start, third.end, "fetched", 6, "between")]
    [versions] = lake.versions("coverage").filter(operation="MERGE")["deleted"].to_list()[:1]
    assert versions == 1


def test_all_markets_and_tables_are_one_commit(lake: Lake) -> None:
    ledger, names = Ledger(store_of(lake)), [f"C{n}/USDT" for n in range(30)]
    for day in (FIRST, SECOND):
        answers = {
            part_of(table, Market("binance", name)): [CoveredRange(day, 1)]
            for table in ("trades", "bars_1m")
            for name in names
        }
        ledger.record_coverage(answers, Origin("job", "a"))
    assert lake.versions("coverage").filter(operation="MERGE").height == 2
    assert rows(lake).select("end", "rows").unique().rows() == [(SECOND.end, 2)]
    assert rows(lake).height == 60


def test_a_year_of_daily_runs_is_one_row(lake: Lake) -> None:
    days = [TimeRange(T0 + n * DAY, T0 + (n + 1) * DAY) for n in range(40)]
    for number, day in enumerate(days):  # each seventh without a row, each in two parts
        middle = day.start + DAY / 2
        parts = TimeRange(day.start, middle), TimeRange(middle, day.end)
        record(lake, "a", *(CoveredRange(part, int(number % 7 != 3)) for part in parts))
    assert [row[:3] for row in intervals(lake)] == [(T0, days[-1].end, "fetched")]
    assert rows(lake)["rows"].to_list() == [2 * sum(n % 7 != 3 for n in range(40))]


def test_what_is_recorded_already_makes_no_commit(lake: Lake) -> None:
    record(lake, "a", CoveredRange(FIRST, 1), CoveredRange(SECOND, 1))
    record(lake, "a", CoveredRange(TimeRange(FIRST.start, SECOND.end), 2), job="later")
    assert lake.versions("coverage").filter(operation="MERGE").height == 1


def test_rows_asked_for_again_count_once(lake: Lake) -> None:
    times = pl.Series([FIRST.start + n * HOUR for n in range(24)], dtype=TIMESTAMP)
    record(lake, "a", CoveredRange(FIRST, 24))
    again = TimeRange(FIRST.start + 12 * HOUR, SECOND.start + 12 * HOUR)
    more = pl.Series([SECOND.start + n * HOUR for n in range(12)], dtype=TIMESTAMP)
    record(lake, "a", CoveredRange(again, 24, times=pl.concat([times[12:], more])))
    assert rows(lake)["rows"].to_list() == [36]


def test_what_was_not_given_is_cut_where_it_is_given_later(lake: Lake) -> None:
    whole, middle = TimeRange(T0, T0 + 3 * DAY), TimeRange(T0 + DAY, T0 + 2 * DAY)
    record(lake, "a", CoveredRange(whole, 0, NOT_GIVEN))
    record(lake, "a", CoveredRange(middle, 5))
    record(lake, "a", CoveredRange(whole, 0, NOT_GIVEN))
    assert [row[:4] for row in intervals(lake)] == [
        (T0, middle.start, "not_given", 0),
        (*bounds(middle), "fetched", 5),
        (middle.end, whole.end, "not_given", 0),
    ]


def _write_days(path: str, source: str, first: int) -> None:
    lake = Lake(Settings(uri=path))
    for number in range(first, 24, 2):
        day = TimeRange(T0 + number * DAY, T0 + (number + 1) * DAY)
        record(lake, source, CoveredRange(day, 1))


def test_two_processes_at_once_lose_nothing(lake: Lake) -> None:
    """Each records every second day of one source: what one joins, the other must see."""
    record(lake, "other", CoveredRange(FIRST, 1))
    path = str(lake.root.path)
    children = [processes.start(_write_days, path, "a", first) for first in range(2)]
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert [row[:4] for row in intervals(lake, "a")] == [(T0, T0 + 24 * DAY, "fetched", 24)]


Spans = st.tuples(
    st.integers(0, 30), st.integers(1, 8), st.sampled_from([None, NOT_GIVEN, "heard"])
)


@given(
    batches=st.lists(st.lists(Spans, min_size=1, max_size=4), max_size=6),
    stored=st.sets(st.integers(0, 38)),
)
def test_coverage_claims_all_that_was_answered_and_nothing_else(
    batches: list[list[tuple[int, int, str | None]]], stored: set[int]
) -> None:
    """Against a set of hours: what was answered, by the last answer of each hour."""
    items: list[CoveredRange] = []
    covered: set[int] = set()
    for batch in batches:
        answers = []
        for start, length, status in batch:
            hours = range(start, start + length)
            inside = sorted(stored & set(hours)) if status != NOT_GIVEN else []
            times = pl.Series([T0 + n * HOUR for n in inside], dtype=TIMESTAMP)
            span = TimeRange(T0 + start * HOUR, T0 + (start + length) * HOUR)
            answers.append(CoveredRange(span, len(inside), status, times))
            covered |= set(hours) if status != NOT_GIVEN else set()
        items = add_answers(items, answers)
    kept = [hours_of(item) for item in items if item.kind != NOT_GIVEN]
    assert set().union(*kept) == covered
    assert sum(map(len, kept)) == len(covered), "they do not overlap"
    for item in items:
        assert item.rows <= len(stored & hours_of(item)), "it counts no row that is not stored"
    starts = [item.range.start for item in items]
    assert len(set(starts)) == len(starts), "the start is the key"


def hours_of(item: CoveredRange) -> set[int]:
    first, last = ((time - T0) // HOUR for time in (item.range.start, item.range.end))
    return set(range(first, last))
