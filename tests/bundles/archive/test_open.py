"""Opening an export by its path: unpacked into the cache, or into a temporary folder."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import lake as api
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.bundles.contents import Contents
from lake.bundles.manifest import ListPart
from lake.errors import (
    DamagedError,
    UnknownNameError,
)
from lake.store import index
from tests import processes
from tests.conftest import NewLake, trades, write


def test_a_missing_path_is_an_error(tmp_path: Path, new_lake: NewLake) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: api.open_bundle(tmp_path / "b.tar.zst"),
        lambda: api.open_bundle(str(tmp_path / "b.tar.zst")),
        lambda: api.open_bundle(Path("b")),
        lambda: new_lake().bundles.import_(tmp_path / "b.tar.zst"),
    ]
    for attempt in attempts:
        with pytest.raises(UnknownNameError, match="does not exist"):
            attempt()


def test_text_is_a_path_where_it_names_an_export(
    lake: Lake, small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, "trades", trades(9))
    lake.bundles.pin("export", table="trades")
    lake.bundles.pin("x.tar.zst", table="trades")
    small.export(tmp_path / "export")
    small.export(tmp_path / "b.tar.zst")
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAKE_URI", str(lake.root.path))
    assert api.open_bundle("export").id == small.id
    assert api.open_bundle("b.tar.zst").id == small.id
    assert api.open_bundle("export", lake.root.path).id != small.id
    assert api.open_bundle("x.tar.zst").id != small.id
    assert not api.open_bundle("small").contents.owns_data, "a folder, but no export"


def test_an_archive_is_unpacked_once(small: Bundle, tmp_path: Path, own_cache: Path) -> None:
    path = small.export(tmp_path / "b.tar.zst")
    first = api.open_bundle(path)
    (folder,) = own_cache.iterdir()
    assert first.contents.folder == folder
    stamps = {file: file.stat().st_ctime_ns for file in folder.rglob("*")}
    assert api.open_bundle(path).contents.folder == folder
    assert {file: file.stat().st_ctime_ns for file in folder.rglob("*")} == stamps
    next(folder.glob("data/*/*/*/*/*")).unlink()
    assert api.open_bundle(path).verify() == [], "parts of a cache may be cleared away"
    (folder / "manifest.json").write_bytes(b"")
    assert api.open_bundle(path).verify() == []
    assert list(own_cache.iterdir()) == [folder]


def test_an_archive_that_was_replaced_is_another(
    lake: Lake, small: Bundle, tmp_path: Path, own_cache: Path
) -> None:
    del own_cache
    path = small.export(tmp_path / "b.tar.zst")
    api.open_bundle(path)
    write(lake, "trades", trades(9))
    path.unlink()
    other = lake.bundles.pin("other", table="trades")
    other.export(path)
    assert api.open_bundle(path).id == other.id


def test_an_archive_that_was_damaged_since_it_was_unpacked_is_refused(
    small: Bundle, tmp_path: Path, own_cache: Path
) -> None:
    path = small.export(tmp_path / "b.tar.zst")
    api.open_bundle(path)
    time_ns = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(time_ns + 1000, time_ns + 1000))
    with pytest.raises(DamagedError):
        api.open_bundle(path)
    assert len(list(own_cache.iterdir())) == 1


def _use_cache(folder: str) -> None:
    os.environ["XDG_CACHE_HOME"] = folder


def _open(path: str) -> str:
    return api.open_bundle(path).id


@pytest.mark.usefixtures("own_cache")
def test_several_processes_open_an_archive_at_once(bundle: Bundle, tmp_path: Path) -> None:
    path = str(bundle.export(tmp_path / "b.tar.zst"))
    with processes.CONTEXT.Pool(3, _use_cache, (os.environ["XDG_CACHE_HOME"],)) as pool:
        assert pool.map(_open, [path] * 6) == [bundle.id] * 6


def test_without_a_cache_the_unpacked_folder_lives_as_long_as_its_readers(
    small: Bundle, tmp_path: Path, own_cache: Path
) -> None:
    path = small.export(tmp_path / "b.tar.zst")
    temporary = tmp_path / "temporary"
    expected = small.scan("trades").collect()
    lazy = api.open_bundle(path, cache=False).scan("trades")
    relation = api.open_bundle(path, cache=False).sql("SELECT * FROM trades")
    gc.collect()
    assert len(list(temporary.iterdir())) == 2
    assert_frame_equal(lazy.collect(), expected)
    assert relation.filter("price > 0").pl().height == expected.height
    del lazy, relation
    gc.collect()
    assert list(temporary.iterdir()) == []
    assert not own_cache.exists()


def test_a_disabled_cache_is_not_used(
    small: Bundle, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKE_CACHE__ENABLED", "false")
    opened = api.open_bundle(small.export(tmp_path / "b.tar.zst"))
    assert opened.scan("trades").collect().height == 4
    assert not own_cache.exists()


def _link_file(folder: Path, secret: Path) -> None:
    path = next(iter((folder / "data").rglob("*.parquet")))
    secret.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(secret)


def _link_folder(folder: Path, secret: Path) -> None:
    path = folder / "data" / "trades"
    path.rename(secret)
    path.symlink_to(secret)


def _link_data(folder: Path, secret: Path) -> None:
    (folder / "data").rename(secret)
    (folder / "data").symlink_to(secret)


def _name_a_file_outside(folder: Path, secret: Path) -> None:
    """Seal an index again whose first file is a copy outside of the folder."""
    contents = Contents.open(folder)
    listed = contents.files.read_all()
    first = folder / "data" / listed["table"][0] / listed["path"][0]
    first.rename(secret)
    outside = os.path.relpath(secret, folder / "data" / listed["table"][0])
    forged = listed.with_columns(
        path=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(outside)).otherwise("path")
    )
    (folder / "files.parquet").unlink()
    part = ListPart(**asdict(index.write_sealed(folder / "files.parquet", forged)))
    beside = contents.manifest.beside.model_copy(update={"files": part})
    manifest = contents.manifest.model_copy(update={"beside": beside}).seal()
    (folder / "manifest.json").write_bytes(manifest.to_json())


@pytest.mark.parametrize("lead", [_link_file, _link_folder, _link_data, _name_a_file_outside])
def test_a_folder_that_leads_outside_gives_no_rows(
    small: Bundle,
    tmp_path: Path,
    new_lake: NewLake,
    lead: Callable[[Path, Path], None],
) -> None:
    """The file outside has the right bytes: what is refused is the way to it."""
    folder = small.export(tmp_path / "b")
    lead(folder, tmp_path / "outside")
    bundle = api.open_bundle(folder, cache=False)
    with pytest.raises(DamagedError, match="differ from the pinned files"):
        bundle.scan("trades").collect()
    with pytest.raises(DamagedError, match="differ from the pinned files"):
        bundle.sql("SELECT * FROM trades")
    assert bundle.verify()
    with pytest.raises(DamagedError):
        new_lake().bundles.import_(folder)


@pytest.mark.parametrize("name", ["manifest.json", "files.parquet", "days.parquet"])
def test_a_list_that_is_a_link_is_refused(
    small: Bundle, tmp_path: Path, new_lake: NewLake, name: str
) -> None:
    folder = small.export(tmp_path / "b")
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    for attempt in (api.open_bundle, new_lake().bundles.import_):
        with pytest.raises(DamagedError, match=f"{name} is a link, or no file"):
            attempt(folder)


def test_a_bundle_may_be_reached_by_a_link(small: Bundle, tmp_path: Path) -> None:
    small.export(tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    rows = api.open_bundle(tmp_path / "link", cache=False).scan("trades").collect()
    assert_frame_equal(rows, small.scan("trades").collect())
