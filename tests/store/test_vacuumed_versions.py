"""Versions of which a vacuum has removed files: said as such, and never as damage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lake.api import Lake, utc_now
from lake.cli.app import run
from lake.errors import DamagedError, UnknownNameError
from tests import conftest
from tests.conftest import DAY, write


def bars(count: int = 3, **columns: Any) -> pl.DataFrame:
    """Bars of equal volumes, which tell what changed them."""
    return conftest.bars(count, **{"volume": [1.0] * count, **columns})


HOUR = timedelta(hours=1)


def vacuum(lake: Lake) -> Lake:
    """The lake a month later, after a vacuum."""
    later = Lake(lake.settings, lambda: utc_now() + 30 * DAY)
    later.maintenance.vacuum(keep=HOUR)
    return later


@pytest.fixture
def vacuumed(lake: Lake) -> Lake:
    """Version 1 is BTC, 2 adds ETH, 3 revises BTC: its old file is gone."""
    write(lake, "bars_1m", bars(60))
    write(lake, "bars_1m", bars(60, symbol="ETH/USDT"))
    write(lake, "bars_1m", bars(60, volume=[2.0] * 60))
    return vacuum(lake)


def time_of(lake: Lake, version: int) -> datetime:
    times: dict[int, datetime] = dict(lake.versions("bars_1m").select("version", "time").rows())
    return times[version]


READS: dict[str, Callable[[Lake], Any]] = {
    "scan": lambda lake: lake.scan("bars_1m", version=2).collect(),
    "unordered": lambda lake: lake.scan("bars_1m", version=2, ordered=False).collect(),
    "a filter": lambda lake: lake.scan("bars_1m", version=2).filter(pl.col("volume") > 1).collect(),
    "as of": lambda lake: lake.scan("bars_1m", as_of=time_of(lake, 2)).collect(),
    "available": lambda lake: lake.available("bars_1m", version=2).collect(),
    "sql": lambda lake: lake.sql("SELECT count(*) FROM bars_1m", at={"bars_1m": 2}).fetchall(),
    "pin": lambda lake: lake.bundles.pin("b", table="bars_1m", as_of=time_of(lake, 2)),
}


@pytest.mark.parametrize("how", READS)
def test_a_vacuumed_version_says_so(vacuumed: Lake, how: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        READS[how](vacuumed)
    assert "version 2 cannot be read any more: a vacuum (the last one at 20" in caught.value.message
    assert "removed 1 of the 2 data files" in caught.value.message
    assert "oldest version of bars_1m that can still be read is 3" in caught.value.hint
    assert "backup" not in str(caught.value)


def test_the_newest_version_and_markets_that_are_whole_are_read(vacuumed: Lake) -> None:
    for version in (None, 3):
        assert vacuumed.scan("bars_1m", version=version).collect().height == 120
    assert vacuumed.scan("bars_1m", version=2, symbol="ETH/USDT").collect().height == 60
    assert vacuumed.scan("bars_1m", version=0).collect().is_empty()


def test_versions_tell_which_can_be_read(vacuumed: Lake) -> None:
    versions = vacuumed.versions("bars_1m").select("version", "readable").rows()
    assert versions == [(3, True), (2, False), (1, False), (0, True)]


def test_a_version_that_a_bundle_keeps_can_be_read(lake: Lake) -> None:
    write(lake, "bars_1m", bars(60))
    lake.bundles.pin("b", table="bars_1m", check=False)
    write(lake, "bars_1m", bars(60, volume=[2.0] * 60))
    write(lake, "bars_1m", bars(60, volume=[3.0] * 60))
    later = vacuum(lake)
    assert later.versions("bars_1m")["readable"].to_list() == [True, False, True, True]
    assert later.scan("bars_1m", version=1).collect()["volume"].unique().to_list() == [1.0]
    with pytest.raises(UnknownNameError, match="version 2"):
        later.scan("bars_1m", version=2).collect()


def test_a_lost_file_of_the_newest_version_is_damage(lake: Lake) -> None:
    write(lake, "bars_1m", bars(60))
    write(lake, "bars_1m", bars(60, symbol="ETH/USDT"))
    for file in Path(lake.root.tables / "bars_1m").rglob("*.parquet"):
        if "BTC" in str(file):
            file.unlink()
    for version in (None, 1, 2):
        with pytest.raises(DamagedError):
            lake.scan("bars_1m", version=version).collect()
    assert lake.versions("bars_1m")["readable"].to_list() == [False, False, True]


def test_files_that_another_engine_removed_are_no_damage_either(lake: Lake) -> None:
    write(lake, "bars_1m", bars(60))
    [old] = Path(lake.root.tables / "bars_1m").rglob("*.parquet")
    write(lake, "bars_1m", bars(60, volume=[2.0] * 60))
    old.unlink()
    with pytest.raises(UnknownNameError, match="any more: a vacuum removed 1 of the 1"):
        lake.scan("bars_1m", version=1).collect()


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "[" * 100_000])
def test_a_damaged_record_of_the_last_vacuum_costs_its_time_only(vacuumed: Lake, text: str) -> None:
    Path(vacuumed.root.tables, "bars_1m", "_vacuum.json").write_text(text)
    with pytest.raises(UnknownNameError, match="any more: a vacuum removed 1 of the 2"):
        vacuumed.scan("bars_1m", version=2).collect()


def test_a_second_vacuum_and_the_command_line_go_on(
    vacuumed: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    write(vacuumed, "bars_1m", bars(60, volume=[4.0] * 60))
    assert vacuum(vacuumed).versions("bars_1m")["readable"][0]
    uri = str(vacuumed.root.path)
    query = "SELECT count(*) FROM bars_1m"
    assert run(["--lake", uri, "sql", query, "--at", "bars_1m=2"]) == 2
    assert "a vacuum" in capsys.readouterr().err
