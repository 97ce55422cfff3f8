"""The API inside a running event loop, from threads, and by its front door."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import lake as package
from lake.api import Lake, utc_now
from lake.errors import ConfigError, UnknownNameError, UsageError
from lake.sandbox import Sandbox
from lake.settings import ExchangeSettings, HttpSettings, Settings, Url
from tests.conftest import MINUTE, bars, store_of, trades, write


def test_reads_and_pins_work_inside_an_event_loop(lake: Lake) -> None:
    write(lake, "trades", trades())

    async def notebook() -> tuple[int, int, int]:
        bundle = lake.bundles.pin("b", table="trades")
        (count,) = lake.sql("SELECT count(*) FROM trades").fetchall()[0]
        assert bundle.verify() == []
        return lake.scan("trades").collect().height, count, bundle.scan("trades").collect().height

    assert asyncio.run(notebook()) == (3, 3, 3)


def test_ingestion_works_inside_an_event_loop(tmp_path: Path) -> None:
    with Sandbox(weight_limit=False) as sandbox:
        lake = Lake.create(
            Settings(
                uri=str(tmp_path / "lake"),
                http=HttpSettings(rate_limit=False),
                exchanges={"binance": ExchangeSettings(url=Url(sandbox.url))},
            )
        )
        until = utc_now().replace(second=0, microsecond=0)
        since = until - 30 * MINUTE

        async def notebook() -> None:
            lake.ingest("bars_1m", exchange="binance", symbol="BTC/USDT", since=since, until=until)
            with pytest.raises(UnknownNameError):
                lake.ingest("bars_1m", exchange="binance", symbol="NO/SUCH", since=since)

        asyncio.run(notebook())
    assert lake.scan("bars_1m").collect().height == 30


def test_two_threads_can_use_one_lake(lake: Lake) -> None:
    store = store_of(lake)

    def work(number: int) -> int:
        for turn in range(5):
            write(store, "trades", trades(4, first=turn * 4 + number * 2))
            write(store, "bars_1m", bars(3, volume=[float(number * 10 + turn)] * 3))
            lake.scan("trades").collect()
            lake.sql("SELECT count(*) FROM trades").fetchall()
            lake.bundles.pin(f"{number}-{turn}", table="trades")
        return number

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(work, range(2))) == [0, 1]
    ids = lake.scan("trades").collect()["trade_id"].to_list()
    assert sorted(map(int, ids)) == list(range(22))
    assert lake.scan("bars_1m").collect().height == 3
    assert lake.bundles.ls()["name"].drop_nulls().str.split(", ").list.len().sum() == 10


def test_the_front_door_opens_lakes_and_bundles(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(lake, "trades", trades())
    pinned = lake.bundles.pin("b", table="trades")
    monkeypatch.setenv("LAKE_URI", str(lake.root.path))
    assert package.open().root == lake.root
    assert package.open(lake.root.path).root == lake.root
    assert package.open_bundle("b").id == pinned.id
    assert package.open_bundle("b", lake.root.path).id == pinned.id
    with pytest.raises(ConfigError, match="is not a lake"):
        package.open(tmp_path)


def test_what_a_lake_holds_is_listed(lake: Lake) -> None:
    assert lake.tables().is_empty()
    write(lake, "trades", trades(3))
    write(lake, "trades", trades(2, symbol="ETH/USDT"))
    row = lake.tables().row(0, named=True)
    assert (row["table"], row["version"], row["markets"], row["rows"]) == ("trades", 2, 2, 5)
    assert (row["first"], row["last"]) == (trades(3)["timestamp"][0], trades(3)["timestamp"][2])
    assert lake.status()["rows"].to_list() == [3, 2]
    assert lake.versions("trades")["version"].to_list() == [2, 1, 0]
    assert lake.audit(limit=1)["inserted"].to_list() == [2]
    for table in ("bars_1m", "nope"):
        with pytest.raises(UnknownNameError):
            lake.versions(table)


def test_rows_of_ones_own_go_the_way_of_all_others(lake: Lake) -> None:
    rows = trades(3, price=[1.0, -1.0, 3.0])
    written = lake.write("trades", rows, source="my notebook")
    assert (written.inserted, written.rejected) == (2, 1)
    assert lake.write("trades", rows).unchanged == 2
    assert lake.scan("trades").collect()["price"].to_list() == [1.0, 3.0]
    assert lake.scan("quarantine").collect()["reason"].to_list() == ["price_positive"]
    assert lake.versions("trades")["source"].to_list() == ["my notebook", None]
    assert lake.jobs()["command"].unique().to_list() == ["write trades"]


@pytest.mark.parametrize("table", ["coverage", "quarantine", "jobs"])
def test_the_lakes_own_record_is_not_written_by_others(lake: Lake, table: str) -> None:
    with pytest.raises(UsageError, match=table):
        lake.write(table, trades())
    assert lake.tables().is_empty()
