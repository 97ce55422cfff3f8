"""`lake verify table`: a flipped bit, a missing or a cut file is found, wherever it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.store import checksums
from lake.store.log import locate_log_file
from tests.conftest import DAY, T0, NewLake, bars, copy_lake, store_of, trades, write


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """Trades of three days in three commits, and bars."""
    for number in range(3):
        write(lake, "trades", trades(50, first=number * 50, start=T0 + number * DAY))
    write(lake, "bars_1m", bars())
    return lake


def data_file(lake: Lake, number: int = 0) -> Path:
    store = store_of(lake)
    files = store.snapshot(store.catalog.dataset("trades")).files()["path"]
    return Path(store.root.tables, "trades", files[number])


def flip(path: Path, place: int, bit: int = 4) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)


def test_an_intact_table_is_said_to_be_so(filled: Lake) -> None:
    result = filled.maintenance.verify("trades")
    assert result.is_intact
    assert result.files.is_empty()
    assert result.tables.rows(named=True) == [
        {
            "table": "trades",
            "version": 3,
            "files": 3,
            "bytes": sum(data_file(filled, number).stat().st_size for number in range(3)),
            "commits": 4,
            "damaged": 0,
            "missing": 0,
            "unrecorded": 0,
        }
    ]
    assert set(filled.maintenance.verify().tables["table"]) >= {"trades", "bars_1m"}


@pytest.fixture(scope="module")
def base(new_lake: NewLake) -> Lake:
    lake = new_lake()
    for number in range(3):
        write(lake, "trades", trades(50, first=number * 50, start=T0 + number * DAY))
    return lake


@settings(max_examples=60)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7), kind=st.sampled_from(["data", "log"]))
def test_any_flipped_bit_is_found(base: Lake, place: int, bit: int, kind: str) -> None:
    table = base.root.tables / "trades"
    file = data_file(base, 1) if kind == "data" else locate_log_file(table, 1 + place % 3)
    content = file.read_bytes()
    flip(file, place, bit)
    try:
        problems = base.maintenance.verify("trades").problems
    finally:
        file.write_bytes(content)
    rows = problems.select("path", "kind").rows()
    assert rows[0] == (str(file.relative_to(table)), "damaged")
    assert kind == "log" or len(rows) == 1  # another path in the log names a missing file
    assert base.maintenance.verify("trades").is_intact


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "damaged"),
    "missing": (lambda path: path.unlink(), "missing"),
}


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_found_also_without_a_record(
    filled: Lake, name: str, recorded: bool
) -> None:
    if not recorded:
        for record in checksums.list_records(filled.root.tables / "trades"):
            record.path.unlink()
    change, kind = DAMAGES[name]
    change(data_file(filled, 1))
    result = filled.maintenance.verify("trades")
    assert not result.is_intact
    assert result.problems["kind"].to_list() == [kind]
    assert result.tables["unrecorded"].item() == (0 if recorded else 2)


def test_a_damaged_log_is_found_though_the_table_cannot_be_opened(filled: Lake) -> None:
    file = locate_log_file(filled.root.tables / "trades", 3)
    file.write_bytes(b"")
    result = filled.maintenance.verify("trades")
    assert result.problems["path"].to_list() == [f"_delta_log/{file.name}"]
    assert result.tables["version"].item() is None


def test_a_damaged_record_is_a_problem(filled: Lake) -> None:
    record = checksums.list_records(filled.root.tables / "trades")[2].path
    flip(record, 100)
    result = filled.maintenance.verify("trades")
    assert result.problems["path"].to_list() == [f"_checksums/{record.name}"]
    assert result.tables["unrecorded"].item() == 1


def test_files_of_another_engine_are_unrecorded_and_no_problem(filled: Lake) -> None:
    rows = filled.scan("trades").collect().head(1).with_columns(trade_id=pl.lit("x"))
    write_deltalake(filled.root.tables / "trades", rows, mode="append")
    write(filled, "trades", trades(1, first=500))
    result = filled.maintenance.verify("trades")
    assert result.is_intact
    assert result.files["kind"].to_list() == ["unrecorded"]


def test_compacted_and_vacuumed_tables_are_verified(filled: Lake, tmp_path: Path) -> None:
    write(filled, "trades", trades(50, first=500))
    filled.maintenance.optimize("trades")
    assert filled.maintenance.verify("trades").tables["unrecorded"].item() == 0
    copied = copy_lake(filled, tmp_path / "copy")
    assert copied.maintenance.verify("trades").tables["unrecorded"].item() == 0


@pytest.mark.parametrize("names", [(), ("trades",)])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_table_whose_whole_log_is_gone_is_found(
    filled: Lake, recorded: bool, names: tuple[str, ...]
) -> None:
    folder = filled.root.tables / "trades"
    commits = sorted(folder.joinpath("_delta_log").iterdir())
    for file in commits:
        file.unlink()
    if not recorded:
        for record in checksums.list_records(folder):
            record.path.unlink()
    problems = Lake(filled.settings).maintenance.verify(names).problems
    assert set(problems["table"]) == {"trades"}
    assert set(problems["kind"]) == {"missing"}
    expected = [f"_delta_log/{file.name}" for file in commits] if recorded else ["_delta_log/"]
    assert problems["path"].to_list() == expected
