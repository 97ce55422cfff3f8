"""Coverage: its sources stay apart, and what was not given does not cover."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from lake.api import Lake
from lake.model.dataset import TIMESTAMP
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store.coverage import NOT_GIVEN, CoveredRange, join_neighbours
from lake.store.ledger import Ledger
from lake.store.store import Origin
from tests.conftest import DAY, T0, store_of

MARKET = Market("binance", "BTC/USDT")
FIRST, SECOND = TimeRange(T0, T0 + DAY), TimeRange(T0 + DAY, T0 + 2 * DAY)


def record(lake: Lake, source: str, *ranges: CoveredRange, job: str = "job") -> None:
    Ledger(store_of(lake)).record_coverage("trades", MARKET, ranges, Origin(job, source))


def rows(lake: Lake) -> pl.DataFrame:
    return lake.scan("coverage").collect().sort("timestamp", "source")


def test_each_source_keeps_its_own_answer(lake: Lake) -> None:
    record(lake, "ccxt:binance", CoveredRange(FIRST, 0, NOT_GIVEN))
    record(lake, "files:binance", CoveredRange(FIRST, 7, "imported"))
    assert rows(lake).select("source", "status", "rows").rows() == [
        ("ccxt:binance", "not_given", 0),
        ("files:binance", "imported", 7),
    ]
    assert lake.coverage("trades").select("start", "end").rows() == [(FIRST.start, FIRST.end)]


def test_what_was_not_given_does_not_cover(lake: Lake) -> None:
    record(lake, "ccxt:binance", CoveredRange(FIRST, 0, NOT_GIVEN), CoveredRange(SECOND, 1))
    assert Ledger(store_of(lake)).read_covered("trades", MARKET) == (SECOND,)
    assert lake.coverage("trades").select("start", "end").rows() == [(SECOND.start, SECOND.end)]


def test_the_same_interval_asked_again_names_the_last_job(lake: Lake) -> None:
    record(lake, "ccxt:binance", CoveredRange(FIRST, 3), job="first")
    record(lake, "ccxt:binance", CoveredRange(FIRST, 4), job="second")
    assert rows(lake).select("job_id", "rows").rows() == [("second", 4)]


def test_neighbours_of_one_status_are_joined() -> None:
    third = TimeRange(SECOND.end, SECOND.end + DAY)
    joined = join_neighbours(
        [CoveredRange(third, 0, NOT_GIVEN), CoveredRange(SECOND, 2), CoveredRange(FIRST, 1)]
    )
    assert joined == [
        CoveredRange(TimeRange(FIRST.start, SECOND.end), 3),
        CoveredRange(third, 0, NOT_GIVEN),
    ]


def test_rows_of_an_earlier_lake_are_read_and_go_on(lake: Lake) -> None:
    store = store_of(lake)
    old = replace(
        store.catalog.dataset("coverage"), key=("dataset", "timestamp", "end"), rows="immutable"
    )
    row = {
        "exchange": MARKET.exchange,
        "symbol": MARKET.symbol,
        "dataset": "trades",
        "timestamp": FIRST.start,
        "end": FIRST.end,
        "status": "fetched",
        "rows": 5,
        "source": "ccxt:binance",
        "job_id": "old",
        "recorded_at": T0,
    }
    times = dict.fromkeys(("timestamp", "end", "recorded_at"), TIMESTAMP)
    store.write(old, pl.DataFrame([row], schema_overrides=times), Origin("old", "ccxt:binance"))
    record(lake, "ccxt:binance", CoveredRange(FIRST, 6), CoveredRange(SECOND, 1, "heard"))
    record(lake, "files", CoveredRange(FIRST, 5, "imported"))
    assert rows(lake).select("source", "status", "rows", "job_id").rows() == [
        ("ccxt:binance", "fetched", 6, "job"),
        ("files", "imported", 5, "job"),
        ("ccxt:binance", "heard", 1, "job"),
    ]
    assert Ledger(store_of(lake)).read_covered("trades", MARKET) == (
        TimeRange(FIRST.start, SECOND.end),
    )
