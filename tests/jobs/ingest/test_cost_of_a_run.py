"""What a run opens and commits does not grow with the number of markets, nor with past runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from lake.api import Lake
from lake.jobs.ingest.ingest import Ingestion
from lake.jobs.ingest.request import IngestRequest
from lake.model.market import Market
from lake.model.progress import NoProgress
from lake.store.local_table import LocalTable
from lake.store.store import Store
from tests.conftest import DAY, T0, NewLake
from tests.jobs.ingest.own_source import EXCHANGE, Ranges

HOURS = timedelta(hours=6)


def ingest(lake: Lake, symbols: list[str], until: datetime) -> None:
    """Ingest up to a time, as daily runs do: at first from the beginning, then onwards."""
    store, venue = Store(lake.root, lambda: until), Ranges(*symbols)
    since = None if store.exists("coverage") else T0
    dataset = lake.dataset("bars_1m")
    requests = [IngestRequest(dataset, Market(EXCHANGE, symbol), since) for symbol in symbols]
    ingestion = Ingestion(store, lake.settings, lambda _: venue, NoProgress())
    asyncio.run(ingestion.run(requests))


def name_symbols(count: int) -> list[str]:
    return [f"C{number:02}/USDT" for number in range(count)]


@pytest.fixture
def count_opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """Counts how often a call opens a table."""
    opened = 0
    original = LocalTable.__init__

    def open_table(self: LocalTable, *args: Any, **kwargs: Any) -> None:
        nonlocal opened
        opened += 1
        original(self, *args, **kwargs)

    monkeypatch.setattr(LocalTable, "__init__", open_table)

    def count(call: Callable[[], object]) -> int:
        before = opened
        call()
        return opened - before

    return count


def test_nothing_to_do_and_the_status_open_as_much_for_many_markets_as_for_two(
    new_lake: NewLake, count_opened: Callable[[Callable[[], object]], int]
) -> None:
    opened = []
    for count in (2, 12):
        lake, symbols = new_lake(), name_symbols(count)
        ingest(lake, symbols, T0 + HOURS)
        lake.quality.check()
        calls: list[Callable[[], object]] = [
            lambda lake=lake, symbols=symbols: ingest(lake, symbols, T0 + HOURS),  # type: ignore[misc]
            lake.status,
        ]
        opened.append([count_opened(call) for call in calls])
    assert opened[0] == opened[1]
    assert max(opened[0]) <= 12


def test_after_many_runs_a_market_has_one_row_and_a_run_makes_one_commit(lake: Lake) -> None:
    symbols, runs = name_symbols(5), 12
    for number in range(runs):
        ingest(lake, symbols, T0 + (number + 1) * HOURS)
    coverage = lake.scan("coverage").collect()
    assert coverage.select("symbol", "timestamp", "end", "rows").sort("symbol").rows() == [
        (symbol, T0, T0 + 3 * DAY, 3 * 1440) for symbol in symbols
    ]
    for table in ("coverage", "jobs"):
        assert lake.versions(table)["inserted"].is_not_null().sum() == runs
    files = lake.tables().filter(table="coverage")["files"].item()
    assert files == len(symbols)
