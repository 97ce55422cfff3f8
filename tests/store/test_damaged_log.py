"""A damaged log is refused by every path; a torn end of what can be had again stops nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from lake.api import Lake
from lake.errors import DamagedError
from lake.model.dataset import TIMESTAMP
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store import checksums
from lake.store.coverage import CoveredRange, part_of
from lake.store.ledger import Ledger
from lake.store.log import locate_log_file, read_latest_version
from lake.store.store import Store
from tests.conftest import DAY, MINUTE, ORIGIN, T0, store_of, trades, write

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "empty": lambda _: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: b"\0" * len(content),
    "first line": lambda content: content.splitlines()[0] + b"\n",
    "last byte": lambda content: content[:-2] + b"]\n",
}
PATHS: dict[str, Callable[[Store], object]] = {
    "snapshot": lambda store: store.snapshot(store.catalog.dataset("trades")),
    "version": lambda store: store.version(store.catalog.dataset("trades")),
    "latest": lambda store: store.latest(store.catalog.dataset("trades")).collect(),
    "read": lambda store: store.read(store.catalog.dataset("trades")),
    "write": lambda store: write(store, "trades", trades(1, first=100)),
    "old rows": lambda store: write(store, "trades", trades(1)),
}


@pytest.fixture
def filled(lake: Lake) -> Store:
    """Trades in three commits."""
    store = store_of(lake)
    for number in range(3):
        write(store, "trades", trades(5, first=number * 5))
    return store


def damage(store: Store, change: Damage, table: str = "trades", back: int = 0) -> Path:
    """Damage the last commit of a table, or one before it."""
    folder = store.root.tables / table
    file = locate_log_file(folder, read_latest_version(folder) - back)
    file.write_bytes(change(file.read_bytes()))
    return file


def move_away(store: Store, file: Path, table: str = "trades") -> None:
    """Move a commit and its record away, as the hints say."""
    file.rename(store.root.path / "away")
    record = store.root.tables / table / checksums.FOLDER / f"{file.stem}.sha256"
    record.rename(store.root.path / "away.sha256")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_last_commit_is_refused(filled: Store, name: str, path: str) -> None:
    file = damage(filled, DAMAGES[name])
    fresh = Store(filled.root, filled.now)
    with pytest.raises(DamagedError) as caught:
        PATHS[path](fresh)
    assert str(file) in caught.value.message
    assert "commit 3" in caught.value.message
    assert "lake status" in caught.value.hint


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["empty", "half", "zeros"])
def test_so_is_one_that_has_no_checksum(filled: Store, name: str, path: str) -> None:
    for record in checksums.list_records(filled.root.tables / "trades"):
        record.path.unlink()
    file = damage(filled, DAMAGES[name])
    with pytest.raises(DamagedError, match=str(file)):
        PATHS[path](Store(filled.root, filled.now))


@pytest.mark.parametrize("path", ["snapshot", "latest", "read", "write"])
def test_an_empty_commit_before_the_last_is_refused(filled: Store, path: str) -> None:
    file = damage(filled, DAMAGES["empty"], back=1)
    with pytest.raises(DamagedError, match=f"commit 2 is empty: {file}"):
        PATHS[path](Store(filled.root, filled.now))


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("path", ["latest", "write", "old rows"])
def test_a_handle_that_follows_refuses_it_each_time(filled: Store, path: str, name: str) -> None:
    PATHS[path](filled)
    write(store_of_root(filled), "trades", trades(1, first=50))
    file = damage(filled, DAMAGES[name])
    for _ in range(2):
        with pytest.raises(DamagedError, match=str(file)):
            PATHS[path](filled)


def test_versions_before_the_damage_stay_readable(filled: Store) -> None:
    damage(filled, DAMAGES["empty"])
    dataset = filled.catalog.dataset("trades")
    assert store_of_root(filled).snapshot(dataset, version=2).collect().height == 10


def test_what_the_hint_says_brings_the_table_back(filled: Store) -> None:
    file = damage(filled, DAMAGES["empty"])
    move_away(filled, file)
    store = store_of_root(filled)
    assert write(store, "trades", trades(15)).inserted == 5
    assert store.read(store.catalog.dataset("trades")).height == 15
    assert write(store_of_root(filled), "trades", trades(15)).unchanged == 15


def test_a_damaged_checkpoint_is_named_and_can_be_deleted(filled: Store, lake: Lake) -> None:
    lake.maintenance.checkpoint("trades")
    log = filled.root.tables / "trades" / "_delta_log"
    [checkpoint] = log.glob("*.checkpoint.parquet")
    checkpoint.write_bytes(b"")
    with pytest.raises(DamagedError, match=f"checkpoint {checkpoint} is damaged") as caught:
        PATHS["read"](store_of_root(filled))
    assert "_last_checkpoint" in caught.value.hint
    checkpoint.unlink()
    (log / "_last_checkpoint").unlink()
    assert store_of_root(filled).read(filled.catalog.dataset("trades")).height == 15


@pytest.mark.parametrize("name", [*DAMAGES, "data file"])
def test_a_torn_end_of_coverage_costs_requests_only(
    filled: Store, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    market = Market("binance", "BTC/USDT")
    days = [TimeRange(T0 + n * DAY, T0 + (n + 1) * DAY) for n in range(0, 6, 2)]
    for day in days:
        Ledger(filled).record_coverage({part_of("trades", market): [CoveredRange(day, 5)]}, ORIGIN)
    if name == "data file":
        folder = filled.root.tables / "coverage"
        newest = max(folder.rglob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
        newest.write_bytes(b"")
    else:
        damage(filled, DAMAGES[name], "coverage")
    store = store_of_root(filled)
    assert Ledger(store).read_covered("trades", market) == tuple(days[:2])
    assert "moved torn commits away" in caplog.text
    Ledger(store).record_coverage({part_of("trades", market): [CoveredRange(days[2], 5)]}, ORIGIN)
    assert Ledger(store_of_root(filled)).read_covered("trades", market) == tuple(days)


def test_a_torn_job_record_does_not_stop_the_next_job(lake: Lake) -> None:
    lake.write("trades", trades(5))
    damage(store_of(lake), DAMAGES["empty"], "jobs")
    later = Lake(lake.settings)
    later.write("trades", trades(5, first=5, start=T0 + MINUTE))
    statuses = later.sql("SELECT status FROM jobs ORDER BY timestamp").pl()["status"]
    assert statuses.to_list() == ["ok"]


@pytest.mark.parametrize("table", ["checks", "scores"])
@pytest.mark.parametrize("name", ["empty", "half"])
def test_a_torn_end_of_what_checks_recorded_is_checked_again(
    lake: Lake, table: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    lake.write("trades", trades(5))
    lake.quality.check()
    before = lake.scan(table).collect().drop("job_id", "checked_at", "timestamp")
    damage(store_of(lake), DAMAGES[name], table)
    later = Lake(lake.settings)
    assert later.scan(table).collect().is_empty()
    assert later.status().height == 1
    assert "moved torn commits away" in caplog.text
    later.quality.check()
    assert later.scan(table).collect().drop("job_id", "checked_at", "timestamp").equals(before)


SPECIFICATION = {"venue_symbol": "BTCUSDT", "type": "spot", "base": "BTC", "quote": "USDT"}


def specify(store: Store, tick: float, number: int) -> int:
    market = {"exchange": "binance", "symbol": "BTC/USDT", "valid_from": T0 + number * DAY}
    row = pl.DataFrame([{**market, **SPECIFICATION, "tick_size": tick}])
    row = row.with_columns(pl.col("valid_from").cast(TIMESTAMP))
    return write(store, "instruments", row).inserted


def test_a_torn_last_specification_is_fetched_again(
    filled: Store, caplog: pytest.LogCaptureFixture
) -> None:
    assert [specify(filled, tick, number) for number, tick in enumerate((0.1, 0.2))] == [1, 1]
    damage(filled, DAMAGES["empty"], "instruments")
    store = store_of_root(filled)
    dataset = filled.catalog.dataset("instruments")
    assert store.read(dataset)["tick_size"].to_list() == [0.1]
    assert "the next ingestion fetches the specifications again" in caplog.text
    assert specify(store, 0.2, 2) == 1
    assert store_of_root(filled).read(dataset)["tick_size"].to_list() == [0.1, 0.2]


def test_older_specifications_are_never_moved_away(filled: Store) -> None:
    for number, tick in enumerate((0.1, 0.2)):
        specify(filled, tick, number)
    file = damage(filled, DAMAGES["empty"], "instruments", back=1)
    with pytest.raises(DamagedError, match=f"commit 1 is empty: {file}"):
        store_of_root(filled).read(filled.catalog.dataset("instruments"))


def test_nothing_is_written_where_a_commit_of_specifications_vanished(filled: Store) -> None:
    for number, tick in enumerate((0.1, 0.2)):
        specify(filled, tick, number)
    locate_log_file(filled.root.tables / "instruments", 2).unlink()
    with pytest.raises(DamagedError, match="version 2 was committed and is not in the log"):
        specify(store_of_root(filled), 0.3, 2)


def store_of_root(store: Store) -> Store:
    """Another store over the same lake, as of another process."""
    return Store(store.root, store.now)
