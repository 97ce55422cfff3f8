"""A lake that grows by runs: markets in memory, a clock set by hand, and what each run costs."""

from __future__ import annotations

import gc
import os
import resource
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lake.api import Lake
from lake.errors import UnknownNameError
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.settings import QualitySettings, Settings
from lake.sources import registry
from lake.sources.base import FetchRequest, Page
from tests.jobs.conftest import Clock

EXCHANGE = "archive"
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
OWN_TABLES = ("coverage", "jobs", "findings", "scores", "checks")


def name_markets(count: int) -> list[str]:
    return [f"S{number:03}/USDT" for number in range(count)]


class Walks:
    """A source of one-minute bars: each day and market is a bridge of random steps around 100.

    Parameters
    ----------
    step
        Minutes from one bar to the next that it has.
    """

    name = f"files:{EXCHANGE}"
    batch_size = 1_000
    concurrency = 8
    requests = 0

    def __init__(self, step: int = 1) -> None:
        self._step = step

    async def market(self, symbol: str) -> Market:
        return Market(EXCHANGE, symbol)

    async def require(self, dataset: Dataset, market: Market) -> None:
        if dataset.name != "bars_1m":
            raise UnknownNameError(f"{self.name} has no {dataset.name} of {market}")

    def window(self, _: Dataset) -> timedelta:
        return DAY * self._step

    async def fetch(
        self, requests: Sequence[FetchRequest], window: TimeRange
    ) -> AsyncGenerator[tuple[FetchRequest, Page]]:
        for request in requests:
            yield request, Page(walk(request.market.symbol, window, self._step), window)

    async def close(self) -> None:
        """Hold nothing."""


def walk(symbol: str, window: TimeRange, step: int = 1) -> pl.DataFrame:
    """The bars of a window; those of a day do not depend on where windows are cut."""
    midnight = window.start.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [midnight + n * DAY for n in range(-(-(window.end - midnight) // DAY))]
    rows = pl.concat([_walk_day(symbol, day, step) for day in days])
    return rows.filter(pl.col("timestamp").is_between(window.start, window.end, closed="left"))


def _walk_day(symbol: str, day: datetime, step: int) -> pl.DataFrame:
    random = np.random.default_rng([int(day.timestamp()), *symbol.encode()])
    count = 1440 // step
    steps = random.normal(0, 0.02, count)
    closes = 100 + np.cumsum(steps - steps.mean())
    opens = np.concatenate(([100.0], closes[:-1]))
    reach = np.abs(random.normal(0, 0.01, (2, count)))
    columns = {
        "open": opens,
        "high": np.maximum(opens, closes) + reach[0],
        "low": np.minimum(opens, closes) - reach[1],
        "close": closes,
        "volume": random.gamma(2.0, 5.0, count),
    }
    start = int(day.timestamp()) * 1_000_000
    return pl.DataFrame({name: values.round(4) for name, values in columns.items()}).select(
        (start + pl.int_range(pl.len()) * (step * 60_000_000)).cast(TIMESTAMP).alias("timestamp"),
        pl.all(),
        closed=True,
    )


@dataclass(frozen=True)
class Run:
    """What a run cost: CPU-seconds of all threads; and the process's memory after it, in bytes."""

    cpu: float
    memory: int


class GrowingLake:
    """A lake into which each run fetches what is new, as a job of cron does.

    Parameters
    ----------
    markets
        Number of markets.
    every
        Time between two runs.
    step
        Minutes from one bar to the next.
    checks
        Whether each run checks what it stored.
    """

    def __init__(
        self,
        path: Path,
        patch: pytest.MonkeyPatch,
        *,
        markets: int,
        every: timedelta = DAY,
        step: int = 1,
        checks: bool = False,
    ) -> None:
        patch.setattr(registry, "connect", lambda *_, **__: Walks(step))
        quality = QualitySettings(after_ingest=checks)
        self._settings = Settings(uri=str(path), quality=quality)
        self._symbols = name_markets(markets)
        self._every = every
        self.clock = Clock(START)
        if not path.exists():
            Lake.create(self._settings, now=self.clock)

    def open(self) -> Lake:
        """Open the lake anew, as a process of its own does."""
        return Lake(self._settings, now=self.clock)

    def run(self) -> Run:
        """Let time pass, and fetch what is new."""
        self.clock.time += self._every
        gc.collect()
        begun = time.process_time()
        self.fetch()
        return Run(time.process_time() - begun, _measure_memory())

    def fetch(self) -> None:
        """Fetch what is new."""
        self.open().ingest("bars_1m", exchange=EXCHANGE, symbol=self._symbols, since=START)

    def list_tables(self) -> list[str]:
        """List the tables that exist."""
        return self.open().tables()["table"].to_list()

    def measure_log(self, table: str) -> int:
        """Measure the log of a table, in bytes."""
        log = Path(self._settings.uri) / "tables" / table / "_delta_log"
        return sum(entry.stat().st_size for entry in log.iterdir() if entry.is_file())

    def count_files(self, table: str) -> Counter[str]:
        """Count the present data files of a table, by partition."""
        snapshot = self.open()._context.store.snapshot(self.open().dataset(table))
        return Counter(str(Path(path).parent) for path in snapshot.files()["path"])


def _measure_memory() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def median_cpu(runs: Sequence[Run]) -> float:
    """The median of the CPU-seconds of runs."""
    return float(np.median([run.cpu for run in runs]))


def read_number(name: str, default: int) -> int:
    """Read a number from the environment: how long a trial is."""
    return int(os.environ.get(name, default))
