"""Exports: the same bytes, the same id, the same rows, without the lake; or a clear refusal."""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import lake as api
from lake.api import Lake
from lake.bundles.archive.transfer import aside, settle
from lake.bundles.bundle import Bundle
from lake.bundles.manifest import ListPart
from lake.errors import (
    ConfigError,
    DamagedError,
    LakeError,
    StorageError,
    UnknownNameError,
    UsageError,
)
from lake.settings import Settings
from lake.store import index
from tests.conftest import DAY, MINUTE, NewLake, bars, trades, write
from tests.store.test_storage_faults import DISK_BYTES, disk, fill

__all__ = ["disk"]  # a fixture

TABLES = ("trades", "bars_1m")
# Encoded on disk, longer than a tar header holds, beyond ASCII.
SYMBOLS = ("BTC/USDT", "ÄÖÜ 100%:x/USDT", "L" * 150 + "/USDT")


class Steps:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.said: list[tuple[str, float]] = []
        self.done: float = 0

    def begin(self, what: str, total: float) -> None:
        self.said.append((what, total))

    def advance(self, count: float = 1, **_: object) -> None:
        self.done += count

    def end(self, _outcome: object | None = None, /) -> None:
        self.said.append(("end", self.done))


@pytest.fixture
def bundle(lake: Lake) -> Bundle:
    """Trades and bars of three symbols over some days."""
    for symbol in SYMBOLS:
        write(lake, "trades", trades(6, step=DAY / 2, symbol=symbol))
        write(lake, "bars_1m", bars(100, step=20 * MINUTE, symbol=symbol))
    return lake.pin("b", TABLES)


@pytest.fixture
def small(lake: Lake) -> Bundle:
    """Two data files."""
    write(lake, "trades", trades(4, step=DAY / 2))
    return lake.pin("small", "trades")


def frames(bundle: Bundle) -> dict[str, pl.DataFrame]:
    return {table: bundle.scan(table).collect() for table in bundle.tables}


def assert_reads(bundle: Bundle, expected: dict[str, pl.DataFrame]) -> None:
    for table, frame in expected.items():
        assert_frame_equal(bundle.scan(table).collect(), frame)
        order = ["exchange", "symbol", *bundle.dataset(table).sort]
        sql = bundle.sql("SELECT * FROM query_table(?)", [table]).pl()
        assert_frame_equal(sql.sort(order), frame)


def left(lake: Lake) -> list[str]:
    """What is in the folder of bundles, beside the lock."""
    return sorted(path.name for path in lake.root.bundles.iterdir() if path.name != ".lock")


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


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
    imported = other.import_bundle(path, "theirs")
    assert imported.id == bundle.id
    assert other.bundle("theirs").verify(deep=True) == []
    assert_reads(other.bundle("theirs"), expected)
    assert other.bundles()["name"].to_list() == ["theirs"]
    assert left(other) == sorted([bundle.id, "names"])


def test_the_same_bundle_gives_the_same_bytes(
    bundle: Bundle, new_lake: NewLake, tmp_path: Path
) -> None:
    first = bundle.export(tmp_path / "first.tar.zst")
    second = bundle.export(tmp_path / "second.tar.zst")
    assert first.read_bytes() == second.read_bytes()
    imported = new_lake().import_bundle(first)
    assert imported.export(tmp_path / "third.tar.zst").read_bytes() == first.read_bytes()
    from_folder = api.open_bundle(bundle.export(tmp_path / "folder"))
    assert from_folder.export(tmp_path / "fourth.tar.zst").read_bytes() == first.read_bytes()
    again = imported.export(tmp_path / "again")
    assert content(again) == content(tmp_path / "folder")
    assert all(path.name[0] != "." for path in tmp_path.iterdir())


def test_an_archive_is_a_tar_without_times_and_owners(bundle: Bundle, tmp_path: Path) -> None:
    packed = bundle.export(tmp_path / "b.tar.zst").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(unpacked(packed))) as tar:
        members = tar.getmembers()
    names = [member.name.removeprefix(f"{bundle.id}/") for member in members]
    listed = [f"data/{t}/{p}" for t, p in bundle.contents.files.all()["table", "path"].iter_rows()]
    assert names == ["manifest.json", "files.parquet", "days.parquet", "quality.json", *listed]
    facts = {(m.mtime, m.mode, m.uid, m.gid, m.uname, m.gname, m.type) for m in members}
    assert facts == {(0, 0o644, 0, 0, "", "", tarfile.REGTYPE)}


