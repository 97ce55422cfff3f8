"""Bundles: opening, reading cold and warm, look-ups, replay; each against what others do."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
import pytest
from deltalake import DeltaTable

from lake.api import Lake, utc_now
from lake.bundles.bundle import Bundle
from lake.bundles.manifest import ListPart
from lake.settings import CacheSettings, Settings
from lake.store import index
from lake.store.index import SCHEMA, FileIndex
from lake.store.store import Origin, Store
from tests.bench.conftest import best_seconds, report
from tests.bench.test_read import MINUTES, START, _year

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

ORIGIN = Origin("bench", "bench")
BTC = ("binance", "BTC/USDT")
MARKET: dict[str, Any] = {"exchange": "binance", "symbol": "BTC/USDT"}


def _lake(path: Path, *, cache: bool = True) -> Lake:
    settings = CacheSettings(folder=path.parent / "cache", enabled=cache)
    return Lake(Settings(uri=str(path), cache=settings))


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a year of bars, pinned as `year`."""
    path = tmp_path_factory.mktemp("year") / "lake"
    store = Store(Lake.create(Settings(uri=str(path))).root, utc_now)
    for symbol in ("BTC/USDT", "ETH/USDT"):
        store.write(store.catalog.dataset("bars_1m"), _year(symbol), ORIGIN)
    _lake(path).bundles.pin("year", table="bars_1m")
    return path


def test_a_market_month_of_600_000_files(tmp_path: Path) -> None:
    """The files need not exist: opening and selecting never look at them."""
    count, days = 600_000, 1500
    lake = Lake.create(Settings(uri=str(tmp_path / "lake")))
    store = Store(lake.root, utc_now)
    store.write(store.catalog.dataset("bars_1m"), _year("BTC/USDT").head(2), ORIGIN)
    bundle = lake.bundles.pin("large", table="bars_1m")
    files = _listing(count, days)
    _append_to_log(lake.root.tables / "bars_1m", files)
    folder = lake.root.bundles / bundle.id
    (folder / "files.parquet").unlink()
    sealed = index.write_sealed(folder / "files.parquet", FileIndex.sort_rows(files))
    beside = bundle.manifest.beside.model_copy(update={"files": ListPart(**asdict(sealed))})
    manifest = bundle.manifest.model_copy(update={"beside": beside}).seal()
    (folder / "manifest.json").write_bytes(manifest.to_json())
    month = datetime(2021, 3, 1, tzinfo=UTC), datetime(2021, 4, 1, tzinfo=UTC)

    def select() -> pl.DataFrame:
        from lake.model.selection import Selection

        selection = Selection(("binance",), ("COIN123/USDT",), *month)
        return lake.bundles.open("large").contents.files.files("bars_1m", selection)

    def open_delta() -> None:
        table = DeltaTable(lake.root.tables / "bars_1m", version=2)
        assert table.version() == 2

    assert select().height == 31
    ours, theirs = best_seconds(select, open_delta, rounds=5)
    print(f"\nopen a bundle and select a market-month of 600,000 files: {ours * 1e3:.1f} ms")
    report("DeltaTable(version=…) of 600,000 files against it", theirs / ours, ">= 20")
    assert theirs / ours >= 20
    assert ours < 0.1


