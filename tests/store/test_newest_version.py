"""The newest version is found from the last checkpoint on, whatever is missing in the log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lake.store.log import find_newest_entry, list_newest_entry, locate_log_file


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A log with the versions 0 to 130, and a checkpoint at 99."""
    (tmp_path / "_delta_log").mkdir()
    for version in range(131):
        locate_log_file(tmp_path, version).write_text("{}\n")
    name_last_checkpoint(tmp_path, json.dumps({"version": 99, "size": 1}))
    return tmp_path


def name_last_checkpoint(table: Path, text: str) -> None:
    (table / "_delta_log" / "_last_checkpoint").write_text(text)


def refuse_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("the log was listed")

    monkeypatch.setattr(os, "scandir", refuse)


def test_the_log_is_not_listed(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_listing(monkeypatch)
    assert find_newest_entry(table) == 130


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"version": "99"}', '{"version": 131}', '{"version": -1}']
)
def test_a_damaged_or_wrong_name_of_the_checkpoint_costs_a_listing(table: Path, text: str) -> None:
    name_last_checkpoint(table, text)
    assert find_newest_entry(table) == 130


def test_without_a_checkpoint_the_log_is_listed(table: Path) -> None:
    (table / "_delta_log" / "_last_checkpoint").unlink()
    assert find_newest_entry(table) == 130


@pytest.mark.parametrize("vanished", [[99], [100], [128], [127, 128, 129], range(99, 128)])
def test_entries_that_vanished_hide_no_later_ones(table: Path, vanished: list[int]) -> None:
    for version in vanished:
        locate_log_file(table, version).unlink()
    assert find_newest_entry(table) == list_newest_entry(table) == 130


def test_entries_that_vanished_from_the_end_are_not_counted(table: Path) -> None:
    for version in range(60, 131):
        locate_log_file(table, version).unlink()
    assert find_newest_entry(table) == 59


def test_other_files_in_the_log_are_no_entries(table: Path) -> None:
    (table / "_delta_log" / "_last_checkpoint").unlink()
    for name in (f"{200:020}.checkpoint.parquet", f"{201:020}.crc", f".{202:020}.json.tmp", "x"):
        (table / "_delta_log" / name).touch()
    assert find_newest_entry(table) == 130


def test_a_folder_without_a_log_has_no_version(tmp_path: Path) -> None:
    assert find_newest_entry(tmp_path) == find_newest_entry(tmp_path / "none") == -1
