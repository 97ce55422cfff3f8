"""Exports: the same bytes, id and rows, without the lake."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

import lake as api
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import (
    DamagedError,
    UsageError,
)
from tests.bundles.archive.conftest import Steps, assert_reads, content, decompress, frames, left
from tests.conftest import NewLake


@pytest.mark.parametrize("name", ["b.tar.zst", "b"])
def test_an_export_opens_with_the_lake_gone(
    lake: Lake, bundle: Bundle, tmp_path: Path, name: str
) -> None:
    expected = frames(bundle)
    path = bundle.export(tmp_path / name)
    assert path == tmp_path / name
    shutil.rmtree(lake.root.path)
    for cache in (True, False):
        for reference in (path, str(path)):
            opened = api.open_bundle(reference, cache=cache)
            assert opened.id == bundle.id
            assert opened.verify(deep=True) == []
            assert_reads(opened, expected)


@pytest.mark.parametrize("name", ["b.tar.zst", "b"])
def test_an_export_of_one_lake_is_imported_by_another(
    lake: Lake, bundle: Bundle, new_lake: NewLake, tmp_path: Path, name: str
) -> None:
    expected = frames(bundle)
    path = bundle.export(tmp_path / name)
    shutil.rmtree(lake.root.path)
    other = new_lake()
    imported = other.bundles.import_(path, name="theirs")
    assert imported.id == bundle.id
    assert other.bundles.open("theirs").verify(deep=True) == []
    assert_reads(other.bundles.open("theirs"), expected)
    assert other.bundles.ls()["name"].to_list() == ["theirs"]
    assert left(other) == sorted([bundle.id, "names"])


def test_the_same_bundle_gives_the_same_bytes(
    bundle: Bundle, new_lake: NewLake, tmp_path: Path
) -> None:
    first = bundle.export(tmp_path / "first.tar.zst")
    second = bundle.export(tmp_path / "second.tar.zst")
    assert first.read_bytes() == second.read_bytes()
    imported = new_lake().bundles.import_(first)
    assert imported.export(tmp_path / "third.tar.zst").read_bytes() == first.read_bytes()
    from_folder = api.open_bundle(bundle.export(tmp_path / "folder"))
    assert from_folder.export(tmp_path / "fourth.tar.zst").read_bytes() == first.read_bytes()
    again = imported.export(tmp_path / "again")
    assert content(again) == content(tmp_path / "folder")
    assert all(path.name[0] != "." for path in tmp_path.iterdir())


def test_an_archive_is_a_tar_without_times_and_owners(bundle: Bundle, tmp_path: Path) -> None:
    packed = bundle.export(tmp_path / "b.tar.zst").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(decompress(packed))) as tar:
        members = tar.getmembers()
    names = [member.name.removeprefix(f"{bundle.id}/") for member in members]
    listed = [
        f"data/{t}/{p}" for t, p in bundle.contents.files.read_all()["table", "path"].iter_rows()
    ]
    assert names == ["manifest.json", "files.parquet", "days.parquet", "quality.json", *listed]
    facts = {(m.mtime, m.mode, m.uid, m.gid, m.uname, m.gname, m.type) for m in members}
    assert facts == {(0, 0o644, 0, 0, "", "", tarfile.REGTYPE)}


def test_an_exported_folder_holds_the_files_as_they_are_in_the_lake(
    lake: Lake, bundle: Bundle, tmp_path: Path
) -> None:
    exported = content(bundle.export(tmp_path / "b"))
    own = content(lake.root.bundles / bundle.id)
    assert {name: exported.pop(name) for name in own} == own
    pinned = {
        f"data/{table}/{path}": (lake.root.tables / table / path).read_bytes()
        for table, path in bundle.contents.files.read_all()["table", "path"].iter_rows()
    }
    assert exported == pinned


def test_progress_is_reported(bundle: Bundle, new_lake: NewLake, tmp_path: Path) -> None:
    count = bundle.contents.files.read_all().height
    lake = new_lake()
    for work, what in (
        (lambda progress: bundle.export(tmp_path / "b.tar.zst", progress=progress), "exporting"),
        (
            lambda progress: lake.bundles.import_(tmp_path / "b.tar.zst", progress=progress),
            "importing",
        ),
    ):
        progress = Steps()
        work(progress)
        (step, total), end = progress.said[:2]
        assert (step.split()[0], total, end) == (what, count, ("end", count))
        assert all(step.startswith(("reading", "end")) for step, _ in progress.said[2:])


@pytest.mark.parametrize("name", ["b.tar.zst", "b"])
def test_nothing_is_overwritten(small: Bundle, tmp_path: Path, name: str) -> None:
    path = small.export(tmp_path / name)
    before = path.read_bytes() if path.is_file() else content(path)
    with pytest.raises(UsageError, match="already exists"):
        small.export(path)
    assert before == (path.read_bytes() if path.is_file() else content(path))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"mine")
    for taken in ("link", "file"):
        with pytest.raises(UsageError, match="already exists"):
            small.export(tmp_path / taken)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_an_empty_folder_is_filled(small: Bundle, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert api.open_bundle(small.export(tmp_path / "empty")).verify() == []


@pytest.mark.parametrize("name", ["b.zip", "b.tar", "b.tar.gz", "b.zst", "nowhere/b.tar.zst"])
def test_a_target_that_cannot_be_is_refused(small: Bundle, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=name.partition("/")[0]):
        small.export(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["b.tar.zst", "b"])
@pytest.mark.parametrize("change", ["flip", "longer", "shorter", "missing"])
def test_a_damaged_file_is_not_exported(
    lake: Lake, small: Bundle, tmp_path: Path, name: str, change: str
) -> None:
    path = lake.root.tables / "trades" / small.contents.files.read_all()["path"][-1]
    original = path.read_bytes()
    path.unlink()
    match change:
        case "flip":
            path.write_bytes(original[:99] + bytes([original[99] ^ 1]) + original[100:])
        case "longer":
            path.write_bytes(original + b"x")
        case "shorter":
            path.write_bytes(original[:-1])
    with pytest.raises(DamagedError, match=path.name):
        small.export(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_remains_of_a_killed_export_are_replaced(small: Bundle, tmp_path: Path) -> None:
    (tmp_path / ".b.tar.zst.unfinished").write_bytes(b"half" * 100_000)
    (tmp_path / ".b.unfinished" / "data").mkdir(parents=True)
    (tmp_path / ".b.unfinished" / "data" / "half").write_bytes(b"half")
    clean = small.export(tmp_path / "clean.tar.zst")
    assert small.export(tmp_path / "b.tar.zst").read_bytes() == clean.read_bytes()
    assert api.open_bundle(small.export(tmp_path / "b")).verify() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "b.tar.zst", "clean.tar.zst"]
