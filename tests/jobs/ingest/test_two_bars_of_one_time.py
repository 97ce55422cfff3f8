"""A source that sends two bars for one time: the last stays, and the report says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.cli.progress import notes
from lake.jobs.ingest.ingest import Ingestion
from lake.jobs.ingest.report import IngestReport
from lake.jobs.ingest.request import IngestRequest
from lake.model.market import Market
from lake.model.progress import NoProgress
from lake.model.time import TimeRange
from lake.sources.base import FetchRequest, Page
from tests.conftest import NewLake, store_of
from tests.jobs.conftest import NOW
from tests.jobs.ingest.own_source import EXCHANGE, MINUTE, Ranges, bars_of, day

START = day(NOW).start
BTC = "BTC/USDT"


def bar(minute: int, volume: float) -> pl.DataFrame:
    window = TimeRange(START + minute * MINUTE, START + (minute + 1) * MINUTE)
    return bars_of(BTC, window).with_columns(volume=pl.lit(volume))


class Doubled(Ranges):
    """Serves given pages of bars, minute by minute, in one fetch."""

    def __init__(self, pages: Sequence[Sequence[tuple[int, float]]]) -> None:
        super().__init__(BTC)
        self._pages = pages

    async def fetch(
        self, requests: Sequence[FetchRequest], window: TimeRange
    ) -> AsyncGenerator[tuple[FetchRequest, Page]]:
        for number, page in enumerate(self._pages):
            frame = pl.concat([bar(minute, volume) for minute, volume in page])
            is_last = number == len(self._pages) - 1
            yield requests[0], Page(frame, window if is_last else None)


def ingest(lake: Lake, *pages: Sequence[tuple[int, float]], batch_rows: int = 1000) -> IngestReport:
    dataset = lake.dataset("bars_1m")
    request = IngestRequest(dataset, Market(EXCHANGE, BTC), START, START + 10 * MINUTE)
    chosen = lake.settings.model_copy(
        update={"ingest": lake.settings.ingest.model_copy(update={"batch_rows": batch_rows})}
    )
    ingestion = Ingestion(store_of(lake), chosen, lambda _: Doubled(pages), NoProgress())
    return asyncio.run(ingestion.run([request]))


def stored(lake: Lake) -> list[float]:
    return lake.scan("bars_1m").sort("timestamp").collect()["volume"].to_list()


def test_two_bars_of_one_time_in_a_page_are_reported_and_the_last_stays(lake: Lake) -> None:
    report = ingest(lake, [(0, 1.0), (1, 1.0), (1, 2.0), (2, 1.0), (2, 1.0)])
    [table] = report.tables
    assert (table.rows, table.inserted, table.rejected, table.conflicting) == (5, 3, 1, 1)
    assert report.conflicting == 1
    assert "1 of them contradicts another row of its key: quarantine has both." in notes(report)
    assert stored(lake) == [1.0, 2.0, 1.0]
    assert lake.scan("coverage").collect()["rows"].to_list() == [3]


def test_a_bar_of_a_later_page_revises_that_of_an_earlier_one(lake: Lake) -> None:
    report = ingest(lake, [(0, 1.0), (1, 1.0)], [(1, 2.0), (2, 1.0)])
    assert report.conflicting == 0
    assert stored(lake) == [1.0, 2.0, 1.0]


pages = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1.0, 2.0])), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)


@given(pages)
@settings(max_examples=5)
def test_pages_give_the_same_in_one_batch_and_in_many(
    new_lake: NewLake, pages: list[list[tuple[int, float]]]
) -> None:
    lakes = [new_lake(), new_lake()]
    reports = [
        ingest(lake, *pages, batch_rows=rows) for lake, rows in zip(lakes, (1000, 1), strict=True)
    ]
    assert stored(lakes[0]) == stored(lakes[1])
    assert reports[0].conflicting == reports[1].conflicting
