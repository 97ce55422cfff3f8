"""A table of another program in a lake is skipped, and said so; it stops nothing else."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest
from deltalake import write_deltalake

from lake.api import Lake
from tests.conftest import bars

WAYS: dict[str, Callable[[Lake], object]] = {
    "check": lambda lake: lake.quality.check(),
    "pin": lambda lake: lake.bundles.pin("b", table="bars_1m", check=False),
    "sql": lambda lake: lake.sql("SELECT count(*) FROM bars_1m").fetchall(),
    "show": lambda lake: lake.sql("SHOW TABLES").fetchall(),
    "tables": lambda lake: lake.tables(),
    "status": lambda lake: lake.status(),
    "audit": lambda lake: lake.audit(),
    "coverage": lambda lake: lake.coverage(),
    "optimize": lambda lake: lake.maintenance.optimize(),
    "vacuum": lambda lake: lake.maintenance.vacuum(),
    "checkpoint": lambda lake: lake.maintenance.checkpoint(),
    "verify": lambda lake: lake.maintenance.verify(),
    "alerts": lambda lake: lake.alerts.run(),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_foreign_table_stops_nothing(
    lake: Lake, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    lake.write("bars_1m", bars(5))
    write_deltalake(lake.root.tables / "foreign", pl.DataFrame({"a": [1]}))
    (lake.root.tables / "a file").write_text("no table")
    (lake.root.tables / "a folder").mkdir()
    caplog.clear()
    WAYS[way](Lake(lake.settings))
    skipped = [record for record in caplog.records if "table skipped" in record.message]
    assert len(skipped) == (way != "alerts")  # alerts without rules look at no table
    assert all("foreign" in record.message for record in skipped)
