"""Pinning again: days that an earlier bundle has measured are not read, however many there are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lake.api import Lake, utc_now
from lake.settings import CacheSettings, Settings
from lake.store.store import Origin, Store
from tests.bench.conftest import report

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

ORIGIN = Origin("bench", "bench")
START = datetime(2025, 1, 1, tzinfo=UTC)


def _bars(symbol: str, days: int) -> pl.DataFrame:
    count = days * 1440
    price = 100 + (pl.int_range(count, eager=True) * 7919 % 1000) / 10
    end = START + timedelta(days=days)
    return pl.DataFrame(
        {
            "timestamp": pl.datetime_range(START, end, "1m", closed="left", eager=True),
            "open": price,
            "high": price + 1,
            "low": price - 1,
            "close": price + 0.5,
            "volume": price / 3,
        }
    ).with_columns(exchange=pl.lit("binance"), symbol=pl.lit(symbol), closed=pl.lit(value=True))


def _lake(path: Path, markets: int, days: int) -> Lake:
    settings = Settings(uri=str(path / "lake"), cache=CacheSettings(enabled=False))
    store = Store(Lake.create(settings).root, utc_now)
    for number in range(markets):
        store.write(store.catalog.dataset("bars_1m"), _bars(f"C{number}/USDT", days), ORIGIN)
    return Lake(settings)


def _cpu(action: Callable[[], object]) -> float:
    begun = time.process_time()
    action()
    return time.process_time() - begun


def _pin(lake: Lake, name: str, **selection: Any) -> float:
    return _cpu(lambda: lake.bundles.pin(name, table="bars_1m", check=False, **selection))


def test_the_same_pin_again(tmp_path: Path) -> None:
    lake = _lake(tmp_path, markets=10, days=100)
    first = _pin(lake, "first")
    again = min(_pin(lake, name) for name in ("second", "third", "fourth"))
    print(f"\npin 1,000 market-days: {first:.2f} CPU-s, again {again:.2f}")
    report("the first pin against the same one again", first / again, ">= 10")
    assert first / again >= 10


def test_a_pin_beside_500_bundles(tmp_path: Path) -> None:
    lake = _lake(tmp_path, markets=2, days=5)
    costs = [
        _pin(lake, f"bundle-{number}", until=START + timedelta(minutes=1500 + number))
        for number in range(505)
    ]
    few, many = statistics.median(costs[5:30]), statistics.median(costs[-25:])
    print(f"\npin beside 5 to 30 bundles {few * 1e3:.0f} CPU-ms, beside 500 {many * 1e3:.0f}")
    report("a pin beside 500 bundles against one beside few", many / few, "<= 1.5")
    assert many / few <= 1.5
