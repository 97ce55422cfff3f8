"""A pin does not measure again what an earlier bundle lists of the same bytes."""

from __future__ import annotations

import json
import random
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.bundles.known import FOLDER, KnownIndex
from lake.bundles.repository import Repository
from lake.errors import DamagedError
from lake.model.progress import NoProgress
from tests.conftest import DAY, MINUTE, SECOND, T0, NewLake, bars, copy_lake, trades, write

STATE = "known.json"


class Counting(NoProgress):
    """Counts the rows that a pin reads, and the files that it hashes."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}

    def begin(self, what: str, total: float) -> None:
        self.totals[what] = total


def pin(lake: Lake, name: str, table: str = "trades", **selection: Any) -> tuple[Bundle, float]:
    """Pin a table without a check; return the bundle, and how many rows were read for it."""
    progress = Counting()
    bundle = lake.bundles.pin(
        name, table=table, check=False, move=True, progress=progress, **selection
    )
    assert progress.totals[f"hashing {table}"] > 0
    return bundle, progress.totals.get(f"reading {table}", 0)


def without_bundles(lake: Lake, path: Path) -> Lake:
    """Copy a lake without its bundles, and so without anything that is known of its days."""
    copy = copy_lake(lake, path)
    shutil.rmtree(copy.root.bundles)
    copy.root.bundles.mkdir()
    return copy


def write_days(lake: Lake, days: int, symbol: str = "BTC/USDT") -> None:
    for day in range(days):
        write(lake, "trades", trades(4, first=4 * day, start=T0 + day * DAY, symbol=symbol))


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """A lake with three days of trades of two markets."""
    write_days(lake, 3)
    write_days(lake, 3, "ETH/USDT")
    return lake


def test_the_same_pin_reads_no_row_and_hashes_each_file(filled: Lake) -> None:
    first, rows = pin(filled, "first")
    assert rows == 24
    second, rows = pin(filled, "second")
    assert rows == 0
    assert second.id == first.id
    assert second.verify(deep=True) == []


def test_only_days_of_other_files_are_read(filled: Lake, tmp_path: Path) -> None:
    pin(filled, "before")
    write(filled, "trades", trades(1, first=100, start=T0 + DAY, step=MINUTE))
    write(filled, "trades", trades(2, first=200, start=T0 + 3 * DAY, symbol="ETH/USDT"))
    bundle, rows = pin(filled, "after")
    assert rows == 5 + 2
    assert bundle.verify(deep=True) == []
    assert pin(without_bundles(filled, tmp_path / "anew"), "anew")[0].id == bundle.id


def test_compacted_days_are_read_and_give_the_same_id(filled: Lake) -> None:
    write(filled, "trades", trades(1, first=100, start=T0, step=MINUTE))
    before, _ = pin(filled, "before")
    filled.maintenance.optimize("trades")
    after, rows = pin(filled, "after")
    assert 0 < rows < 25
    assert after.id == before.id


def test_a_day_that_the_range_cuts_is_another_one(filled: Lake) -> None:
    pin(filled, "whole")
    cut: dict[str, Any] = {"since": T0 + 2 * SECOND, "until": T0 + 2 * DAY + 9 * SECOND}
    bundle, rows = pin(filled, "cut", **cut)
    assert rows == 16, "the first and the last day of both markets"
    assert bundle.manifest.bars == {}
    assert bundle.scan("trades").collect().height == 2 * (2 + 4 + 1)
    assert bundle.verify(deep=True) == []
    assert pin(filled, "again", **cut)[1] == 0
    assert pin(filled, "whole")[1] == 0


def test_any_pins_of_any_writes_are_as_if_nothing_were_known(
    new_lake: NewLake, tmp_path: Path
) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    choice = random.Random(seed)
    lake = new_lake()
    for number in range(10):
        start = T0 + choice.randrange(5) * DAY + choice.randrange(1400) * MINUTE
        symbol = choice.choice(["BTC/USDT", "ETH/USDT"])
        closed = [True] * 3 + [choice.random() < 0.6]
        table, step = choice.choice([("bars_1m", MINUTE), ("bars_1h", timedelta(hours=1))])
        frame = bars(4, start=_floor(start, step), step=step, symbol=symbol, closed=closed)
        write(lake, table, frame)
        if choice.random() < 0.2:
            lake.maintenance.optimize(table)
        bounds = sorted(T0 + choice.randrange(7 * 1440) * MINUTE for _ in range(2))
        range_ = choice.choice([{}, {"since": bounds[0]}, {"until": bounds[1] + 7 * DAY}])
        if lake.scan(table).filter(closed=True).collect().is_empty() or "since" in range_:
            range_ = {}
        bundle, _ = pin(lake, f"b{number}", table, **range_)
        assert bundle.verify(deep=True) == []
    other = without_bundles(lake, tmp_path / "other")
    for table in lake.tables().filter(pl.col("table").str.starts_with("bars"))["table"]:
        known, _ = pin(lake, "known", table)
        anew, rows = pin(other, "anew", table)
        assert rows > 0
        assert anew.id == known.id
        assert_frame_equal(anew.contents.days, known.contents.days)
        assert anew.left_out().rows() == known.left_out().rows()


def _floor(time: datetime, step: timedelta) -> datetime:
    return time - (time - T0) % step


def test_an_open_bar_stays_left_out(lake: Lake) -> None:
    write(lake, "bars_1m", bars(5, closed=[True] * 4 + [False]))
    write(lake, "bars_1m", bars(5, start=T0 + DAY))
    first, _ = pin(lake, "first", "bars_1m")
    second, rows = pin(lake, "second", "bars_1m")
    assert rows == 0
    assert second.id == first.id
    assert second.left_out().height == first.left_out().height == 1
    write(lake, "bars_1m", bars(1, start=T0 + 4 * MINUTE))
    third, _ = pin(lake, "third", "bars_1m")
    assert third.scan("bars_1m").collect().height == 10
    assert third.verify(deep=True) == []


def test_a_bit_that_flips_in_a_file_without_a_record_is_found(filled: Lake) -> None:
    bundle, _ = pin(filled, "before")
    table = filled.root.tables / "trades"
    shutil.rmtree(table / "_checksums")
    path = table / bundle.contents.files.files("trades")["path"][0]
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="was changed since it was committed: nothing was"):
        pin(filled, "after")


@pytest.mark.parametrize("harm", ["state", "lists", "flipped", "forged", "nested", "folder"])
def test_a_damaged_index_is_made_again(filled: Lake, harm: str) -> None:
    before, _ = pin(filled, "before")
    state, folder = filled.root.bundles / STATE, filled.root.bundles / FOLDER
    if harm == "state":
        state.write_bytes(b"{")
    elif harm == "lists":
        for path in folder.iterdir():
            path.unlink()
    elif harm == "flipped":
        for path in folder.iterdir():
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 16
            path.write_bytes(content)
    elif harm == "forged":
        record = json.loads(state.read_bytes())
        record["content"]["bundles"] = []
        state.write_text(json.dumps(record))
    elif harm == "nested":
        state.write_text("[" * 100_000)
    else:
        shutil.rmtree(folder)
    after, rows = pin(filled, "after")
    assert rows == 0
    assert after.id == before.id
    assert after.verify(deep=True) == []


@pytest.mark.parametrize("harm", ["folder within", "folder for state", "file for folder"])
def test_what_lies_in_the_way_of_the_index_stops_no_pin(filled: Lake, harm: str) -> None:
    before, _ = pin(filled, "before")
    state, folder = filled.root.bundles / STATE, filled.root.bundles / FOLDER
    if harm == "folder within":
        (folder / "mine").mkdir()
    elif harm == "folder for state":
        state.unlink()
        (state / "mine").mkdir(parents=True)
    else:
        shutil.rmtree(folder)
        folder.touch()
    write(filled, "trades", trades(1, first=100, start=T0 + 3 * DAY))
    pin(filled, "after")
    assert filled.bundles.open("after").verify(deep=True) == []
    assert filled.bundles.open("before").id == before.id
    assert pin(filled, "again")[1] == 0
    kept = {"folder within": folder / "mine", "folder for state": state / "mine"}
    assert all(path.is_dir() for path in [kept.get(harm, folder)])


def test_what_only_a_removed_bundle_lists_is_forgotten(filled: Lake) -> None:
    pin(filled, "old", until=T0 + DAY)
    pin(filled, "new")
    filled.bundles.rm("old")
    assert pin(filled, "again")[1] == 0
    filled.bundles.rm("again")
    assert KnownIndex(Repository(filled.root)).read("trades").days.is_empty()
    assert pin(filled, "anew")[1] == 24


def test_what_another_bundle_lists_too_stays(filled: Lake) -> None:
    pin(filled, "old")
    pin(filled, "new", until=T0 + DAY)
    filled.bundles.rm("new")
    assert pin(filled, "again")[1] == 0
    shutil.rmtree(filled.root.bundles / filled.bundles.resolve("old"))  # by hand
    assert pin(filled, "anew")[1] == 24


def test_a_table_that_was_created_again_reads_its_own_rows(filled: Lake) -> None:
    pin(filled, "before")
    shutil.rmtree(filled.root.tables / "trades")
    write(filled, "trades", trades(4, price=[7.0] * 4))
    bundle, rows = pin(filled, "after")
    assert rows == 4
    assert bundle.verify(deep=True) == []


def test_an_imported_bundle_says_nothing_about_the_tables(filled: Lake, tmp_path: Path) -> None:
    bundle, _ = pin(filled, "exported")
    archive = filled.bundles.export("exported", tmp_path / "b.tar.zst")
    other = copy_lake(filled, tmp_path / "other")
    other.bundles.rm("exported")
    other.bundles.import_(archive, name="imported")
    again, rows = pin(other, "again")
    assert rows == 24
    assert again.id == bundle.id
