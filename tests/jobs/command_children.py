"""Commands in processes of their own that die at a chosen place or time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

from lake.api import Lake
from lake.jobs.ingest.request import IngestRequest
from lake.model.market import Market
from tests import processes
from tests.jobs.conftest import NOW, ingest_all, settings_for

SPOT, PERPETUAL = "BTC/USDT", "BTC/USDT:USDT"
UNTIL = NOW.replace(hour=0, minute=0, second=0)
SINCE = UNTIL - timedelta(hours=26)
MIDDLE = UNTIL - timedelta(hours=20)
REVISED = SINCE + timedelta(hours=3)
"""When the bar opens that the venue first sends with a wrong price, and corrects later."""
BUNDLE = "killed"


@dataclass(frozen=True, slots=True)
class Death:
    """Where or when a child kills itself.

    Attributes
    ----------
    place
        Number of the file event below the lake's folder before which it dies: an open, a rename,
        a removal, a new folder.
    seconds
        Seconds after its start.
    """

    place: int | None = None
    seconds: float | None = None


def _ingest(lake: Lake, hours: tuple[int, int], *, refetch: bool = False) -> None:
    pairs = [
        ("bars_1m", SPOT),
        ("bars_5m", SPOT),
        ("trades", SPOT),
        ("bars_1m", PERPETUAL),
        ("funding", PERPETUAL),
    ]
    first, last = (SINCE + timedelta(hours=hour) for hour in hours)
    ingest_all(
        lake,
        [
            IngestRequest(lake.dataset(table), Market("binance", symbol), first, last, refetch)
            for table, symbol in pairs
        ],
    )


def _pin(lake: Lake) -> None:
    lake.bundles.pin(BUNDLE, table=["bars_1m", "trades", "funding"])


def _export(lake: Lake) -> None:
    archive = lake.root.path.with_suffix(".tar.zst")
    if not archive.exists():  # an export never overwrites; what it left under the name is whole
        lake.bundles.export(BUNDLE, archive)


def _import(lake: Lake) -> None:
    archive = lake.root.path.with_suffix(".tar.zst")
    other = lake.root.path.with_name(f"{lake.root.path.name}-other")
    settings = lake.settings.model_copy(update={"uri": str(other)})
    target = Lake(settings) if (other / "lake.json").exists() else Lake.create(settings)
    target.bundles.import_(archive)


STEPS: Mapping[str, Callable[[Lake], object]] = {
    "ingest": lambda lake: _ingest(lake, (0, 6)),
    "go on": lambda lake: _ingest(lake, (0, 26)),
    "check": lambda lake: lake.quality.check(),
    "repair": lambda lake: lake.quality.repair(),
    "refetch": lambda lake: _ingest(lake, (2, 9), refetch=True),
    "optimize": lambda lake: lake.maintenance.optimize(),
    "pin": _pin,
    "export": _export,
    "import": _import,
    "vacuum": lambda lake: lake.maintenance.vacuum(keep="1h"),
    "checkpoint": lambda lake: lake.maintenance.checkpoint(),
    "report": lambda lake: lake.quality.report(),
}


def run(path: Path, url: str, step: str) -> None:
    """Run a step in this process."""
    lake = Lake(settings_for(path, url, batch_rows=2000), now=lambda: NOW)
    STEPS[step](lake)


def start(path: Path, url: str, step: str, death: Death) -> BaseProcess:
    """Start a step in a child that kills itself."""
    return processes.start(_run_until, path, url, step, death)


def _run_until(path: Path, url: str, step: str, death: Death) -> None:
    _count_places(path, death.place)
    if death.seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, death.seconds)  # its signal ends a process
    run(path, url, step)


def count_places(path: Path, url: str, step: str, report: Path) -> None:
    """Run a step, and write to `report` how many file events it caused."""
    places = _count_places(path, None)
    run(path, url, step)
    report.write_text(str(places()))


def _count_places(folder: Path, last: int | None) -> Callable[[], int]:
    """Count file events of this process below a folder; kill the process at the last one."""
    prefix, count = str(folder), 0

    def on_event(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event not in {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"}:
            return
        if str(arguments[0]).startswith(prefix):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_event)
    return lambda: count
