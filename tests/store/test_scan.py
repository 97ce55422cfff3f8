"""Scans open only the files that they need, in order, and `date` is always the calendar day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import ColumnProperties, WriterProperties, write_deltalake

from lake.api import Lake
from lake.errors import DamagedError, UnknownNameError, UsageError
from tests.conftest import DAY, NAIVE, SECOND, T0, NewLake, funding, store_of, trades, write

DAYS = 3


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """Two exchanges, two symbols, three days: twelve files of six trades each."""
    store = store_of(lake)
    for exchange in ("binance", "kraken"):
        frames = [
            trades(6 * DAYS, step=DAY / 6, exchange=exchange, symbol=symbol)
            for symbol in ("BTC/USDT", "ETH/USDT")
        ]
        write(store, "trades", pl.concat(frames))
    return lake


def ruin(lake: Lake, *, except_for: Callable[[str], bool]) -> None:
    """Make files unreadable, but for those whose path says so."""
    folder = lake.root.tables / "trades"
    paths = [path for path in folder.rglob("*.parquet") if not except_for(str(path))]
    assert paths
    for path in paths:
        path.write_bytes(b"ruined" * 1000)


def test_a_scan_of_one_exchange_opens_only_its_files(filled: Lake) -> None:
    ruin(filled, except_for=lambda path: "exchange=kraken" in path)
    assert filled.scan("trades", exchange="kraken").collect().height == 36
    with pytest.raises(DamagedError, match="table trades: cannot be read"):
        filled.scan("trades").collect()


def test_a_scan_of_one_symbol_opens_only_its_files(filled: Lake) -> None:
    ruin(filled, except_for=lambda path: "symbol=ETH" in path)
    assert filled.scan("trades", symbol="ETH/USDT").collect().height == 36
    assert filled.scan("trades").filter(pl.col("symbol") == "ETH/USDT").collect().height == 36


def test_a_scan_of_a_time_opens_only_the_files_of_its_days(filled: Lake) -> None:
    ruin(filled, except_for=lambda path: "date=2024-01-02" in path)
    inside = filled.scan("trades", since=T0 + DAY, until=T0 + 1.5 * DAY)
    assert inside.collect().height == 4 * 3
    whole = filled.scan("trades", since=T0 + DAY, until=T0 + 2 * DAY - DAY / 6)
    assert whole.collect().height == 4 * 5


@pytest.mark.parametrize(
    "condition",
    [
        pl.col("timestamp").is_between(T0 + DAY, T0 + 1.9 * DAY),
        pl.col("date") == (T0 + DAY).date(),
        (pl.col("timestamp") >= T0 + DAY) & (pl.col("timestamp") < T0 + 2 * DAY),
    ],
)
def test_a_filter_put_on_a_scan_opens_only_the_files_of_its_days(
    filled: Lake, condition: pl.Expr
) -> None:
    ruin(filled, except_for=lambda path: "date=2024-01-02" in path)
    assert filled.scan("trades").filter(condition).collect().height == 4 * 6


def test_the_files_of_a_selection_are_those_that_hold_its_rows(filled: Lake) -> None:
    snapshot = store_of(filled).snapshot(filled.dataset("trades"))
    files = snapshot.files()
    assert files.height == 12
    assert files["rows"].to_list() == [6] * 12
    for path in files["path"]:
        assert Path(snapshot.uri, path).is_file()


@pytest.mark.parametrize("step", [timedelta(microseconds=1), timedelta(microseconds=333)])
def test_rows_after_the_last_whole_millisecond_of_a_file_are_not_lost(
    lake: Lake, step: timedelta
) -> None:
    start = T0 + timedelta(microseconds=345_600)
    write(lake, "trades", trades(3, start=start, step=step))
    last = start + 2 * step
    assert lake.scan("trades", since=last).collect().height == 1
    assert lake.sql("SELECT count(*) FROM trades WHERE timestamp >= ?", [last]).fetchall() == [(1,)]
    bundle = lake.bundles.pin("last", table="trades", since=last)
    assert bundle.scan("trades").collect().height == 1
    assert bundle.sql("SELECT count(*) FROM trades").fetchall() == [(1,)]
    assert lake.bundles.pin("all", table="trades").manifest.metadata.date_range.end == last


def test_a_range_includes_its_start_and_excludes_its_end(lake: Lake) -> None:
    write(lake, "trades", trades(5, step=DAY))
    read = lake.scan("trades", since=T0 + DAY, until=T0 + 3 * DAY).collect()
    assert read["timestamp"].to_list() == [T0 + DAY, T0 + 2 * DAY]


def test_rows_come_by_exchange_symbol_and_time(lake: Lake) -> None:
    frames = [
        trades(3, exchange=exchange, symbol=symbol, first=first, step=DAY)
        for first in (3, 0)
        for symbol in ("ETH/USDT", "BTC/USDT")
        for exchange in ("kraken", "binance")
    ]
    for frame in frames:
        write(lake, "trades", frame)
    read = lake.scan("trades").collect()
    order = read.select("exchange", "symbol", "timestamp").rows()
    assert order == sorted(order)
    assert len(order) == 24
    market = lake.scan("trades", exchange="kraken", symbol="ETH/USDT").collect()
    assert market["timestamp"].is_sorted()


def test_columns_can_be_chosen_and_are_checked(lake: Lake) -> None:
    write(lake, "trades", trades())
    assert lake.scan("trades", columns=["price", "date"]).collect().columns == ["price", "date"]
    with pytest.raises(UnknownNameError, match="table trades has no column 'colour'") as caught:
        lake.scan("trades", columns=["colour"])
    assert "price" in caught.value.hint


@pytest.mark.parametrize(
    ("since", "until", "message"),
    [
        (T0 + DAY, T0, "empty or reversed"),
        (T0, T0, "empty or reversed"),
        (NAIVE, None, "has no time zone"),
        (None, NAIVE, "has no time zone"),
    ],
)
def test_a_range_that_cannot_be_is_refused(
    lake: Lake, since: datetime | None, until: datetime | None, message: str
) -> None:
    write(lake, "trades", trades())
    with pytest.raises(UsageError, match=message):
        lake.scan("trades", since=since, until=until)


def test_a_market_that_is_not_there_is_refused_or_has_no_rows(lake: Lake) -> None:
    write(lake, "trades", trades())
    with pytest.raises(UnknownNameError, match="no rows of exchange okx"):
        lake.scan("trades", exchange="okx")
    assert lake.scan("trades", exchange="okx", missing="empty").collect().is_empty()


EVENTS = [datetime(2023, 12, 31, 23, 59, tzinfo=UTC), T0, datetime(2024, 7, 14, 8, tzinfo=UTC)]
EVENT_DAYS = [date(2023, 12, 31), date(2024, 1, 1), date(2024, 7, 14)]


@pytest.mark.parametrize(
    ("granularity", "column", "folders"),
    [("year", "year", 2), ("month", "month", 3), ("day", "date", 3)],
)
def test_date_is_the_day_however_files_are_kept(
    new_lake: NewLake, granularity: str, column: str, folders: int
) -> None:
    lake = new_lake({"funding": granularity})
    write(lake, "funding", funding(EVENTS))
    assert len(list((lake.root.tables / "funding").glob(f"*/*/{column}=*"))) == folders
    assert lake.scan("funding").collect()["date"].to_list() == EVENT_DAYS
    shown = lake.sql("SELECT date FROM funding ORDER BY timestamp")
    assert [day for (day,) in shown.fetchall()] == EVENT_DAYS


@pytest.mark.parametrize("granularity", ["year", "month", "day"])
@pytest.mark.parametrize("day", EVENT_DAYS)
def test_a_filter_on_date_finds_the_rows_of_the_day(
    new_lake: NewLake, granularity: str, day: date
) -> None:
    lake = new_lake({"funding": granularity})
    write(lake, "funding", funding(EVENTS))
    expected = [time for time in EVENTS if time.date() == day]
    scanned = lake.scan("funding").filter(pl.col("date") == day).collect()
    assert scanned["timestamp"].to_list() == expected
    assert lake.sql("SELECT * FROM funding WHERE date = ?", [day]).pl().height == 1
    since = lake.sql("SELECT * FROM funding WHERE date >= ?", [day]).pl().height
    assert since == lake.scan("funding").filter(pl.col("date") >= day).collect().height


def test_a_scan_of_a_year_opens_only_its_file(lake: Lake) -> None:
    write(lake, "funding", funding(EVENTS))
    for path in (lake.root.tables / "funding").rglob("*.parquet"):
        if "year=2024" not in str(path):
            path.write_bytes(b"ruined" * 1000)
    assert lake.scan("funding", since=T0).collect().height == 2
    assert lake.scan("funding", since=T0 + DAY, columns=["date"]).collect().height == 1


def test_a_file_without_statistics_is_not_passed_over(lake: Lake) -> None:
    write(lake, "trades", trades(1))
    table = lake.root.tables / "trades"
    more = (
        lake.scan("trades")
        .collect()
        .with_columns(pl.lit("foreign").alias("trade_id"), pl.col("timestamp") + SECOND / 2)
    )
    none = ColumnProperties(statistics_enabled="NONE")
    write_deltalake(
        table,
        more,
        mode="append",
        writer_properties=WriterProperties(default_column_properties=none),
    )
    rows = lake.scan("trades", since=T0, until=T0 + SECOND).collect()
    assert sorted(rows["trade_id"]) == ["0", "foreign"]
    [(_, ref)] = lake.bundles.pin("whole", table="trades").manifest.refs()
    assert ref.rows == 2
