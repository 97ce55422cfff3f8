"""A venue that gives one id to two trades, or changes its mind: stored, refused and reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta

import polars as pl

from lake.api import Lake
from lake.cli.progress import notes
from lake.jobs.ingest.ingest import Ingestion
from lake.jobs.ingest.report import IngestReport
from lake.jobs.ingest.request import IngestRequest
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.market import Market
from lake.model.progress import NoProgress
from lake.model.time import TimeRange
from lake.sources.base import FetchRequest, Page
from tests.conftest import SECOND, store_of
from tests.jobs.conftest import NOW
from tests.jobs.ingest.own_source import EXCHANGE, Ranges, day

DAY = day(NOW)
BTC = "BTC/USDT"


def trade(number: int, price: float = 100.0, delay: timedelta = timedelta(0)) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "timestamp": [DAY.start + number * SECOND * 10 + delay],
            "trade_id": [str(number)],
            "price": [price],
            "amount": [1.0],
        },
        schema_overrides={"timestamp": TIMESTAMP},
    )


class Trades(Ranges):
    """Serves the same trades in each fetch."""

    def __init__(self, *rows: pl.DataFrame) -> None:
        super().__init__(BTC)
        self._rows = pl.concat(rows)

    async def require(self, dataset: Dataset, market: Market) -> None:
        assert (dataset.name, market.symbol) == ("trades", BTC)

    def window(self, _: object) -> timedelta:
        return timedelta(days=1)

    async def fetch(
        self, requests: Sequence[FetchRequest], window: TimeRange
    ) -> AsyncGenerator[tuple[FetchRequest, Page]]:
        for request in requests:
            yield request, Page(self._rows, window)


def ingest(lake: Lake, *rows: pl.DataFrame) -> IngestReport:
    trades = lake.dataset("trades")
    request = IngestRequest(trades, Market(EXCHANGE, BTC), DAY.start, DAY.end, refetch=True)
    ingestion = Ingestion(store_of(lake), lake.settings, lambda _: Trades(*rows), NoProgress())
    return asyncio.run(ingestion.run([request]))


def covered_rows(lake: Lake) -> list[int]:
    return lake.scan("coverage").collect()["rows"].to_list()


CLEAN = [trade(number) for number in range(100)]


def test_a_page_with_one_id_of_two_trades_is_stored_but_for_one_row(lake: Lake) -> None:
    report = ingest(lake, *CLEAN, trade(50, price=101.0))
    [table] = report.tables
    assert (table.rows, table.inserted, table.rejected, table.conflicting) == (101, 100, 1, 1)
    assert report.status == "ok"
    assert covered_rows(lake) == [100]
    assert "1 of them contradicts another row of its key: quarantine has both." in notes(report)


def test_a_venue_that_changes_its_mind_is_reported_each_time_and_quarantined_once(
    lake: Lake,
) -> None:
    ingest(lake, *CLEAN)
    for _ in range(2):
        [table] = ingest(lake, *CLEAN[:50], trade(50, 101.0), *CLEAN[51:]).tables
        assert (table.inserted, table.rejected, table.conflicting) == (0, 1, 1)
    assert lake.scan("quarantine").collect().height == 1
    assert lake.scan("trades").collect()["price"].unique().to_list() == [100.0]


def test_two_trades_of_one_id_are_stored_and_found(lake: Lake) -> None:
    [table] = ingest(lake, *CLEAN, trade(50, price=101.0, delay=46 * SECOND)).tables
    assert (table.inserted, table.rejected) == (101, 0)
    lake.quality.check("trades")
    found = lake.quality.findings().filter(pl.col("check").is_in(["conflicting_ids", "duplicates"]))
    assert found.select("check", "severity").rows() == [("conflicting_ids", "error")]
    assert lake.quality.scores("trades")["consistency"].to_list() == [1 - 1 / 101]


def test_two_ids_that_come_again_at_the_same_times_are_one_finding_of_two_rows(lake: Lake) -> None:
    again = [trade(number, delay=timedelta(hours=5) - number * 10 * SECOND) for number in (1, 9)]
    ingest(lake, *CLEAN, *again)
    lake.quality.check("trades")
    (finding,) = lake.quality.findings(check="conflicting_ids").rows(named=True)
    assert finding["rows"] == 2
    assert finding["message"] == (
        "Trade 1 appears twice, with different times; Trade 9 appears twice, with different times"
    )
    assert lake.quality.scores("trades")["consistency"].to_list() == [1 - 2 / 102]


def test_a_contradiction_at_a_close_time_is_no_missing_row(lake: Lake) -> None:
    ingest(lake, *CLEAN, trade(50, price=101.0, delay=SECOND / 4))
    lake.quality.check("trades")
    assert lake.quality.findings().filter(check="refused").is_empty()
