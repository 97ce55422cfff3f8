"""Maintenance and ingestion in processes of their own, which can be killed."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

from lake.jobs.maintain import Maintenance
from lake.store.delta import open_table
from lake.store.root import Root
from lake.store.store import Store
from lake.store.vacuum import BundleFiles
from tests.conftest import MINUTE, T0, bars, trades, write

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["lake.jobs.maintain", "tests.conftest"])

TABLES = ("trades", "bars_1m")
LATER = timedelta(days=30)


def start(work: Callable[..., None], path: Path, *arguments: object) -> tuple[BaseProcess, Event]:
    """Run a function of this module in a child; the event is set when its work begins."""
    begun = _context.Event()
    child = _context.Process(target=_run, args=(begun, work, path, *arguments))
    child.start()
    return child, begun


def _run(begun: Event, work: Callable[..., None], path: Path, *arguments: object) -> None:
    unlink = Path.unlink

    def slow_unlink(file: Path, missing_ok: bool = False) -> None:
        time.sleep(0.02)
        unlink(file, missing_ok=missing_ok)

    # Deleting a few files takes a moment that no kill would hit.
    Path.unlink = slow_unlink  # type: ignore[assignment,method-assign]
    begun.set()
    work(path, *arguments)


def optimize(path: Path) -> None:
    Maintenance(_store(path), tuple).optimize(TABLES)


def vacuum(path: Path, version: int) -> None:
    """As in a month; `bars_1m` is held at a version."""
    store = _store(path, LATER)
    Maintenance(store, lambda: holds(store, version)).vacuum(TABLES)


def ingest(path: Path, rounds: int) -> None:
    """New trades and revised bars of one closed date, and of another."""
    store = _store(path)
    for turn in range(rounds):
        write(store, "trades", trades(3, first=1000 + 3 * turn, step=MINUTE))
        write(store, "trades", trades(3, first=1000 + 3 * turn, symbol="NEW/USDT"))
        write(store, "bars_1m", bars(5, start=T0 + turn * MINUTE, volume=[float(turn)] * 5))


def holds(store: Store, version: int) -> Sequence[BundleFiles]:
    """As the bundles of a lake give them: `bars_1m` at a version, without a list of its own."""
    dataset = store.catalog.dataset("bars_1m")
    table = open_table(store.root.tables / "bars_1m", dataset)
    return [BundleFiles("b" * 64, "held", "bars_1m", str(table.metadata().id), version, frozenset)]


def _store(path: Path, by: timedelta = timedelta(0)) -> Store:
    return Store(Root.open(str(path)), lambda: datetime.now(UTC) + by)
