"""Ingestion end to end from the sandbox over HTTP, and its memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from lake.api import Lake
from lake.sandbox import redirect
from lake.settings import QualitySettings, Settings, load_settings
from tests.bench.conftest import best_seconds, report

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
