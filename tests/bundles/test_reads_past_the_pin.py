"""Reads of a bundle before, after and at the edges of what was pinned."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake import open_bundle
from lake.align.align import AlignInput
from lake.align.policies import AsOf, Resample
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import UnknownNameError
from tests.conftest import DAY, MINUTE, T0, NewLake, bars, funding, trades, write

TABLES = ("bars_1m", "trades", "funding")
HOUR = timedelta(hours=1)
BTC: Any = {"exchange": "binance", "symbol": "BTC/USDT"}
START, NOON = T0 + 6 * HOUR, T0 + 12 * HOUR


def pin_the_middle(new_lake: NewLake) -> Bundle:
    """A bundle from 6:00 to noon, in the middle of the file of each table."""
    lake = new_lake()
    write(lake, "bars_1m", bars(24 * 60))
    write(lake, "trades", trades(24 * 60, step=MINUTE))
    write(lake, "funding", funding([T0 + n * HOUR for n in range(24)], "BTC/USDT"))
    return lake.bundles.pin("b", table=TABLES, since=START, until=NOON, check=False)


@pytest.fixture(scope="module")
def bundle(new_lake: NewLake) -> Bundle:
    return pin_the_middle(new_lake)


@pytest.fixture(scope="module", params=["files", "cache", "export"])
def reader(
    request: pytest.FixtureRequest, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    if request.param == "export":
        path: Path = tmp_path_factory.mktemp("export") / "b.tar.zst"
        return open_bundle(bundle.export(path))
    if request.param == "cache":
        bundle.warm()
        return bundle
    return Bundle(bundle.contents, None, now=lambda: T0 + DAY)


@pytest.mark.parametrize("table", TABLES)
def test_the_latest_rows_are_the_last_pinned_ones(reader: Bundle, table: str) -> None:
    everything = reader.scan(table).collect()
    for n in (1, 2, 7, 10_000):
        assert_frame_equal(reader.latest(table, **BTC, n=n), everything.tail(n))


@pytest.mark.parametrize("table", TABLES)
def test_what_is_known_after_the_end_is_the_last_row(reader: Bundle, table: str) -> None:
    last = reader.scan(table).collect().tail(1)
    for time in (NOON, NOON + MINUTE / 2, NOON + 6 * HOUR, T0 + 100 * DAY):
        assert_frame_equal(reader.at(table, **BTC, time=time), last)


@pytest.mark.parametrize("table", TABLES)
def test_nothing_is_known_before_the_beginning(reader: Bundle, table: str) -> None:
    for time in (T0 - 9 * DAY, T0, START - timedelta(microseconds=1)):
        assert reader.at(table, **BTC, time=time).is_empty()


@pytest.mark.parametrize("how", [AsOf("2h"), AsOf(None), Resample("last")])
@pytest.mark.parametrize("table", TABLES)
def test_a_grid_outside_the_pin_has_no_values(reader: Bundle, table: str, how: Any) -> None:
    before = reader.align({"x": table}, "1h", since=T0 - 2 * HOUR, until=T0, how=how)
    assert before.summary["missing"].to_list() == [2]
    after = reader.align({"x": table}, "1h", since=T0 + 3 * DAY, until=T0 + 4 * DAY, how=how)
    assert after.summary["missing"].to_list() == [0 if how == AsOf(None) else 24]


def test_no_event_and_no_row_of_sql_lies_outside_the_pin(reader: Bundle) -> None:
    for since, until in ((T0 - DAY, T0), (T0 + 2 * DAY, T0 + 3 * DAY)):
        assert list(reader.replay(since=since, until=until)) == []
        query = "SELECT count(*) FROM trades WHERE timestamp BETWEEN ? AND ?"
        assert reader.sql(query, [since, until]).fetchall() == [(0,)]


@pytest.mark.parametrize(
    "read",
    [
        lambda b: b.latest("trades", exchange="binance", symbol="NONE/USDT"),
        lambda b: b.latest("bars_1h", **BTC),
        lambda b: b.at("trades", exchange="okx", symbol="BTC/USDT", time=T0 + 9 * DAY),
        lambda b: align_of(b, AlignInput("trades", symbol="NONE/USDT")),
        lambda b: align_of(b, AlignInput("bars_1h")),
    ],
)
def test_unknown_markets_and_tables_stay_errors(
    bundle: Bundle, read: Callable[[Bundle], Any]
) -> None:
    with pytest.raises(UnknownNameError):
        read(bundle)


def align_of(bundle: Bundle, rows: AlignInput) -> Any:
    span: Any = {"since": T0 + 9 * DAY, "until": T0 + 10 * DAY}
    return bundle.align({"x": rows}, "1h", **span, how=AsOf("1h"))


@settings(max_examples=25)
@given(st.integers(-600, 2400), st.integers(1, 400), st.sampled_from(TABLES))
def test_a_look_up_equals_a_search_through_the_pinned_rows(
    bundle: Bundle, minute: int, n: int, table: str
) -> None:
    time: datetime = T0 + minute * MINUTE
    everything = bundle.scan(table).collect()
    known = everything.filter(bundle.dataset(table).availability() <= time)
    assert_frame_equal(bundle.at(table, **BTC, time=time), known.tail(1))
    assert_frame_equal(bundle.latest(table, **BTC, n=n), everything.tail(n))


def test_the_rows_of_a_pin_are_those_of_its_lake(new_lake: NewLake) -> None:
    lake: Lake = new_lake()
    write(lake, "trades", trades(10))
    bundle = lake.bundles.pin("b", table="trades", check=False)
    for n in (-1, 5, 100):
        time = T0 + n * MINUTE
        assert_frame_equal(
            bundle.at("trades", **BTC, time=time), lake.at("trades", **BTC, time=time)
        )
    assert bundle.scan("trades").select(pl.len()).collect().item() == 10
