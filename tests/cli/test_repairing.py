"""`lake quality repair`, `repairs` and `undo`: what is planned, applied, and failed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from lake.api import Lake
from lake.settings import Settings
from tests.cli.conftest import Cli
from tests.conftest import T0, bars

ETH = "ETH/USDT"
FIVE = timedelta(minutes=5)


@pytest.fixture
def lake(cli: Cli, tmp_path: Path) -> Lake:
    """A lake that lacks a bar of five minutes, and of another market ten bars of a minute."""
    assert cli("init", "-q").code == 0
    lake = Lake(Settings(uri=str(tmp_path / "lake")))
    number = pl.int_range(pl.len())
    minutes = bars(1440)["volume"]
    volumes = [minutes.slice(5 * n, 5).sum() for n in range(288)]
    lake.write("bars_1m", bars(1440))
    lake.write("bars_5m", bars(288, step=FIVE, volume=volumes).filter(number != 100))
    lake.write("bars_1m", bars(1440, symbol=ETH).filter(~number.is_between(100, 109)))
    assert cli("quality", "check", "-q").code == 3
    return lake


@pytest.mark.usefixtures("lake")
def test_a_dry_run_plans_and_a_run_applies_or_fails(cli: Cli) -> None:
    dry = cli("quality", "repair", "--offline", "--dry-run", "--json")
    assert dry.code == 0
    [planned] = dry.json
    assert (planned["status"], planned["table"], planned["method"]) == (
        "planned",
        "bars_5m",
        "derive",
    )
    assert "Planned: 1; failed: 0." in dry.err

    done = cli("quality", "repair", "--offline", "--json")
    assert done.code == 0
    by_status = {row["status"]: row for row in done.json}
    assert set(by_status) == {"applied", "failed"}
    applied, failed = by_status["applied"], by_status["failed"]
    assert (applied["table"], applied["source"], applied["inserted"]) == (
        "bars_5m",
        "derived:bars_1m",
        1,
    )
    assert (failed["table"], failed["symbol"], failed["id"]) == ("bars_1m", ETH, None)
    assert "no source was asked" in failed["why"]
    assert "Applied: 1 (rows inserted: 1, updated: 0); marked: 0; failed: 1." in done.err


def test_a_repair_is_listed_and_undone_once(cli: Cli, lake: Lake) -> None:
    [applied] = [
        row
        for row in cli("quality", "repair", "bars_5m", "--offline", "--json").json
        if row["status"] == "applied"
    ]
    [listed] = cli("quality", "repairs", "--json").json
    assert (listed["repair_id"], listed["status"]) == (applied["id"], "done")
    undone = cli("quality", "undo", applied["id"], "--json")
    assert (undone.code, undone.json["removed"]) == (0, 1)
    opened = lake.scan("bars_5m").collect()["timestamp"]
    assert T0 + 100 * FIVE not in opened.to_list()
    again = cli("quality", "undo", applied["id"], "--json")
    assert (again.code, again.json["removed"]) == (0, 0)
