"""Raw records that a source refuses: in quarantine with the reason, counted, and never lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from lake.api import Lake
from lake.jobs.ingest.ingest import Ingestion
from lake.jobs.ingest.report import IngestReport
from lake.jobs.ingest.request import IngestRequest
from lake.jobs.job import TableReport
from lake.model.market import Market
from lake.model.progress import NoProgress
from lake.model.time import EPOCH, TimeRange
from lake.sources.base import FetchRequest, Page, Refused
from tests.conftest import store_of
from tests.jobs.conftest import NOW
from tests.jobs.ingest.own_source import EXCHANGE, Ranges, bars_of, day

DAY = day(NOW)
BTC = "BTC/USDT"
LOST = DAY.start + timedelta(hours=2)
RECORDS = (
    Refused("price_missing", '{"t":1773021600000,"o":null}', LOST),
    Refused("unreadable", "<html>502", None),
    Refused("time_out_of_range", '{"t":1e18}', datetime(9999, 1, 1, tzinfo=UTC)),
)


class Refuses(Ranges):
    """Lacks a bar, and refuses the record of it and others beside."""

    def __init__(self, *symbols: str, empty: bool = False) -> None:
        super().__init__(*symbols)
        self._empty = empty

    def window(self, _: object) -> timedelta:
        return timedelta(days=1)

    async def fetch(
        self, requests: Sequence[FetchRequest], window: TimeRange
    ) -> AsyncGenerator[tuple[FetchRequest, Page]]:
        self.requests += 1
        for request in requests:
            bars = bars_of(request.market.symbol, window)
            rows = bars.clear() if self._empty else bars.filter(pl.col("timestamp") != LOST)
            yield request, Page(rows, window, RECORDS)


def _ingest(lake: Lake, source: Ranges, **options: Any) -> IngestReport:
    request = IngestRequest(
        lake.dataset("bars_1m"), Market(EXCHANGE, BTC), DAY.start, DAY.end, **options
    )
    ingestion = Ingestion(store_of(lake), lake.settings, lambda _: source, NoProgress())
    return asyncio.run(ingestion.run([request]))


def test_refused_records_are_quarantined_with_the_job_and_counted(lake: Lake) -> None:
    report = _ingest(lake, Refuses(BTC))
    [table] = report.tables
    version = lake.tables().filter(table="bars_1m")["version"].item()
    assert table == TableReport("bars_1m", 1439 + 3, 1439, 0, 3, version)
    [job] = lake.jobs().rows(named=True)
    assert (job["rows"], job["inserted"], job["rejected"]) == (1442, 1439, 3)

    stored = lake.scan("quarantine").collect().sort("reason")
    assert stored.select("exchange", "symbol", "dataset", "job_id").unique().rows() == [
        (EXCHANGE, BTC, "bars_1m", report.job_id)
    ]
    assert stored.select("reason", "timestamp").rows() == [
        ("price_missing", LOST),
        ("time_out_of_range", EPOCH),
        ("unreadable", EPOCH),
    ]
    raw = [json.loads(row) for row in stored["row"]]
    assert raw == [{"t": 1773021600000, "o": None}, {"t": 1e18}, "<html>502"]


def test_what_is_refused_twice_is_stored_once(lake: Lake) -> None:
    _ingest(lake, Refuses(BTC))
    again = _ingest(lake, Refuses(BTC), refetch=True)
    [table] = again.tables
    assert (table.inserted, table.updated, table.rejected) == (0, 0, 3)
    assert lake.scan("quarantine").collect().height == 3


def test_a_window_of_refused_records_alone_is_no_empty_window(lake: Lake) -> None:
    [table] = _ingest(lake, Refuses(BTC, empty=True)).tables
    assert table == TableReport("bars_1m", 3, 0, 0, 3, 0)
    covered = lake.sql('SELECT status, rows, timestamp, "end" FROM coverage').fetchall()
    assert [row[:2] for row in covered] == [("fetched", 0)]


def test_a_refused_record_is_a_finding_until_a_row_takes_its_place(lake: Lake) -> None:
    _ingest(lake, Refuses(BTC))
    lake.quality.check("bars_1m")
    findings = lake.quality.findings().filter(pl.col("timestamp") == LOST)
    [refused] = findings.filter(check="refused").rows(named=True)
    assert findings.filter(check="gaps")["reason"].to_list() == ["refused"]
    assert (refused["timestamp"], refused["rows"]) == (LOST, 1)
    assert "price_missing" in refused["message"]
    _ingest(lake, Ranges(BTC), refetch=True)
    lake.quality.check("bars_1m")
    assert lake.quality.findings().filter(pl.col("timestamp") == LOST).is_empty()
