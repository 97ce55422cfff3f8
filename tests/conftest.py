"""What many tests start from: a new lake, a way to write into it, and rows."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from lake.api import Lake, utc_now
from lake.model.partitions import Granularity
from lake.settings import CacheSettings, Settings
from lake.store.locks import FileLock
from lake.store.store import Origin, Store, WriteResult
from tests.paths import ROOT

T0 = datetime(2024, 1, 1, tzinfo=UTC)
NAIVE = T0.replace(tzinfo=None)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
ORIGIN = Origin("job", "test")
TIME = pl.Datetime("us", "UTC")

NewLake = Callable[..., Lake]

# Storage is as slow as the machine is busy: no example is wrong because it takes long.
settings.register_profile("lake", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lake")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark kills and properties as `slow`; leave benchmarks out unless `-m` names them."""
    for item in items:
        if "kill" in item.name or is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.slow)
    if "bench" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("bench")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("bench")]


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cache of pinned rows is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def new_lake(tmp_path_factory: pytest.TempPathFactory) -> NewLake:
    """Makes a lake in a folder of its own; `schemas`: dataset files by name."""

    def make(
        granularity: dict[str, Granularity] | None = None,
        schemas: Mapping[str, str] | None = None,
    ) -> Lake:
        chosen = Settings(uri=str(tmp_path_factory.mktemp("lake")))
        lake = Lake.create(chosen, granularity)
        for name, text in (schemas or {}).items():
            (lake.root.path / "schemas" / f"{name}.toml").write_text(text, encoding="utf-8")
        return Lake(chosen)

    return make


@pytest.fixture
def lake(new_lake: NewLake) -> Lake:
    """An empty lake."""
    return new_lake()


@pytest.fixture
def lake_before(tmp_path: Path) -> Lake:
    """A lake of format 2 as an earlier version would have written it, with a bundle `before`.

    Bars and funding had no column `received_at` then. Its trades, by seconds since `T0`, were
    received 1.27 s before their time, or never, or 5 s after it.
    """
    with tarfile.open(ROOT / "tests" / "data" / "lake_before.tar.xz") as archive:
        archive.extractall(tmp_path / "before", filter="data")
    return Lake(Settings(uri=str(tmp_path / "before"), cache=CacheSettings(enabled=False)))


def copy_lake(lake: Lake, path: Path) -> Lake:
    """Copy a lake that several tests start from to a new folder."""
    shutil.copytree(lake.root.path, path)
    return Lake(lake.settings.model_copy(update={"uri": str(path)}))


@contextmanager
def without_lock() -> Iterator[None]:
    """Commit in the block as another engine does, which does not know the lake's lock."""

    @contextmanager
    def pass_by(path: Path, **_: Any) -> Iterator[FileLock]:
        yield FileLock(path, is_held=True, _descriptor=-1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lake.store.local_table.lock_file", pass_by)
        yield


def store_of(lake: Lake) -> Store:
    """A store of its own over a lake."""
    return Store(lake.root, utc_now)


def write(lake: Lake | Store, table: str, frame: pl.DataFrame) -> WriteResult:
    """Write rows into a table."""
    store = store_of(lake) if isinstance(lake, Lake) else lake
    return store.write(store.catalog.dataset(table), frame, ORIGIN)


def trades(
    count: int = 3,
    *,
    first: int = 0,
    start: datetime = T0,
    step: timedelta = SECOND,
    exchange: str = "binance",
    symbol: str = "BTC/USDT",
    **columns: Any,
) -> pl.DataFrame:
    """Trades with the ids `first`, `first + 1`, …, where number n happens at `start + n * step`."""
    numbers = range(first, first + count)
    return _rows(
        exchange,
        symbol,
        {
            "timestamp": [start + n * step for n in numbers],
            "trade_id": [str(n) for n in numbers],
            "price": [100.0 + n for n in numbers],
            "amount": [1.0] * count,
            **columns,
        },
    )


def bars(
    count: int = 3,
    *,
    start: datetime = T0,
    step: timedelta = MINUTE,
    exchange: str = "binance",
    symbol: str = "BTC/USDT",
    **columns: Any,
) -> pl.DataFrame:
    """Closed bars of one price that open at `start`, `start + step`, …; no neighbours are equal."""
    prices = dict.fromkeys(("open", "high", "low", "close"), [100.0] * count)
    return _rows(
        exchange,
        symbol,
        {
            "timestamp": [start + n * step for n in range(count)],
            **prices,
            "volume": [1.0 + n % 3 for n in range(count)],
            "closed": [True] * count,
            **columns,
        },
    )


def funding(times: list[datetime], symbol: str = "BTC/USDT:USDT") -> pl.DataFrame:
    """Funding rates at some times."""
    return _rows("binance", symbol, {"timestamp": times, "funding_rate": [0.0001] * len(times)})


def _rows(exchange: str, symbol: str, columns: Mapping[str, Any]) -> pl.DataFrame:
    frame = pl.DataFrame(columns, schema_overrides={"timestamp": TIME})
    return frame.with_columns(exchange=pl.lit(exchange), symbol=pl.lit(symbol))
