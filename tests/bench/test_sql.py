# ruff: noqa: S608 - the queries are those of the benchmark
"""SQL over a table of many files, against DuckDB that is given just the files with the rows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import duckdb
import polars as pl
import pytest

from lake.api import Lake, utc_now
from lake.model.partitions import MARKET_DAY
from lake.settings import Settings
from lake.store import delta
from lake.store.store import Store
from tests.bench.conftest import best_seconds, report

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

START = datetime(2025, 1, 1, tzinfo=UTC)
MARKETS, DAYS = 100, 60
# LAKE_BENCH_DAYS=365 makes a year of 100 markets: 36,500 files.
DAYS = int(os.environ.get("LAKE_BENCH_DAYS", DAYS))
LAST = START + timedelta(days=DAYS)
SYMBOLS = [f"C{number:03}/USDT" for number in range(MARKETS)]
MONTH = (LAST - timedelta(days=31), LAST - timedelta(days=1))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """One-minute bars, a file a market and day, all in one commit; markets share their rows."""
    settings = Settings(uri=str(tmp_path_factory.mktemp("sql") / "lake"))
    store = Store(Lake.create(settings).root, utc_now)
    dataset = store.catalog.dataset("bars_1m")
    table = store.open_for_writing(dataset)
    files = []
    for day in range(DAYS):
        files += list(_write_day(Path(table.folder), dataset.empty(), START + timedelta(days=day)))
    metadata = delta.replace_files(table, files, [], utc_now(), {"job": "bench"})
    table.update_incremental()
    table.seal(metadata)
    delta.write_checkpoint(Path(table.folder), dataset, store.clock)
    return Lake(settings)


def _write_day(folder: Path, empty: pl.DataFrame, day: datetime) -> Iterator[delta.DataFile]:
    number = pl.int_range(1440, eager=True)
    times = day + pl.Series((number * 60_000_000).cast(pl.Duration("us")))
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 100.0 + number % 97)
    closed = pl.repeat(value=True, n=1440, eager=True)
    rows = pl.DataFrame({"timestamp": times, **prices, "closed": closed})
    rows = pl.concat([empty, rows], how="diagonal").drop(MARKET_DAY)
    first: Path | None = None
    for symbol in SYMBOLS:
        path = f"exchange=binance/symbol={quote(symbol, safe='')}/date={day:%F}/part.parquet"
        file = folder / path
        file.parent.mkdir(parents=True)
        if first is None:
            rows.write_parquet(file)
            first = file
        else:
            os.link(first, file)
        partition = {"exchange": "binance", "symbol": symbol, "date": f"{day:%F}"}
        bounds = {
            "numRecords": 1440,
            "minValues": {"timestamp": f"{day:%FT%T}.000Z"},
            "maxValues": {"timestamp": f"{day:%F}T23:59:00.000Z"},
            "nullCount": {"timestamp": 0, "received_at": 1440},
        }
        yield delta.DataFile(path, file.stat().st_size, partition, bounds)


ONE = f"exchange = 'binance' AND symbol = '{SYMBOLS[42]}'"
QUERIES = {
    "one market-day by date": (f"{ONE} AND date = '{MONTH[0]:%F}'", SYMBOLS[42:43], MONTH[:1]),
    "one market-day by timestamp": (
        f"{ONE} AND timestamp BETWEEN '{MONTH[0]:%F}' AND '{MONTH[0]:%F} 23:59'",
        SYMBOLS[42:43],
        MONTH[:1],
    ),
    "the last hour of all": (
        f"timestamp >= '{LAST - timedelta(hours=1):%F %T}'",
        SYMBOLS,
        MONTH[1:],
    ),
    "50 symbols and a month": (
        f"symbol IN {tuple(SYMBOLS[:50])} AND date BETWEEN '{MONTH[0]:%F}' AND '{MONTH[1]:%F}'",
        SYMBOLS[:50],
        tuple(MONTH[0] + timedelta(days=day) for day in range(31)),
    ),
}


@pytest.mark.parametrize("name", QUERIES)
def test_sql_against_duckdb_with_the_right_files(lake: Lake, name: str) -> None:
    condition, symbols, days = QUERIES[name]
    files = [
        f"{lake.root.tables}/bars_1m/exchange=binance/symbol={quote(symbol, safe='')}"
        f"/date={day:%F}/part.parquet"
        for symbol in symbols
        for day in days
    ]
    hive = "{'exchange': VARCHAR, 'symbol': VARCHAR, 'date': DATE}"
    source = f"read_parquet({files!r}, hive_partitioning = true, hive_types = {hive})"
    query = f"SELECT symbol, count(*), max(close) FROM {{}} WHERE {condition} GROUP BY 1 ORDER BY 1"
    expected: list[object] = []

    def ours() -> None:
        assert lake.sql(query.format("bars_1m")).fetchall() == expected

    def opening() -> None:
        fresh = Lake(Settings(uri=str(lake.root.path)))
        assert fresh.sql(query.format("bars_1m")).fetchall() == expected

    def right_files() -> None:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            assert connection.execute(query.format(source)).fetchall() == expected

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        expected += connection.execute(query.format(source)).fetchall()
    assert len(expected) == len(symbols)
    open_table, whole, right = best_seconds(
        ours, opening, right_files, rounds=5, clock=time.process_time
    )
    print(f"\n{name}: {len(files)} of {MARKETS * DAYS} files, {right * 1e3:.0f} CPU-ms by DuckDB")
    report("with the table open, against the right files", open_table / right, "<= 1.3")
    report("and with opening it", whole / right, "none: it grows with the files of the table")
    assert open_table / right <= 1.3
