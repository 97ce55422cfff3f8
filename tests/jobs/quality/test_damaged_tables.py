"""A damaged table stops the check of no other; what it hides is neither closed nor settled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from lake.api import Lake
from lake.errors import DamagedError
from lake.jobs.quality.check import CheckReport
from lake.store.log import locate_log_file, read_latest_version
from lake.store.marks import Marks
from tests.conftest import DAY, T0, bars, funding, store_of, trades, write

HOUR = timedelta(hours=1)
Damage = Callable[[Lake, str], None]


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """Bars with a gap, funding, and trades of two days."""
    write(lake, "funding", funding([T0]))
    write(lake, "trades", trades(5))
    write(lake, "trades", trades(5, first=5, start=T0 + DAY))
    write(lake, "bars_1h", bars(1))
    return lake


def damage_commit(lake: Lake, table: str) -> None:
    folder = lake.root.tables / table
    locate_log_file(folder, read_latest_version(folder)).write_bytes(b"")


def damage_data(lake: Lake, table: str) -> None:
    for file in Path(lake.root.tables / table).rglob("*.parquet"):
        file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("damage", [damage_commit, damage_data])
def test_the_others_are_checked_and_it_is_reported(filled: Lake, damage: Damage) -> None:
    damage(filled, "trades")
    later = Lake(filled.settings)
    with pytest.raises(DamagedError, match="table trades") as caught:
        later.quality.check()
    report = caught.value.report
    assert isinstance(report, CheckReport)
    assert "trades" in report.damaged
    assert "funding" not in report.damaged
    assert set(later.scan("scores").collect()["dataset"]) >= {"funding"}
    assert "trades" not in Marks(store_of(later)).read()
    errors = later.scan("jobs").filter(pl.col("status") == "failed").collect()["error"]
    assert all("trades" in error and "funding" not in error for error in errors)
    assert len(errors) == 2, "the check, and that of what was not checked before"


@pytest.mark.parametrize("damage", [damage_commit, damage_data])
def test_no_finding_is_closed_that_it_hides(filled: Lake, damage: Damage) -> None:
    write(filled, "bars_1m", bars(1, start=T0, volume=[77.0]))
    filled.quality.check()
    before = filled.quality.findings().select("finding_id", "dataset", "status")
    assert "trades" in before["dataset"].to_list() or "bars_1m" in before["dataset"].to_list()
    damage(filled, "trades")
    with pytest.raises(DamagedError):
        Lake(filled.settings).quality.check()
    after = Lake(filled.settings).quality.findings().select("finding_id", "dataset", "status")
    kept = ("trades", "bars_1m")
    assert set(before.filter(before["dataset"].is_in(kept)).rows()) <= set(after.rows())


def test_a_check_of_another_table_is_complete(filled: Lake) -> None:
    damage_commit(filled, "trades")
    assert Lake(filled.settings).quality.check("funding").damaged == ()


def test_another_table_can_be_pinned(filled: Lake) -> None:
    damage_commit(filled, "trades")
    later = Lake(filled.settings)
    assert later.bundles.pin("f", table="funding").verify(deep=True) == []
    assert later.bundles.pin("b", table="bars_1h", check=False).verify(deep=True) == []


def test_other_tables_are_compacted_and_get_checkpoints(filled: Lake) -> None:
    write(filled, "funding", funding([T0 + DAY]))
    damage_data(filled, "bars_1h")
    write(filled, "trades", trades(5, first=10, start=T0 + DAY))
    damage_commit(filled, "bars_1h")
    later = Lake(filled.settings)
    with pytest.raises(DamagedError, match="table bars_1h") as caught:
        later.maintenance.optimize()
    assert isinstance(caught.value.report, pl.DataFrame)
    compacted = caught.value.report.filter(pl.col("table") == "trades")
    assert compacted["files_after"].item() < compacted["files_before"].item()
    with pytest.raises(DamagedError, match="table bars_1h"):
        later.maintenance.checkpoint()


def test_other_tables_are_repaired(lake: Lake) -> None:
    write(lake, "bars_4h", bars(1))
    write(lake, "bars_4h", bars(1, start=T0 + 8 * HOUR))
    write(lake, "bars_1h", bars(1))
    write(lake, "bars_1h", bars(1, start=T0 + 3 * HOUR))
    write(lake, "bars_1m", bars(240))
    lake.quality.check()
    assert {"bars_4h", "bars_1h"} <= set(lake.quality.findings()["dataset"])
    damage_commit(lake, "bars_4h")
    later = Lake(lake.settings)
    with pytest.raises(DamagedError, match="table bars_4h"):
        later.quality.repair(offline=True)
    assert later.scan("bars_1h").collect().height == 4
    failed = later.scan("jobs").filter(pl.col("status") == "failed").collect()
    assert "quality repair" in failed["command"].to_list()
