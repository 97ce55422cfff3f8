"""Specifications through the real ccxt client: one bad value does not cost a market its row."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson
import polars as pl
import pytest
from aiohttp import web

from lake.api import Lake
from lake.jobs.ingest.current import ingest_instruments
from tests.conftest import T0, store_of

YEAR_3000_MS = 32_503_708_800_000
CURRENCY = {
    "currency": "BTC",
    "currency_long": "Bitcoin",
    "min_confirmations": 1,
    "fee_precision": 4,
}
PERPETUAL = {
    "tick_size": 0.5,
    "taker_commission": 0.0005,
    "settlement_period": "perpetual",
    "settlement_currency": "BTC",
    "quote_currency": "USD",
    "min_trade_amount": 10,
    "maker_commission": 0,
    "kind": "future",
    "is_active": True,
    "instrument_name": "BTC-PERPETUAL",
    "instrument_type": "reversed",
    "expiration_timestamp": YEAR_3000_MS,
    "creation_timestamp": 1534167754000,
    "counter_currency": "USD",
    "contract_size": 10,
    "base_currency": "BTC",
}
FUTURE = {
    **PERPETUAL,
    "settlement_period": "month",
    "instrument_name": "BTC-27DEC24",
    "expiration_timestamp": 1735286400000,
}


async def deribit(request: web.Request) -> web.Response:
    path, query = request.path, request.query
    result: list[Any] = []
    if path.endswith("get_currencies"):
        result = [CURRENCY]
    elif query.get("currency", "any") in ("BTC", "any") and query.get("kind", "future") == "future":
        result = [PERPETUAL, FUTURE]
    body = {"jsonrpc": "2.0", "result": result, "usIn": 1, "usOut": 2, "usDiff": 1}
    return web.Response(body=orjson.dumps(body), content_type="application/json")


@pytest.fixture
def record(serving: Any, connect: Any, lake: Lake) -> Any:
    """Record the specifications of the small Deribit; returns the report."""

    def run() -> Any:
        async def ask() -> Any:
            async with serving(deribit) as url:
                source = connect("deribit", url, now=lambda: T0)
                return await ingest_instruments(store_of(lake), source, "deribit", None)

        return asyncio.run(ask())

    return run


def test_a_perpetual_that_expires_in_the_year_3000_has_a_specification(
    lake: Lake, record: Any
) -> None:
    [table] = record().tables
    assert (table.table, table.inserted, table.rejected) == ("instruments", 2, 0)
    rows = lake.scan("instruments").sort("symbol").collect()
    perpetual, future = rows.rows(named=True)
    assert (perpetual["type"], perpetual["expiry"]) == ("swap", None)
    assert (perpetual["tick_size"], perpetual["contract_size"]) == (0.5, 10.0)
    assert (future["type"], future["expiry"]) == ("future", datetime(2024, 12, 27, 8, tzinfo=UTC))
    assert "quarantine" not in lake.tables()["table"].to_list()
    assert record().tables == ()


def test_an_expiry_beyond_all_times_is_null_and_reported_once(
    lake: Lake, record: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    monkeypatch.setitem(FUTURE, "expiration_timestamp", YEAR_3000_MS)
    [table] = record().tables
    assert (table.inserted, table.rejected, table.cleared) == (2, 0, 1)
    assert lake.scan("instruments").collect()["expiry"].null_count() == 2
    [line] = [line for line in log_lines if "out of range" in line]
    assert "instruments" in line
    assert "expiry" in line
    assert "BTC/USD:BTC-" in line
    assert record().tables == ()  # the stored null is what the venue's time became
    monkeypatch.setitem(FUTURE, "tick_size", 2.5)
    assert [(t.inserted, t.cleared) for t in record().tables] == [(1, 1)]
    assert lake.scan("instruments").filter(pl.col("tick_size") == 2.5).collect().height == 1
