"""Rows that were all rejected are told, and repaired when the venue gives better ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta

import polars as pl

from lake.errors import SourceRefusedError
from lake.jobs.ingest.ingest import Ingestion
from lake.jobs.ingest.request import IngestRequest
from lake.jobs.ingest.run import ingest_and_check
from lake.jobs.repairs.repair import Repairer
from lake.model.dataset import Dataset
from lake.model.market import Market
from lake.model.progress import NoProgress
from lake.model.time import TimeRange
from lake.sources.base import FetchRequest, Page
from lake.store.store import Store
from tests.conftest import ORIGIN
from tests.jobs.conftest import NOW, MakeLake
from tests.jobs.ingest.own_source import Ranges, bars_of

UNTIL = NOW.replace(hour=0, minute=0, second=0)
RANGE = TimeRange(UNTIL - timedelta(hours=2), UNTIL)
BTC = Market("binance", "BTC/USDT")


class HighBelowLow(Ranges):
    """A venue all of whose bars break a rule."""

    @property
    def name(self) -> str:
        return "ccxt:binance"

    async def market(self, symbol: str) -> Market:
        return Market("binance", symbol)

    async def fetch(
        self, requests: Sequence[FetchRequest], window: TimeRange
    ) -> AsyncGenerator[tuple[FetchRequest, Page]]:
        for request in requests:
            rows = bars_of(request.market.symbol, window).with_columns(high=pl.lit(1.0))
            yield request, Page(rows, window)


def test_a_range_of_which_all_rows_were_rejected_is_told_and_repaired(make_lake: MakeLake) -> None:
    lake = make_lake()
    store = Store(lake.root, lambda: NOW)
    request = IngestRequest(lake.dataset("bars_1m"), BTC, RANGE.start, RANGE.end)
    bad = Ingestion(store, lake.settings, lambda _: HighBelowLow("BTC/USDT"), NoProgress())
    report = asyncio.run(bad.run([request]))
    [table] = report.tables
    assert (table.rows, table.inserted, table.rejected) == (120, 0, 120)
    assert lake.sql("SELECT status, rows FROM coverage").fetchall() == [("fetched", 0)]
    [status] = lake.status().rows(named=True)
    assert (status["table"], status["rows"]) == ("bars_1m", 0)
    assert status["unchecked_since"] is not None

    asyncio.run(ingest_and_check(store, lake.settings, [request], NoProgress()))  # nothing to do
    [finding] = lake.quality.findings().rows(named=True)
    assert (finding["check"], finding["rows"], finding["severity"]) == ("refused", 120, "error")
    assert lake.quality.scores("bars_1m")["score"].to_list() == [0.0]

    repaired = lake.quality.repair()
    assert repaired.inserted == 120
    assert lake.quality.findings().is_empty()
    assert lake.scan("bars_1m").collect().height == 120
    assert lake.quality.scores("bars_1m")["score"].to_list() == [1.0]
    assert ("fetched", 120) in lake.sql("SELECT status, rows FROM coverage").fetchall()


class RefusesEarlier(Ranges):
    """A venue that refuses what is older than its last hour."""

    @property
    def name(self) -> str:
        return "ccxt:binance"

    async def market(self, symbol: str) -> Market:
        return Market("binance", symbol)

    def window(self, dataset: Dataset) -> timedelta:
        assert dataset.name == "bars_1m"
        return timedelta(minutes=10)

    async def fetch(
        self, requests: Sequence[FetchRequest], window: TimeRange
    ) -> AsyncGenerator[tuple[FetchRequest, Page]]:
        if window.start < UNTIL - timedelta(hours=1):
            raise SourceRefusedError("too long ago", reason="too_long_ago")
        for request in requests:
            yield request, Page(bars_of(request.market.symbol, window), window)


def test_a_window_that_is_refused_stops_no_other_of_its_market(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.ingest("bars_1m", exchange="binance", symbol=BTC.symbol, since=RANGE.start, until=UNTIL)
    store = Store(lake.root, lambda: NOW)
    for minutes in (100, 20):
        gap = TimeRange(UNTIL - timedelta(minutes=minutes), UNTIL - timedelta(minutes=minutes - 2))
        store.replace(lake.dataset("bars_1m"), BTC, gap, lambda rows: rows.clear(), ORIGIN)
    lake.quality.check()
    findings = lake.quality.findings(check="gaps")
    assert findings["rows"].to_list() == [2, 2]
    source = RefusesEarlier(BTC.symbol)
    repairer = Repairer(store, lake.settings, lambda _, __: source, NoProgress())
    report = asyncio.run(repairer.run(findings))
    assert report.inserted == 2
    [failed] = report.failed
    assert failed.reason.startswith("ccxt:binance: too long ago")
