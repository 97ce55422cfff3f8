"""Ingestions in processes of their own, which can be killed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from multiprocessing.process import BaseProcess
from pathlib import Path

from lake.api import Lake
from lake.jobs.ingest.request import IngestRequest
from lake.model.market import Market
from tests import processes
from tests.jobs.conftest import NOW, ingest_all, settings_for

TABLES = ("bars_1m", "trades")
SYMBOLS = ("BTC/USDT", "BTC/USDT:USDT")


def start(path: Path, url: str, since: datetime, until: datetime) -> BaseProcess:
    """Start an ingestion of bars and trades of two markets, in small batches."""
    return processes.start(ingest, path, url, since, until)


def ingest(path: Path, url: str, since: datetime, until: datetime) -> None:
    """Run it in this process."""
    lake = Lake(settings_for(path, url, batch_rows=500), now=lambda: NOW)
    ingest_all(lake, requests(lake, since, until))


def requests(
    lake: Lake, since: datetime, until: datetime, symbols: Sequence[str] = SYMBOLS
) -> list[IngestRequest]:
    return [
        IngestRequest(lake.dataset(table), Market("binance", symbol), since, until)
        for table in TABLES
        for symbol in symbols
    ]
