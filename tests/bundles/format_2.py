"""Make the fixtures of format 2: a lake and an exported bundle that every later version reads.

They are made once, at the release of the format, and kept for ever:
`python -m tests.bundles.format_2` writes them, and what they hold, to `tests/data/format_2`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.model.digest import compute_digest
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.settings import CacheSettings, Settings
from lake.store.store import Origin, Store
from tests.conftest import DAY, MINUTE, T0, bars, funding, trades
from tests.model.everything import own_copy

FOLDER = Path(__file__).parents[1] / "data" / "format_2"
LAKE, BUNDLE, FACTS = "lake.tar.xz", "bundle.tar.zst", "facts.json"
EXTRA = 'extra = { type = "float64", unit = "quote", nullable = true, meaning = "Added." }\n'
PERPETUAL = Market("binance", "BTC/USDT:USDT")
TABLES = ("bars_1m", "bars_1h", "bars_1d", "trades", "funding", "rates")
HOURS = [T0 - 20 * DAY + timedelta(hours=8) * number for number in range(120)]
_ORIGIN = Origin("20240301T000000-00000000", "write")


class Ticks:
    """A clock that goes on by a second each time it is read."""

    def __init__(self) -> None:
        self._time = T0 + 60 * DAY

    def __call__(self) -> datetime:
        self._time += timedelta(seconds=1)
        return self._time


def open_lake(path: Path, now: Callable[[], datetime] | None = None) -> Lake:
    """Open a lake without a cache."""
    settings = Settings(uri=str(path), cache=CacheSettings(enabled=False))
    return Lake(settings) if now is None else Lake(settings, now)


def build(path: Path) -> Lake:
    """Make a lake with files of each kind: by day, month and year, compacted, revised, replaced."""
    now = Ticks()
    settings = Settings(uri=str(path), cache=CacheSettings(enabled=False))
    Lake.create(settings, {"bars_1d": "month"}, now)
    own = path / "schemas" / "rates.toml"
    own.write_text(own_copy("funding", "rates"))
    store = Store(open_lake(path).root, now)
    _write(store, "bars_1m", [bars(30), bars(5, start=T0 + DAY, symbol="ETH/USDT")])
    revised = bars(2, volume=[7.0, 8.0], received_at=[T0 + MINUTE, T0 + 9 * MINUTE])
    _write(store, "bars_1m", [revised, bars(1, start=T0 + 2 * DAY, closed=[False])])
    _write(store, "bars_1h", [bars(48, step=60 * MINUTE)])
    _write(store, "bars_1d", [bars(40, start=T0 - 20 * DAY, step=DAY)])
    _write(store, "trades", [trades(60), trades(1, first=3, price=[1.0])])
    _write(store, "funding", [funding(HOURS[:60]), funding(HOURS[60:])])
    _write(store, "rates", [funding(HOURS[:6])])
    own.write_text(own.read_text().replace("\n[rules]", EXTRA + "\n[rules]", 1))
    store = Store(open_lake(path).root, now)
    _write(store, "rates", [funding(HOURS[6:9]).with_columns(extra=pl.lit(0.5))])
    window = TimeRange(HOURS[0], HOURS[2])
    store.replace(
        store.catalog.dataset("funding"), PERPETUAL, window, lambda rows: rows.head(1), _ORIGIN
    )
    lake = open_lake(path, now)
    lake.maintenance.optimize(table="bars_1m")
    lake.bundles.pin("first", table="funding", check=False)
    lake.maintenance.migrate({"funding": "month"}, apply=True)
    lake.bundles.pin("fixture", table=TABLES, note="Format 2.")
    return lake


def _write(store: Store, table: str, frames: Iterable[pl.DataFrame]) -> None:
    for frame in frames:
        store.write(store.catalog.dataset(table), frame, _ORIGIN)


def describe(bundle: Bundle) -> dict[str, Any]:
    """Describe what a bundle gives: its id, and rows and digest of each table and of the replay."""
    tables = {name: bundle.scan(name).collect() for name in bundle.tables}
    datasets = {name: bundle.contents.dataset(name) for name in bundle.tables}
    events: list[Any] = list(bundle.replay())
    lines = (f"{e.position} {e.table} {e.symbol} {e.available_at.isoformat()}" for e in events)
    return {
        "id": bundle.id,
        "tables": {
            name: {"rows": rows.height, "digest": compute_digest(datasets[name], rows)}
            for name, rows in tables.items()
        },
        "events": len(events),
        "replay": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        lake = build(Path(folder, "lake"))
        bundle = lake.bundles.open("fixture")
        bundle.export(FOLDER / BUNDLE)
        facts = {name: describe(lake.bundles.open(name)) for name in ("first", "fixture")}
        (FOLDER / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
        with tarfile.open(FOLDER / LAKE, "w:xz") as archive:
            archive.add(lake.root.path, arcname="lake", filter=_without_owner)


def _without_owner(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = int(T0.timestamp())
    return info


if __name__ == "__main__":
    main()