def test_an_exported_folder_holds_the_files_as_they_are_in_the_lake(
    lake: Lake, bundle: Bundle, tmp_path: Path
) -> None:
    found = content(bundle.export(tmp_path / "b"))
    own = content(lake.root.bundles / bundle.id)
    assert {name: found.pop(name) for name in own} == own
    pinned = {
        f"data/{table}/{path}": (lake.root.tables / table / path).read_bytes()
        for table, path in bundle.contents.files.all()["table", "path"].iter_rows()
    }
    assert found == pinned


def test_how_far_it_is_is_told(bundle: Bundle, new_lake: NewLake, tmp_path: Path) -> None:
    count = bundle.contents.files.all().height
    lake = new_lake()
    for work, what in (
        (lambda progress: bundle.export(tmp_path / "b.tar.zst", progress=progress), "exporting"),
        (
            lambda progress: lake.import_bundle(tmp_path / "b.tar.zst", progress=progress),
            "importing",
        ),
    ):
        progress = Steps()
        work(progress)
        assert progress.said == [(what, count), ("end", count)]


@pytest.mark.parametrize("name", ["b.tar.zst", "b"])
def test_nothing_is_overwritten(small: Bundle, tmp_path: Path, name: str) -> None:
    path = small.export(tmp_path / name)
    before = path.read_bytes() if path.is_file() else content(path)
    with pytest.raises(UsageError, match="exists already"):
        small.export(path)
    assert before == (path.read_bytes() if path.is_file() else content(path))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"mine")
    for taken in ("link", "file"):
        with pytest.raises(UsageError, match="exists already"):
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
    path = lake.root.tables / "trades" / small.contents.files.all()["path"][-1]
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


def test_what_a_killed_export_left_is_replaced(small: Bundle, tmp_path: Path) -> None:
    (tmp_path / ".b.tar.zst.unfinished").write_bytes(b"half" * 100_000)
    (tmp_path / ".b.unfinished" / "data").mkdir(parents=True)
    (tmp_path / ".b.unfinished" / "data" / "half").write_bytes(b"half")
    clean = small.export(tmp_path / "clean.tar.zst")
    assert small.export(tmp_path / "b.tar.zst").read_bytes() == clean.read_bytes()
    assert api.open_bundle(small.export(tmp_path / "b")).verify() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "b.tar.zst", "clean.tar.zst"]


# Refusals


@pytest.fixture
def packed(small: Bundle, tmp_path: Path) -> bytes:
    return small.export(tmp_path / "whole.tar.zst").read_bytes()


def unpacked(packed: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(packed)


def repacked(tar: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(tar)


Parts = list[tuple[tarfile.TarInfo, bytes]]


def changed(packed: bytes, change: Callable[[Parts], object]) -> bytes:
    """An archive whose members are others."""
    with tarfile.open(fileobj=io.BytesIO(unpacked(packed))) as tar:
        members = tar.getmembers()
        parts = [(member, reader(tar, member).read()) for member in members]
    change(parts)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in parts:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data))
    return repacked(target.getvalue())


