"""Damaged tables: what was never sealed is fetched again, and all other damage stops one table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import DamagedError, StorageError
from lake.jobs.ingest.report import IngestReport
from lake.store import seal
from lake.store.log import locate_log_file, read_latest_version
from tests.jobs.conftest import NOW, MakeLake

SINCE = NOW.replace(hour=0, minute=0, second=0)
STEP = timedelta(minutes=5)
TABLES = ("bars_1m", "trades")
Damage = Callable[[Path], object]


def ingest(
    lake: Lake, steps: int = 2, tables: tuple[str, ...] = TABLES, *, refetch: bool = False
) -> IngestReport:
    return lake.ingest(
        tables,
        exchange="binance",
        symbol="BTC/USDT",
        since=SINCE,
        until=SINCE + steps * STEP,
        refetch=refetch,
    )


def newest_entry(lake: Lake, table: str = "trades") -> Path:
    folder = lake.root.tables / table
    return locate_log_file(folder, read_latest_version(folder))


def newest_data(lake: Lake, table: str = "trades") -> Path:
    files = (lake.root.tables / table).rglob("*.parquet")
    return max(files, key=lambda file: file.stat().st_mtime_ns)


def restart(lake: Lake) -> Lake:
    """The lake in another process; without checks, which other tests are about."""
    quality = lake.settings.quality.model_copy(update={"after_ingest": False})
    return Lake(lake.settings.model_copy(update={"quality": quality}), now=lambda: NOW)


def content(lake: Lake, *tables: str) -> dict[str, pl.DataFrame]:
    return {name: lake.scan(name).collect().drop("received_at", strict=False) for name in tables}


@pytest.fixture(scope="module")
def truth(quiet_lake: MakeLake) -> dict[str, pl.DataFrame]:
    """The tables after a quiet run of two steps."""
    lake = quiet_lake()
    ingest(lake)
    return content(lake, *TABLES)


def zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def zero_all(lake: Lake, table: str) -> None:
    for file in (lake.root.tables / table).rglob("*.parquet"):
        zero(file)


UNSEALED: dict[str, Callable[[Lake], object]] = {
    "data of zeros": lambda lake: zero(newest_data(lake)),
    "empty commit": lambda lake: newest_entry(lake).write_bytes(b""),
}


@pytest.mark.parametrize("name", UNSEALED)
def test_rows_that_a_power_cut_took_are_fetched_again(
    make_lake: MakeLake,
    truth: dict[str, pl.DataFrame],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    lake = restart(make_lake())
    ingest(lake, 1)
    sealing = seal._seal

    def fail(table: Path, version: int, *, is_own: bool) -> None:
        if table.name == "trades":  # the disk fails between commit and seal; none does on demand
            raise OSError("input/output error")
        sealing(table, version, is_own=is_own)

    with monkeypatch.context() as patch:
        patch.setattr(seal, "_seal", fail)
        with pytest.raises((StorageError, DamagedError)):
            ingest(lake)
    UNSEALED[name](lake)
    later = restart(lake)
    assert ingest(later).status == "ok"
    for table, rows in content(later, *TABLES).items():
        assert_frame_equal(rows, truth[table])
    assert later.maintenance.verify().is_intact
    assert later.status()["rows_missing"].to_list() == [0, 0]


SEALED: dict[str, Callable[[Lake], object]] = {
    "commit": lambda lake: newest_entry(lake).write_bytes(b""),
    "data": lambda lake: zero_all(lake, "trades"),
}


@pytest.mark.parametrize("name", SEALED)
def test_a_damaged_table_stops_no_other(
    make_lake: MakeLake, truth: dict[str, pl.DataFrame], name: str
) -> None:
    lake = restart(make_lake())
    ingest(lake, 1)
    SEALED[name](lake)
    later = restart(lake)
    with pytest.raises(DamagedError, match="table trades") as caught:
        # Rows that are stored already: their dates are compared with the damaged file.
        ingest(later, refetch=name == "data")
    assert "lake verify table trades" in caught.value.hint or "backup" in caught.value.hint
    report = caught.value.report
    assert isinstance(report, IngestReport)
    assert report.status == "failed"
    assert [(f.table, f.reason) for f in report.failures] == [("trades", "damaged")]
    assert_frame_equal(content(later, "bars_1m")["bars_1m"], truth["bars_1m"])
    job = failed_job(later)
    assert "trades" in job["error"]
    assert "bars_1m" not in job["error"]


def failed_job(lake: Lake) -> dict[str, Any]:
    jobs = lake.scan("jobs").filter(pl.col("status") == "failed").collect()
    return jobs.row(0, named=True)


def test_no_coverage_is_recorded_for_a_damaged_table(make_lake: MakeLake) -> None:
    lake = restart(make_lake())
    ingest(lake, 1)
    before = lake.coverage().filter(pl.col("table") == "trades")
    SEALED["data"](lake)
    with pytest.raises(DamagedError):
        ingest(restart(lake), refetch=True)
    assert lake.coverage().filter(pl.col("table") == "trades").equals(before)


def test_a_damaged_table_alone_is_a_failed_job(make_lake: MakeLake) -> None:
    lake = restart(make_lake())
    ingest(lake, 1)
    newest_entry(lake).write_bytes(b"")
    later = restart(lake)
    with pytest.raises(DamagedError, match="table trades: commit") as caught:
        ingest(later, tables=("trades",))
    assert isinstance(caught.value.report, IngestReport)
    assert failed_job(later)["command"] == "ingest trades"


def test_damaged_specifications_stop_no_rows(make_lake: MakeLake) -> None:
    lake = restart(make_lake())
    ingest(lake, 1)
    zero_all(lake, "instruments")
    later = restart(lake)
    with pytest.raises(DamagedError, match="table instruments"):
        ingest(later)
    assert later.status()["rows_missing"].to_list() == [0, 0]
