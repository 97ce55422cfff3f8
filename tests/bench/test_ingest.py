"""Ingestion end to end from the sandbox over HTTP, and its memory."""

from __future__ import annotations

import json
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
from lake.sandbox import redirect
from lake.settings import QualitySettings, Settings, load_settings
from lake.store import local_table, merge
from lake.store.checksums import Checksums
from lake.store.store import Store
from tests.bench.conftest import best_seconds, report
from tests.conftest import MINUTE, T0, bars, write

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

LAKE = Path(sys.executable).parent / "lake"
UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A sandbox in a process of its own, as a venue is."""
    command = [str(LAKE), "sandbox", "serve", "--no-weight-limit", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["url"]
        server.terminate()


def _settings(path: Path, url: str) -> Settings:
    return load_settings(
        {
            "uri": str(path),
            "http": {"rate_limit": False},
            "exchanges": {"binance": {"url": url}},
        }
    )


def test_half_a_million_bars_against_a_loop_of_ccxt(tmp_path: Path, url: str) -> None:
    import ccxt

    count = 500_000
    since = UNTIL - timedelta(minutes=count)
    client = ccxt.binance({"enableRateLimit": False})
    client.urls["api"] = redirect(client.urls["api"], url)
    client.load_markets()
    lakes = iter(range(100))

    def loop() -> None:
        """What a user would write; it stores nothing."""
        at, rows = int(since.timestamp() * 1000), 0
        while rows < count:
            page = client.fetch_ohlcv("BTC/USDT", "1m", at, 1000)
            rows += len(page)
            at = page[-1][0] + 60_000

    def ingest(*, check: bool = False) -> None:
        settings = _settings(tmp_path / str(next(lakes)), url)
        quality = QualitySettings(after_ingest=check)
        lake = Lake.create(settings.model_copy(update={"quality": quality}))
        lake.ingest("bars_1m", exchange="binance", symbol="BTC/USDT", since=since, until=UNTIL)
        [bars] = lake.tables().filter(table="bars_1m").rows(named=True)
        assert bars["rows"] == count

    loop()  # the sandbox makes its bars once
    ours, theirs, checked = best_seconds(ingest, loop, partial(ingest, check=True), rounds=5)
    report("500k bars, stored, against a loop of fetch_ohlcv alone", theirs / ours, ">= 1.5")
    report("the same, and checked", theirs / checked, "none")
    assert theirs / ours >= 1.5


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
