"""Stored rows that their source contradicts are findings, until the contradiction is gone."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from lake.api import Lake
from lake.errors import QualityError
from lake.model.market import Market
from lake.model.time import TimeRange
from tests.conftest import DAY, ORIGIN, SECOND, T0, store_of, trades, write
from tests.jobs.ingest.test_one_id_of_two_trades import CLEAN, ingest, trade
from tests.store.test_compaction import books

BTC = Market("binance", "BTC/USDT")


def find_open(lake: Lake, table: str = "trades") -> pl.DataFrame:
    lake.quality.check(table)
    return lake.quality.findings(check="contradicted").filter(status="open")


def change_rows(
    lake: Lake, change: Callable[[pl.DataFrame], pl.DataFrame], table: str = "trades"
) -> None:
    store = store_of(lake)
    store.replace(store.catalog.dataset(table), BTC, TimeRange(T0, T0 + DAY), change, ORIGIN)


def write_doubled(lake: Lake) -> None:
    """Store four trades; the first two at twice the price."""
    write(lake, "trades", trades(2).with_columns(pl.col("price") * 2))
    write(lake, "trades", trades(4))


def test_stored_rows_that_the_source_contradicts_are_an_error(lake: Lake) -> None:
    write_doubled(lake)
    [finding] = find_open(lake).to_dicts()
    assert (finding["rows"], finding["severity"]) == (2, "error")
    assert (finding["measured"], finding["expected"]) == (200.0, 100.0)
    assert "2 stored rows are contradicted by later rows" in finding["message"]
    assert "trade_id 0 has price 200.0, later 100.0" in finding["message"]
    assert "the table quarantine has both" in finding["message"]
    assert lake.quality.scores()["consistency"].to_list() == [0.5]


def test_a_pin_of_contradicted_rows_has_no_full_score(lake: Lake) -> None:
    write_doubled(lake)
    with pytest.raises(QualityError):
        lake.bundles.pin("p", table="trades", since=T0, until=T0 + 4 * SECOND, min_quality=1.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[2:],
        lambda rows: rows.with_columns(price=100.0 + pl.int_range(pl.len())),
    ],
    ids=["deleted", "replaced"],
)
def test_a_contradiction_that_is_gone_is_resolved(
    lake: Lake, change: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    write_doubled(lake)
    assert find_open(lake).height == 1
    change_rows(lake, change)
    assert find_open(lake).is_empty()
    assert lake.quality.scores()["score"].to_list() == [1.0]


def test_the_row_that_was_rejected_last_counts(lake: Lake) -> None:
    for price in (1.0, 2.0, 3.0):
        write(lake, "trades", trades(1, price=[price]))
    change_rows(lake, lambda rows: rows.with_columns(price=pl.lit(2.0)))
    [finding] = find_open(lake).to_dicts()
    assert "has price 2.0, later 3.0" in finding["message"]
    change_rows(lake, lambda rows: rows.with_columns(price=pl.lit(3.0)))
    assert find_open(lake).is_empty()


def test_a_close_time_is_the_same_row_and_another_id_is_not(lake: Lake) -> None:
    write(lake, "trades", trades(2))
    late = trades(1, start=T0 + SECOND / 4, price=[7.0])
    write(lake, "trades", late)
    write(lake, "trades", trades(1, first=5, price=[9.0]))
    [finding] = find_open(lake).to_dicts()
    assert (finding["timestamp"], finding["rows"]) == (T0, 1)


def test_books_that_the_source_contradicts_are_found(lake: Lake) -> None:
    frame = books(3, T0, "BTC/USDT")
    write(lake, "orderbooks", frame)
    other = frame.with_columns(bid_prices=pl.lit([98.0, 97.0]))
    write(lake, "orderbooks", other[:1])
    [finding] = find_open(lake, "orderbooks").to_dicts()
    assert finding["rows"] == 1
    assert "has bid_prices [99.0, 98.0], later [98.0, 97.0]" in finding["message"]
    change_rows(lake, lambda rows: pl.concat([rows[:0], rows[1:]]), "orderbooks")
    assert find_open(lake, "orderbooks").is_empty()


def test_the_report_of_an_ingest_shows_conflicting_rows(lake: Lake) -> None:
    report = ingest(lake, *CLEAN[:3])
    assert (report.conflicting, "conflicting" in repr(report)) == (0, False)
    report = ingest(lake, CLEAN[0], trade(1, price=7.0))
    assert report.conflicting == 1
    assert "1 conflicting" in repr(report)
