"""Look-ups: the newest rows of a market, and the row that was known at a time."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import TypedDict

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import UnknownNameError, UsageError
from tests.conftest import DAY, MINUTE, SECOND, T0, NewLake, bars, funding, trades, write


class Names(TypedDict):
    exchange: str
    symbol: str


BTC = Names(exchange="binance", symbol="BTC/USDT")


def test_the_latest_rows_are_the_last_in_order(lake: Lake) -> None:
    write(lake, "trades", trades(5000, step=MINUTE))
    write(lake, "trades", trades(50, step=MINUTE, symbol="ETH/USDT"))
    rows = lake.latest("trades", **BTC, n=3)
    assert_frame_equal(rows, lake.scan("trades", symbol="BTC/USDT").collect().tail(3))
    assert lake.latest("trades", **BTC, n=9999).height == 5000


def test_a_look_up_sees_what_was_committed_a_moment_ago(lake: Lake) -> None:
    write(lake, "trades", trades(3))
    assert lake.latest("trades", **BTC)["trade_id"].item() == "2"
    write(lake, "trades", trades(2, first=3))
    assert lake.latest("trades", **BTC)["trade_id"].item() == "4"


def test_a_look_up_follows_a_table_that_was_compacted(lake: Lake) -> None:
    for number in range(4):
        write(lake, "bars_1m", bars(10, start=T0 + number * 10 * MINUTE))
    before = lake.latest("bars_1m", **BTC, n=25)
    lake.maintenance.optimize()
    assert_frame_equal(lake.latest("bars_1m", **BTC, n=25), before)


def test_the_latest_rows_come_from_several_files_that_overlap(lake: Lake) -> None:
    write(lake, "trades", trades(100, step=2 * SECOND))
    write(lake, "trades", trades(100, first=1000, start=T0 - 1999 * SECOND, step=2 * SECOND))
    expected = lake.scan("trades").collect()
    for n in (1, 2, 99, 150, 200):
        assert_frame_equal(lake.latest("trades", **BTC, n=n), expected.tail(n))


def test_rows_that_lie_far_apart_are_found(lake: Lake) -> None:
    write(lake, "funding", funding([T0, T0 + 900 * DAY]))
    write(lake, "funding", funding([T0 + 900 * DAY + n * MINUTE for n in range(1, 30)]))
    assert lake.latest("funding", exchange="binance", symbol="BTC/USDT:USDT", n=31).height == 31


def test_a_market_without_rows_has_none(lake: Lake) -> None:
    write(lake, "trades", trades())
    none = Names(exchange="binance", symbol="NONE/USDT")
    assert lake.latest("trades", **none, missing="empty").is_empty()
    assert lake.at("trades", **none, time=T0, missing="empty").is_empty()
    assert lake.at("trades", **BTC, time=T0 - SECOND).is_empty()
    schema = lake.latest("trades", **none, missing="empty").schema
    assert schema == lake.scan("trades").collect_schema()


def test_invalid_look_ups_are_refused(lake: Lake) -> None:
    with pytest.raises(UnknownNameError, match="does not exist yet"):
        lake.latest("trades", **BTC)
    write(lake, "trades", trades())
    with pytest.raises(UsageError, match="0 is not a number of rows"):
        lake.latest("trades", **BTC, n=0)
    with pytest.raises(UsageError, match="no time zone"):
        lake.at("trades", **BTC, time=T0.replace(tzinfo=None))


def test_a_bar_is_known_at_its_end_and_not_before(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    assert lake.at("bars_1m", **BTC, time=T0 + MINUTE - timedelta(microseconds=1)).is_empty()
    assert lake.at("bars_1m", **BTC, time=T0 + MINUTE)["timestamp"].item() == T0
    assert lake.at("bars_1m", **BTC, time=T0 + DAY)["timestamp"].item() == T0 + 2 * MINUTE


def test_a_trade_is_known_when_it_was_received(lake: Lake) -> None:
    received = [T0 + 5 * SECOND, None, T0 + 9 * SECOND]
    write(lake, "trades", trades(3, received_at=received))
    rows = {n: lake.at("trades", **BTC, time=T0 + n * SECOND) for n in (0, 1, 4, 9)}
    assert rows[0].is_empty()
    assert rows[1]["trade_id"].item() == rows[4]["trade_id"].item() == "1"
    assert rows[9]["trade_id"].item() == "2"


def test_a_bundle_is_looked_up_as_it_was_pinned(lake: Lake) -> None:
    write(lake, "trades", trades(10))
    bundle = lake.bundles.pin("b", table="trades")
    write(lake, "trades", trades(10, first=10))
    assert bundle.latest("trades", **BTC)["trade_id"].item() == "9"
    assert bundle.at("trades", **BTC, time=T0 + DAY)["trade_id"].item() == "9"
    bundle.finish()
    assert bundle.latest("trades", **BTC, n=2)["trade_id"].to_list() == ["8", "9"]


def test_threads_may_look_up_while_others_write(lake: Lake) -> None:
    write(lake, "trades", trades(1))
    seen: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(int(lake.latest("trades", **BTC)["trade_id"].item()))

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 15):
        write(lake, "trades", trades(1, first=number))
    done.set()
    for reader in readers:
        reader.join()
    assert lake.latest("trades", **BTC)["trade_id"].item() == "14"
    assert seen
    assert max(seen) <= 14


@settings(max_examples=30)
@given(
    seconds=st.lists(st.integers(0, 10**6), min_size=1, max_size=40, unique=True),
    cuts=st.integers(1, 5),
    look_ups=st.lists(
        st.tuples(st.integers(1, 50), st.integers(-10, 10**6 + 10)), min_size=1, max_size=8
    ),
)
def test_look_ups_equal_a_search_through_all_rows(
    new_lake: NewLake, seconds: list[int], cuts: int, look_ups: list[tuple[int, int]]
) -> None:
    lake = new_lake()
    times: list[datetime] = [T0 + second * SECOND for second in seconds]
    rows = trades(len(times), timestamp=times)
    for number in range(cuts):
        part = rows.gather_every(cuts, number)
        if part.height:
            write(lake, "trades", part)
    everything = lake.scan("trades").collect()
    for n, at in look_ups:
        assert_frame_equal(lake.latest("trades", **BTC, n=n), everything.tail(n))
        expected = everything.filter(pl.col("timestamp") <= T0 + at * SECOND).tail(1)
        assert_frame_equal(lake.at("trades", **BTC, time=T0 + at * SECOND), expected)
