"""A modified archive or folder is refused with a clear error."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import lake as api
from lake.api import Lake, utc_now
from lake.bundles.archive.room import format_size
from lake.bundles.bundle import Bundle
from lake.bundles.manifest import ListPart
from lake.errors import (
    ConfigError,
    DamagedError,
)
from lake.store import index
from tests.bundles.archive.conftest import (
    CHANGES,
    Parts,
    change_members,
    compress,
    damage_folder,
    decompress,
    edit_manifest,
    left,
)
from tests.conftest import NewLake


def test_an_archive_with_a_flipped_byte_is_refused(
    packed: bytes, refusal_of: Callable[[bytes], str]
) -> None:
    refusals = 0
    for position in [*range(0, len(packed), len(packed) // 40), *range(-6, 0)]:
        offset = position % len(packed)
        flipped = packed[:offset] + bytes([packed[offset] ^ 4]) + packed[offset + 1 :]
        if not unpacks_to_the_same(flipped, packed):
            refusal_of(flipped)
            refusals += 1
    assert refusals > 40


def unpacks_to_the_same(one: bytes, other: bytes) -> bool:
    """Compression may copy zeros from several positions, so that some bits do not matter."""
    try:
        frame = zstandard.ZstdDecompressor().decompressobj()
        return frame.decompress(one) == decompress(other) and frame.eof and not frame.unused_data
    except zstandard.ZstdError:
        return False


def test_an_archive_cut_short_is_refused(packed: bytes, refusal_of: Callable[[bytes], str]) -> None:
    lengths = {0, 1, 4, 5, 100, *range(0, len(packed), len(packed) // 40)}
    for length in [*lengths, *range(len(packed) - 12, len(packed))]:
        assert "damaged" in refusal_of(packed[:length])


def test_an_archive_with_something_after_it_is_refused(
    packed: bytes, refusal_of: Callable[[bytes], str]
) -> None:
    for more in (b"\0", b"garbage", packed, compress(b"x"), b"\0" * 5000):
        assert "data after its end" in refusal_of(packed + more)
    tar = decompress(packed)
    assert "data after the last file" in refusal_of(compress(tar + b"x"))
    assert "data after the last file" in refusal_of(compress(tar + bytes(5_000_000)))


@pytest.mark.parametrize("name", CHANGES)
def test_an_archive_with_other_members_is_refused(
    packed: bytes, refusal_of: Callable[[bytes], str], name: str
) -> None:
    refusal_of(change_members(packed, CHANGES[name]))


def test_a_link_that_claims_to_have_the_content_is_refused(
    packed: bytes, refusal_of: Callable[[bytes], str]
) -> None:
    tar = decompress(packed)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        last = archive.getmembers()[-1]
    start = last.offset_data - tarfile.BLOCKSIZE
    last.type = tarfile.SYMTYPE
    last.name = "x" * 90  # the name of a long path is in a preceding header
    header = last.tobuf(tarfile.USTAR_FORMAT)
    assert "expected" in refusal_of(compress(tar[:start] + header + tar[start + len(header) :]))


def test_an_archive_of_another_tar_program_is_accepted(
    packed: bytes, new_lake: NewLake, tmp_path: Path
) -> None:
    def own(parts: Parts) -> None:
        for member, _ in parts:
            member.mtime, member.uname, member.mode = 1_700_000_000, "somebody", 0o600

    path = tmp_path / "own.tar.zst"
    path.write_bytes(change_members(packed, own))
    assert path.read_bytes() != packed
    assert new_lake().bundles.import_(path).verify() == []


@settings(max_examples=60)
@given(content=st.binary(max_size=3000), pack=st.booleans())
def test_any_other_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, pack: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.tar.zst"
    path.write_bytes(compress(content) if pack else content)
    with pytest.raises(DamagedError, match=r"any\.tar\.zst"):
        api.open_bundle(path, cache=False)


def test_an_archive_that_would_unpack_to_very_much_is_refused_at_once(
    refusal_of: Callable[[bytes], str],
) -> None:
    member = tarfile.TarInfo(f"{'0' * 64}/manifest.json")
    member.size = 1 << 40
    refusal_of(compress(member.tobuf() + bytes(100_000_000)))
    refusal_of(compress(bytes(300_000_000)))
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    header = long_name.tobuf(tarfile.GNU_FORMAT)
    assert "headers" in refusal_of(compress(header + bytes(100_000_000)))


def test_an_archive_that_says_it_is_huge_is_refused_before_it_is_unpacked(
    small: Bundle, packed: bytes, refusal_of: Callable[[bytes], str]
) -> None:
    """85 kB can be an archive of 2 GB of zeros, sealed as it should be."""
    trades = small.manifest.trades
    assert trades is not None
    huge = trades.model_copy(update={"bytes": 2_000_000_000})
    sealed = small.manifest.model_copy(update={"trades": huge}).seal()
    assert sealed.id == small.id

    def forge(parts: Parts) -> None:
        parts[0] = (parts[0][0], sealed.to_json())

    assert "would unpack to 2.0 GB" in refusal_of(change_members(packed, forge))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (12_345_678, "12.3 MB"),
        (2 * 10**9, "2.0 GB"),
        (10**16, "10,000.0 TB"),
    ],
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


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
    sealed = index.write_sealed(
        folder / "files.parquet", forge(small.contents.files.read_all()[:1])
    )
    beside = small.manifest.beside.model_copy(update={"files": ListPart(**asdict(sealed))})
    manifest = small.manifest.model_copy(update={"beside": beside}).seal()
    (folder / "manifest.json").write_bytes(manifest.to_json())
    other = new_lake()
    with pytest.raises(DamagedError, match="lists files that cannot be in a bundle") as caught:
        other.bundles.import_(folder)
    assert str(folder) in caught.value.message
    assert left(other) == []
    with pytest.raises(DamagedError, match="lists files that cannot be in a bundle"):
        replace_contents(folder).export(tmp_path / "again")


def replace_contents(folder: Path) -> Bundle:
    """Open the bundle of a folder without checks."""
    opened = api.open_bundle(folder, cache=False)
    return Bundle(replace(opened.contents), now=utc_now)


def test_an_invalid_list_with_a_valid_digest_is_refused(
    small: Bundle, tmp_path: Path, new_lake: NewLake
) -> None:
    folder = small.export(tmp_path / "b")
    for frame in (pl.DataFrame({"x": [1]}), pl.DataFrame({"table": [["x"]]})):
        (folder / "files.parquet").unlink()
        sealed = index.write_sealed(folder / "files.parquet", frame)
        beside = small.manifest.beside.model_copy(update={"files": ListPart(**asdict(sealed))})
        manifest = small.manifest.model_copy(update={"beside": beside}).seal()
        (folder / "manifest.json").write_bytes(manifest.to_json())
        other = new_lake()
        with pytest.raises(DamagedError, match="is not a valid list of files"):
            other.bundles.import_(folder)
        assert left(other) == []


@pytest.mark.parametrize(
    "change",
    ["flip", "missing", "list", "list missing", "stranger", "dangling", "manifest", "no manifest"],
)
def test_a_damaged_folder_is_not_imported(
    small: Bundle, tmp_path: Path, new_lake: NewLake, change: str
) -> None:
    folder = small.export(tmp_path / "b")
    damage_folder(folder, change)
    other = new_lake()
    with pytest.raises(DamagedError, match=str(folder)):
        other.bundles.import_(folder)
    assert left(other) == []


def test_the_folder_of_a_lakes_own_bundle_is_no_export(
    lake: Lake, small: Bundle, new_lake: NewLake
) -> None:
    folder = lake.root.bundles / small.id
    for attempt in (new_lake().bundles.import_, api.open_bundle):
        with pytest.raises(ConfigError, match="has a manifest but no data"):
            attempt(folder)


def test_an_export_of_a_newer_format_is_not_read(
    small: Bundle, packed: bytes, new_lake: NewLake, tmp_path: Path
) -> None:
    del small
    path = tmp_path / "newer.tar.zst"
    path.write_bytes(change_members(packed, edit_manifest(b'"format": 2', b'"format": 3')))
    with pytest.raises(ConfigError, match=r"newer\.tar\.zst.* has bundle format 3"):
        new_lake().bundles.import_(path)
