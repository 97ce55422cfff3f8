"""Writing is idempotent, and the order in which rows come does not matter."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.store.store import Store
from tests.conftest import DAY, MINUTE, SECOND, T0, NewLake, bars, store_of, trades, write

few = settings(max_examples=15)

TRADES = pl.concat(
    [
        trades(4, step=DAY / 3),
        trades(3, first=2, symbol="ETH/USDT"),
        trades(2, exchange="kraken", start=datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)),
    ]
)


def rows_of(store: Store, table: str) -> pl.DataFrame:
    dataset = store.catalog.dataset(table)
    if not store.exists(table):
        return dataset.empty()
    return store.snapshot(dataset).collect()


batches = st.lists(st.lists(st.integers(0, TRADES.height - 1), min_size=1, max_size=8), max_size=5)


@given(batches)
@few
def test_rows_that_never_change_come_in_any_order_and_any_number_of_times(
    new_lake: NewLake, batches: list[list[int]]
) -> None:
    store = store_of(new_lake())
    merged: set[int] = set()
    version = 0
    for batch in [*batches, list(range(TRADES.height))]:
        written = write(store, "trades", TRADES[batch])
        new = set(batch) - merged
        version += bool(new)
        assert (written.rows, written.inserted, written.updated) == (len(batch), len(new), 0)
        assert written.unchanged == len(batch) - len(new)
        assert written.version == version
        merged |= new
    stored = rows_of(store, "trades").select(TRADES.columns)
    assert_frame_equal(stored, TRADES, check_row_order=False)


bar = st.tuples(st.integers(0, 4), st.booleans())
revisions = st.lists(st.lists(bar, min_size=1, max_size=6), min_size=1, max_size=5)


@given(revisions)
@few
def test_the_last_form_of_a_bar_wins_but_an_open_one_never_replaces_a_closed_one(
    new_lake: NewLake, revisions: list[list[tuple[int, bool]]]
) -> None:
    store = store_of(new_lake())
    expected: dict[int, tuple[float, bool]] = {}
    revision = 0.0
    for batch in revisions:
        before = dict(expected)
        rows = []
        for number, closed in batch:
            revision += 1.0
            rows.append(bars(1, start=T0 + number * MINUTE, volume=[revision], closed=[closed]))
            if closed or not expected.get(number, (0.0, False))[1]:
                expected[number] = (revision, closed)
        written = write(store, "bars_1m", pl.concat(rows))
        changed = {number for number in before if expected[number] != before[number]}
        assert written.inserted == len(expected) - len(before)
        assert written.updated == len(changed)
    stored = rows_of(store, "bars_1m").select("timestamp", "volume", "closed")
    assert stored.rows() == [(T0 + n * MINUTE, *expected[n]) for n in sorted(expected)]


def test_bars_written_again_make_no_version(lake: Lake) -> None:
    first = write(lake, "bars_1m", bars(5))
    again = write(lake, "bars_1m", bars(5))
    assert (again.inserted, again.updated, again.unchanged) == (0, 0, 5)
    assert again.version == first.version


def test_bars_of_far_windows_are_revised_and_inserted_in_one_commit(lake: Lake) -> None:
    windows = [bars(3, start=T0 + n * 30 * DAY) for n in range(20)]
    first = write(lake, "bars_1m", pl.concat(windows[:19]))
    assert first.inserted == 57
    revised = pl.concat(windows).with_columns(volume=7.0)
    again = write(lake, "bars_1m", revised)
    assert (again.inserted, again.updated, again.version) == (3, 57, 2)
    assert lake.scan("bars_1m").collect()["volume"].to_list() == [7.0] * 60


@pytest.mark.parametrize("column", ["close", "quote_volume", "trade_count"])
def test_a_bar_is_replaced_when_any_value_differs(lake: Lake, column: str) -> None:
    value: Any = {"close": 100.0, "trade_count": 1}.get(column, 1.0)
    row = bars(1, high=[101.0], quote_volume=[2.0], trade_count=[2], close=[100.5])
    write(lake, "bars_1m", row)
    written = write(
        lake,
        "bars_1m",
        row.with_columns(pl.lit(value, row.schema.get(column, pl.String)).alias(column)),
    )
    assert (written.inserted, written.updated) == (0, 1)
    assert lake.scan("bars_1m").collect()[column].to_list() == [value]


def test_a_value_can_become_null_and_back(lake: Lake) -> None:
    for volume in ([2.0], [None], [2.0]):
        series = pl.Series(volume, dtype=pl.Float64)
        write(lake, "bars_1m", bars(1, quote_volume=series))
        assert lake.scan("bars_1m").collect()["quote_volume"].to_list() == volume


@pytest.mark.parametrize("column", ["bid_prices", "ask_amounts"])
def test_books_of_one_key_that_differ_contradict_each_other(lake: Lake, column: str) -> None:
    lists = {
        f"{side}_{what}": [[1.0, 2.0]] for side in ("bid", "ask") for what in ("prices", "amounts")
    }
    book = trades(1).select("exchange", "symbol", "timestamp", received_at="timestamp")
    book = book.with_columns(
        sequence=pl.lit(7, pl.Int64), **{k: pl.Series(v) for k, v in lists.items()}
    )
    other = book.with_columns(pl.Series(column, [[1.0, 3.0]]))
    written = write(lake, "orderbooks", pl.concat([book, other, book]))
    assert (written.inserted, written.rejected, written.unchanged) == (1, 1, 1)
    refused = lake.scan("quarantine").collect()
    assert refused["reason"].to_list() == ["contradicts_earlier_row"]


def test_a_trade_that_was_received_twice_is_no_contradiction(lake: Lake) -> None:
    once = trades(1, received_at=[T0 + SECOND])
    again = trades(1, received_at=[T0 + 2 * SECOND])
    written = write(lake, "trades", pl.concat([once, again]))
    assert (written.inserted, written.rejected, written.unchanged) == (1, 0, 1)


def test_times_within_a_millisecond_are_told_apart(lake: Lake) -> None:
    rows = trades(5, step=SECOND / 1_000_000, start=T0 + SECOND * 0.345678)
    assert write(lake, "trades", rows[:3]).inserted == 3
    assert write(lake, "trades", rows).inserted == 2


def test_one_id_on_two_markets_is_two_rows(lake: Lake) -> None:
    rows = pl.concat([trades(1), trades(1, symbol="ETH/USDT"), trades(1, exchange="okx")])
    assert write(lake, "trades", rows).inserted == 3


def test_a_commit_says_where_its_rows_come_from(lake: Lake) -> None:
    bad = trades(3, price=[1.0, -1.0, 2.0])
    written = write(lake, "trades", bad)
    commit = lake.versions("trades").row(0, named=True)
    assert commit["version"] == written.version
    assert (commit["job"], commit["source"]) == ("job", "test")
    assert (commit["rows"], commit["inserted"], commit["rejected"]) == (3, 2, 1)
    assert len(commit["digest"]) == 64
