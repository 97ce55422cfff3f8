"""Sources that serve some things only: these are ingested, the rest is refused by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.cli.progress import notes
from lake.errors import SourceRefusedError, SourceUnavailableError, UnknownNameError
from lake.jobs.ingest.current import ingest_instruments, ingest_order_books
from lake.jobs.ingest.ingest import Ingestion
from lake.jobs.ingest.report import IngestReport
from lake.jobs.ingest.request import IngestRequest
from lake.model.market import Market
from lake.model.progress import NoProgress
from lake.model.time import TimeRange
from lake.sources.base import FetchRequest, Page, Source
from lake.store.store import Store
from tests.conftest import store_of
from tests.jobs.conftest import NOW
from tests.jobs.ingest.own_source import EXCHANGE, Archive, Ranges, SomeSpecifications, bars_of, day

DAY = day(NOW)
HOUR = timedelta(hours=1)


def _ingest(lake: Lake, source: Source, *symbols: str, until: datetime = DAY.end) -> IngestReport:
    requests = [
        IngestRequest(lake.dataset("bars_1m"), Market(EXCHANGE, symbol), DAY.start, until)
        for symbol in symbols
    ]
    ingestion = Ingestion(store_of(lake), lake.settings, lambda _: source, NoProgress())
    return asyncio.run(ingestion.run(requests))


def test_ranges_are_stored_without_specifications(lake: Lake) -> None:
    source = Ranges("BTC/USDT")
    report = _ingest(lake, source, "BTC/USDT")
    [table] = report.tables
    assert (table.table, table.inserted, table.rejected) == ("bars_1m", 1440, 0)
    assert lake.tables()["table"].to_list() == ["bars_1m", "coverage", "jobs"]
    expected = bars_of("BTC/USDT", DAY)
    stored = lake.scan("bars_1m").collect()
    assert_frame_equal(stored.select(expected.columns), expected)
    assert lake.coverage().rows() == [("bars_1m", EXCHANGE, "BTC/USDT", DAY.start, DAY.end)]
    assert lake.audit("bars_1m")["source"].drop_nulls().unique().to_list() == ["files:archive"]
    assert source.closed


Take = Callable[[Store, Source], Coroutine[Any, Any, IngestReport]]


@pytest.mark.parametrize(
    ("take", "words"),
    [
        (
            lambda store, source: ingest_order_books(
                store, source, [Market(EXCHANGE, "BTC/USDT")], None
            ),
            "files:archive does not serve order books",
        ),
        (
            lambda store, source: ingest_instruments(store, source, EXCHANGE, None),
            "files:archive does not serve specifications of markets",
        ),
    ],
)
def test_what_it_does_not_serve_is_refused_with_what_it_serves(
    lake: Lake, take: Take, words: str
) -> None:
    source = Ranges("BTC/USDT")
    with pytest.raises(UnknownNameError, match=words) as refused:
        asyncio.run(take(store_of(lake), source))
    assert refused.value.hint == "It serves ranges of time."
    assert lake.jobs().is_empty()
    assert source.closed


def test_a_source_without_ranges_is_refused_before_anything_is_written(lake: Lake) -> None:
    source = Archive("BTC/USDT")
    with pytest.raises(UnknownNameError, match="does not serve ranges of time") as refused:
        _ingest(lake, source, "BTC/USDT")
    assert refused.value.hint == "It serves nothing."
    assert lake.jobs().is_empty()
    assert source.closed


def test_markets_without_a_specification_are_ingested_beside_those_that_have_one(
    lake: Lake,
) -> None:
    symbols = ("BTC/USDT", "ETH/USDT")
    report = _ingest(lake, SomeSpecifications(*symbols), *symbols)
    assert {t.table: t.inserted for t in report.tables} == {"instruments": 1, "bars_1m": 2 * 1440}
    assert lake.scan("instruments").collect()["symbol"].to_list() == ["BTC/USDT"]
    again = _ingest(lake, SomeSpecifications("BTC/USDT", "XRP/ETH"), "XRP/ETH")
    assert [table.table for table in again.tables] == ["bars_1m"]


class NoSpecifications(Ranges):
    """Serves bars of its markets, and refuses their specifications."""

    async def instruments(self, symbols: Collection[str] | None = None) -> dict[str, pl.DataFrame]:
        raise SourceRefusedError(f"no specifications of {symbols}", reason="forbidden")


def test_where_specifications_are_refused_rows_are_stored_and_the_report_says_so(
    lake: Lake,
) -> None:
    report = _ingest(lake, NoSpecifications("BTC/USDT"), "BTC/USDT")
    assert report.status == "ok"
    assert {t.table: t.inserted for t in report.tables} == {"bars_1m": 1440}
    [left] = report.unrecorded
    assert left.exchange == EXCHANGE
    told = f"The instruments of {EXCHANGE} are not recorded: {left.message}"
    assert told in notes(report)
    assert "no specifications of" in left.message


def test_markets_share_windows_and_each_is_stored_and_covered_whole(lake: Lake) -> None:
    symbols = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/ETH", "ADA/USDT")
    source = Ranges(*symbols, batch_size=3)
    report = _ingest(lake, source, *symbols)
    assert report.requests == report.windows == len(source.fetched) == 4 * 2
    assert {symbols for symbols, _ in source.fetched} == {
        ("ADA/USDT", "BTC/USDT", "ETH/USDT"),
        ("SOL/USDT", "XRP/ETH"),
    }
    for symbol in symbols:
        expected = bars_of(symbol, DAY)
        stored = lake.scan("bars_1m", symbol=symbol).collect()
        assert_frame_equal(stored.select(expected.columns), expected)
    assert sorted(lake.coverage().rows()) == [
        ("bars_1m", EXCHANGE, symbol, DAY.start, DAY.end) for symbol in sorted(symbols)
    ]
    assert not report.unanswered


def test_a_market_that_is_covered_in_part_shares_only_the_windows_that_it_lacks(
    lake: Lake,
) -> None:
    half = DAY.start + DAY.duration / 2
    _ingest(lake, Ranges("BTC/USDT"), "BTC/USDT", until=half)
    source = Ranges("BTC/USDT", "ETH/USDT", batch_size=10)
    report = _ingest(lake, source, "BTC/USDT", "ETH/USDT")
    assert [(len(symbols), window.start >= half) for symbols, window in source.fetched] == [
        (1, False),
        (1, False),
        (2, True),
        (2, True),
    ]
    assert {t.table: t.inserted for t in report.tables} == {"bars_1m": 720 + 1440}
    assert lake.coverage()["end"].to_list() == [DAY.end] * 2


def test_of_a_fetch_that_fails_each_market_keeps_what_was_settled(lake: Lake) -> None:
    class Breaks(Ranges):
        async def fetch(
            self, requests: Sequence[FetchRequest], window: TimeRange
        ) -> AsyncGenerator[tuple[FetchRequest, Page]]:
            count = 0
            async with aclosing(super().fetch(requests, window)) as pages:
                async for answered in pages:
                    if count == 3:  # the first page of both markets, and the second of one
                        raise SourceUnavailableError("the archive is gone")
                    count += 1
                    yield answered

    symbols = ("BTC/USDT", "ETH/USDT")
    with pytest.raises(SourceUnavailableError):
        _ingest(lake, Breaks(*symbols, batch_size=2), *symbols, until=DAY.start + 6 * HOUR)
    assert sorted(lake.coverage().select("symbol", "end").rows()) == [
        ("BTC/USDT", DAY.start + 6 * HOUR),
        ("ETH/USDT", DAY.start + 3 * HOUR),
    ]
    assert lake.scan("bars_1m").collect().height == 360 + 180
    report = _ingest(lake, Ranges(*symbols, batch_size=2), *symbols)
    assert {t.table: t.inserted for t in report.tables} == {"bars_1m": 2 * 1440 - 360 - 180}
