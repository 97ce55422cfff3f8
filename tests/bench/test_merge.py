"""Writing: a merge against an append, and against a merge without literal predicates."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from lake.api import Lake, utc_now
from lake.model.dataset import Dataset
from lake.settings import Settings
from lake.store import delta
from lake.store.conform import conform
from lake.store.merge import merge as merge_rows
from lake.store.prepare import MergeBatch
from lake.store.store import Origin, Store
from tests.bench.conftest import best_seconds, report

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

T0 = datetime(2026, 1, 1, tzinfo=UTC)
ORIGIN = Origin("bench", "bench")


def _trades(count: int, days: int, first: int = 0, symbol: str = "BTC/USDT") -> pl.DataFrame:
    """Trades spread evenly over days, with the ids `first`, `first + 1`, …"""
    number = pl.int_range(first, first + count, eager=True)
    step_us = days * 86_400_000_000 // count
    return pl.DataFrame(
        {
            "timestamp": T0 + pl.Series(((number - first) * step_us).cast(pl.Duration("us"))),
            "trade_id": number.cast(pl.String),
            "price": 50_000.0 + (number % 997) / 10,
            "amount": (number % 131 + 1) / 1000,
            "side": pl.Series(["buy", "sell"]).gather(number % 2),
            "first_id": number,
            "last_id": number,
        }
    ).with_columns(exchange=pl.lit("binance"), symbol=pl.lit(symbol))


def _store(path: Path) -> Store:
    shutil.rmtree(path, ignore_errors=True)
    return Store(Lake.create(Settings(uri=str(path))).root, utc_now)


def test_merge_of_a_million_trades_half_of_them_present(tmp_path: Path) -> None:
    rows = _trades(1_000_000, 10)
    present = rows.gather_every(2)
    store = _store(tmp_path / "template")
    dataset = store.catalog.dataset("trades")
    store.write(dataset, present, ORIGIN)
    conformed = conform(dataset, rows).rows
    template, work = tmp_path / "template", tmp_path / "work"

    def fresh_copy() -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(template, work)

    def merge() -> None:
        table = delta.open_for_writing(work / "tables" / "trades", dataset, store.clock)
        assert merge_rows(table, dataset, lambda _: MergeBatch(conformed)).inserted == 500_000

    def write() -> None:
        written = Store(Lake(Settings(uri=str(work))).root, utc_now).write(dataset, rows, ORIGIN)
        assert (written.inserted, written.unchanged) == (500_000, 500_000)

    def append() -> None:
        write_deltalake(work / "tables" / "trades", conformed, mode="append")

    merged, written, appended = best_seconds(merge, write, append, rounds=5, before=fresh_copy)
    report("merge of 1M trades, half present, against append of all", merged / appended, "<= 3")
    report("the same with checks, dedup and digest", written / appended, "none")
    assert merged / appended <= 3


def test_merge_with_literals_against_without_on_sixteen_million_rows(tmp_path: Path) -> None:
    store = _store(tmp_path / "lake")
    dataset = store.catalog.dataset("trades")
    for number in range(8):
        store.write(dataset, _trades(2_000_000, 20, symbol=f"COIN{number}/USDT"), ORIGIN)
    path = tmp_path / "lake" / "tables" / "trades"
    late = _trades(2_000_000, 20, symbol="COIN3/USDT").tail(2000)
    late = late.with_columns(pl.col("timestamp") + timedelta(microseconds=1))
    batches = iter(_numbered(dataset, late, number) for number in range(100))

    def with_literals() -> None:
        table = delta.open_for_writing(path, dataset, store.clock)
        assert merge_rows(table, dataset, lambda _: MergeBatch(next(batches))).inserted == 2000

    def without() -> None:
        table = DeltaTable(path)
        keys = ("exchange", "symbol", "date", "trade_id")
        table.merge(
            next(batches),
            predicate=" AND ".join(f"t.{key} = s.{key}" for key in keys),
            source_alias="s",
            target_alias="t",
        ).when_not_matched_insert_all().execute()

    literal, keys_only = best_seconds(with_literals, without)
    report("merge without literals against with, on 16M rows", keys_only / literal, ">= 10")
    assert keys_only / literal >= 10


def _numbered(dataset: Dataset, rows: pl.DataFrame, number: int) -> pl.DataFrame:
    """The rows under ids that no other batch has."""
    ids = pl.format("{}-{}", pl.lit(number), pl.col("trade_id")).alias("trade_id")
    return conform(dataset, rows.with_columns(ids)).rows
