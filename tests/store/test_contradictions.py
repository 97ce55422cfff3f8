"""Rows of one key: which are one, which are two, and which are refused, whatever the batches."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.model.digest import compute_digest
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store.conform import check_rows
from lake.store.local_table import LocalTable
from lake.store.merge import merge
from lake.store.prepare import MergeBatch, Preparation
from tests.conftest import (
    DAY,
    MINUTE,
    ORIGIN,
    SECOND,
    T0,
    TIME,
    NewLake,
    bars,
    store_of,
    trades,
    without_lock,
    write,
)

MICROSECOND = timedelta(microseconds=1)
BTC = Market("binance", "BTC/USDT")


def trade(at: timedelta = timedelta(0), trade_id: str = "7", **values: Any) -> pl.DataFrame:
    """One trade at some time after T0."""
    columns: dict[str, Any] = {name: [value] for name, value in values.items()}
    return trades(1, start=T0 + at, trade_id=[trade_id], **columns)


def stored_rows(lake: Lake, *columns: str) -> list[tuple[Any, ...]]:
    return lake.scan("trades").select(columns).collect().rows()


def quarantined(lake: Lake) -> pl.DataFrame:
    return lake.scan("quarantine", missing="empty").collect()


# As in an archive of Binance: one id of two trades, 46 seconds apart, over midnight.
FIRST = trade(DAY - 23 * SECOND, price=2.38, amount=824.0)
SECOND_TRADE = trade(DAY + 23 * SECOND, price=2.39, amount=19332.0)
OTHER_VALUES = trade(DAY - 23 * SECOND, price=9.99, amount=1.0)


@pytest.mark.parametrize("batches", [[3], [1, 1, 1], [2, 1], [1, 2]])
def test_one_id_of_two_trades_is_stored_twice_and_refused_once(
    lake: Lake, batches: list[int]
) -> None:
    rows, results, start = pl.concat([FIRST, SECOND_TRADE, OTHER_VALUES]), [], 0
    for size in batches:
        results.append(write(lake, "trades", rows[start : start + size]))
        start += size
    assert stored_rows(lake, "price", "amount") == [(2.38, 824.0), (2.39, 19332.0)]
    assert sum(result.inserted for result in results) == 2
    assert sum(result.rejected for result in results) == 1
    assert sum(result.conflicting for result in results) == 1
    assert sum(result.kept.height for result in results) == 2
    assert quarantined(lake).height == 1


def test_a_contradiction_is_quarantined_with_both_rows_and_once(lake: Lake) -> None:
    write(lake, "trades", trade(price=1.0))
    for turn in range(3):
        late = trade(price=2.0, received_at=T0 + DAY + turn * SECOND)
        written = write(lake, "trades", late)
        assert (written.inserted, written.rejected, written.conflicting) == (0, 1, 1)
        assert written.version == 1
        assert written.kept.is_empty()
    row = quarantined(lake).row(0, named=True)
    assert quarantined(lake).height == 1
    assert (row["dataset"], row["reason"]) == ("trades", "contradicts_earlier_row")
    assert (json.loads(row["row"])["price"], json.loads(row["stored"])["price"]) == (2.0, 1.0)
    assert stored_rows(lake, "price", "received_at") == [(1.0, None)]


def test_a_contradiction_is_logged(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    write(lake, "trades", trade(price=1.0))
    with caplog.at_level(logging.WARNING, "lake"):
        write(lake, "trades", pl.concat([trade(price=2.0), trade(price=3.0)]))
    [record] = [r for r in caplog.records if "rows contradict stored rows" in r.getMessage()]
    assert "rows=2" in record.getMessage()
    assert "first=2024-01-01T00:00:00Z" in record.getMessage()


def test_rows_that_are_all_stored_make_no_commit_and_are_kept(lake: Lake) -> None:
    first = write(lake, "trades", trades(5))
    again = write(lake, "trades", trades(3))
    assert (again.inserted, again.rejected, again.unchanged) == (0, 0, 3)
    assert again.version == first.version
    assert again.kept["timestamp"].to_list() == [T0 + n * SECOND for n in range(3)]


TIMES = [timedelta(microseconds=us) for us in (440_295, 440_000, 440_296)]


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("start", [timedelta(0), DAY - SECOND / 1000 * 440.2955])
def test_times_of_one_trade_that_are_close_are_one_row_over_midnight_too(
    lake: Lake, order: tuple[int, ...], start: timedelta
) -> None:
    for number in order:
        written = write(lake, "trades", trade(start + TIMES[number]))
    assert written.inserted == 0
    assert written.kept["timestamp"].to_list() == [T0 + start + TIMES[order[0]]]
    assert stored_rows(lake, "timestamp") == [(T0 + start + TIMES[order[0]],)]
    rows = lake.scan("trades").collect()
    commit = lake.versions("trades").row(0, named=True)
    assert commit["digest"] == compute_digest(lake.dataset("trades"), rows)


def test_the_digest_of_a_commit_is_that_of_the_rows_that_it_stored(lake: Lake) -> None:
    write(lake, "trades", trades(3))
    shifted = trades(6, start=T0 + SECOND / 4).with_columns(
        price=pl.when(trade_id="2").then(7.0).otherwise("price")
    )
    written = write(lake, "trades", shifted)
    assert (written.inserted, written.conflicting, written.unchanged) == (3, 1, 2)
    dataset = lake.dataset("trades")
    new = lake.scan("trades").collect().filter(pl.col("price") >= 103.0)
    commit = lake.versions("trades").row(0, named=True)
    assert (commit["rows"], commit["inserted"], commit["rejected"]) == (6, 3, 1)
    assert commit["digest"] == compute_digest(dataset, new)


def test_what_is_received_later_fills_a_null_once(lake: Lake) -> None:
    write(lake, "trades", trades(3))
    early, late = ([T0 + day * DAY] * 2 for day in (1, 2))
    written = write(lake, "trades", trades(2, received_at=early))
    assert (written.inserted, written.updated, written.unchanged) == (0, 2, 0)
    again = write(lake, "trades", trades(2, received_at=late))
    assert (again.updated, again.unchanged, again.version) == (0, 2, written.version)
    assert write(lake, "trades", trades(2)).version == written.version
    times = [time for (time,) in stored_rows(lake, "received_at")]
    assert times == [T0 + DAY, T0 + DAY, None]


def test_a_contradicting_row_fills_nothing(lake: Lake) -> None:
    write(lake, "trades", trades(1))
    assert write(lake, "trades", trades(1, price=[7.0], received_at=[T0 + DAY])).conflicting == 1
    assert stored_rows(lake, "received_at") == [(None,)]


def test_one_batch_inserts_fills_keeps_and_refuses(lake: Lake) -> None:
    write(lake, "trades", trades(3))
    received = pl.Series([T0 + DAY, None, T0 + DAY, T0 + DAY], dtype=TIME)
    rows = trades(4, received_at=received, price=[100.0, 101.0, 7.0, 103.0])
    written = write(lake, "trades", rows)
    assert (written.inserted, written.updated, written.unchanged) == (1, 1, 1)
    assert (written.rejected, written.conflicting, written.kept.height) == (1, 1, 3)
    assert lake.versions("trades").height == 3
    assert stored_rows(lake, "received_at", "price") == [
        (T0 + DAY, 100.0),
        (None, 101.0),
        (None, 102.0),
        (T0 + DAY, 103.0),
    ]


def test_books_that_contradict_a_stored_one_are_refused(lake: Lake) -> None:
    lists = {f"{side}_{of}": [[1.0]] for side in ("bid", "ask") for of in ("prices", "amounts")}
    book = trades(1).select("exchange", "symbol", "timestamp", received_at="timestamp")
    book = book.with_columns(
        sequence=pl.lit(7, pl.Int64), **{k: pl.Series(v) for k, v in lists.items()}
    )
    write(lake, "orderbooks", book)
    later = book.with_columns(received_at=pl.col("received_at") + SECOND)
    assert write(lake, "orderbooks", later).unchanged == 1
    other = later.with_columns(bid_prices=pl.Series([[2.0]]))
    assert write(lake, "orderbooks", other).conflicting == 1
    assert lake.scan("orderbooks").collect()["received_at"].to_list() == [T0]


def test_the_lakes_own_records_contradict_nothing(lake: Lake) -> None:
    for job in ("a", "b"):
        record = (
            trades(1)
            .select("exchange", "symbol", "timestamp")
            .with_columns(
                dataset=pl.lit("trades"),
                row_digest=pl.lit("d"),
                reason=pl.lit("r"),
                row=pl.lit("{}"),
                job_id=pl.lit(job),
                refused_at="timestamp",
            )
        )
        written = write(lake, "quarantine", record)
        assert (written.rejected, written.conflicting) == (0, 0)
    assert quarantined(lake)["job_id"].to_list() == ["a"]


@pytest.mark.parametrize("far", [[], [30 * DAY, 31 * DAY]], ids=["one time", "far windows"])
def test_another_writer_between_read_and_commit_is_seen(lake: Lake, far: list[timedelta]) -> None:
    store, other = store_of(lake), store_of(lake)
    write(other, "trades", trades(1, first=99, start=T0 - MINUTE * 99))
    dataset = store.catalog.dataset("trades")
    calls: list[int] = []

    # The row of the other writer is close in time, on the other side of midnight.
    def prepare(table: LocalTable) -> MergeBatch:
        batch = preparation(table)
        if not calls:
            with without_lock():
                write(other, "trades", trade(DAY, price=2.0))
        calls.append(table.version())
        return batch

    others = [trade(at, f"far {number}") for number, at in enumerate(far)]
    mine = pl.concat([trade(DAY - MICROSECOND, price=1.0), *others])
    preparation = Preparation(dataset, check_rows(dataset, mine).rows, {"rejected": 0})
    merged = merge(store.open(dataset), dataset, prepare)
    assert len(calls) == 2
    assert merged.inserted == len(far)
    assert (preparation.conflicting.height, preparation.kept.height) == (1, len(far))
    assert stored_rows(lake, "price")[:2] == [(199.0,), (2.0,)]


def test_writers_of_close_times_and_other_values_leave_one_row_of_each_trade(lake: Lake) -> None:
    write(lake, "trades", trades(1, first=99, symbol="ETH/USDT"))
    count, writers = 6, 4

    def work(number: int) -> tuple[int, int]:
        store, inserted, conflicting = store_of(lake), 0, 0
        for turn in range(count):
            # Of writers 0 to 3, two are before midnight, and two have another price.
            at = DAY * (turn + 1) + (number - 2) * SECOND / 4
            written = write(store, "trades", trade(at, str(turn), price=1.0 + number % 2))
            inserted += written.inserted
            conflicting += written.conflicting
        return inserted, conflicting

    with ThreadPoolExecutor(writers) as threads:
        results = list(threads.map(work, range(writers)))
    stored = lake.scan("trades", symbol="BTC/USDT").collect()
    assert sorted(stored["trade_id"].to_list()) == [str(n) for n in range(count)]
    assert sum(inserted for inserted, _ in results) == count
    assert sum(conflicting for _, conflicting in results) == 2 * count


rows_of_few_ids = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from("78"), st.sampled_from([1.0, 1.0, 2.0])),
    min_size=1,
    max_size=8,
)


@given(rows_of_few_ids, st.integers(1, 8))
@settings(max_examples=12)
def test_any_batches_give_the_same_table_and_the_same_quarantine(
    new_lake: NewLake, rows: list[tuple[int, str, float]], size: int
) -> None:
    frame = pl.concat(
        trade(DAY - 2 * SECOND + n * SECOND * 0.7, key, price=price) for n, key, price in rows
    )
    lakes = [new_lake(), new_lake()]
    counts = []
    for lake, length in zip(lakes, (size, len(rows)), strict=True):
        written = [write(lake, "trades", part) for part in frame.iter_slices(length)]
        counts.append((sum(w.inserted for w in written), sum(w.conflicting for w in written)))
    assert counts[0] == counts[1]
    columns = ("timestamp", "trade_id", "price")
    assert stored_rows(lakes[0], *columns) == stored_rows(lakes[1], *columns)
    refused = [set(quarantined(lake)["row_digest"]) if counts[0][1] else () for lake in lakes]
    assert refused[0] == refused[1]


def test_a_bar_received_later_is_filled_and_a_revision_without_a_time_keeps_it(
    lake: Lake,
) -> None:
    def read() -> tuple[Any, ...]:
        return lake.scan("bars_1m").select("volume", "received_at").collect().row(0)

    early, late = T0 + MINUTE, T0 + DAY
    first = write(lake, "bars_1m", bars(1))
    assert write(lake, "bars_1m", bars(1, received_at=[early])).updated == 1
    again = write(lake, "bars_1m", bars(1, received_at=[late]))
    assert (first.version, again.updated, again.version) == (1, 0, 2)
    assert read() == (1.0, early)
    assert write(lake, "bars_1m", bars(1)).updated == 0
    assert write(lake, "bars_1m", bars(1, volume=[2.0])).updated == 1
    assert read() == (2.0, early)
    # Other values were not known before they were received.
    assert write(lake, "bars_1m", bars(1, volume=[3.0], received_at=[late])).updated == 1
    assert read() == (3.0, late)


def test_forms_of_a_bar_in_one_batch_are_those_of_many_batches(new_lake: NewLake) -> None:
    times = [None, T0 + MINUTE, T0 + DAY, None]
    forms = [
        bars(1, volume=[volume], closed=[closed], received_at=pl.Series([time], dtype=TIME))
        for volume, closed, time in zip(
            [1.0, 1.0, 1.0, 2.0], [False, False, True, False], times, strict=True
        )
    ]
    one, many = new_lake(), new_lake()
    write(one, "bars_1m", pl.concat(forms))
    for form in forms:
        write(many, "bars_1m", form)
    rows = [lake.scan("bars_1m").collect().rows() for lake in (one, many)]
    assert rows[0] == rows[1]


def test_rows_of_before_that_are_too_close_stay_until_someone_removes_them(lake: Lake) -> None:
    store = store_of(lake)
    dataset = store.catalog.dataset("trades")
    close = pl.concat([trade(at) for at in TIMES])
    store.write(replace(dataset, time_tolerance=timedelta(0)), close, ORIGIN)
    assert write(store, "trades", close).unchanged == 3
    window = TimeRange(T0, T0 + DAY)
    kept = store.replace(dataset, BTC, window, lambda rows: rows[:2], ORIGIN)
    assert (kept.before.height, kept.after.height) == (3, 2)
    assert len(stored_rows(lake, "timestamp")) == 2


def test_a_lake_of_before_gets_contradictions_with_the_stored_row(lake_before: Lake) -> None:
    rows = lake_before.scan("trades").collect().head(1).drop("date")
    written = lake_before.write("trades", rows.with_columns(pl.col("price") + 1.0))
    assert (written.rejected, written.conflicting) == (1, 1)
    row = quarantined(lake_before).filter(reason="contradicts_earlier_row").row(0, named=True)
    price = rows["price"].item()
    assert (json.loads(row["row"])["price"], json.loads(row["stored"])["price"]) == (
        price + 1.0,
        price,
    )
