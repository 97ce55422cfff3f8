"""Ingestion end to end over HTTP, from canned answers of another process, and its memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lake.api import Lake, utc_now
from lake.model.catalog import builtin
from lake.model.intervals import split
from lake.model.time import TimeRange
from lake.sandbox import redirect
from lake.settings import (
    ExchangeSettings,
    HttpSettings,
    QualitySettings,
    Settings,
    Url,
    load_settings,
)
from lake.sources.base import FetchRequest
from lake.sources.ccxt_rest import CcxtSource
from lake.store import local_table, merge
from lake.store.checksums import Checksums
from lake.store.store import Store
from tests.bench.conftest import best_costs, report
from tests.canned import serve_canned
from tests.conftest import MINUTE, T0, bars, write

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Canned answers of a process of its own, whose work is not ours."""
    with serve_canned() as venue:
        yield venue.url


def _settings(path: Path, url: str) -> Settings:
    return load_settings(
        {
            "uri": str(path),
            "http": {"rate_limit": False},
            "exchanges": {"binance": {"url": url}},
        }
    )


def _loop(url: str, since: datetime) -> None:
    """What a user would write; it stores nothing."""
    import ccxt

    client = ccxt.binance({"enableRateLimit": False})
    client.urls["api"] = redirect(client.urls["api"], url)
    client.load_markets()
    at, until = int(since.timestamp() * 1000), int(UNTIL.timestamp() * 1000)
    while at < until:
        at = client.fetch_ohlcv("BTC/USDT", "1m", at, 1000)[-1][0] + 60_000


async def _fetch_columns(url: str, since: datetime) -> None:
    """Fetch pages as columns, as an ingestion does, and store nothing."""
    source = CcxtSource(
        "binance",
        name="ccxt:binance",
        now=utc_now,
        http=HttpSettings(rate_limit=False),
        exchange=ExchangeSettings(url=Url(url)),
    )
    async with source:
        request = FetchRequest(builtin().dataset("bars_1m"), await source.market("BTC/USDT"))
        windows = split(TimeRange(since, UNTIL), timedelta(minutes=10_000))
        rows = 0

        async def work() -> None:
            nonlocal rows
            for window in windows:
                async for _, page in source.fetch([request], window):
                    rows += page.frame.height

        await asyncio.gather(*(work() for _ in range(source.concurrency)))
    assert rows == (UNTIL - since) // MINUTE


def test_half_a_million_bars_against_a_loop_of_ccxt(tmp_path: Path, url: str) -> None:
    count = 500_000
    since = UNTIL - timedelta(minutes=count)
    lakes = iter(range(100))

    def fetch() -> None:
        asyncio.run(_fetch_columns(url, since))

    def ingest(*, check: bool = False) -> None:
        settings = _settings(tmp_path / str(next(lakes)), url)
        quality = QualitySettings(after_ingest=check)
        lake = Lake.create(settings.model_copy(update={"quality": quality}))
        lake.ingest("bars_1m", exchange="binance", symbol="BTC/USDT", since=since, until=UNTIL)
        [bars] = lake.tables().filter(table="bars_1m").rows(named=True)
        assert bars["rows"] == count

    loop = partial(_loop, url, since)
    loop()  # the venue renders its bars once
    costs = best_costs(loop, fetch, ingest, partial(ingest, check=True), rounds=5)
    names = ("loop of fetch_ohlcv", "to columns", "stored", "stored and checked")
    for name, (wall, cpu) in zip(names, costs, strict=True):
        per_million = 1_000_000 / count
        print(f"\n{name}: {wall * per_million:.2f} s, {cpu * per_million:.2f} CPU-s a million rows")
    theirs, columns, stored, checked = costs
    report("CPU to columns, as a share of ccxt's", columns[1] / theirs[1], "<= 0.7")
    report("500k bars, stored, against a loop of fetch_ohlcv alone", theirs[0] / stored[0], "none")
    report("the same, and checked", theirs[0] / checked[0], ">= 1.5")
    assert columns[1] <= 0.7 * theirs[1]
    assert theirs[0] / checked[0] >= 1.5


class Stopwatch:
    """Adds up the seconds that some functions take within a run."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        self._patch = patch

    def watch(self, owner: object, name: str) -> None:
        function = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - begun

        self._patch.setattr(owner, name, timed)

    def ratio(self, action: Callable[[], object]) -> float:
        """Time of a run against the same without these functions."""
        self.seconds, begun = 0.0, time.perf_counter()
        action()
        whole = time.perf_counter() - begun
        return whole / (whole - self.seconds)


def test_the_cost_of_syncing_and_hashing(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a backfill, where a commit has dozens of files, and of many commits of few rows."""
    lakes = iter(range(1000))
    sealing = Stopwatch(monkeypatch)
    sealing.watch(local_table, "seal_commits")
    sealing.watch(Checksums, "require_unchanged")
    sealing.watch(merge, "find_touched_files")

    def ingest() -> None:
        settings = _settings(tmp_path / str(next(lakes)), url)
        quality = QualitySettings(after_ingest=False)
        lake = Lake.create(settings.model_copy(update={"quality": quality}))
        since = UNTIL - timedelta(minutes=500_000)
        lake.ingest("bars_1m", exchange="binance", symbol="BTC/USDT", since=since, until=UNTIL)

    def commit() -> None:
        store = Store(Lake.create(_settings(tmp_path / str(next(lakes)), url)).root, utc_now)
        for number in range(40):
            start = T0 + number * 25 * MINUTE
            rows = [bars(25, start=start, symbol=f"S{n}/USDT") for n in range(20)]
            write(store, "bars_1m", pl.concat(rows))

    ingest()  # the sandbox makes its bars once
    backfill = min(sealing.ratio(ingest) for _ in range(3))
    report("500k bars, synced and hashed, against neither", backfill, "<= 1.25")
    often = min(sealing.ratio(commit) for _ in range(3))
    report("40 commits of 25 rows for 20 markets, the same", often, "<= 2")
    assert backfill <= 1.25
    assert often <= 2


_BACKFILL = """
import sys
from datetime import datetime, timedelta, UTC
from lake.api import Lake
from lake.settings import load_settings

path, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
until = datetime(2026, 1, 1, tzinfo=UTC)
settings = load_settings(
    {"uri": path, "http": {"rate_limit": False}, "exchanges": {"binance": {"url": url}}}
)
markets = [("binance", "BTC/USDT"), ("binance", "ETH/USDT")]
lake = Lake.create(settings)
report = lake.ingest(
    "bars_1m",
    exchange="binance",
    symbol=["BTC/USDT", "ETH/USDT"],
    since=until - timedelta(minutes=count // 2),
    until=until,
)
[bars] = [table for table in report.tables if table.table == "bars_1m"]
assert bars.inserted == count, bars
# Not ru_maxrss: that counts what the parent held when it forked.
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(peak.split()[1])
"""


def test_a_backfill_of_five_million_rows_stays_under_a_gigabyte(tmp_path: Path, url: str) -> None:
    command = [sys.executable, "-c", _BACKFILL, str(tmp_path / "lake"), url, "5000000"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak = int(done.stdout.splitlines()[-1]) * 1024
    report("peak memory of a 5M-row backfill, GB", peak / (1024 * MEGABYTE), "<= 1")
    assert peak <= 1024 * MEGABYTE
