"""Unpacks an exported bundle, archive or folder, into a folder; verifies every byte."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from polars.exceptions import PolarsError

from lake.bundles.archive.members import Member, list_data_files, list_side_files
from lake.bundles.archive.room import format_size, require_room
from lake.bundles.archive.transfer import (
    PIECE_BYTES,
    read_pieces,
    sync_all,
    verify_pieces,
    write_file,
)
from lake.bundles.contents import DATA, MANIFEST, Contents
from lake.bundles.manifest import Manifest, parse_manifest
from lake.bundles.verify import verify_content
from lake.errors import DamagedError, UnknownNameError
from lake.model.progress import Progress
from lake.store.hashing import is_plain_file

_HINT = "Copy it again from its origin, or export the bundle again: `lake bundle export`."
_FIRST = re.compile(rf"[0-9a-f]{{64}}/{re.escape(MANIFEST)}")
_MANIFEST_BYTES = 1 << 28
# Four bytes can expand to a block of 128 KiB: small reads bound the size of the output.
_PACKED_BYTES = 2048
_END_BYTES = 1 << 20


class _MemberReader(Protocol):
    """Reads the files of a bundle in the order of an archive."""

    def read_member(self, path: str, size: int | None = None) -> Iterator[bytes]:
        """Yield the content of the next file, which must have this path and size."""

    def finish(self, paths: Collection[str]) -> None:
        """Refuse files other than these."""


@dataclass(frozen=True)
class ExportedBundle:
    """An exported bundle that is not verified yet; see `read_export`.

    Attributes
    ----------
    source
        The archive or folder.
    text
        The bytes of its manifest.
    manifest
        The parsed manifest, not verified.
    """

    source: Path
    text: bytes
    manifest: Manifest
    _reader: _MemberReader

    def unpack(self, folder: Path, progress: Progress, *, step: str = "importing") -> Contents:
        """Unpack into an empty folder, and verify all files and all rows; works once.

        Parameters
        ----------
        step
            The name of the step for the progress.

        Raises
        ------
        DamagedError
            A file is missing, unknown, or differs from the manifest; or the rows are not those that
            the id stands for; or it is made to fill the disk.
        StorageError
            The disk has not enough space.
        """
        with self._name_source_in_errors(folder):
            write_file(folder / MANIFEST, [self.text])
            (folder / DATA).mkdir()
            contents = Contents.open(folder)
            declared = sum(ref.bytes for _, ref in contents.manifest.refs())
            beside = sum(member.bytes for member in list_side_files(contents.manifest))
            require_room(self.source, declared + beside, folder)
            for member in list_side_files(contents.manifest):
                write_file(folder / member.path, self._verify(member))
            members = _list_data_files(contents)
            require_room(self.source, sum(member.bytes for member in members), folder)
            self._read_data(folder, members, progress, step)
            side_files = (member.path for member in list_side_files(contents.manifest))
            self._reader.finish({MANIFEST, *side_files, *(member.path for member in members)})
            _require_rows_of_id(contents, progress)
            sync_all(folder)
        return contents

    def _read_data(
        self, folder: Path, members: Collection[Member], progress: Progress, step: str
    ) -> None:
        size = format_size(sum(member.bytes for member in members))
        progress.begin(f"{step} {size}", len(members))
        try:
            for member in members:
                write_file(folder / member.path, self._verify(member))
                progress.advance()
        finally:
            progress.end()

    def _verify(self, member: Member) -> Iterator[bytes]:
        pieces = self._reader.read_member(member.path, member.bytes)
        return verify_pieces(pieces, member, f"{self.source}: {member.path}")

    @contextmanager
    def _name_source_in_errors(self, folder: Path) -> Iterator[None]:
        """Name the source in errors instead of the temporary folder."""
        try:
            yield
        except DamagedError as error:
            message = error.message.replace(str(folder), str(self.source))
            raise DamagedError(message, _HINT) from None


@contextmanager
def read_export(source: Path) -> Iterator[ExportedBundle]:
    """Open an exported bundle for unpacking.

    Raises
    ------
    UnknownNameError
        The path does not exist.
    ConfigError
        The format is newer than this program, or the folder is a bundle without its data.
    DamagedError
        The source is not an exported bundle.
    """
    if not source.exists():
        raise UnknownNameError(
            f"{source} does not exist",
            "Use the path of an exported bundle: a .tar.zst file or a folder.",
        )
    if source.is_dir():
        Contents.open(source)  # refuses a bundle that needs its lake
        yield _read_manifest(source, _FolderReader(source))
        return
    with source.open("rb") as file:
        archive = _ArchiveReader(source, _ZstdReader(source, file))
        yield archive.require_top_folder(_read_manifest(source, archive))


def _read_manifest(source: Path, members: _MemberReader) -> ExportedBundle:
    text = b"".join(members.read_member(MANIFEST))
    try:
        manifest = parse_manifest(text, f"{source}: {MANIFEST}")
    except DamagedError as error:
        raise DamagedError(error.message, _HINT) from error
    return ExportedBundle(source, text, manifest, members)


def _list_data_files(contents: Contents) -> list[Member]:
    import pyarrow as pa

    try:
        return list(list_data_files(contents))
    except (pa.ArrowException, PolarsError) as error:
        raise DamagedError(
            f"{contents.files.path} is not a valid list of files: {error}"
        ) from error


def _require_rows_of_id(contents: Contents, progress: Progress) -> None:
    """Refuse a bundle whose rows are not those that its id stands for, however well it is sealed.

    Raises
    ------
    DamagedError
        There is a difference; the message names the first one.
    """
    problems = verify_content(contents, progress)
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DamagedError(
            f"{contents.folder}: its rows are not those of bundle {contents.id[:12]}: "
            f"{first.place} is {first.found} instead of {first.expected}{more}"
        )


class _FolderReader:
    """Reads the files of a folder."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def read_member(self, path: str, size: int | None = None) -> Iterator[bytes]:  # noqa: ARG002 - hashed anyway
        if os.path.lexists(self._source / path):
            self._require_plain(self._source / path)
        return read_pieces(self._source / path)

    def finish(self, paths: Collection[str]) -> None:
        for path in sorted(self._source.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                continue
            if path.relative_to(self._source).as_posix() not in paths:
                raise DamagedError(f"{path} does not belong to the bundle")
            self._require_plain(path)

    def _require_plain(self, path: Path) -> None:
        if not is_plain_file(path, self._source):
            raise DamagedError(f"{path} is a link, or no file")


class _Tar(tarfile.TarFile):
    members: list[tarfile.TarInfo]  # missing in typeshed


class _ArchiveReader:
    """Reads the members of a tar one after another."""

    def __init__(self, source: Path, stream: _ZstdReader) -> None:
        self._source = source
        self._stream = stream
        self._tar: _Tar | None = None
        self._top = ""

    def require_top_folder(self, exported: ExportedBundle) -> ExportedBundle:
        """Refuse an archive whose top folder is not the id in its manifest."""
        if self._top != f"{exported.manifest.id}/":
            raise DamagedError(
                f"{self._source}: {self._top} holds the manifest of bundle {exported.manifest.id}",
                _HINT,
            )
        return exported

    def read_member(self, path: str, size: int | None = None) -> Iterator[bytes]:
        member = self._next(path)
        if not self._top and _FIRST.fullmatch(member.name) and member.size <= _MANIFEST_BYTES:
            self._top = member.name.removesuffix(MANIFEST)
        if member.name != self._top + path or not member.isreg() or member.issparse():
            raise self._build_error(f"expected {path}, got {member.name!r}")
        if size not in (None, member.size):
            raise self._build_error(f"{path} has {member.size} bytes instead of {size}")
        left = member.size
        while left > 0:
            piece = self._stream.read(min(left, PIECE_BYTES))
            left -= len(piece)
            yield piece

    def finish(self, paths: Collection[str]) -> None:  # noqa: ARG002 - taken in order
        self._stream.finish()

    def _next(self, path: str) -> tarfile.TarInfo:
        try:
            if self._tar is None:
                stream = cast(
                    "IO[bytes]", self._stream
                )  # what it lacks, a reader of tars needs not
                self._tar = _Tar(fileobj=stream, mode="r", encoding="utf-8")
            member = self._tar.next()
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise self._build_error(f"the tar is malformed ({error})") from error
        self._tar.members.clear()  # tarfile keeps every member otherwise
        if member is None:
            raise self._build_error(f"the archive ends before {path}")
        return member

    def _build_error(self, what: str) -> DamagedError:
        return DamagedError(f"{self._source} is not an exported bundle, or damaged: {what}", _HINT)


class _ZstdReader:
    """Decompresses a Zstandard frame once, forward only."""

    def __init__(self, source: Path, file: IO[bytes]) -> None:
        import zstandard

        self._source = source
        self._file = file
        self._zstd_error = zstandard.ZstdError
        self._frame: Any = zstandard.ZstdDecompressor().decompressobj()
        self._buffer = bytearray()
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        """Skip the padding of a block, the only use of `seek`."""
        self.read(position - self._position)
        return self._position

    def read(self, size: int) -> bytes:
        """Read exactly `size` bytes."""
        if not 0 <= size <= PIECE_BYTES:
            raise self._build_error("its headers do not belong to a bundle")
        while len(self._buffer) < size:
            self._decompress_more()
        content = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._position += size
        return content

    def finish(self) -> None:
        """Refuse anything but the end of the archive."""
        rest = 0
        while not self._frame.eof or self._buffer:
            rest += len(self._buffer)
            if any(self._buffer) or rest > _END_BYTES:
                raise self._build_error("it has data after the last file")
            self._buffer.clear()
            if not self._frame.eof:
                self._decompress_more()
        if self._frame.unused_data or self._file.read(1):
            raise self._build_error("it has data after its end")

    def _decompress_more(self) -> None:
        packed = b"" if self._frame.eof else self._file.read(_PACKED_BYTES)
        if not packed:
            raise self._build_error("it is truncated")
        try:
            self._buffer += self._frame.decompress(packed)
        except self._zstd_error as error:
            raise self._build_error(str(error)) from error

    def _build_error(self, what: str) -> DamagedError:
        return DamagedError(f"{self._source} is not an exported bundle, or damaged: {what}", _HINT)
