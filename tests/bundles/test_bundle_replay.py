"""Replay of a bundle: the same stream from files and from the cache, after any ingestion."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import DamagedError, UnknownNameError
from lake.replay.events import Bar, Event, Funding, Trade
from lake.settings import CacheSettings, Settings
from tests.conftest import (
    DAY,
    MINUTE,
    SECOND,
    T0,
    TIME,
    NewLake,
    bars,
    copy_lake,
    funding,
    trades,
    write,
)

TABLES = ("trades", "bars_1m", "funding", "bars_1h")


@pytest.fixture(scope="module")
def filled(new_lake: NewLake) -> Lake:
    """Write two days of four tables; some trades were received late, some before their time."""
    lake = new_lake()
    for number, symbol in enumerate(("BTC/USDT", "ETH/USDT")):
        write(lake, "bars_1m", bars(2 * 1440, symbol=symbol))
        write(lake, "bars_1h", bars(48, step=60 * MINUTE, symbol=symbol))
        rows = trades(1000, first=995, step=2 * MINUTE, start=T0 - 1990 * MINUTE, symbol=symbol)
        late = pl.col("timestamp") + pl.duration(seconds=pl.int_range(pl.len()) % 400 - 20)
        received = pl.when(pl.int_range(pl.len()) % 3 > number).then(late)
        write(lake, "trades", rows.with_columns(received_at=received))
    write(lake, "funding", funding([T0 + hours * 60 * MINUTE for hours in (0, 8, 16, 24, 32)]))
    return lake


@pytest.fixture
def lake(filled: Lake, tmp_path: Path) -> Lake:
    """Copy the lake, and give it a cache of its own."""
    uri = str(copy_lake(filled, tmp_path / "lake").root.path)
    return Lake(Settings(uri=uri, cache=CacheSettings(folder=tmp_path / "cache")))


def stream(
    bundle: Bundle, start: datetime | None = None, end: datetime | None = None
) -> list[Event]:
    return list(bundle.replay(since=start, until=end))


def test_files_and_cache_and_any_layout_give_the_same_stream(lake: Lake) -> None:
    bundle = lake.bundles.pin("b", table=TABLES, check=False)
    cold = stream(lake.bundles.open("b", cache=False))
    assert len(cold) == sum(ref.rows for _, ref in bundle.manifest.refs())
    assert [event.position for event in cold] == list(range(len(cold)))
    assert [event.available_at_us for event in cold] == sorted(e.available_at_us for e in cold)
    assert stream(bundle) == cold
    bundle.finish()
    assert stream(lake.bundles.open("b")) == cold
    lake.maintenance.optimize()
    assert stream(lake.bundles.pin("compacted", table=TABLES, check=False)) == cold
    batches = list(bundle.replay(batch=777))
    assert [batch.rows for batch in batches[:-1]] == [777] * (len(batches) - 1)
    assert sum(batch.rows for batch in batches) == len(cold)


def test_no_row_is_seen_before_it_could_be_known(lake: Lake) -> None:
    bundle = lake.bundles.pin("b", table=TABLES, check=False)
    for event in bundle.replay():
        if isinstance(event, Bar):
            length = 60 if event.table == "bars_1h" else 1
            assert event.available_at == event.timestamp + length * MINUTE
        elif isinstance(event, Trade):
            assert event.available_at == max(event.timestamp, event.received_at or T0)
        elif isinstance(event, Funding):
            assert event.available_at == event.timestamp


def test_a_range_is_cut_out_of_the_whole_stream(lake: Lake) -> None:
    bundle = lake.bundles.pin("b", table=TABLES, check=False)
    everything = stream(bundle)
    start, end = T0 + 17 * SECOND, T0 + DAY + 7 * MINUTE
    expected = [event for event in everything if start <= event.available_at < end]
    events = stream(bundle, start, end)
    assert [event[2:] for event in events] == [event[2:] for event in expected]  # type: ignore[index]
    one = bundle.replay("trades", symbol="ETH/USDT", since=start, until=end)
    assert [event.available_at for event in one] == [
        event.available_at
        for event in expected
        if event.table == "trades" and event.symbol == "ETH/USDT"
    ]


@settings(max_examples=15)
@given(
    minute=st.integers(0, 2 * 1440),
    shift=st.timedeltas(timedelta(seconds=1), timedelta(days=3)),
    delayed=st.booleans(),
)
def test_future_rows_do_not_change_past_events(
    new_lake: NewLake, minute: int, shift: timedelta, *, delayed: bool
) -> None:
    """Guard against look-ahead: shifting rows known after an instant changes no earlier event."""
    instant = T0 + minute * MINUTE
    received = [T0 + n * 9 * MINUTE + (n % 40) * MINUTE for n in range(300)]
    rows = trades(300, step=9 * MINUTE, received_at=received if delayed else [None] * 300)
    rows = rows.cast({"received_at": TIME})
    late = pl.coalesce("received_at", "timestamp") > instant
    moved = rows.with_columns(
        pl.when(late).then(pl.col(name) + shift).otherwise(pl.col(name)).alias(name)
        for name in ("timestamp", "received_at")
    )
    positions = []
    for frame in (rows, moved):
        lake = new_lake()
        write(lake, "trades", frame)
        write(lake, "bars_1m", bars(96, step=30 * MINUTE))
        bundle = lake.bundles.pin("b", table=("trades", "bars_1m"), check=False)
        positions.append([event for event in bundle.replay() if event.available_at <= instant])
    assert positions[0] == positions[1]


def test_a_damaged_file_stops_the_stream(lake: Lake) -> None:
    bundle = lake.bundles.pin("b", table="bars_1m", check=False)
    path = lake.root.tables / "bars_1m" / bundle.contents.files.files("bars_1m")["path"][-1]
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(DamagedError, match=path.name):
        stream(lake.bundles.open("b", cache=False))


def test_a_table_that_is_not_pinned_is_refused(lake: Lake) -> None:
    with pytest.raises(UnknownNameError, match="'bars_1m' is not in bundle"):
        lake.bundles.pin("b", table="trades").replay("bars_1m")
