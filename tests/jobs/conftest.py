"""Lakes that ask the sandbox exchange, with waits short enough for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lake.api import Lake
from lake.jobs.ingest.report import IngestReport
from lake.jobs.ingest.request import IngestRequest
from lake.jobs.ingest.run import ingest_and_check
from lake.model.progress import NoProgress
from lake.sandbox import Sandbox, SyntheticMarkets
from lake.settings import Settings, load_settings
from lake.store.store import Store

NOW = datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC)
MakeLake = Callable[..., Lake]


class Clock:
    """A clock that is set by hand."""

    def __init__(self, time: datetime) -> None:
        self.time = time

    def __call__(self) -> datetime:
        return self.time


def settings_for(path: Path, url: str, **ingest: Any) -> Settings:
    """Settings of a lake that asks a sandbox, unthrottled and impatient."""
    return load_settings(
        {
            "uri": str(path),
            "http": {"rate_limit": False, "timeout_seconds": 1.0},
            "retry": {"attempts": 12, "wait_initial_seconds": 0.005, "wait_max_seconds": 0.05},
            "ingest": ingest,
            "exchanges": {name: {"url": url} for name in ("binance", "binanceusdm", "binanceus")},
        }
    )


def ingest_all(lake: Lake, requests: Sequence[IngestRequest]) -> IngestReport:
    """Ingest any mixture of tables and markets as one job, with the clock of the lake."""
    store = Store(lake.root, lake._context.now)
    return asyncio.run(ingest_and_check(store, lake.settings, requests, NoProgress()))


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[Sandbox]:
    with Sandbox(SyntheticMarkets(seed=7), now=clock, weight_limit=False) as running:
        yield running


@pytest.fixture(scope="session")
def quiet_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeLake]:
    """Makes lakes that ask a sandbox without faults, for several tests to compare with."""
    with Sandbox(SyntheticMarkets(seed=7), now=lambda: NOW, weight_limit=False) as running:

        def make(**ingest: Any) -> Lake:
            path = tmp_path_factory.mktemp("quiet") / "lake"
            return Lake.create(settings_for(path, running.url, **ingest), now=lambda: NOW)

        yield make


@pytest.fixture
def make_lake(tmp_path: Path, sandbox: Sandbox, clock: Clock) -> MakeLake:
    """Makes lakes that ask the sandbox, each under its own name."""

    def make(name: str = "lake", **ingest: Any) -> Lake:
        return Lake.create(settings_for(tmp_path / name, sandbox.url, **ingest), now=clock)

    return make
