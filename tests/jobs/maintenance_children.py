"""Maintenance and ingestion in processes of their own, which can be killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

from lake.bundles.repository import Repository
from lake.jobs.maintain import Maintainer
from lake.store.root import Root
from lake.store.store import Store
from tests import processes
from tests.conftest import MINUTE, T0, bars, trades, write

TABLES = ("trades", "bars_1m")
LATER = timedelta(days=30)


def start(work: Callable[..., None], path: Path, *arguments: object) -> tuple[BaseProcess, Event]:
    """Run a function of this module in a child; the event is set when its work begins."""
    begun = processes.CONTEXT.Event()
    return processes.start(_run, begun, work, path, *arguments), begun


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
    maintainer(_store(path)).optimize(TABLES)


def vacuum(path: Path) -> None:
    """As in a month; a bundle holds `bars_1m` at a version."""
    maintainer(_store(path, LATER)).vacuum(TABLES)


def ingest(path: Path, rounds: int) -> None:
    """New trades and revised bars of one closed date, and of another."""
    store = _store(path)
    for turn in range(rounds):
        write(store, "trades", trades(3, first=1000 + 3 * turn, step=MINUTE))
        write(store, "trades", trades(3, first=1000 + 3 * turn, symbol="NEW/USDT"))
        write(store, "bars_1m", bars(5, start=T0 + turn * MINUTE, volume=[float(turn)] * 5))


def maintainer(store: Store) -> Maintainer:
    """Who looks after the tables of a lake and spares what its bundles need."""
    return Maintainer(store, Repository(store.root))


def _store(path: Path, by: timedelta = timedelta(0)) -> Store:
    return Store(Root.open(str(path)), lambda: datetime.now(UTC) + by)
