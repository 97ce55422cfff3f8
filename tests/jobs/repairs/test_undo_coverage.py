"""A repair and its undoing leave coverage as it was: it never claims rows that are not there."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.jobs.repairs.coverage import take_back_coverage
from lake.jobs.repairs.repair import undo
from lake.model.time import TimeRange
from lake.sandbox import Sandbox, SyntheticMarkets
from lake.store.store import Origin
from tests.jobs.conftest import NOW, MakeLake, settings_for
from tests.jobs.repairs.damage import (
    BTC,
    MINUTE,
    SINCE,
    delete,
    finding,
    findings,
    minutes,
    repair,
    rows,
    store_of,
)

HOUR = timedelta(hours=1)
HOLE = TimeRange(SINCE + HOUR, SINCE + 2 * HOUR)


def _ingest(lake: Lake, since: datetime, until: datetime) -> None:
    lake.ingest("bars_1m", exchange="binance", symbol="BTC/USDT", since=since, until=until)


@pytest.fixture
def lake(make_lake: MakeLake) -> Lake:
    """Four hours of bars, of which one was never requested."""
    lake = make_lake()
    _ingest(lake, SINCE, HOLE.start)
    _ingest(lake, HOLE.end, HOLE.end + 2 * HOUR)
    return lake


def _coverage(lake: Lake) -> pl.DataFrame:
    return lake.scan("coverage").collect().sort("dataset", "timestamp", "end")


def test_an_undone_repair_of_time_never_requested_leaves_it_uncovered(lake: Lake) -> None:
    covered, bars = _coverage(lake), rows(lake, "bars_1m")
    lake.quality.check()
    [applied] = lake.quality.repair().applied
    assert applied.inserted == 60
    assert lake.coverage().height == 1
    lake.quality.undo(applied.repair_id)
    assert_frame_equal(_coverage(lake), covered)
    assert_frame_equal(rows(lake, "bars_1m"), bars)
    assert lake.quality.findings().filter(status="open")["reason"].to_list() == ["not_fetched"]
    assert lake.status()["rows_missing"].to_list() == [0]
    assert lake.status()["holes"].to_list() == [1]
    _ingest(lake, SINCE, HOLE.end + 2 * HOUR)
    assert rows(lake, "bars_1m").height == 240


@pytest.mark.parametrize("length", [HOUR, 2 * HOUR])
def test_an_interval_that_a_repair_asked_for_again_is_as_it_was(
    lake: Lake, length: timedelta
) -> None:
    """It asks for what an ingestion had asked for, or for part of it."""
    asked = TimeRange(HOLE.end, HOLE.end + length)
    delete(lake, "bars_1m", BTC, minutes(5, asked.start))
    covered = _coverage(lake)
    found = findings(finding("bars_1m", BTC, asked))
    [applied] = repair(lake, found).applied
    assert _coverage(lake)["rows"].to_list() == covered["rows"].to_list()
    undo(store_of(lake), applied.repair_id)
    assert_frame_equal(_coverage(lake), covered)


def test_of_an_interval_of_two_repairs_the_other_part_stays_covered(lake: Lake) -> None:
    """Both fill a hole of one interval: it is cut where the other part begins."""
    first = TimeRange(HOLE.start, HOLE.start + HOUR / 2)
    second = TimeRange(first.end, HOLE.end)
    repair(lake, findings(*(finding("bars_1m", BTC, part) for part in (first, second))))
    record = rows(lake, "repairs").row(0, named=True)
    part = {**record, "timestamp": first.start, "end": first.end}
    store = store_of(lake)
    take_back_coverage(store, lake.dataset("bars_1m"), BTC, part, Origin("undo", "test"))
    assert _coverage(lake).select("timestamp", "end", "rows").rows() == [
        (SINCE, HOLE.start, 60),
        (second.start, HOLE.end + 2 * HOUR, 150),
    ]


def test_what_was_ingested_after_a_repair_stays_covered(lake: Lake) -> None:
    lake.quality.check()
    [applied] = lake.quality.repair().applied
    _ingest(lake, SINCE, HOLE.end + 5 * HOUR)
    assert _coverage(lake)["rows"].to_list() == [420]
    lake.quality.undo(applied.repair_id)
    assert _coverage(lake).select("timestamp", "end", "rows").rows() == [
        (SINCE, HOLE.start, 60),
        (HOLE.end, HOLE.end + 5 * HOUR, 300),
    ]
    assert lake.status()["rows_missing"].to_list() == [0]


def test_repairs_undone_in_the_order_in_which_they_were_made_claim_nothing(lake: Lake) -> None:
    ids = []
    for part in (minutes(30, HOLE.start), minutes(30, HOLE.start + HOUR / 2)):
        [applied] = repair(lake, findings(finding("bars_1m", BTC, part))).applied
        ids.append(applied.repair_id)
    for repair_id in ids:
        lake.quality.undo(repair_id)
        assert lake.status()["rows_missing"].to_list() == [0]
    assert _coverage(lake).select("timestamp", "end", "rows").rows() == [
        (SINCE, HOLE.start, 60),
        (HOLE.end, HOLE.end + 2 * HOUR, 120),
    ]


@pytest.mark.slow
@settings(
    max_examples=5,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    places=st.lists(
        st.tuples(st.booleans(), st.integers(0, 230), st.integers(1, 9)), min_size=1, max_size=4
    )
)
def test_any_repairs_undone_leave_rows_and_coverage_as_they_were(
    places: list[tuple[bool, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Sandbox(SyntheticMarkets(seed=7), now=lambda: NOW, weight_limit=False) as sandbox:
        folder = tmp_path_factory.mktemp("undone") / "lake"
        lake = Lake.create(settings_for(folder, sandbox.url), now=lambda: NOW)
        _ingest(lake, SINCE, HOLE.start)
        _ingest(lake, HOLE.end, HOLE.end + 2 * HOUR)
        spans = [minutes(length, SINCE + at * MINUTE) for _, at, length in places]
        for (is_deleted, *_), span in zip(places, spans, strict=True):
            stored = rows(lake, "bars_1m")["timestamp"]
            if is_deleted and stored.is_between(span.start, span.end, closed="left").any():
                delete(lake, "bars_1m", BTC, span)
        covered, bars = _coverage(lake), rows(lake, "bars_1m")
        repair(lake, findings(*(finding("bars_1m", BTC, span) for span in dict.fromkeys(spans))))
        store = store_of(lake)
        if "repairs" in lake.tables()["table"]:
            for repair_id in rows(lake, "repairs").sort("version_after")["repair_id"].reverse():
                undo(store, repair_id)
        assert_frame_equal(rows(lake, "bars_1m"), bars)
        names = ["dataset", "timestamp", "end", "rows", "job_id"]
        left = _coverage(lake).select(names).join(covered.select(names), on=names, how="anti")
        assert set(left["rows"]) <= {0} or _holds_all(lake, left)


def _holds_all(lake: Lake, left: pl.DataFrame) -> bool:
    """Whether the rows that intervals count are there."""
    times = rows(lake, "bars_1m")["timestamp"]
    return all(
        times.is_between(start, end, closed="left").sum() >= count
        for start, end, count in left.select("timestamp", "end", "rows").iter_rows()
    )