def _listing(count: int, days: int) -> pl.DataFrame:
    number = pl.int_range(count, eager=True)
    first = datetime(2020, 1, 1, tzinfo=UTC) + pl.Series((number % days).cast(pl.Int64)) * (
        timedelta(days=1)
    )
    frame = pl.DataFrame({"number": number, "first": first.cast(SCHEMA["first"])})
    path = pl.format(
        "exchange=binance/symbol=COIN{}%2FUSDT/date={}/part-00000-{}-c000.zstd.parquet",
        pl.col("number") // days,
        pl.col("first").dt.date(),
        pl.col("number").hash(1).cast(pl.String) + pl.col("number").hash(2).cast(pl.String),
    )
    digest = pl.concat_str(
        *(pl.col("number").hash(seed).cast(pl.String).str.zfill(20) for seed in range(4))
    )
    return frame.with_columns(
        table=pl.lit("bars_1m"),
        path=path,
        exchange=pl.lit("binance"),
        symbol=pl.format("COIN{}/USDT", pl.col("number") // days),
        date=pl.col("first").dt.date(),
        rows=pl.lit(1440, dtype=pl.Int64),
        bytes=pl.lit(40_000, dtype=pl.Int64),
        last=pl.col("first") + timedelta(minutes=1439),
        sha256=digest.str.slice(0, 64),
    ).select(list(SCHEMA))


def _append_to_log(table: Path, files: pl.DataFrame) -> None:
    """A commit that adds the files, and a checkpoint."""
    log = table / "_delta_log"
    with (log / f"{2:020}.json").open("w", encoding="utf-8") as commit:
        for row in files.iter_rows(named=True):
            values = {
                "exchange": row["exchange"],
                "symbol": row["symbol"],
                "date": str(row["date"]),
            }
            stats = {
                "numRecords": row["rows"],
                "minValues": {"timestamp": f"{row['first']:%Y-%m-%dT%H:%M:%S.000Z}"},
                "maxValues": {"timestamp": f"{row['last']:%Y-%m-%dT%H:%M:%S.000Z}"},
                "nullCount": {"timestamp": 0},
            }
            add = {
                "path": row["path"].replace("%", "%25"),
                "size": row["bytes"],
                "partitionValues": values,
                "modificationTime": 0,
                "dataChange": True,
                "stats": json.dumps(stats),
            }
            commit.write(json.dumps({"add": add}) + "\n")
        info = {"timestamp": 1_800_000_000_000, "operation": "WRITE"}
        commit.write(json.dumps({"commitInfo": info}) + "\n")
    DeltaTable(table).create_checkpoint()


def test_a_year_of_bars_warm_against_arcticdb(year: Path, tmp_path: Path) -> None:
    arcticdb = pytest.importorskip("arcticdb", reason="the baseline: scripts/setup adapters")
    lake = _lake(year)
    lake.bundles.open("year").warm()
    frame = lake.bundles.open("year", cache=False).scan("bars_1m", **MARKET).collect()
    library = arcticdb.Arctic(f"lmdb://{tmp_path}/arctic").create_library("bars")
    pandas = frame.drop("exchange", "symbol", "date", "fill").to_pandas().set_index("timestamp")
    library.write("BTC/USDT", pandas)
    library.snapshot("pinned")
    opened = lake.bundles.open("year")

    def ours() -> None:
        assert opened.scan("bars_1m", **MARKET).collect().height == MINUTES

    def anew() -> None:
        assert lake.bundles.open("year").scan("bars_1m", **MARKET).collect().height == MINUTES

    def theirs() -> None:
        assert len(library.read("BTC/USDT", as_of="pinned").data) == MINUTES

    warm, fresh, arctic = best_seconds(ours, anew, theirs, rounds=15)
    print(f"\nwarm {warm * 1e3:.2f} ms, opened anew {fresh * 1e3:.2f}, ArcticDB {arctic * 1e3:.2f}")
    report("warm read of a year of 1m bars against ArcticDB", warm / arctic, "<= 1.0")
    assert warm / arctic <= 1.0


def test_a_year_of_bars_cold_against_read_parquet(year: Path) -> None:
    lake = _lake(year, cache=False)
    files = lake.bundles.open("year").contents.files.files("bars_1m")
    paths = [
        year / "tables" / "bars_1m" / path
        for path in files.filter(pl.col("symbol") == "BTC/USDT")["path"]
    ]

    def cold() -> pl.DataFrame:
        return lake.bundles.open("year").scan("bars_1m", **MARKET).collect()

    def plain() -> pl.DataFrame:
        return pl.read_parquet(paths, hive_partitioning=True)

    assert cold().height == plain().height == MINUTES
    ours, parquet = best_seconds(cold, plain, rounds=25)
    report("cold read of a year, files checked, against read_parquet", ours / parquet, "<= 1.2")
    assert ours / parquet <= 1.2


def test_the_latest_hundred_rows(year: Path) -> None:
    lake = _lake(year)

    def look() -> None:
        assert lake.latest("bars_1m", exchange=BTC[0], symbol=BTC[1], n=100).height == 100

    (found,) = best_seconds(look, rounds=15)
    print(f"\nlatest(…, 100): {found * 1e3:.2f} ms (bound: 10)")
    assert found < 0.010


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Trades and bars of five markets: a month, 2.2 million events."""
    path = tmp_path_factory.mktemp("busy") / "lake"
    store = Store(Lake.create(Settings(uri=str(path))).root, utc_now)
    for number in range(5):
        symbol = f"COIN{number}/USDT"
        bars = _year(symbol).head(31 * 1440).with_columns(cs.float().round(3))
        store.write(store.catalog.dataset("bars_1m"), bars, ORIGIN)
        store.write(store.catalog.dataset("trades"), _trades(symbol, 400_000, number), ORIGIN)
        store.write(store.catalog.dataset("instruments"), _instrument(symbol), ORIGIN)
    bundle = _lake(path).bundles.pin("busy", table=("bars_1m", "trades"))
    bundle.warm()
    return bundle


def _trades(symbol: str, count: int, seed: int) -> pl.DataFrame:
    number = pl.int_range(count, eager=True)
    step_us = 31 * 86_400_000_000 // count
    jitter = (number.hash(seed) % step_us).cast(pl.Int64)
    return pl.DataFrame(
        {
            "timestamp": START + pl.Series((number * step_us + jitter).cast(pl.Duration("us"))),
            "trade_id": (number + 10_000_000).cast(pl.String),
            "price": 50_000.0 + (number % 997) / 10,
            "amount": (number % 131 + 1) / 1000,
            "side": pl.Series(["buy", "sell"]).gather(number % 2),
        }
    ).with_columns(exchange=pl.lit("binance"), symbol=pl.lit(symbol))


def _instrument(symbol: str) -> pl.DataFrame:
    base, quote = symbol.split("/")
    facts = {"venue_symbol": base + quote, "type": "spot", "base": base, "quote": quote}
    frame = pl.DataFrame(
        {"exchange": ["binance"], "symbol": [symbol], "valid_from": [START], **facts},
        schema_overrides={"valid_from": SCHEMA["first"]},
    )
    return frame.with_columns(tick_size=pl.lit(0.1), lot_size=pl.lit(1e-9))


def test_replay_of_five_markets(busy: Bundle) -> None:
    events = sum(ref.rows for _, ref in busy.manifest.refs())

    def batches() -> None:
        assert sum(batch.rows for batch in busy.replay(batch=100_000)) == events

    def typed() -> None:
        assert _length(busy.replay()) == events

    columnar, single = best_seconds(batches, typed, rounds=3)
    print(f"\nreplay of {events:,} events: {events / columnar / 1e6:.2f} M/s as batches", end="")
    print(f" (bound: 1), {events / single / 1e3:,.0f} k/s typed (bound: 300)")
    assert events / columnar >= 1e6
    assert events / single >= 300e3


def _length(items: Iterator[object]) -> int:
    count = itertools.count()
    for _ in zip(items, count, strict=False):
        pass
    return next(count)


def test_replay_of_bars_against_nautilus(busy: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("nautilus_trader", reason="the baseline: scripts/setup adapters")
    from lake.adapters import nautilus

    shutil.rmtree(tmp_path / "catalog", ignore_errors=True)
    catalog = nautilus.write_catalog(
        busy, tmp_path / "catalog", exchange="binance", symbol="COIN0/USDT", tables=["bars_1m"]
    )
    rows = 31 * 1440

    def ours() -> None:
        assert _length(busy.replay("bars_1m", symbol="COIN0/USDT")) == rows

    def theirs() -> None:
        assert len(catalog.bars()) == rows

    def columnar() -> None:
        batches = busy.replay("bars_1m", symbol="COIN0/USDT", batch=100_000)
        assert sum(batch.rows for batch in batches) == rows

    typed, batched, query = best_seconds(ours, columnar, theirs, rounds=5)
    report("NautilusTrader's query of a month of bars against typed replay", query / typed, "none")
    report("the same against batches", query / batched, "> 2")
    assert query / batched > 2
