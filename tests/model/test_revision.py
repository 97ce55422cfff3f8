"""Rows that may change: what they become does not depend on batches; what one answer contradicts
in itself is found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.model.catalog import builtin
from lake.model.dataset import Dataset
from lake.model.revision import REVISED_AT, Revised, revise
from lake.model.schedule import scheduled_at
from tests.conftest import SECOND, T0

FUNDING, BARS = builtin().dataset("funding"), builtin().dataset("bars_1h")
HOUR = timedelta(hours=1)
Row = dict[str, Any]


def event(off_ms: float = 0.0, *, hours: int = 8, rate: float = 1e-4, **values: Any) -> Row:
    time = T0 + hours * HOUR + timedelta(milliseconds=off_ms)
    return {"timestamp": time, "funding_rate": rate, **values}


def frame(dataset: Dataset, *rows: Row) -> pl.DataFrame:
    market = {"exchange": "binance", "symbol": "BTC/USDT:USDT"}
    rows_with_market = [market | row for row in rows]
    return pl.DataFrame(rows_with_market, schema=dataset.polars_schema).with_columns(dataset.day())


def revised(dataset: Dataset, rows: list[Row], stored: pl.DataFrame, *answers: int) -> Revised:
    numbers = pl.Series(answers or [0] * len(rows), dtype=pl.Int64)
    return revise(dataset, frame(dataset, *rows), numbers, stored)


def apply(dataset: Dataset, stored: pl.DataFrame, outcome: Revised) -> pl.DataFrame:
    """The table after a batch."""
    time = dataset.time_column
    gone = outcome.changed.select(pl.col(REVISED_AT).alias(time))
    table = stored.join(gone, on=time, how="anti")
    return pl.concat([table, outcome.changed.select(stored.columns)]).sort(time)


def take_one_by_one(rows: list[Row]) -> dict[int, Row]:
    """The rule in words: each row revises the one of its event."""
    table: dict[int, Row] = {}
    for row in rows:
        hours = round((row["timestamp"] - T0) / HOUR)
        old = table.get(hours)
        if old is None:
            table[hours] = dict(row)
        elif old["fill"] is not None or row["fill"] is None:
            differs = any(row[name] != old[name] for name in ("funding_rate", "fill")) or row[
                "mark_price"
            ] not in (None, old["mark_price"])
            receipts = (row["received_at"], old["received_at"])
            chosen = receipts if differs else receipts[::-1]
            is_observed = row["fill"] is None and old["fill"] is not None
            time = max(row["timestamp"], old["timestamp"])
            table[hours] = {
                **row,
                "timestamp": row["timestamp"] if is_observed else time,
                "mark_price": old["mark_price"] if row["mark_price"] is None else row["mark_price"],
                "received_at": chosen[1] if chosen[0] is None else chosen[0],
            }
    return table


offs = st.sampled_from([0.0, 3.0, 18.0, -40.0, 2500.0, 59_999.0, -59_999.0])
events = st.builds(
    event,
    offs,
    hours=st.sampled_from([0, 1, 8]),
    rate=st.sampled_from([1e-4, 1e-4, 3e-4]),
    mark_price=st.sampled_from([None, 50.0, 51.0]),
    fill=st.sampled_from([None, None, None, "interpolated:last"]),
    received_at=st.sampled_from([None, T0 - HOUR, T0 + 9 * HOUR]),
)


@given(st.lists(events, min_size=1, max_size=12), st.lists(st.integers(0, 12), max_size=4))
@settings(max_examples=60)
def test_any_batches_of_announcements_corrections_and_late_copies_give_the_same_table(
    rows: list[Row], cuts: list[int]
) -> None:
    expected = take_one_by_one(rows)
    stored = FUNDING.empty()
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for start, end in pairwise(bounds):
        # Each row is an answer of its own: none contradicts another.
        outcome = revised(FUNDING, rows[start:end], stored, *range(end - start))
        assert outcome.conflicting.is_empty()
        stored = apply(FUNDING, stored, outcome)
        assert outcome.kept.join(stored, on="timestamp", how="anti").is_empty()
    wanted = frame(FUNDING, *expected.values()).sort("timestamp")
    assert stored.rows() == wanted.rows()
    assert stored["funding_rate"].sum() == pytest.approx(
        sum(row["funding_rate"] for row in expected.values())
    )


@given(
    st.lists(st.tuples(offs, st.sampled_from([0, 1, 8]), st.booleans()), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
@settings(max_examples=25)
def test_copies_of_events_give_the_same_table_in_any_order(
    copies: list[tuple[float, int, bool]], random: Any
) -> None:
    rows = [
        event(off, hours=hours, rate=hours * 1e-5, mark_price=50.0 if has_mark else None)
        for off, hours, has_mark in copies
    ]
    shuffled = list(rows)
    random.shuffle(shuffled)
    tables = [
        apply(FUNDING, FUNDING.empty(), revised(FUNDING, some, FUNDING.empty()))
        for some in (rows, shuffled)
    ]
    assert tables[0].rows() == tables[1].rows()
    assert tables[0].height == len({hours for _, hours, _ in copies})


@pytest.mark.parametrize(
    ("minutes", "scheduled"),
    [
        (0.0, 0.0),
        (0.99, 0.0),
        (-0.99, 0.0),
        (1.0, 1.0),  # a venue that settles every minute has events that lie apart
        (-1.0, -1.0),
        (30.0, 30.0),
        (30.4, 30.0),
        (7.0001, 7.0),
        (59.01, 60.0),
    ],
)
def test_events_are_those_of_the_hour_and_else_of_the_minute(
    minutes: float, scheduled: float
) -> None:
    row = frame(FUNDING, event(minutes * 60_000))
    assert row.select(scheduled_at(FUNDING)).item() == event(scheduled * 60_000)["timestamp"]


def test_a_change_of_the_interval_keeps_all_events() -> None:
    hours = [0, 8, 16, 20, 24, 25, 26, 27]
    rows = [event(3.0, hours=n) for n in hours] + [event(0.0, hours=n) for n in hours]
    outcome = revised(FUNDING, rows, FUNDING.empty())
    assert outcome.changed["timestamp"].sort().to_list() == [row["timestamp"] for row in rows[:8]]


def test_of_rows_of_one_event_stored_before_the_latest_is_revised() -> None:
    stored = frame(FUNDING, event(0.0), event(3.0))
    outcome = revised(FUNDING, [event(5.0, rate=3e-4)], stored)
    assert outcome.changed.select(REVISED_AT, "timestamp", "funding_rate").rows() == [
        (event(3.0)["timestamp"], event(5.0)["timestamp"], 3e-4)
    ]
    assert revised(FUNDING, [event(0.0)], stored).changed.is_empty()


def bar(volume: float, *, closed: bool = True, fill: str | None = None, **values: Any) -> Row:
    prices = dict.fromkeys(("open", "high", "low", "close"), 100.0)
    return {"timestamp": T0, **prices, "volume": volume, "closed": closed, "fill": fill, **values}


@pytest.mark.parametrize(
    ("rows", "stays", "conflicting"),
    [
        ([bar(1.0), bar(2.0)], 2.0, [1.0]),
        ([bar(1.0), bar(2.0), bar(1.0)], 1.0, [2.0]),
        ([bar(1.0), bar(2.0), bar(3.0)], 3.0, [1.0, 2.0]),
        ([bar(1.0), bar(1.0)], 1.0, []),
        # A bar that was still open, and one that was filled in, give way to the other.
        ([bar(1.0, closed=False), bar(2.0)], 2.0, []),
        ([bar(2.0), bar(1.0, closed=False)], 2.0, []),
        ([bar(1.0, closed=False), bar(2.0, closed=False)], 2.0, []),
        ([bar(1.0), bar(2.0, fill="interpolated:flat")], 1.0, []),
        ([bar(2.0, fill="interpolated:flat"), bar(1.0)], 1.0, []),
        ([bar(2.0, closed=False), bar(1.0), bar(3.0)], 3.0, [1.0]),
        # What is no content contradicts nothing.
        ([bar(1.0, received_at=T0), bar(1.0, received_at=T0 + SECOND)], 1.0, []),
    ],
)
def test_different_rows_of_one_answer_conflict_and_the_last_stays(
    rows: list[Row], stays: float, conflicting: list[float]
) -> None:
    outcome = revised(BARS, rows, BARS.empty())
    assert outcome.changed["volume"].to_list() == [stays]
    assert outcome.conflicting["volume"].to_list() == conflicting
    assert outcome.opposed["volume"].to_list() == [stays] * len(conflicting)
    assert outcome.kept.height == 1


def test_rows_of_two_answers_are_revisions() -> None:
    outcome = revised(BARS, [bar(1.0), bar(2.0)], BARS.empty(), 0, 1)
    assert outcome.conflicting.is_empty()
    assert outcome.changed["volume"].to_list() == [2.0]


def test_a_rate_and_another_of_the_same_event_conflict_and_an_unknown_mark_price_does_not() -> None:
    rows = [event(0.0, mark_price=50.0), event(3.0), event(5.0, rate=2e-4)]
    outcome = revised(FUNDING, rows, FUNDING.empty())
    assert outcome.conflicting["timestamp"].to_list() == [row["timestamp"] for row in rows[:2]]
    assert revised(FUNDING, rows[:2], FUNDING.empty()).conflicting.is_empty()
    two_marks = [event(0.0, mark_price=50.0), event(3.0, mark_price=51.0)]
    assert revised(FUNDING, two_marks, FUNDING.empty()).conflicting["mark_price"].to_list() == [50]


bars_in_answers = st.lists(
    st.tuples(st.sampled_from([1.0, 2.0, 3.0]), st.booleans(), st.integers(0, 2)),
    min_size=1,
    max_size=10,
)


@given(bars_in_answers, st.lists(st.integers(0, 10), max_size=3))
@settings(max_examples=20)
def test_answers_joined_in_any_batches_give_the_same_table_and_conflicts(
    volumes: list[tuple[float, bool, int]], cuts: list[int]
) -> None:
    pages = [
        [bar(volume, closed=closed) for volume, closed, n in volumes if n == number]
        for number in sorted({number for _, _, number in volumes})
    ]

    def revise_pages(part: list[list[Row]], stored: pl.DataFrame) -> Revised:
        numbers = [n for n, page in enumerate(part) for _ in page]
        return revised(BARS, [row for page in part for row in page], stored, *numbers)

    whole = revise_pages(pages, BARS.empty())
    stored, conflicting = BARS.empty(), []
    bounds = sorted({0, len(pages), *(cut for cut in cuts if cut < len(pages))})
    for start, end in pairwise(bounds):
        outcome = revise_pages(pages[start:end], stored)
        stored = apply(BARS, stored, outcome)
        conflicting += outcome.conflicting["volume"].to_list()
    assert stored.rows() == whole.changed.select(stored.columns).rows()
    assert conflicting == whole.conflicting["volume"].to_list()


def test_times_are_those_of_the_calendar_before_1970_too() -> None:
    rows = pl.DataFrame({"timestamp": [datetime(1969, 12, 31, 23, 59, 59, 990_000, tzinfo=UTC)]})
    assert rows.select(scheduled_at(FUNDING).dt.timestamp("us")).item() == 0
