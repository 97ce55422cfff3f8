"""What tests of repairs share: damage done to a lake, findings that tell of it, and repairs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lake.api import Lake
from lake.jobs.repairs.repair import Repairer, RepairReport
from lake.model.catalog import builtin
from lake.model.market import Market
from lake.model.progress import NoProgress, Progress
from lake.model.time import TimeRange
from lake.settings import ExchangeSettings, Settings
from lake.sources.base import Source
from lake.sources.registry import connect
from lake.store.root import Root
from lake.store.store import Origin, Store
from tests.jobs.conftest import NOW

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
UNTIL = NOW.replace(hour=0, minute=0, second=0)
SINCE = UNTIL - DAY
BTC = Market("binance", "BTC/USDT")
XRP = Market("binance", "XRP/ETH")
PERPETUAL = Market("binance", "BTC/USDT:USDT")


def store_of(lake: Lake) -> Store:
    """A store of its own over a lake, at the time of the tests."""
    return Store(Root.open(str(lake.root.path)), lambda: NOW)


def connecting(settings: Settings) -> Callable[[str, ExchangeSettings | None], Source]:
    """Connects the real client to where the settings say."""

    def connecting_to(exchange: str, chosen: ExchangeSettings | None) -> Source:
        return connect(exchange, settings=settings, now=lambda: NOW, exchange_settings=chosen)

    return connecting_to


def repair(
    lake: Lake,
    findings: pl.DataFrame,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> RepairReport:
    """Run a repair of findings."""
    chosen = settings or lake.settings
    repairer = Repairer(store_of(lake), chosen, connecting(chosen), progress or NoProgress())
    return asyncio.run(repairer.run(findings, **options))


def damage(
    lake: Lake,
    table: str,
    market: Market,
    window: TimeRange,
    change: Callable[[pl.DataFrame], pl.DataFrame],
) -> None:
    """Change the rows of a range as no source did."""
    store = store_of(lake)
    replaced = store.replace(
        store.catalog.dataset(table), market, window, change, Origin("damage", "test")
    )
    assert replaced.changed


def delete(lake: Lake, table: str, market: Market, window: TimeRange) -> None:
    """Delete the rows of a range."""
    damage(lake, table, market, window, lambda rows: rows.clear())


def minutes(count: int, start: datetime = SINCE + 3 * timedelta(hours=1)) -> TimeRange:
    """So many minutes."""
    return TimeRange(start, start + count * MINUTE)


def finding(
    table: str,
    market: Market,
    span: TimeRange,
    check: str = "gaps",
    dimension: str = "completeness",
    **columns: Any,
) -> dict[str, Any]:
    """A row of `findings` that is open."""
    return {
        "exchange": market.exchange,
        "symbol": market.symbol,
        "dataset": table,
        "timestamp": span.start,
        "end": span.end,
        "check": check,
        "against": "",
        "finding_id": hashlib.sha256(f"{table}{market}{span}{check}".encode()).hexdigest()[:16],
        "severity": "error",
        "dimension": dimension,
        "reason": "unknown",
        "rows": 1,
        "measured": None,
        "expected": None,
        "message": f"{check} was found",
        "context": "[]",
        "status": "open",
        "job_id": "check",
        "found_at": NOW,
        **columns,
    }


def findings(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of the table `findings`."""
    dataset = builtin().dataset("findings")
    types = {k: v for k, v in dataset.polars_schema.items() if k != "date"}
    return pl.DataFrame(rows, schema=types)


def spike(table: str, market: Market, time: datetime, value: float) -> dict[str, Any]:
    """A finding that a price is a spike."""
    span = TimeRange(time, time + timedelta(microseconds=1))
    return finding(
        table, market, span, "spikes", "accuracy", reason=None, measured=value, message="a spike"
    )


def rows(lake: Lake, table: str) -> pl.DataFrame:
    """All rows of a table."""
    return lake.scan(table).collect()


def versions(lake: Lake) -> dict[str, int]:
    """The versions of all tables but that of the jobs."""
    told = lake.tables().select("table", "version").iter_rows()
    return {table: version for table, version in told if table != "jobs"}
