"""Reading an exported bundle, archive or folder, into a folder: nothing in it is taken on trust."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from polars.exceptions import PolarsError

from lake.bundles.archive.members import Member, list_data_files, list_side_files
from lake.bundles.archive.transfer import (
    PIECE_BYTES,
    read_pieces,
    sync_all,
    verify_pieces,
    write_file,
)
from lake.bundles.contents import DATA, MANIFEST, Contents
from lake.bundles.manifest import Manifest, parse
from lake.errors import DamagedError, UnknownNameError
from lake.model.progress import Progress

_HINT = "Copy it again from where it came from, or export the bundle again: `lake bundle export`."
_FIRST = re.compile(rf"[0-9a-f]{{64}}/{re.escape(MANIFEST)}")
_MANIFEST_BYTES = 1 << 28
# A block of 128 KiB may be packed into four bytes: with so many, what comes out stays bounded.
_PACKED_BYTES = 2048
_END_BYTES = 1 << 20


class _MemberReader(Protocol):
    """Files of a bundle, asked for in the order of an archive."""

    def read_member(self, path: str, size: int | None = None) -> Iterator[bytes]:
        """The content of the next file, which must be this one, and of this size."""

    def finish(self, paths: Collection[str]) -> None:
        """Refuse what is there beside these."""


@dataclass(frozen=True)
class ExportedBundle:
    """An exported bundle that is not checked yet; see `read_export`.

    Attributes
    ----------
    source
        The archive or folder.
    text
        Its manifest, as it is there.
    manifest
        What that says; nothing is known to be true of it.
    """

    source: Path
    text: bytes
    manifest: Manifest
    _reader: _MemberReader

    def unpack(self, folder: Path, progress: Progress, *, keep_data: bool = True) -> Contents:
        """Write it into an empty folder, checking all of it; can be done once.

        Parameters
        ----------
        keep_data
            Whether data files are written, too, or only checked.

        Raises
        ------
        DamagedError
            Something is missing, too much, or not what the manifest says.
        """
        with self._name_source_in_errors(folder):
            write_file(folder / MANIFEST, [self.text])
            (folder / DATA).mkdir()
            contents = Contents.open(folder)
            for member in list_side_files(contents.manifest):
                write_file(folder / member.path, self._verify(member))
            members = _list_data_files(contents)
            self._read_data(folder, members, progress, keep_data=keep_data)
            beside = (MANIFEST, *(member.path for member in list_side_files(contents.manifest)))
            self._reader.finish({*beside, *(member.path for member in members)})
            sync_all(folder)
        return contents

    def _read_data(
        self, folder: Path, members: Collection[Member], progress: Progress, *, keep_data: bool
    ) -> None:
        progress.begin("importing" if keep_data else "checking", len(members))
        try:
            for member in members:
                pieces = self._verify(member)
                if keep_data:
                    write_file(folder / member.path, pieces)
                else:
                    for _ in pieces:
                        pass
                progress.advance()
        finally:
            progress.end()

    def _verify(self, member: Member) -> Iterator[bytes]:
        pieces = self._reader.read_member(member.path, member.bytes)
        return verify_pieces(pieces, member, f"{self.source}: {member.path}")

    @contextmanager
    def _name_source_in_errors(self, folder: Path) -> Iterator[None]:
        """Say what is wrong of the source, not of the folder that goes away."""
        try:
            yield
        except DamagedError as error:
            message = error.message.replace(str(folder), str(self.source))
            raise DamagedError(message, _HINT) from error


@contextmanager
def read_export(source: Path) -> Iterator[ExportedBundle]:
    """Open an exported bundle.

    Raises
    ------
    UnknownNameError
        There is nothing of this name.
    ConfigError
        It is of a newer format, or a bundle without its data.
    DamagedError
        It is no exported bundle.
    """
    if not source.exists():
        raise UnknownNameError(
            f"there is no {source}", "Give the path of an exported bundle: a .tar.zst or a folder."
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
        manifest = parse(text, f"{source}: {MANIFEST}")
    except DamagedError as error:
        raise DamagedError(error.message, _HINT) from error
    return ExportedBundle(source, text, manifest, members)


def _list_data_files(contents: Contents) -> list[Member]:
    import pyarrow as pa

    try:
        return list(list_data_files(contents))
    except (pa.ArrowException, PolarsError) as error:
        raise DamagedError(f"{contents.files.path} is no list of files: {error}") from error


class _FolderReader:
    """The files of a folder."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def read_member(self, path: str, size: int | None = None) -> Iterator[bytes]:  # noqa: ARG002 - hashed anyway
        return read_pieces(self._source / path)

    def finish(self, paths: Collection[str]) -> None:
        for path in sorted(self._source.rglob("*")):
            if not path.is_dir() and path.relative_to(self._source).as_posix() not in paths:
                raise DamagedError(f"{path} does not belong to the bundle")


class _Tar(tarfile.TarFile):
    members: list[tarfile.TarInfo]  # typeshed does not know it


class _ArchiveReader:
    """The members of a tar, one after another."""

    def __init__(self, source: Path, stream: _ZstdReader) -> None:
        self._source = source
        self._stream = stream
        self._tar: _Tar | None = None
        self._top = ""

    def require_top_folder(self, exported: ExportedBundle) -> ExportedBundle:
        """Refuse an archive whose folder has not the id of its manifest."""
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
            raise self._build_error(f"{member.name!r} is where {path} belongs")
        if size not in (None, member.size):
            raise self._build_error(f"{path} has {member.size} bytes, and {size} were pinned")
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
            raise self._build_error(f"no archive of a bundle ({error})") from error
        self._tar.members.clear()  # they would be kept, all of them
        if member is None:
            raise self._build_error(f"it ends where {path} belongs")
        return member

    def _build_error(self, what: str) -> DamagedError:
        return DamagedError(f"{self._source} is not an exported bundle, or damaged: {what}", _HINT)


class _ZstdReader:
    """What a Zstandard frame unpacks to, read once and forward."""

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
        """Skip what fills up a block; nothing else is ever skipped."""
        self.read(position - self._position)
        return self._position

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        if not 0 <= size <= PIECE_BYTES:
            raise self._build_error("its headers are none of a bundle")
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
                raise self._build_error("it holds more than the bundle")
            self._buffer.clear()
            if not self._frame.eof:
                self._decompress_more()
        if self._frame.unused_data or self._file.read(1):
            raise self._build_error("something follows its end")

    def _decompress_more(self) -> None:
        packed = b"" if self._frame.eof else self._file.read(_PACKED_BYTES)
        if not packed:
            raise self._build_error("it is cut short")
        try:
            self._buffer += self._frame.decompress(packed)
        except self._zstd_error as error:
            raise self._build_error(str(error)) from error

    def _build_error(self, what: str) -> DamagedError:
        return DamagedError(f"{self._source} is not an exported bundle, or damaged: {what}", _HINT)
