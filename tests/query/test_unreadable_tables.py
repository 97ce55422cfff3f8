"""A table that cannot be read stops no view of the others; what is not known of it is null."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from lake.api import Lake
from lake.errors import LakeError
from lake.jobs.quality.check import CheckReport
from lake.store.damages import UNREADABLE
from lake.store.log import locate_log_file, read_latest_version
from lake.store.marks import Marks
from lake.store.vacuum import VacuumReport
from tests.conftest import DAY, T0, bars, copy_lake, funding, store_of, trades, write


def newest(table: Path) -> Path:
    return locate_log_file(table, read_latest_version(table))


def tear(table: Path) -> None:
    newest(table).write_bytes(newest(table).read_bytes()[:40])


def link_to_itself(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(path.name)


def make_foreign(table: Path) -> None:
    shutil.rmtree(table)
    write_deltalake(table, pl.DataFrame({"a": [1]}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty commit": lambda table: newest(table).write_bytes(b""),
    "torn commit": tear,
    "missing commit": lambda table: locate_log_file(table, 1).unlink(),
    "first commit missing": lambda table: locate_log_file(table, 0).unlink(),
    "lost log": lambda table: shutil.rmtree(table / "_delta_log"),
    "log linked to itself": lambda table: link_to_itself(table / "_delta_log"),
    "table linked to itself": link_to_itself,
    "columns of another program": make_foreign,
}


@pytest.fixture(scope="module")
def whole(new_lake: Callable[[], Lake]) -> Lake:
    """Bars, funding, and trades of two days; checked, except the last bar."""
    lake = new_lake()
    write(lake, "funding", funding([T0]))
    write(lake, "trades", trades(5))
    write(lake, "trades", trades(5, first=5, start=T0 + DAY))
    write(lake, "bars_1h", bars(1))
    lake.quality.check()
    lake.bundles.pin("before", table="bars_1h", check=False)
    write(lake, "bars_1h", bars(1, start=T0 + DAY))
    lake.bundles.pin("after", table="bars_1h", check=False)
    return lake


@pytest.fixture
def damaged(request: pytest.FixtureRequest, whole: Lake, tmp_path: Path) -> Lake:
    """The lake with trades that cannot be read."""
    lake = copy_lake(whole, tmp_path / "lake")
    DAMAGES[getattr(request, "param", "lost log")](lake.root.tables / "trades")
    return lake


@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
def test_all_others_are_shown(damaged: Lake, whole: Lake, caplog: pytest.LogCaptureFixture) -> None:
    others = pl.col("table") != "trades"
    assert damaged.tables().filter(others).equals(whole.tables().filter(others))
    row = damaged.tables().filter(~others).row(0, named=True)
    assert row == dict.fromkeys(row) | {"table": "trades", "title": row["title"]}
    assert damaged.status().filter(others).equals(whole.status().filter(others))
    assert damaged.quality.findings().equals(whole.quality.findings())
    assert damaged.quality.scores().equals(whole.quality.scores())
    audit = damaged.audit()
    assert audit.filter(others).equals(whole.audit().filter(others))
    shown = {name for (name,) in damaged.sql("SHOW TABLES").fetchall()}
    assert shown == {name for (name,) in whole.sql("SHOW TABLES").fetchall()} - {"trades"}
    assert damaged.sql("SELECT count(*) FROM bars_1h").fetchall() == [(2,)]
    assert damaged.bundles.diff("before", "after").height == 1
    for said in caplog.records:
        assert "trades" in said.message
        assert "hint" in said.message
    assert caplog.records


@pytest.mark.parametrize("damaged", ["empty commit", "table linked to itself"], indirect=True)
def test_whoever_asks_for_it_gets_the_reason(damaged: Lake) -> None:
    ways: list[Callable[[], object]] = [
        lambda: damaged.scan("trades").collect(),
        lambda: damaged.sql("SELECT * FROM trades"),
        lambda: damaged.sql("DESCRIBE trades"),
        lambda: damaged.maintenance.vacuum("trades"),
        lambda: damaged.bundles.pin("t", table="trades"),
    ]
    for way in ways:
        with pytest.raises(UNREADABLE, match="trades") as caught:
            way()
        assert isinstance(caught.value, LakeError)
        assert caught.value.hint


def test_others_are_maintained(damaged: Lake) -> None:
    damaged.maintenance.gc()
    with pytest.raises(UNREADABLE, match="trades") as caught:
        damaged.maintenance.vacuum(dry_run=True)
    assert isinstance(caught.value.report, VacuumReport)


def test_others_are_checked_and_pinned(damaged: Lake) -> None:
    assert damaged.quality.check("funding").damaged == ()
    damaged.bundles.pin("f", table="funding")
    with pytest.raises(UNREADABLE, match=r"cannot be checked.*trades") as caught:
        damaged.bundles.pin("b", table="bars_1h")
    assert "--no-check" in caught.value.hint
    damaged.bundles.pin("b", table="bars_1h", check=False)


def test_one_damaged_file_stops_the_check_of_its_market_only(lake: Lake) -> None:
    for symbol in ("AAA/USDT", "BTC/USDT", "ETH/USDT"):
        write(lake, "funding", funding([T0], symbol=f"{symbol}:USDT"))
    for file in lake.root.tables.joinpath("funding").glob("*/symbol=BTC*/**/*.parquet"):
        file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(UNREADABLE, match="table funding") as caught:
        lake.quality.check("funding")
    assert isinstance(caught.value.report, CheckReport)
    checked = lake.scan("scores").collect()["symbol"].to_list()
    assert checked == ["AAA/USDT:USDT", "ETH/USDT:USDT"]
    assert "funding" not in Marks(store_of(lake)).read()


def test_one_damaged_file_stops_the_compaction_of_its_market_only(lake: Lake) -> None:
    for symbol in ("BTC/USDT:USDT", "ETH/USDT:USDT"):
        for hours in (0, 8):
            write(lake, "funding", funding([T0 + timedelta(hours=hours)], symbol=symbol))
    file = next(lake.root.tables.joinpath("funding").glob("*/symbol=BTC*/**/*.parquet"))
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(UNREADABLE, match="table funding") as caught:
        lake.maintenance.optimize("funding")
    report = caught.value.report
    assert isinstance(report, pl.DataFrame)
    assert report.select("table", "dates", "files_before", "files_after").rows() == [
        ("funding", 1, 2, 1)
    ]
