"""A recorder whose clock was 1.27 s behind: its trades are seen when they happened, not before.

The recordings are of hftbacktest (see `ORIGIN.md` of the shared data): ETHUSDT, spot and USD-M.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.align.align import AlignInput
from lake.align.asof import as_of_join
from lake.align.policies import AsOf
from lake.bundles.bundle import Bundle
from tests.conftest import SECOND, TIME, NewLake, write
from tests.paths import SHARED

FOLDER = SHARED / "peers" / "01_binance_eth"
MARKETS = {"spot": "ETH/USDT", "usdm": "ETH/USDT:USDT"}
MILLISECOND = timedelta(milliseconds=1)
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"no recorded data at {FOLDER}")


def read_recording(name: str) -> pl.DataFrame:
    """Read the trades of a recording: their times by the venue, and when each was received."""
    rows = []
    with gzip.open(FOLDER / f"{name}_ethusdt_20240808.gz") as lines:
        for received_ns, text in (line.split(b" ", 1) for line in lines):
            if b'"e":"trade"' in text:
                trade = orjson.loads(text)["data"]
                rows.append(
                    {
                        "timestamp": trade["T"] * 1000,
                        "trade_id": str(trade["t"]),
                        "price": float(trade["p"]),
                        "amount": float(trade["q"]),
                        "side": "sell" if trade["m"] else "buy",
                        "received_at": int(received_ns) // 1000,
                    }
                )
    frame = pl.DataFrame(rows).unique("trade_id", keep="first", maintain_order=True)
    times = pl.col("timestamp", "received_at").cast(TIME)
    names = {"exchange": pl.lit("recorder"), "symbol": pl.lit(MARKETS[name])}
    return frame.filter(pl.col("price") > 0).with_columns(times, **names)


@pytest.fixture(scope="module")
def recorded() -> pl.DataFrame:
    return pl.concat([read_recording(name) for name in MARKETS])


@pytest.fixture(scope="module")
def bundle(new_lake: NewLake, recorded: pl.DataFrame) -> Bundle:
    lake = new_lake()
    written = write(lake, "trades", recorded)
    assert (written.inserted, written.rejected, written.cleared) == (recorded.height, 0, 0)
    return lake.bundles.pin("recorded", table="trades", check=False)


def test_every_trade_was_received_before_it_happened(recorded: pl.DataFrame) -> None:
    assert recorded.height > 20_000
    behind = recorded.select(pl.col("timestamp") - pl.col("received_at")).to_series()
    assert behind.min() > timedelta(seconds=1)  # type: ignore[operator]


def test_no_row_is_available_before_its_time(bundle: Bundle, recorded: pl.DataFrame) -> None:
    rows = bundle.available("trades").collect()
    assert rows.height == recorded.height
    assert rows["available_at"].equals(rows["timestamp"])
    assert rows.filter(pl.col("received_at") >= pl.col("timestamp")).is_empty()
    delays = bundle.contents.days.select("min_delay_us", "max_delay_us").unique().rows()
    assert delays == [(0, 0)]


def test_a_replay_shows_each_trade_when_it_happened(bundle: Bundle, recorded: pl.DataFrame) -> None:
    events: list[Any] = list(bundle.replay())
    assert len(events) == recorded.height
    assert all(event.available_at_us == event.timestamp_us for event in events)
    times = [event.timestamp_us for event in events]
    assert times == sorted(times)


def moments(recorded: pl.DataFrame) -> st.SearchStrategy[datetime]:
    """Times at, just before and just after trades, and any others of the recording."""
    times = recorded["timestamp"].unique().sort().to_list()
    near = st.sampled_from([-MILLISECOND, -timedelta(microseconds=1), timedelta(0), SECOND])
    first, last = (time.replace(tzinfo=None) for time in (times[0], times[-1]))
    anywhere = st.datetimes(first, last, timezones=st.just(UTC))
    return anywhere | st.builds(lambda time, shift: time + shift, st.sampled_from(times), near)


@settings(max_examples=40)
@given(data=st.data())
def test_a_join_gives_the_newest_trade_of_the_past(
    bundle: Bundle, recorded: pl.DataFrame, data: st.DataObject
) -> None:
    drawn = data.draw(st.lists(moments(recorded), min_size=1, max_size=20))
    times = pl.DataFrame({"time": sorted(drawn)}, schema={"time": TIME})
    for symbol in MARKETS.values():
        rows = bundle.available("trades", symbol=symbol).collect()
        joined = as_of_join(times, rows, staleness=None, by=(), columns=["timestamp", "price"])
        known = joined.drop_nulls("timestamp")
        assert known.filter(pl.col("timestamp") > pl.col("time")).is_empty()
        assert_frame_equal(joined, naive_join(times, rows))


def naive_join(times: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    ordered = rows.sort("timestamp", maintain_order=True).select("timestamp", "price")
    joined = times.join_asof(
        ordered.with_columns(at="timestamp"), left_on="time", right_on="at", coalesce=False
    )
    return joined.with_columns(age=pl.col("time") - pl.col("timestamp")).drop("at")


@settings(max_examples=10)
@given(data=st.data())
def test_replays_and_look_ups_of_any_range_show_only_the_past(
    bundle: Bundle, recorded: pl.DataFrame, data: st.DataObject
) -> None:
    first, last = sorted(data.draw(st.tuples(moments(recorded), moments(recorded))))
    until = last + timedelta(microseconds=1)
    inside = pl.col("timestamp").is_between(first, until, closed="left")
    expected = recorded.filter(inside)["trade_id"].sort().to_list()
    batches = bundle.replay(since=first, until=until, batch=5_000)
    replayed = pl.concat([pl.Series([""], dtype=pl.String).clear(), *_ids(batches)])
    assert replayed.sort().to_list() == expected
    for symbol in MARKETS.values():
        past = recorded.filter(pl.col("symbol") == symbol, pl.col("timestamp") <= last)
        row = bundle.at("trades", exchange="recorder", symbol=symbol, time=last)
        assert row["timestamp"].to_list() == past["timestamp"].sort().tail(1).to_list()
        inputs = {"x": AlignInput("trades", symbol=symbol)}
        how = AsOf(staleness=None, columns="timestamp")
        aligned = bundle.align(inputs, "1s", since=last, until=last + SECOND, how=how).frame
        assert aligned["x_timestamp"].to_list() == (row["timestamp"].to_list() or [None])


def _ids(batches: Iterator[Any]) -> Iterator[pl.Series]:
    return (frame["trade_id"] for batch in batches for frame in batch.frames.values())
