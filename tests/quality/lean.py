"""Bars of one venue in three timeframes, as LEAN publishes them, which lie beside the project."""

from __future__ import annotations

from datetime import UTC, date, datetime
from io import BytesIO
from zipfile import ZipFile

import polars as pl
import pytest

from lake.model.dataset import TIMESTAMP
from tests.paths import SHARED

LEAN = SHARED / "peers" / "03_lean_levels" / "Data" / "crypto" / "coinbase"
needs_lean = pytest.mark.skipif(not LEAN.is_dir(), reason=f"recorded data are not at {LEAN}")
COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")


def lean_days() -> pl.DataFrame:
    """Days of BTC/USD."""
    opens = pl.col("timestamp").str.to_datetime("%Y%m%d %H:%M", time_unit="us", time_zone="UTC")
    return _read(LEAN / "daily" / "btcusd_trade.zip", pl.String).with_columns(opens)


def lean_bars(resolution: str, day: date) -> pl.DataFrame:
    """Seconds (`second`) or minutes (`minute`) of BTC/USD of a day."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    offset = pl.duration(milliseconds=pl.col("timestamp"))
    path = LEAN / resolution / "btcusd" / f"{day:%Y%m%d}_trade.zip"
    opens = (pl.lit(start) + offset).cast(TIMESTAMP)
    return _read(path, pl.Int64).with_columns(timestamp=opens)


def _read(path: object, time: type[pl.DataType]) -> pl.DataFrame:
    with ZipFile(path) as archive:  # type: ignore[call-overload]
        text = archive.read(archive.namelist()[0])
    types = dict.fromkeys(COLUMNS, pl.Float64) | {"timestamp": time}
    return pl.read_csv(BytesIO(text), has_header=False, new_columns=COLUMNS, schema=types)
