"""Rows of a range are replaced whole, in one commit, and nobody else's are lost by it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from multiprocessing.synchronize import Event
from typing import Any

import polars as pl
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import SchemaError
from lake.model.digest import compute_digest
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.settings import Settings
from lake.store.replace import Change, ReplaceResult, replace_rows
from tests import conftest, processes
from tests.conftest import (
    DAY,
    MINUTE,
    ORIGIN,
    T0,
    NewLake,
    funding,
    store_of,
    trades,
    without_lock,
    write,
)


def bars(count: int = 3, **columns: Any) -> pl.DataFrame:
    """Bars of equal volumes, which tell what changed them."""
    return conftest.bars(count, **{"volume": [1.0] * count, **columns})


BTC = Market("binance", "BTC/USDT")
HOUR = timedelta(hours=1)
SLOTS = 2 * 1440
RANGES = st.tuples(st.integers(0, SLOTS - 1), st.integers(1, SLOTS)).map(
    lambda pair: TimeRange(T0 + pair[0] * MINUTE, T0 + (pair[0] + pair[1]) * MINUTE)
)


def replace(
    lake: Lake, window: TimeRange, change: Change, table: str = "bars_1m", market: Market = BTC
) -> ReplaceResult:
    store = store_of(lake)
    return store.replace(store.catalog.dataset(table), market, window, change, ORIGIN)


def rows(lake: Lake, table: str = "bars_1m") -> pl.DataFrame:
    return lake.scan(table).collect()


def inside(window: TimeRange) -> pl.Expr:
    return pl.col("timestamp").is_between(window.start, window.end, closed="left")


def deleted(stored: pl.DataFrame) -> pl.DataFrame:
    return stored.clear()


@pytest.fixture(scope="module")
def filled(new_lake: NewLake) -> Lake:
    """Two days of bars of two markets, in several files a day."""
    lake = new_lake()
    for symbol in ("BTC/USDT", "ETH/USDT"):
        for part in range(4):
            volumes = [float(part * 720 + n) for n in range(720)]
            start = T0 + part * 12 * HOUR
            write(lake, "bars_1m", bars(720, start=start, symbol=symbol, volume=volumes))
    return lake


@settings(max_examples=40)
@given(RANGES, st.sampled_from(["delete", "change", "thin out", "insert"]))
def test_exactly_the_rows_of_the_range_change_and_come_back(
    filled: Lake, window: TimeRange, what: str
) -> None:
    before = rows(filled)
    changes: dict[str, Change] = {
        "delete": deleted,
        "change": lambda stored: stored.with_columns(pl.col("volume") + 0.5),
        "thin out": lambda stored: stored.gather_every(3),
        "insert": lambda _: _finer(window),
    }
    replaced = replace(filled, window, changes[what])
    after = rows(filled)
    ours = pl.col("symbol") == BTC.symbol
    assert_frame_equal(
        after.filter(~(ours & inside(window))), before.filter(~(ours & inside(window)))
    )
    assert_frame_equal(after.filter(ours & inside(window)), replaced.after)
    assert_frame_equal(before.filter(ours & inside(window)), replaced.before)

    replace(filled, window, lambda _: replaced.before)
    assert_frame_equal(rows(filled), before, check_exact=True)


def _finer(window: TimeRange) -> pl.DataFrame:
    half = bars(1, start=window.start + MINUTE / 2, fill=["test"])
    return half.select(pl.all(), *_absent())


def _absent() -> list[pl.Expr]:
    numbers = ("quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
    absent = [pl.lit(None, pl.Float64).alias(name) for name in numbers]
    return [*absent, pl.lit(None, pl.Int64).alias("trade_count")]


def test_it_is_one_commit_that_tells_who_and_from_where(filled: Lake) -> None:
    window = TimeRange(T0 + 20 * HOUR, T0 + 30 * HOUR)
    version = store_of(filled).version(filled.dataset("bars_1m"))
    replaced = replace(filled, window, lambda stored: stored.with_columns(volume=7.0))
    assert replaced.version == version + 1
    [commit] = filled.audit("bars_1m").filter(version=version + 1).rows(named=True)
    assert (commit["job"], commit["source"]) == (ORIGIN.job_id, ORIGIN.source)
    assert commit["rows"] == 600
    assert commit["digest"] == compute_digest(filled.dataset("bars_1m"), replaced.after)
    replace(filled, window, lambda _: replaced.before)


def test_what_changes_nothing_makes_no_commit(filled: Lake) -> None:
    window = TimeRange(T0, T0 + HOUR)
    before = filled.tables()
    assert not replace(filled, window, lambda stored: stored).changed
    assert not replace(filled, TimeRange(T0 + 9 * DAY, T0 + 10 * DAY), deleted).changed
    assert_frame_equal(filled.tables(), before)


def test_only_the_dates_that_differ_are_rewritten(filled: Lake) -> None:
    def files() -> set[str]:
        snapshot = store_of(filled).snapshot(filled.dataset("bars_1m"))
        return set(snapshot.files()["path"])

    before = files()
    last = T0 + DAY + 5 * HOUR

    def change(stored: pl.DataFrame) -> pl.DataFrame:
        is_last = pl.col("timestamp") == last
        return stored.with_columns(volume=pl.when(is_last).then(0.5).otherwise("volume"))

    replaced = replace(filled, TimeRange(T0, T0 + 2 * DAY), change)
    assert all("date=2024-01-02" in path for path in before ^ files())
    replace(filled, TimeRange(T0, T0 + 2 * DAY), lambda _: replaced.before)


def test_rows_in_files_stay_sorted_and_versions_readable(lake: Lake) -> None:
    write(lake, "bars_1m", bars(1440))
    store, dataset = store_of(lake), lake.dataset("bars_1m")
    version = store.version(dataset)
    before = rows(lake)
    replace(lake, TimeRange(T0 + HOUR, T0 + 2 * HOUR), lambda stored: stored[::7])
    for path in (lake.root.tables / "bars_1m").rglob("*.parquet"):
        assert pl.read_parquet(path, hive_partitioning=False)["timestamp"].is_sorted()
    assert_frame_equal(store.snapshot(dataset, version=version).collect(), before)


def test_tables_by_year_and_trades_work_alike(lake: Lake) -> None:
    swap = Market("binance", "BTC/USDT:USDT")
    write(lake, "funding", funding([T0 + n * 8 * HOUR for n in range(9)]))
    before = rows(lake, "funding")
    window = TimeRange(T0 + 20 * HOUR, T0 + 50 * HOUR)
    replaced = replace(lake, window, deleted, "funding", swap)
    assert rows(lake, "funding").height == 9 - replaced.before.height
    replace(lake, window, lambda _: replaced.before, "funding", swap)
    assert_frame_equal(rows(lake, "funding"), before)

    write(lake, "trades", trades(10))
    gone = replace(lake, TimeRange(T0, T0 + MINUTE), deleted, "trades")
    assert rows(lake, "trades").is_empty()
    replace(lake, TimeRange(T0, T0 + MINUTE), lambda _: gone.before, "trades")
    assert rows(lake, "trades").height == 10


def _moved(by: timedelta) -> Change:
    return lambda stored: stored.with_columns(pl.col("timestamp") + by)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_moved(DAY), "outside"),
        (lambda stored: stored.with_columns(symbol=pl.lit("X/Y")), "another market"),
        (lambda stored: pl.concat([stored, stored]), "same key"),
        (lambda stored: stored.with_columns(open=pl.lit(None, pl.Float64)), "open_null"),
        (lambda stored: stored.with_columns(nope=1), "nope"),
        (lambda stored: stored.drop("open"), "open"),
    ],
    ids=["time", "market", "twice", "null", "unknown", "missing"],
)
def test_rows_that_do_not_belong_there_are_refused(
    lake: Lake, change: Change, message: str
) -> None:
    write(lake, "bars_1m", bars(10))
    before = lake.tables()
    with pytest.raises(SchemaError, match=message):
        replace(lake, TimeRange(T0, T0 + HOUR), change)
    assert_frame_equal(lake.tables(), before)


def test_rows_that_break_a_rule_can_be_restored(lake: Lake) -> None:
    write(lake, "bars_1m", bars(3))
    replace(lake, TimeRange(T0, T0 + HOUR), lambda stored: stored.with_columns(high=-1.0))
    assert rows(lake)["high"].to_list() == [-1.0] * 3


def test_what_is_committed_between_the_read_and_the_commit_is_seen_and_kept(lake: Lake) -> None:
    write(lake, "bars_1m", bars(10))
    dataset = lake.dataset("bars_1m")
    seen: list[pl.DataFrame] = []
    table = store_of(lake).open_for_writing(dataset)

    def change(stored: pl.DataFrame) -> pl.DataFrame:
        if not seen:  # another writer is faster: it revises a row of ours, and adds one
            with without_lock():
                write(lake, "bars_1m", bars(12, start=T0 + 5 * MINUTE, volume=[9.0] * 12))
        seen.append(stored)
        return stored.filter(pl.col("volume") != 1.0)

    window = TimeRange(T0, T0 + HOUR)
    replaced = replace_rows(table, dataset, BTC, window, change, {"job": "j"})
    assert [stored.height for stored in seen] == [10, 17]
    assert replaced.before.height == 17
    assert rows(lake)["volume"].to_list() == [9.0] * 12


@pytest.mark.parametrize(
    "theirs",
    [{"start": T0 + 10 * HOUR}, {"start": T0 + DAY}, {"start": T0, "symbol": "X/Y"}],
    ids=["same date", "another date", "another market"],
)
def test_after_a_commit_of_another_engine_the_rows_are_read_again(
    lake: Lake, theirs: dict[str, Any]
) -> None:
    write(lake, "bars_1m", bars(10))
    dataset = lake.dataset("bars_1m")
    seen: list[int] = []
    table = store_of(lake).open_for_writing(dataset)

    def change(stored: pl.DataFrame) -> pl.DataFrame:
        if not seen:
            with without_lock():
                write(lake, "bars_1m", bars(2, **theirs))
        seen.append(stored.height)
        return stored.with_columns(volume=2.0)

    replace_rows(table, dataset, BTC, TimeRange(T0, T0 + HOUR), change, {"job": "j"})
    assert len(seen) == 2
    assert sorted(rows(lake)["volume"].to_list()) == [1.0] * 2 + [2.0] * 10


# Each adds its own minutes and revises what it finds; the replacer only adds to volumes.
def _merge(path: str, turns: int, begun: Event) -> None:
    store = store_of(Lake(Settings(uri=path)))
    begun.set()
    for turn in range(turns):
        write(store, "bars_1m", bars(1, start=T0 + (100 + turn) * MINUTE))
        write(store, "bars_1m", bars(1, start=T0 + turn * MINUTE, trade_count=[turn + 50]))


def test_a_process_that_merges_beside_loses_nothing(lake: Lake) -> None:
    turns = 15
    write(lake, "bars_1m", bars(100))
    begun = processes.CONTEXT.Event()
    writer = processes.start(_merge, str(lake.root.path), turns, begun)
    assert begun.wait(60)
    rounds = 0
    while writer.is_alive() or rounds < 3:
        replace(
            lake,
            TimeRange(T0, T0 + 200 * MINUTE),
            lambda stored: stored.with_columns(pl.col("volume") + 1),
        )
        rounds += 1
    writer.join()
    assert writer.exitcode == 0
    stored = rows(lake)
    assert stored["timestamp"].to_list() == [T0 + n * MINUTE for n in range(100 + turns)]
    assert stored["trade_count"].head(turns).to_list() == [n + 50 for n in range(turns)]
    assert stored["volume"].slice(turns, 100 - turns).to_list() == [1.0 + rounds] * (100 - turns)


def test_two_threads_that_replace_count_every_turn(lake: Lake) -> None:
    write(lake, "bars_1m", bars(20))
    window = TimeRange(T0, T0 + HOUR)

    def work(_: int) -> list[datetime]:
        for _turn in range(8):
            replace(lake, window, lambda stored: stored.with_columns(pl.col("volume") + 1))
        return []

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, range(2)))
    assert rows(lake)["volume"].to_list() == [17.0] * 20


def test_a_row_that_another_engine_stored_twice_is_stored_once_again(new_lake: NewLake) -> None:
    lake = new_lake()
    write(lake, "bars_1m", bars(3))
    whole = rows(lake)
    write_deltalake(lake.root.tables / "bars_1m", whole[1:2], mode="append")
    assert rows(lake).height == 4
    replaced = replace(lake, TimeRange(T0, T0 + HOUR), lambda stored: stored.unique())
    assert replaced.changed
    assert_frame_equal(rows(lake), whole)
