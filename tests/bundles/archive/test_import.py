"""Imports into a lake that already has the bundle, a part of it, or its name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import (
    UsageError,
)
from tests.bundles.archive.conftest import (
    CHANGES,
    Steps,
    assert_reads,
    assert_refused,
    change_members,
    content,
    damage_folder,
    frames,
    left,
)
from tests.conftest import NewLake, trades, write


def test_an_existing_bundle_is_not_changed(lake: Lake, small: Bundle, tmp_path: Path) -> None:
    path = small.export(tmp_path / "b.tar.zst")
    before = content(lake.root.bundles / small.id)
    progress = Steps()
    imported = lake.bundles.import_(path, name="second", progress=progress)
    assert not imported.contents.owns_data
    assert content(lake.root.bundles / small.id) == before
    size = small.contents.files.read_all()["bytes"].sum()
    assert (f"checking {size / 1000:,.1f} kB", 2) in progress.said
    assert lake.bundles.ls()["name"].to_list() == ["second, small"]


@pytest.mark.usefixtures("small")
def test_an_archive_is_verified_even_if_its_bundle_exists(
    lake: Lake, packed: bytes, tmp_path: Path, own_cache: Path
) -> None:
    del own_cache
    path = tmp_path / "spoiled.tar.zst"
    path.write_bytes(change_members(packed, CHANGES["other content"]))
    assert "differs from the pinned file" in assert_refused(lake, path)


def test_an_import_heals_a_damaged_bundle(
    lake: Lake, small: Bundle, new_lake: NewLake, tmp_path: Path
) -> None:
    expected = frames(small)
    path = small.export(tmp_path / "b.tar.zst")
    other = new_lake()
    other.bundles.import_(path, name="b")
    for damage in ("flip", "no manifest", "list", "stranger"):
        damage_folder(other.root.bundles / small.id, damage)
        healed = other.bundles.import_(path)
        assert healed.verify(deep=True) == []
        assert_reads(other.bundles.open("b"), expected)
        assert left(other) == sorted([small.id, "names"])
    shutil.rmtree(lake.root.tables / "trades")
    assert lake.bundles.open("small").verify() != []
    assert lake.bundles.import_(path).verify(deep=True) == []
    assert lake.bundles.open("small").contents.owns_data


def test_names_are_those_of_a_pin(
    lake: Lake, small: Bundle, new_lake: NewLake, tmp_path: Path
) -> None:
    path = small.export(tmp_path / "b.tar.zst")
    write(lake, "trades", trades(9))
    later = lake.bundles.pin("later", table="trades").export(tmp_path / "later.tar.zst")
    other = new_lake()
    unnamed = other.bundles.import_(path)
    assert other.bundles.open(unnamed.id[:8]).id == small.id
    assert other.bundles.ls()["name"].to_list() == [None]
    other.bundles.import_(path, name="b")
    before = left(other)
    with pytest.raises(UsageError, match="b exists already"):
        other.bundles.import_(later, name="b")
    with pytest.raises(UsageError, match="cannot name a bundle"):
        other.bundles.import_(later, name="../evil")
    assert left(other) == before
    moved = other.bundles.import_(later, name="b", move=True)
    assert other.bundles.open("b").id == moved.id != small.id
    assert other.bundles.open(f"b@{small.id[:8]}").id == small.id


def test_an_imported_bundle_can_be_removed(
    small: Bundle, new_lake: NewLake, tmp_path: Path
) -> None:
    other = new_lake()
    other.bundles.import_(small.export(tmp_path / "b.tar.zst"), name="b")
    assert other.bundles.rm("b") == (small.id, ["b"])
    assert left(other) == [".known.lock", "names"]
