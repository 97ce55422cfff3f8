"""Real recorded data through the whole way: what is stored equals the recording."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.sandbox import RecordedMarkets, Sandbox
from tests.jobs.conftest import settings_for
from tests.paths import SHARED

DATA = SHARED / "cex"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="recorded data are not beside the checkout (../shared/data/cex)"
)

RECORDINGS = [
    ("bars_1m", "XRP/ETH", "bars/binance_XRP-ETH_1m.parquet", 2_469),
    ("bars_1m", "UNITTEST/BTC", "bars/binance_UNITTEST-BTC_1m.parquet", 13_681),
    ("bars_1m", "BTC/PERP", "bars/ftx_BTC-PERP_1m.parquet", 45_031),
    ("bars_5m", "ADA/BTC", "bars/binance_ADA-BTC_5m.parquet", 5_720),
    ("trades", "XRP/ETH", "trades/binance_XRP-ETH.parquet", 12_477),
    ("funding", "XRP/USDT:USDT", "funding/binanceusdm_XRP-USDT-USDT.parquet", 91),
]


@pytest.fixture(scope="module")
def exchange() -> Iterator[Sandbox]:
    with Sandbox(RecordedMarkets(DATA), weight_limit=False) as running:
        yield running


def _lake(path: Path, exchange: Sandbox) -> Lake:
    return Lake.create(settings_for(path / "lake", exchange.url))


def _recording(file: str) -> pl.DataFrame:
    names = {"id": "trade_id"}
    return pl.read_parquet(DATA / file).rename(names, strict=False)


def _ingest(lake: Lake, table: str, symbol: str, rows: pl.DataFrame) -> None:
    lake.ingest(
        table,
        exchange="binance",
        symbol=symbol,
        since=rows["timestamp"].min(),  # type: ignore[arg-type]
        until=_day_after(rows["timestamp"].max()),  # type: ignore[arg-type]
    )


def _day_after(time: datetime) -> datetime:
    return datetime.fromordinal(time.toordinal() + 1).replace(tzinfo=UTC)


@pytest.mark.parametrize(("table", "symbol", "file", "count"), RECORDINGS)
def test_the_table_equals_the_recording(
    tmp_path: Path, exchange: Sandbox, table: str, symbol: str, file: str, count: int
) -> None:
    lake = _lake(tmp_path, exchange)
    recorded = _recording(file)
    assert recorded.height == count
    _ingest(lake, table, symbol, recorded)
    stored = lake.scan(table, symbol=symbol).collect()
    common = [name for name in recorded.columns if name in stored.columns]
    assert len(common) >= 2
    assert set(recorded.columns) - set(common) <= {"cost"}
    assert_frame_equal(stored.select(common), recorded.select(common), check_exact=True)

    exchange.clear_log()
    versions = lake.tables()
    _ingest(lake, table, symbol, recorded)
    assert not exchange.log
    assert_frame_equal(lake.tables(), versions)


def test_each_bar_equals_the_aggregate_of_its_trades_by_one_query(
    tmp_path: Path, exchange: Sandbox
) -> None:
    lake = _lake(tmp_path, exchange)
    for table, file in (
        ("bars_1m", "bars/binance_XRP-ETH_1m.parquet"),
        ("trades", "trades/binance_XRP-ETH.parquet"),
    ):
        _ingest(lake, table, "XRP/ETH", _recording(file))
    equal = lake.sql(
        """
        WITH aggregated AS (
            SELECT date_trunc('minute', timestamp) AS timestamp,
                first(price ORDER BY trade_id::BIGINT) AS open, max(price) AS high,
                min(price) AS low, last(price ORDER BY trade_id::BIGINT) AS close,
                sum(amount) AS volume
            FROM trades GROUP BY ALL
        )
        SELECT count(*), count(*) FILTER (
            aggregated.open = bars.open AND aggregated.high = bars.high
            AND aggregated.low = bars.low AND aggregated.close = bars.close
            AND aggregated.volume = bars.volume
        ) FROM aggregated FULL JOIN bars_1m AS bars USING (timestamp)
        """
    )
    assert equal.fetchall() == [(2_469, 2_469)]
