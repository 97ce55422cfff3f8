"""Reading a year of one-minute bars of one market, cold, against Polars on the same files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from lake.align.align import AlignInput
from lake.align.policies import AsOf
from lake.api import Lake, utc_now
from lake.settings import Settings
from lake.store.store import Origin, Store
from tests.bench.conftest import best_seconds, report

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

START = datetime(2025, 1, 1, tzinfo=UTC)
MARKET = {"exchange": "binance", "symbol": "BTC/USDT"}
MINUTES = 365 * 1440


def _year(symbol: str) -> pl.DataFrame:
    number = pl.int_range(MINUTES, eager=True)
    price = 50_000.0 + (number % 10_007) / 10
    return pl.DataFrame(
        {
            "timestamp": START + pl.Series((number * 60_000_000).cast(pl.Duration("us"))),
            "open": price,
            "high": price + 5,
            "low": price - 5,
            "close": price + 1,
            "volume": (number % 131 + 1) / 7,
            "quote_volume": (number % 131 + 1) * 7_000.5,
            "trade_count": number % 300,
            "taker_buy_volume": (number % 131 + 1) / 14,
            "taker_buy_quote_volume": (number % 131 + 1) * 3_000.5,
        }
    ).with_columns(exchange=pl.lit("binance"), symbol=pl.lit(symbol), closed=pl.lit(value=True))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("read") / "lake"
    store = Store(Lake.create(Settings(uri=str(path))).root, utc_now)
    for symbol in ("BTC/USDT", "ETH/USDT", "XRP/USDT"):
        store.write(store.catalog.dataset("bars_1m"), _year(symbol), Origin("bench", "bench"))
    return path


def test_a_year_of_bars_against_scan_parquet(filled: Path) -> None:
    folder = filled / "tables" / "bars_1m" / "exchange=binance" / "symbol=BTC%2FUSDT"
    files = sorted(folder.rglob("*.parquet"))
    assert len(files) == 365

    def through_the_lake() -> pl.DataFrame:
        return Lake(Settings(uri=str(filled))).scan("bars_1m", **MARKET).collect()  # type: ignore[arg-type]

    def plain() -> pl.DataFrame:
        return pl.scan_parquet(files, hive_partitioning=True).collect()

    rows = through_the_lake()
    assert rows.height == MINUTES
    assert rows["timestamp"].is_sorted()
    ours, parquet = best_seconds(through_the_lake, plain, rounds=25)
    report("cold read of a year of 1m bars against scan_parquet", ours / parquet, "<= 1.3")
    assert ours / parquet <= 1.3


def test_a_day_of_a_market_does_not_read_the_year(filled: Path) -> None:
    lake = Lake(Settings(uri=str(filled)))
    day = START + timedelta(days=100)

    def one_day() -> None:
        found = lake.scan("bars_1m", since=day, until=day + timedelta(days=1), **MARKET).collect()  # type: ignore[arg-type]
        assert found.height == 1440

    def year() -> None:
        lake.scan("bars_1m", **MARKET).collect()  # type: ignore[arg-type]

    short, long = best_seconds(one_day, year, rounds=5)
    report("one day against the year", short / long, "<= 0.5")
    assert short / long <= 0.5


def test_an_alignment_of_a_day_opens_no_file_of_before(filled: Path) -> None:
    """Rows received late are found by bounds in the log, not by opening the files of all days."""
    lake = Lake(Settings(uri=str(filled)))
    day = START + timedelta(days=300)
    inputs = {"x": AlignInput("bars_1m", exchange="binance", symbol="BTC/USDT")}

    def align() -> None:
        until = day + timedelta(days=1)
        found = lake.align(inputs, "1h", since=day, until=until, how=AsOf("1h"))
        assert found.frame.height == 24

    def year() -> None:
        lake.scan("bars_1m", **MARKET).collect()  # type: ignore[arg-type]

    short, long = best_seconds(align, year, rounds=5)
    print(f"\nalignment of a day of a year: {short * 1e3:.0f} ms")
    report("alignment of a day against a read of the year", short / long, "<= 0.5")
    assert short / long <= 0.5
