"""Funding that is corrected, completed, or stamped otherwise later: one event is one row."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.model.market import Market
from lake.model.time import TimeRange
from tests.conftest import DAY, ORIGIN, T0, TIME, NewLake, store_of, write
from tests.paths import SHARED

HOUR, MS = timedelta(hours=1), timedelta(milliseconds=1)
PERPETUAL = Market("binance", "BTC/USDT:USDT")
REAL = SHARED / "cex" / "funding" / "binanceusdm_XRP-USDT-USDT.parquet"


def rates(
    *times: datetime, rate: float = 1e-4, mark: float | None = None, **values: Any
) -> pl.DataFrame:
    return pl.DataFrame({"timestamp": pl.Series(times, dtype=TIME)}).select(
        "timestamp",
        exchange=pl.lit(PERPETUAL.exchange),
        symbol=pl.lit(PERPETUAL.symbol),
        funding_rate=pl.lit(rate),
        mark_price=pl.lit(mark, pl.Float64),
        **{name: pl.lit(value) for name, value in values.items()},
    )


def stored(lake: Lake, *columns: str) -> list[tuple[Any, ...]]:
    return lake.scan("funding").sort("timestamp").select(columns).collect().rows()


def test_a_correction_replaces_the_rate_and_the_version_before_keeps_it(lake: Lake) -> None:
    first = write(lake, "funding", rates(T0, mark=50.0))
    again = write(lake, "funding", rates(T0, rate=3e-4))
    assert (again.inserted, again.updated, again.conflicting) == (0, 1, 0)
    # A source that does not give the mark price takes none away.
    assert stored(lake, "funding_rate", "mark_price") == [(3e-4, 50.0)]
    before = lake.scan("funding", version=first.version).collect()
    assert before["funding_rate"].to_list() == [1e-4]
    assert write(lake, "funding", rates(T0, rate=3e-4)).version == again.version


def test_a_mark_price_that_comes_later_is_filled_in(lake: Lake) -> None:
    write(lake, "funding", rates(T0))
    assert write(lake, "funding", rates(T0 + 3 * MS, mark=50.0)).updated == 1
    assert write(lake, "funding", rates(T0)).unchanged == 1
    assert stored(lake, "timestamp", "mark_price") == [(T0 + 3 * MS, 50.0)]


def test_a_filled_rate_gives_way_to_the_venues_and_never_replaces_it(lake: Lake) -> None:
    filled = rates(T0 + 8 * HOUR, rate=2e-4, fill="interpolated:last")
    write(lake, "funding", filled)
    assert write(lake, "funding", rates(T0 + 8 * HOUR - 7 * MS)).updated == 1
    assert write(lake, "funding", filled).unchanged == 1
    assert stored(lake, "timestamp", "funding_rate", "fill") == [
        (T0 + 8 * HOUR - 7 * MS, 1e-4, None)
    ]


def test_an_event_moves_over_the_end_of_a_year(lake: Lake) -> None:
    early, late = T0 - 10 * MS, T0 + 3 * MS
    write(lake, "funding", rates(early, T0 + 8 * HOUR))
    written = write(lake, "funding", rates(late, rate=3e-4))
    assert (written.inserted, written.updated) == (0, 1)
    assert written.kept["timestamp"].to_list() == [late]
    assert stored(lake, "timestamp", "date", "funding_rate") == [
        (late, T0.date(), 3e-4),
        (T0 + 8 * HOUR, T0.date(), 1e-4),
    ]
    assert write(lake, "funding", rates(early, rate=3e-4)).unchanged == 1
    assert lake.maintenance.verify("funding").is_intact


def test_rows_of_one_event_that_are_stored_stay_one_by_one(lake: Lake) -> None:
    """Earlier versions stored them: a new copy is none more, and no key comes twice."""
    store = store_of(lake)
    exact = replace(store.catalog.dataset("funding"), schedule=None, time_tolerance=timedelta(0))
    store.write(exact, rates(T0, T0 + 3 * MS, T0 + 8 * HOUR), ORIGIN)
    written = write(store, "funding", rates(T0 + MS, T0 + 5 * MS, T0 + 8 * HOUR + MS, rate=3e-4))
    assert (written.inserted, written.updated) == (0, 2)
    assert stored(lake, "timestamp", "funding_rate") == [
        (T0, 1e-4),
        (T0 + 5 * MS, 3e-4),
        (T0 + 8 * HOUR + MS, 3e-4),
    ]
    window = TimeRange(T0, T0 + DAY)
    kept = store.replace(exact, PERPETUAL, window, lambda rows: rows[1:], ORIGIN)
    assert (kept.before.height, kept.after.height) == (3, 2)


def test_a_lake_of_before_takes_corrections_of_its_events(lake_before: Lake) -> None:
    rows = lake_before.scan("funding").sort("timestamp").collect().drop("date")
    moved = rows.with_columns(pl.col("timestamp") + 4 * MS, pl.col("funding_rate") * 2)
    written = lake_before.write("funding", moved)
    assert (written.inserted, written.updated) == (0, rows.height)
    after = lake_before.scan("funding").collect()
    assert after["funding_rate"].sum() == pytest.approx(2 * rows["funding_rate"].sum())
    bundle = lake_before.bundles.open("before")
    if "funding" in bundle.tables:
        assert bundle.scan("funding").collect().height == rows.height


def test_a_rate_is_never_known_before_any_of_its_times_nor_before_receipt(lake: Lake) -> None:
    write(lake, "funding", rates(T0, rate=1e-4))
    write(lake, "funding", rates(T0 + 7 * MS, rate=1e-4))
    assert lake.at(
        "funding", exchange="binance", symbol=PERPETUAL.symbol, time=T0 + 6 * MS
    ).is_empty()
    assert (
        lake.at("funding", exchange="binance", symbol=PERPETUAL.symbol, time=T0 + 7 * MS).height
        == 1
    )
    at = T0 + 8 * HOUR
    write(lake, "funding", rates(at - 5 * MS, received_at=at - HOUR))
    write(lake, "funding", rates(at - 5 * MS, rate=2e-4, received_at=at + HOUR))
    times = lake.sql("SELECT available_at FROM funding ORDER BY 1").pl()
    assert times["available_at"].dt.convert_time_zone("UTC").to_list() == [T0 + 7 * MS, at + HOUR]


def test_a_correction_of_a_pinned_rate_shows_in_the_difference_as_one_change(lake: Lake) -> None:
    write(lake, "funding", rates(T0, T0 + 8 * HOUR))
    before = lake.bundles.pin("before", table="funding", check=False)
    write(lake, "funding", rates(T0 + 3 * MS, rate=3e-4))
    lake.bundles.pin("after", table="funding", check=False)
    assert before.scan("funding").collect()["funding_rate"].to_list() == [1e-4, 1e-4]
    lines = pl.concat(lake.bundles.diff("before", "after", rows=True))
    assert lines.select("change", "column").rows() == [
        ("changed", "timestamp"),
        ("changed", "funding_rate"),
    ]


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not there")
def test_real_rates_and_those_of_an_archive_at_full_hours_are_the_same_events(lake: Lake) -> None:
    real = pl.read_parquet(REAL).with_columns(
        exchange=pl.lit("binance"), symbol=pl.lit("XRP/USDT:USDT")
    )
    archive = real.with_columns(pl.col("timestamp").dt.round("1h"))
    assert archive["timestamp"].ne(real["timestamp"]).sum() > 40
    write(lake, "funding", archive)
    written = write(lake, "funding", real)
    assert written.inserted == 0
    assert write(lake, "funding", archive).unchanged == real.height
    rows = lake.scan("funding").sort("timestamp").collect()
    assert rows.select("timestamp", "funding_rate").equals(real.select("timestamp", "funding_rate"))


copies = st.tuples(
    st.sampled_from([0, 8, 9]),
    st.sampled_from([0.0, 3.0, -12.0]),
    st.sampled_from([1e-4, 3e-4]),
    st.sampled_from([None, 50.0]),
)


@given(st.lists(copies, min_size=1, max_size=6), st.integers(1, 6))
@settings(max_examples=6)
def test_any_batches_of_a_market_store_the_same_rows(
    new_lake: NewLake, rows: list[tuple[int, float, float, float | None]], size: int
) -> None:
    frames = [
        rates(T0 + hour * HOUR + off * MS, rate=rate, mark=mark) for hour, off, rate, mark in rows
    ]
    lakes = [new_lake(), new_lake()]
    for lake, length in zip(lakes, (size, 1), strict=True):
        store = store_of(lake)
        dataset = store.catalog.dataset("funding")
        for first in range(0, len(frames), length):
            part = frames[first : first + length]
            store.write(dataset, pl.concat(part), ORIGIN, pl.Series(range(len(part))))
    columns = ("timestamp", "funding_rate", "mark_price")
    assert stored(lakes[0], *columns) == stored(lakes[1], *columns)
    assert len(stored(lakes[0], *columns)) == len({hour for hour, *_ in rows})
