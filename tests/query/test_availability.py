"""No way of reading shows a row before it happened, nor before it was received."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.align.align import AlignInput, align
from lake.align.asof import as_of_join
from lake.align.policies import AsOf, Resample
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.bundles.table import PinnedTable
from lake.model.dataset import Dataset
from lake.model.selection import Selection
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, NewLake, bars, funding, trades, write

TABLES = ("bars_1m", "trades", "funding")
UNLOCKS = """name = "unlocks"
title = "Unlocks of tokens"
description = "What is unlocked when, known from its announcement on."
rows = "revisable"
date = "year"
time_column = "timestamp"
available_at = "announced_at"
key = ["timestamp"]

[columns]
timestamp = { type = "timestamp", unit = "UTC", meaning = "When it takes effect." }
announced_at = { type = "timestamp", unit = "UTC", meaning = "When it was announced." }
amount = { type = "float64", unit = "base", meaning = "Tokens." }
"""
_numbers = count()

# Few slots and delays, so that many rows are known at the same time, also out of their order.
slots = st.integers(0, 12)
delays = st.none() | st.sampled_from(
    [-2 * MINUTE, -1270 * timedelta(milliseconds=1), 0 * SECOND, SECOND, 90 * SECOND, 3 * MINUTE]
)
facts = st.lists(st.tuples(slots, delays), min_size=3, max_size=10, unique_by=lambda fact: fact[0])
moments = st.lists(st.integers(-4, 40), min_size=2, max_size=3)


@pytest.fixture(scope="module")
def shared(new_lake: NewLake) -> Lake:
    return new_lake()


def rows_of(table: str, symbol: str, some: Sequence[tuple[int, timedelta | None]]) -> pl.DataFrame:
    """Rows at some minutes after `T0`, received so long after their time."""
    times = [T0 + slot * MINUTE for slot, _ in some]
    received = [None if delay is None else T0 + slot * MINUTE + delay for slot, delay in some]
    columns: dict[str, Any] = {"timestamp": times, "received_at": pl.Series(received, dtype=TIME)}
    if table == "funding":
        return funding(times, symbol).with_columns(columns["received_at"].alias("received_at"))
    make = bars if table == "bars_1m" else trades
    return make(len(some), symbol=symbol, **columns)


def known_at(table: str, row: dict[str, Any]) -> datetime:
    """When a row may first be seen, from the documentation alone."""
    happened: datetime = row["timestamp"] + (MINUTE if table == "bars_1m" else timedelta(0))
    return max(happened, row["received_at"] or happened)


@settings(max_examples=6)  # each writes and pins
@given(st.fixed_dictionaries(dict.fromkeys(TABLES, facts)), moments)
def test_every_read_shows_exactly_what_was_known(
    shared: Lake, some: dict[str, list[tuple[int, timedelta | None]]], half_minutes: list[int]
) -> None:
    symbol = f"M{next(_numbers)}/USDT"
    for table in TABLES:
        write(shared, table, rows_of(table, symbol, some[table]))
    bundle = shared.bundles.pin(symbol[:-5], table=TABLES, symbol=symbol, check=False)
    stored = {name: bundle.scan(name).collect().to_dicts() for name in TABLES}
    for moment in sorted({T0 + n * 30 * SECOND for n in half_minutes}):
        seen = {(event.table, event.timestamp) for event in replayed(bundle, moment)}
        assert seen == {
            (table, row["timestamp"])
            for table in TABLES
            for row in stored[table]
            if known_at(table, row) <= moment
        }
        for table in TABLES:
            check_lookups(shared, bundle, table, symbol, stored[table], moment)


def replayed(bundle: Bundle, moment: datetime) -> list[Any]:
    events: list[Any] = list(bundle.replay(until=moment + timedelta(microseconds=1)))
    assert all(event.available_at == known_at(event.table, vars_of(event)) for event in events)
    assert [event.available_at for event in events] == sorted(e.available_at for e in events)
    return events


def vars_of(event: Any) -> dict[str, Any]:
    return {"timestamp": event.timestamp, "received_at": event.received_at}


def check_lookups(
    lake: Lake,
    bundle: Bundle,
    table: str,
    symbol: str,
    rows: list[dict[str, Any]],
    moment: datetime,
) -> None:
    known = [row for row in rows if known_at(table, row) <= moment]
    newest = max((row["timestamp"] for row in known), default=None)
    last = max(known, key=lambda row: (known_at(table, row), row["timestamp"]), default=None)
    expected = [None if last is None else last["timestamp"]]
    times = pl.DataFrame({"time": [moment]}, schema={"time": TIME})
    how = AsOf(staleness=None, columns="timestamp")
    inputs = {"x": AlignInput(table, symbol=symbol)}
    span: Any = {"since": moment, "until": moment + SECOND, "how": how}
    for reader in (lake, bundle):
        row = reader.at(table, exchange="binance", symbol=symbol, time=moment)
        assert row["timestamp"].to_list() == ([] if newest is None else [newest])
        available = reader.available(table, symbol=symbol)
        joined = as_of_join(times, available, staleness=None, by=(), columns=["timestamp"])
        assert joined["timestamp"].to_list() == expected
        assert reader.align(inputs, "1m", **span).frame["x_timestamp"].to_list() == expected


def test_bars_are_seen_when_they_were_received_if_that_is_after_their_end(lake: Lake) -> None:
    received = pl.Series([None, T0 + 150 * SECOND, T0 + 170 * SECOND], dtype=TIME)
    write(lake, "bars_1m", bars(3, received_at=received))
    bundle = lake.bundles.pin("b", table="bars_1m", check=False)
    events: list[Any] = list(bundle.replay())
    ends = [(e.available_at - T0).total_seconds() for e in events]
    assert ends == [60.0, 150.0, 180.0]
    assert [e.received_at for e in events] == received.to_list()
    days = bundle.contents.days
    assert days.select("min_delay_us", "max_delay_us").row(0) == (60_000_000, 90_000_000)
    aligned = bundle.align({"x": "bars_1m"}, "1m", since=T0, until=T0 + DAY, how=AsOf(None))
    assert "x_received_at" not in aligned.frame.columns


@pytest.mark.parametrize("end", [T0 + 65 * DAY, T0 + 400 * DAY])
def test_an_announcement_is_seen_from_its_publication_on_by_every_read(
    new_lake: NewLake, end: datetime
) -> None:
    """A value depends neither on where the grid ends, nor on how long before it was announced."""
    lake = new_lake(schemas={"unlocks": UNLOCKS})
    announced = [T0, T0 + 9 * DAY, T0 + 50 * DAY]
    times = [T0 + days * DAY for days in (60, 150, 240)]
    frame = pl.DataFrame({"timestamp": times, "announced_at": announced, "amount": [1.0, 2.0, 3.0]})
    names = {"exchange": pl.lit("x"), "symbol": pl.lit("A/USDT")}
    write(lake, "unlocks", frame.with_columns(pl.col(pl.Datetime).cast(TIME), **names))
    bundle = lake.bundles.pin("b", table="unlocks", check=False)
    assert [event.amount for event in _replay(bundle)] == [1.0, 2.0, 3.0]
    how = AsOf(staleness=None, columns="amount")
    for reader in (lake, bundle):
        result = reader.align({"x": "unlocks"}, "1d", since=T0, until=end, how=how).frame
        values = result["x_amount"].to_list()
        assert values[:9] == [1.0] * 9
        assert values[9:50] == [2.0] * 41
        assert set(values[50:]) == {3.0}
        row = reader.at("unlocks", exchange="x", symbol="A/USDT", time=T0 + 20 * DAY)
        assert row["amount"].to_list() == [2.0]
        early = reader.at("unlocks", exchange="x", symbol="A/USDT", time=T0 - SECOND)
        assert early.is_empty()


def _replay(bundle: Bundle) -> list[Any]:
    return list(bundle.replay())


def test_alignment_of_a_table_equals_alignment_of_all_its_rows(lake: Lake) -> None:
    """Also where a clock was far behind: then no row is known before its time."""
    behind = [T0 + n * 10 * SECOND - 12 * MINUTE for n in range(600)]
    rows = trades(600, step=10 * SECOND, received_at=pl.Series(behind, dtype=TIME))
    write(lake, "trades", rows)
    dataset: Dataset = lake.dataset("trades")
    everything = lake.scan("trades").select(dataset.availability(), pl.all())
    span: Any = {"since": T0 + 10 * MINUTE, "until": T0 + 30 * MINUTE}
    how = AsOf(staleness="1h", columns="timestamp")
    expected = align({"x": everything}, "5m", how=how, **span).frame
    assert_frame_equal(lake.align({"x": "trades"}, "5m", how=how, **span).frame, expected)
    assert expected["x_timestamp"].to_list() == expected["time"].to_list()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("late", [2 * DAY, 40 * DAY])
def test_rows_that_were_received_days_late_are_aligned(
    lake: Lake, table: str, late: timedelta
) -> None:
    """Rows of one hour were received much later, all at once: they are older than all others."""
    facts: list[tuple[int, timedelta | None]] = [(n, late - n * MINUTE) for n in range(60)]
    write(lake, table, rows_of(table, "BTC/USDT", facts))
    far = rows_of(table, "BTC/USDT", [(n, None) for n in range(80 * 1440, 80 * 1440 + 60)])
    if table == "trades":
        far = far.with_columns(trade_id="f" + far["trade_id"])
    write(lake, table, far)
    bundle = lake.bundles.pin("b", table=table, check=False)
    dataset: Dataset = lake.dataset(table)
    everything = lake.scan(table).select(dataset.availability(), pl.all())
    for start in (T0 + late - 3 * MINUTE, T0 + late + DAY, T0 + 80 * DAY):
        span: Any = {"since": start, "until": start + 10 * MINUTE}
        for how in (AsOf("5m", columns="timestamp"), Resample("last", columns="timestamp")):
            expected = align({"x": everything}, "1m", how=how, **span).frame
            for reader in (lake, bundle):
                assert_frame_equal(
                    reader.align({"x": table}, "1m", how=how, **span).frame, expected
                )
    assert expected["x_timestamp"].null_count() < expected.height


@pytest.mark.parametrize("silent", [2 * MINUTE, 3 * DAY])
def test_a_market_that_was_silent_is_known_from_its_first_row_on(
    lake: Lake, silent: timedelta
) -> None:
    start = T0 + 5 * DAY
    write(lake, "trades", trades(3, start=start - silent))
    write(lake, "trades", trades(3, start=start + 2 * MINUTE, symbol="ETH/USDT"))
    bundle = lake.bundles.pin("b", table="trades", check=False)
    everything = lake.scan("trades").select(lake.dataset("trades").availability(), pl.all())
    span: Any = {"since": start, "until": start + 5 * MINUTE, "by": ("exchange", "symbol")}
    for how in (AsOf("1m", columns="price"), Resample("last", columns="price")):
        expected = align({"x": everything}, "1m", how=how, **span).frame
        assert expected.height == 5 + 3
        for reader in (lake, bundle):
            assert_frame_equal(reader.align({"x": "trades"}, "1m", how=how, **span).frame, expected)


def test_of_late_rows_only_days_that_can_hold_them_are_read(lake: Lake) -> None:
    write(lake, "trades", trades(5, step=DAY))
    received = pl.Series([T0 + 7 * DAY], dtype=TIME)
    row = trades(1, first=100, start=T0 + 2.5 * DAY, received_at=received)
    write(lake, "trades", row)
    bundle = lake.bundles.pin("b", table="trades", check=False)
    pinned = PinnedTable.open(bundle.contents, "trades")
    before = Selection(end=T0 + 6 * DAY)
    narrowed = pinned.find_late(before, T0 + 6 * DAY)
    assert narrowed == Selection(start=T0 + 2 * DAY, end=T0 + 6 * DAY)
    assert pinned.find_late(before, T0 + 8 * DAY) is None
