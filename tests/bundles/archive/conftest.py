"""Bundles to export, helpers that read exports, and ways to damage them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import polars as pl
import pytest
import zstandard
from polars.testing import assert_frame_equal

import lake as api
from lake.api import Lake
from lake.bundles.bundle import Bundle
from lake.errors import (
    DamagedError,
    LakeError,
)
from tests.conftest import DAY, MINUTE, NewLake, bars, copy_lake, trades, write

TABLES = ("trades", "bars_1m")
# Encoded on disk, too long for a tar header, not ASCII.
SYMBOLS = ("BTC/USDT", "ÄÖÜ 100%:x/USDT", "L" * 150 + "/USDT")


class Steps:
    """Progress that records its steps."""

    def __init__(self) -> None:
        self.said: list[tuple[str, float]] = []
        self.done: float = 0

    def begin(self, what: str, total: float) -> None:
        self.said.append((what, total))

    def advance(self, count: float = 1, **_: object) -> None:
        self.done += count

    def end(self, _outcome: object | None = None, /) -> None:
        self.said.append(("end", self.done))


@pytest.fixture(scope="session")
def lake_of_bundle(new_lake: NewLake) -> Lake:
    lake = new_lake()
    for symbol in SYMBOLS:
        write(lake, "trades", trades(6, step=DAY / 2, symbol=symbol))
        write(lake, "bars_1m", bars(100, step=20 * MINUTE, symbol=symbol))
    lake.bundles.pin("b", table=TABLES)
    return lake


@pytest.fixture(scope="session")
def lake_of_small(new_lake: NewLake) -> Lake:
    lake = new_lake()
    write(lake, "trades", trades(4, step=DAY / 2))
    lake.bundles.pin("small", table="trades")
    return lake


@pytest.fixture
def lake(
    request: pytest.FixtureRequest, new_lake: NewLake, tmp_path_factory: pytest.TempPathFactory
) -> Lake:
    """An empty lake, or a copy of that of the bundle that the test asks for."""
    for name in ("bundle", "small"):
        if name in request.fixturenames:
            origin: Lake = request.getfixturevalue(f"lake_of_{name}")
            return copy_lake(origin, tmp_path_factory.mktemp("copies") / "lake")
    return new_lake()


@pytest.fixture
def bundle(lake: Lake) -> Bundle:
    """A bundle with trades and bars of three symbols over several days."""
    return lake.bundles.open("b")


@pytest.fixture
def small(lake: Lake) -> Bundle:
    """A bundle with two data files."""
    return lake.bundles.open("small")


def frames(bundle: Bundle) -> dict[str, pl.DataFrame]:
    return {table: bundle.scan(table).collect() for table in bundle.tables}


def assert_reads(bundle: Bundle, expected: dict[str, pl.DataFrame]) -> None:
    for table, frame in expected.items():
        assert_frame_equal(bundle.scan(table).collect(), frame)
        order = ["exchange", "symbol", *bundle.dataset(table).sort]
        sql = bundle.sql("SELECT * EXCLUDE available_at FROM query_table(?)", [table]).pl()
        assert_frame_equal(sql.sort(order), frame)


def left(lake: Lake) -> list[str]:
    """List the content of the folder of bundles, without the lock."""
    return sorted(path.name for path in lake.root.bundles.iterdir() if path.name != ".lock")


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def packed(lake_of_small: Lake, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The archive of the small bundle."""
    path = tmp_path_factory.mktemp("packed") / "whole.tar.zst"
    return lake_of_small.bundles.open("small").export(path).read_bytes()


def decompress(packed: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(packed)


def compress(tar: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(tar)


Parts = list[tuple[tarfile.TarInfo, bytes]]


def change_members(packed: bytes, change: Callable[[Parts], object]) -> bytes:
    """Rewrite an archive with changed members."""
    with tarfile.open(fileobj=io.BytesIO(decompress(packed))) as tar:
        members = tar.getmembers()
        parts = [(member, reader(tar, member).read()) for member in members]
    change(parts)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in parts:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data))
    return compress(target.getvalue())


def reader(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    assert file is not None
    return file


def assert_refused(lake: Lake, path: Path, error: type[LakeError] = DamagedError) -> str:
    """Assert that import and open refuse a file and leave nothing; return the import's message."""
    before = left(lake)
    with pytest.raises(error) as caught:
        lake.bundles.import_(path, name="bad")
    assert left(lake) == before
    for cache in (True, False):
        with pytest.raises(error):
            api.open_bundle(path, cache=cache)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders for unpacked archives, which a refusal leaves empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache" / "lake" / "unpacked"


@pytest.fixture
def refusal_of(
    packed: bytes, new_lake: NewLake, tmp_path: Path, own_cache: Path
) -> Iterator[Callable[[bytes], str]]:
    """Return the error message for an archive with these bytes, which is never imported."""
    other = new_lake()
    path = tmp_path / "spoiled.tar.zst"

    def refusal(content: bytes) -> str:
        assert content != packed
        path.write_bytes(content)
        return assert_refused(other, path)

    yield refusal
    assert left(other) == []
    assert list(own_cache.glob("*")) == []
    assert list((tmp_path / "temporary").iterdir()) == []


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


def edit_manifest(old: bytes, new: bytes) -> Callable[[Parts], None]:
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
    "an edited manifest": edit_manifest(b'"rows": 4', b'"rows": 5'),
    "an edited digest": edit_manifest(b'"digest": "', b'"digest": "0'),
    "content cut short": lambda parts: parts.__setitem__(-1, (parts[-1][0], parts[-1][1][:-1])),
    "content longer": lambda parts: parts.__setitem__(-1, (parts[-1][0], parts[-1][1] + b"x")),
    "a list cut short": lambda parts: parts.__setitem__(1, (parts[1][0], parts[1][1][:-1])),
    "other content": lambda parts: parts.__setitem__(-1, (parts[-1][0], parts[-1][1][::-1])),
}


def damage_folder(folder: Path, change: str) -> None:
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
