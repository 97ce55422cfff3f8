"""A flipped bit in a live data file is neither attested by a pin nor rewritten by anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from lake.api import Lake
from lake.errors import DamagedError
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store import checksums
from tests.conftest import DAY, ORIGIN, T0, bars, store_of, trades, write

BTC = Market("binance", "BTC/USDT")
HOURS = 1440


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """A day of bars in two files, and another day in one."""
    prices = [30_000.0 + n % 97 for n in range(HOURS)]
    day = bars(HOURS, close=prices, high=prices, low=[1.0] * HOURS, open=prices)
    write(lake, "bars_1m", day.head(HOURS // 2))
    write(lake, "bars_1m", day.tail(HOURS // 2))
    write(lake, "bars_1m", bars(5, start=T0 + DAY))
    return lake


def first_file(lake: Lake) -> Path:
    store = store_of(lake)
    files = store.snapshot(store.catalog.dataset("bars_1m")).files()["path"]
    return Path(store.root.tables, "bars_1m", files[0])


def flip_a_bit_that_still_decodes(path: Path) -> None:
    """Flip a bit so that the file reads as other values, as a failing disk does."""
    original = path.read_bytes()
    rows = pl.read_parquet(path, hive_partitioning=False)
    for place in range(len(original) // 4, len(original) - 2000, 7):
        content = bytearray(original)
        content[place] ^= 1
        path.write_bytes(content)
        try:
            if not pl.read_parquet(path, hive_partitioning=False).equals(rows):
                return
        except Exception:  # noqa: BLE001, S112 - most flips are seen by the reader itself
            continue
    pytest.fail("every flip was seen by the reader")


def replace(lake: Lake) -> None:
    store = store_of(lake)
    day = TimeRange(T0, T0 + DAY)
    dataset = store.catalog.dataset("bars_1m")
    store.replace(dataset, BTC, day, lambda rows: rows.tail(1), ORIGIN)


def update(lake: Lake) -> None:
    """A refetched bar with another volume: its file is rewritten."""
    write(lake, "bars_1m", bars(3, volume=[2.0] * 3))


ATTESTING: dict[str, Callable[[Lake], object]] = {
    "pin": lambda lake: lake.bundles.pin("b", table="bars_1m", check=False),
    "optimize": lambda lake: lake.maintenance.optimize("bars_1m"),
    "replace": replace,
    "update": update,
}


@pytest.mark.parametrize("name", ATTESTING)
def test_a_flipped_bit_is_refused(filled: Lake, name: str) -> None:
    file = first_file(filled)
    flip_a_bit_that_still_decodes(file)
    version = filled.tables().filter(table="bars_1m")["version"].item()
    with pytest.raises(DamagedError, match=f"{file} was changed since it was committed") as caught:
        ATTESTING[name](filled)
    assert "lake verify table bars_1m" in caught.value.hint
    assert filled.tables().filter(table="bars_1m")["version"].item() == version
    assert filled.bundles.ls().is_empty()
    assert filled.maintenance.verify("bars_1m").problems.height == 1


@pytest.mark.parametrize("name", ATTESTING)
def test_so_is_a_missing_file(filled: Lake, name: str) -> None:
    file = first_file(filled)
    file.unlink()
    with pytest.raises(DamagedError, match=f"{file} is missing"):
        ATTESTING[name](filled)


@pytest.mark.parametrize("name", ATTESTING)
def test_so_is_a_damaged_record(filled: Lake, name: str) -> None:
    record = checksums.list_records(filled.root.tables / "bars_1m")[1].path
    record.write_bytes(record.read_bytes()[:-10])
    with pytest.raises(DamagedError, match=f"{record} is damaged"):
        ATTESTING[name](filled)


@pytest.mark.parametrize("name", ["pin", "optimize"])
@pytest.mark.parametrize("part", ["commit", "checkpoint"])
def test_a_changed_log_is_neither_attested_nor_compacted(
    filled: Lake, name: str, part: str
) -> None:
    table = filled.root.tables / "bars_1m"
    if part == "checkpoint":
        filled.maintenance.checkpoint("bars_1m")
        file = table / checksums.name_checkpoint(3)
    else:
        file = table / checksums.name_log_entry(1)
        text = file.read_text()
        file.write_text(text.replace("numRecords", "numRecordz"))
        assert file.read_text() != text
    if part == "checkpoint":
        content = bytearray(file.read_bytes())
        content[-9] ^= 1  # in the name of the program that wrote it
        file.write_bytes(content)
    with pytest.raises(DamagedError):
        ATTESTING[name](Lake(filled.settings))
    problems = filled.maintenance.verify("bars_1m").problems
    assert str(file.relative_to(table)) in problems["path"].to_list()


def test_a_pin_trusts_no_earlier_bundle(filled: Lake) -> None:
    earlier = filled.bundles.pin("a", table="bars_1m", check=False)
    write(filled, "bars_1m", bars(3, start=T0 + 2 * DAY))
    flip_a_bit_that_still_decodes(first_file(filled))
    with pytest.raises(DamagedError, match="was changed since it was committed"):
        filled.bundles.pin("b", table="bars_1m", check=False)
    assert [problem.kind for problem in earlier.verify()] == ["damaged"]


def test_an_earlier_bundle_vouches_for_a_file_without_a_record(filled: Lake) -> None:
    filled.bundles.pin("a", table="bars_1m", check=False)
    for record in checksums.list_records(filled.root.tables / "bars_1m"):
        record.path.unlink()
    write(filled, "bars_1m", bars(3, start=T0 + 2 * DAY))
    flip_a_bit_that_still_decodes(first_file(filled))
    with pytest.raises(DamagedError, match="was changed since it was committed"):
        filled.bundles.pin("b", table="bars_1m", check=False)


def test_other_dates_are_still_compacted_and_replaced(filled: Lake) -> None:
    flip_a_bit_that_still_decodes(first_file(filled))
    store = store_of(filled)
    dataset = store.catalog.dataset("bars_1m")
    next_day = TimeRange(T0 + DAY, T0 + 2 * DAY)
    assert store.replace(dataset, BTC, next_day, lambda rows: rows.head(1), ORIGIN).changed


def test_rows_are_inserted_beside_a_damaged_file(filled: Lake) -> None:
    flip_a_bit_that_still_decodes(first_file(filled))
    assert write(filled, "bars_1m", bars(3, start=T0 + 2 * DAY)).inserted == 3


def test_a_filled_null_rewrites_no_damaged_file(lake: Lake) -> None:
    write(lake, "trades", trades(500, price=[100.0 + n % 97 for n in range(500)]))
    store = store_of(lake)
    file = store.snapshot(store.catalog.dataset("trades")).files()["path"].item()
    flip_a_bit_that_still_decodes(Path(store.root.tables, "trades", file))
    stored = store.read(store.catalog.dataset("trades")).tail(1)
    received = stored.drop("date").with_columns(received_at=pl.col("timestamp"))
    with pytest.raises(DamagedError, match="nothing was written"):
        write(lake, "trades", received)


@pytest.mark.parametrize("name", ATTESTING)
def test_files_without_a_record_pass(filled: Lake, name: str) -> None:
    for record in checksums.list_records(filled.root.tables / "bars_1m"):
        record.path.unlink()
    ATTESTING[name](filled)
