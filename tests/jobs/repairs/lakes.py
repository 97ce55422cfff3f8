"""Lakes to fill: ingested, and with a venue that nobody can ask any more."""

from __future__ import annotations

import polars as pl

from lake.api import Lake
from lake.model.market import Market
from tests.conftest import ORIGIN
from tests.jobs.repairs.damage import (
    BTC,
    SINCE,
    UNTIL,
    minutes,
    rows,
    store_of,
)
from tests.paths import SHARED

DATA = SHARED / "cex"
GONE = Market("gone", "BTC/USDT")
GAP = minutes(10)
SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


def ingest_all(lake: Lake, *tables: str, market: Market = BTC) -> Lake:
    for table in tables:
        lake.ingest(table, exchange=market.exchange, symbol=market.symbol, since=SINCE, until=UNTIL)
    return lake


def copy_to_gone_venue(lake: Lake, *tables: str) -> Lake:
    """The rows of tables once more, of a venue that nobody can ask any more."""
    store = store_of(lake)
    for table in tables:
        stored = rows(lake, table).drop("date").with_columns(exchange=pl.lit(GONE.exchange))
        store.write(store.catalog.dataset(table), stored, ORIGIN)
    return lake


def rows_of_market(lake: Lake, table: str, market: Market) -> pl.DataFrame:
    return rows(lake, table).filter(exchange=market.exchange, symbol=market.symbol)