def reader(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    found = tar.extractfile(member)
    assert found is not None
    return found


def refused(lake: Lake, path: Path, error: type[LakeError] = DamagedError) -> str:
    """What an import says; nothing of it must be left, and opening it is refused as well."""
    before = left(lake)
    with pytest.raises(error) as caught:
        lake.import_bundle(path, "bad")
    assert left(lake) == before
    for cache in (True, False):
        with pytest.raises(error):
            api.open_bundle(path, cache=cache)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders for what is unpacked, which a refusal leaves empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache" / "lake" / "unpacked"


@pytest.fixture
def spoiled(
    packed: bytes, new_lake: NewLake, tmp_path: Path, own_cache: Path
) -> Iterator[Callable[[bytes], str]]:
    """What is said of an archive of such bytes, which is never taken."""
    other = new_lake()
    path = tmp_path / "spoiled.tar.zst"

    def refusal(content: bytes) -> str:
        assert content != packed
        path.write_bytes(content)
        return refused(other, path)

    yield refusal
    assert left(other) == []
    assert list(own_cache.glob("*")) == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_archive_with_a_flipped_byte_is_refused(
    packed: bytes, spoiled: Callable[[bytes], str]
) -> None:
    refusals = 0
    for position in [*range(0, len(packed), len(packed) // 40), *range(-6, 0)]:
        there = position % len(packed)
        flipped = packed[:there] + bytes([packed[there] ^ 4]) + packed[there + 1 :]
        if not unpacks_to_the_same(flipped, packed):
            spoiled(flipped)
            refusals += 1
    assert refusals > 40


def unpacks_to_the_same(one: bytes, other: bytes) -> bool:
    """Zeros may be copied from here or from there, so that some bits do not matter."""
    try:
        frame = zstandard.ZstdDecompressor().decompressobj()
        return frame.decompress(one) == unpacked(other) and frame.eof and not frame.unused_data
    except zstandard.ZstdError:
        return False


def test_an_archive_cut_short_is_refused(packed: bytes, spoiled: Callable[[bytes], str]) -> None:
    lengths = {0, 1, 4, 5, 100, *range(0, len(packed), len(packed) // 40)}
    for length in [*lengths, *range(len(packed) - 12, len(packed))]:
        assert "damaged" in spoiled(packed[:length])


def test_an_archive_with_something_after_it_is_refused(
    packed: bytes, spoiled: Callable[[bytes], str]
) -> None:
    for more in (b"\0", b"garbage", packed, repacked(b"x"), b"\0" * 5000):
        assert "follows its end" in spoiled(packed + more)
    tar = unpacked(packed)
    assert "more than the bundle" in spoiled(repacked(tar + b"x"))
    assert "more than the bundle" in spoiled(repacked(tar + bytes(5_000_000)))


def a_member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


def swap(parts: Parts) -> None:
    parts[-1], parts[-2] = parts[-2], parts[-1]


def swap_contents(parts: Parts) -> None:
    (one, first), (two, second) = parts[-1], parts[-2]
    parts[-2:] = [(two, first), (one, second)]


def rename(number: int, name: Callable[[str], str]) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts[number][0].name = name(parts[number][0].name)
        parts[number][0].pax_headers = {}

    return change


def retype(number: int, kind: bytes, target: str) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts[number] = (a_member(parts[number][0].name, kind, target), b"")

    return change


def edited(old: bytes, new: bytes) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        assert old in parts[0][1]
        parts[0] = (parts[0][0], parts[0][1].replace(old, new, 1))

    return change


def elsewhere(name: str) -> str:
    return "0" * 64 + name[64:]


CHANGES: dict[str, Callable[[Parts], object]] = {
    "two members swapped": swap,
    "two contents swapped": swap_contents,
    "manifest last": lambda parts: parts.append(parts.pop(0)),
    "a member too many": lambda parts: parts.append((a_member("more"), b"x")),
    "a member in between": lambda parts: parts.insert(3, (a_member("more"), b"x")),
    "a member twice": lambda parts: parts.append(parts[-1]),
    "a folder in between": lambda parts: parts.insert(3, (a_member("more", tarfile.DIRTYPE), b"")),
    "the last member missing": lambda parts: parts.pop(),
    "a list missing": lambda parts: parts.pop(1),
    "the manifest missing": lambda parts: parts.pop(0),
    "nothing": lambda parts: parts.clear(),
    "a way out": rename(-1, lambda _: "../evil"),
    "a way out at the start": rename(0, lambda _: "../manifest.json"),
    "a way out below": rename(-1, lambda name: name.replace("/data/", "/data/../../")),
    "an absolute path": rename(-1, lambda _: "/tmp/evil"),  # noqa: S108
    "another folder": rename(-1, elsewhere),
    "another folder for all": lambda parts: [rename(n, elsewhere)(parts) for n in range(5)],
    "a symbolic link": retype(-1, tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": retype(-1, tarfile.LNKTYPE, "/etc/passwd"),
    "a device": retype(-1, tarfile.CHRTYPE, ""),
    "a pipe": retype(-1, tarfile.FIFOTYPE, ""),
    "a manifest that is a link": retype(0, tarfile.SYMTYPE, "/etc/passwd"),
    "an empty manifest": lambda parts: parts.__setitem__(0, (parts[0][0], b"")),
    "an edited manifest": edited(b'"rows": 4', b'"rows": 5'),
    "an edited digest": edited(b'"digest": "', b'"digest": "0'),
    "content cut short": lambda parts: parts.__setitem__(-1, (parts[-1][0], parts[-1][1][:-1])),
    "content longer": lambda parts: parts.__setitem__(-1, (parts[-1][0], parts[-1][1] + b"x")),
    "a list cut short": lambda parts: parts.__setitem__(1, (parts[1][0], parts[1][1][:-1])),
    "other content": lambda parts: parts.__setitem__(-1, (parts[-1][0], parts[-1][1][::-1])),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_archive_with_other_members_is_refused(
    packed: bytes, spoiled: Callable[[bytes], str], name: str
) -> None:
    spoiled(changed(packed, CHANGES[name]))


def test_a_link_that_claims_to_have_the_content_is_refused(
    packed: bytes, spoiled: Callable[[bytes], str]
) -> None:
    tar = unpacked(packed)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        last = archive.getmembers()[-1]
    start = last.offset_data - tarfile.BLOCKSIZE
    last.type = tarfile.SYMTYPE
    last.name = "x" * 90  # that of a long path is in a header before
    header = last.tobuf(tarfile.USTAR_FORMAT)
    assert "belongs" in spoiled(repacked(tar[:start] + header + tar[start + len(header) :]))


def test_an_archive_that_was_packed_by_another_tar_is_taken(
    packed: bytes, new_lake: NewLake, tmp_path: Path
) -> None:
    def own(parts: Parts) -> None:
        for member, _ in parts:
            member.mtime, member.uname, member.mode = 1_700_000_000, "somebody", 0o600

    path = tmp_path / "own.tar.zst"
    path.write_bytes(changed(packed, own))
    assert path.read_bytes() != packed
    assert new_lake().import_bundle(path).verify() == []


@settings(max_examples=60)
@given(content=st.binary(max_size=3000), pack=st.booleans())
def test_any_other_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, pack: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.tar.zst"
    path.write_bytes(repacked(content) if pack else content)
    with pytest.raises(DamagedError, match=r"any\.tar\.zst"):
        api.open_bundle(path, cache=False)


def test_an_archive_that_would_unpack_to_very_much_is_refused_at_once(
    spoiled: Callable[[bytes], str],
) -> None:
    member = tarfile.TarInfo(f"{'0' * 64}/manifest.json")
    member.size = 1 << 40
    spoiled(repacked(member.tobuf() + bytes(100_000_000)))
    spoiled(repacked(bytes(300_000_000)))
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    header = long_name.tobuf(tarfile.GNU_FORMAT)
    assert "headers" in spoiled(repacked(header + bytes(100_000_000)))


@pytest.mark.parametrize(
    "forge",
    [
        lambda rows: rows.with_columns(path=pl.lit("../../../evil")),
        lambda rows: rows.with_columns(path=pl.lit("/evil")),
        lambda rows: rows.with_columns(path=pl.lit("a//b")),
        lambda rows: rows.with_columns(path=pl.lit("a\0b")),
        lambda rows: rows.with_columns(table=pl.lit("..")),
        lambda rows: rows.with_columns(table=pl.lit("bars_1m")),
        lambda rows: pl.concat([rows, rows[:1]]),
        lambda rows: rows.with_columns(path=pl.lit(None, pl.String)),
    ],
)
def test_a_forged_index_that_is_sealed_again_leads_nowhere(
    small: Bundle, tmp_path: Path, new_lake: NewLake, forge: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    folder = small.export(tmp_path / "b")
    (folder / "files.parquet").unlink()
    sealed = index.write(folder / "files.parquet", forge(small.contents.files.all()[:1]))
    beside = small.manifest.beside.model_copy(update={"files": ListPart(**asdict(sealed))})
    manifest = small.manifest.model_copy(update={"beside": beside}).sealed()
    (folder / "manifest.json").write_bytes(manifest.to_json())
    other = new_lake()
    with pytest.raises(DamagedError, match="lists what cannot be in a bundle") as caught:
        other.import_bundle(folder)
    assert str(folder) in caught.value.message
    assert left(other) == []
    with pytest.raises(DamagedError, match="lists what cannot be in a bundle"):
        replace_contents(folder).export(tmp_path / "again")


def replace_contents(folder: Path) -> Bundle:
    """The bundle of a folder, as it is."""
    opened = api.open_bundle(folder, cache=False)
    return Bundle(replace(opened.contents))


def test_a_list_that_is_none_is_refused_though_it_is_sealed(
    small: Bundle, tmp_path: Path, new_lake: NewLake
) -> None:
    folder = small.export(tmp_path / "b")
    for frame in (pl.DataFrame({"x": [1]}), pl.DataFrame({"table": [["x"]]})):
        (folder / "files.parquet").unlink()
        sealed = index.write(folder / "files.parquet", frame)
        beside = small.manifest.beside.model_copy(update={"files": ListPart(**asdict(sealed))})
        manifest = small.manifest.model_copy(update={"beside": beside}).sealed()
        (folder / "manifest.json").write_bytes(manifest.to_json())
        other = new_lake()
        with pytest.raises(DamagedError, match="is no list of files"):
            other.import_bundle(folder)
        assert left(other) == []


def spoil_folder(folder: Path, change: str) -> None:
    data = max(folder.glob("data/*/*/*/*/*"))
    match change:
        case "flip":
            data.write_bytes(data.read_bytes()[::-1])
        case "missing":
            data.unlink()
        case "list":
            (folder / "days.parquet").write_bytes(b"x")
        case "list missing":
            (folder / "files.parquet").unlink()
        case "stranger":
            (folder / "data" / "stranger").write_bytes(b"x")
        case "dangling":
            (folder / "stranger").symlink_to("nowhere")
        case "manifest":
            text = (folder / "manifest.json").read_text()
            (folder / "manifest.json").write_text(text.replace('"note": ""', '"note": "x"'))
        case "no manifest":
            (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    "change",
    ["flip", "missing", "list", "list missing", "stranger", "dangling", "manifest", "no manifest"],
)
def test_a_damaged_folder_is_not_imported(
    small: Bundle, tmp_path: Path, new_lake: NewLake, change: str
) -> None:
    folder = small.export(tmp_path / "b")
    spoil_folder(folder, change)
    other = new_lake()
    with pytest.raises(DamagedError, match=str(folder)):
        other.import_bundle(folder)
    assert left(other) == []


def test_the_folder_of_a_lakes_own_bundle_is_no_export(
    lake: Lake, small: Bundle, new_lake: NewLake
) -> None:
    folder = lake.root.bundles / small.id
    for attempt in (new_lake().import_bundle, api.open_bundle):
        with pytest.raises(ConfigError, match="has a manifest, but no data"):
            attempt(folder)


def test_an_export_of_a_newer_format_is_not_read(
    small: Bundle, packed: bytes, new_lake: NewLake, tmp_path: Path
) -> None:
    del small
    path = tmp_path / "newer.tar.zst"
    path.write_bytes(changed(packed, edited(b'"format": 1', b'"format": 2')))
    with pytest.raises(ConfigError, match=r"newer\.tar\.zst.* has bundle format 2"):
        new_lake().import_bundle(path)


# What is in the lake already


def test_a_bundle_that_is_there_stays_as_it_is(lake: Lake, small: Bundle, tmp_path: Path) -> None:
    path = small.export(tmp_path / "b.tar.zst")
    before = content(lake.root.bundles / small.id)
    progress = Steps()
    imported = lake.import_bundle(path, "second", progress=progress)
    assert not imported.contents.owns_data
    assert content(lake.root.bundles / small.id) == before
    assert ("checking", 2) in progress.said
    assert lake.bundles()["name"].to_list() == ["second, small"]


@pytest.mark.usefixtures("small")
def test_an_archive_is_checked_though_its_bundle_is_there(
    lake: Lake, packed: bytes, tmp_path: Path, own_cache: Path
) -> None:
    del own_cache
    path = tmp_path / "spoiled.tar.zst"
    path.write_bytes(changed(packed, CHANGES["other content"]))
    assert "is not what was pinned" in refused(lake, path)


def test_an_import_heals_a_damaged_bundle(
    lake: Lake, small: Bundle, new_lake: NewLake, tmp_path: Path
) -> None:
    expected = frames(small)
    path = small.export(tmp_path / "b.tar.zst")
    other = new_lake()
    other.import_bundle(path, "b")
    for damage in ("flip", "no manifest", "list", "stranger"):
        spoil_folder(other.root.bundles / small.id, damage)
        healed = other.import_bundle(path)
        assert healed.verify(deep=True) == []
        assert_reads(other.bundle("b"), expected)
        assert left(other) == sorted([small.id, "names"])
    shutil.rmtree(lake.root.tables / "trades")
    assert lake.bundle("small").verify() != []
    assert lake.import_bundle(path).verify(deep=True) == []
    assert lake.bundle("small").contents.owns_data


def test_names_are_those_of_a_pin(
    lake: Lake, small: Bundle, new_lake: NewLake, tmp_path: Path
) -> None:
    path = small.export(tmp_path / "b.tar.zst")
    write(lake, "trades", trades(9))
    later = lake.pin("later", "trades").export(tmp_path / "later.tar.zst")
    other = new_lake()
    unnamed = other.import_bundle(path)
    assert other.bundle(unnamed.id[:8]).id == small.id
    assert other.bundles()["name"].to_list() == [None]
    other.import_bundle(path, "b")
    before = left(other)
    with pytest.raises(UsageError, match="b exists already"):
        other.import_bundle(later, "b")
    with pytest.raises(UsageError, match="cannot name a bundle"):
        other.import_bundle(later, "../evil")
    assert left(other) == before
    moved = other.import_bundle(later, "b", move=True)
    assert other.bundle("b").id == moved.id != small.id
    assert other.bundle(f"b@{small.id[:8]}").id == small.id


def test_an_imported_bundle_can_be_removed(
    small: Bundle, new_lake: NewLake, tmp_path: Path
) -> None:
    other = new_lake()
    other.import_bundle(small.export(tmp_path / "b.tar.zst"), "b")
    assert other.remove_bundle("b") == (small.id, ["b"])
    assert left(other) == ["names"]


# Opening


def test_a_path_that_is_not_there_is_told(tmp_path: Path, new_lake: NewLake) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: api.open_bundle(tmp_path / "b.tar.zst"),
        lambda: api.open_bundle(str(tmp_path / "b.tar.zst")),
        lambda: api.open_bundle(Path("b")),
        lambda: new_lake().import_bundle(tmp_path / "b.tar.zst"),
    ]
    for attempt in attempts:
        with pytest.raises(UnknownNameError, match="there is no /"):
            attempt()


def test_text_is_a_path_where_it_names_an_export(
    lake: Lake, small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, "trades", trades(9))
    lake.pin("export", "trades")
    lake.pin("x.tar.zst", "trades")
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
    other = lake.pin("other", "trades")
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


def test_who_writes_to_the_same_place_waits(small: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "b"
    with ThreadPoolExecutor(1) as thread:
        with aside(target, folder=True) as unfinished:
            second = thread.submit(small.export, target)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
            (unfinished / "first").write_bytes(b"")
            settle(unfinished, target)
        with pytest.raises(UsageError, match="exists already"):
            second.result()
    assert content(tmp_path) == {"b/first": b""}


def _open(path: str) -> str:
    return api.open_bundle(path).id


@pytest.mark.usefixtures("own_cache")
def test_several_processes_open_an_archive_at_once(bundle: Bundle, tmp_path: Path) -> None:
    path = str(bundle.export(tmp_path / "b.tar.zst"))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_open, [path] * 6) == [bundle.id] * 6


def test_without_a_cache_what_was_unpacked_lives_as_long_as_what_reads_it(
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


# Crashes and full disks


def noise(count: int) -> pl.DataFrame:
    """Trades that do not compress to nothing."""
    numbers = pl.Series(range(count)).hash(7).cast(pl.Float64)
    return trades(count, step=DAY / count).with_columns(price=numbers, amount=numbers.reverse())


@pytest.mark.parametrize("name", ["b.tar.zst", "b"])
@pytest.mark.parametrize("free_bytes", [0, 4096, 100_000])
def test_an_export_to_a_full_disk_leaves_nothing(
    lake: Lake, disk: Path, name: str, free_bytes: int
) -> None:
    write(lake, "trades", noise(20_000))
    pinned = lake.pin("big", "trades")
    filler = fill(disk, free_bytes)
    with pytest.raises(StorageError, match="the disk is full"):
        pinned.export(disk / name)
    assert list(disk.iterdir()) == [filler]
    filler.unlink()
    assert api.open_bundle(pinned.export(disk / name), cache=False).verify() == []


@pytest.mark.parametrize("free_bytes", [0, 4096, 100_000])
def test_an_import_to_a_full_disk_leaves_nothing(
    lake: Lake, disk: Path, tmp_path: Path, free_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lake, "trades", noise(20_000))
    path = lake.pin("big", "trades").export(tmp_path / "b.tar.zst")
    other = Lake.create(Settings(uri=str(disk / "lake")))
    filler = fill(disk, free_bytes)
    with pytest.raises(StorageError, match=r"import of .*: the disk is full"):
        other.import_bundle(path, "b")
    assert left(other) == []
    monkeypatch.setenv("LAKE_CACHE__FOLDER", str(disk / "cache"))
    with pytest.raises(StorageError, match=r"cache .*: the disk is full"):
        api.open_bundle(path)
    assert list((disk / "cache").glob("unpacked/*")) == []
    filler.unlink()
    assert other.import_bundle(path, "b").verify() == []
    assert path.stat().st_size < DISK_BYTES


_KILLED = """
    import os, signal, sys
    import lake

    class Fatal:
        def begin(self, what, total): self.left = int(sys.argv[3])
        def end(self): pass
        def advance(self, count=1):
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)

    if sys.argv[1] == "import":
        lake.open().import_bundle(sys.argv[2], "b", progress=Fatal())
    else:
        lake.open().bundle("b").export(sys.argv[2], progress=Fatal())
"""


def killed(lake: Lake, verb: str, path: Path, after_files: int) -> None:
    """Run it in a process that dies after so many files."""
    code = textwrap.dedent(_KILLED)
    command = [sys.executable, "-c", code, verb, str(path), str(after_files)]
    environment = {**os.environ, "LAKE_URI": str(lake.root.path)}
    found = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert found.returncode == -signal.SIGKILL, found.stderr


@pytest.mark.parametrize("name", ["b.tar.zst", "b"])
def test_a_kill_leaves_nothing_half(
    lake: Lake, bundle: Bundle, new_lake: NewLake, tmp_path: Path, name: str
) -> None:
    for after_files in (1, 5):
        killed(lake, "export", tmp_path / name, after_files)
        assert not (tmp_path / name).exists()
    whole = bundle.export(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    other = new_lake()
    for after_files in (1, 5):
        killed(other, "import", whole, after_files)
        assert other.bundles().is_empty()
        with pytest.raises(UnknownNameError):
            other.bundle("b")
    assert other.import_bundle(whole, "b").verify(deep=True) == []


def test_memory_stays_bounded_with_large_files(tmp_path: Path, lake: Lake) -> None:
    """A file is never held as a whole."""
    write(lake, "trades", noise(1_000_000))
    pinned = lake.pin("big", "trades")
    (size,) = pinned.contents.files.all()["bytes"]
    folder = pinned.export(tmp_path / "b")
    tracemalloc.start()
    try:
        opened = api.open_bundle(folder, cache=False)
        archive = opened.export(tmp_path / "b.tar.zst")
        lake.import_bundle(archive, "again")
        api.open_bundle(archive, cache=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 12_000_000
    assert peak < 8_000_000
