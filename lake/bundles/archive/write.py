"""Exports a bundle to a folder or an archive that opens without its lake.

An archive is a POSIX tar (`pax`), compressed as one Zstandard frame. Order, owners, times and
modes are fixed, so that the same bundle always produces the same bytes.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from lake.bundles.archive.members import list_data_files, list_side_files
from lake.bundles.archive.transfer import (
    create_unfinished,
    read_pieces,
    rename_into_place,
    sync_all,
    verify_pieces,
    write_file,
)
from lake.bundles.contents import DATA, MANIFEST, Contents
from lake.errors import UsageError
from lake.model.progress import Progress
from lake.store.faults import translate_errors

ARCHIVE_SUFFIX = ".tar.zst"
_OTHER_ARCHIVES = (".tar", ".zst", ".gz", ".tgz", ".bz2", ".xz", ".zip", ".7z")
_LEVEL = 3
_File = tuple[str, int, Iterable[bytes]]


def export(contents: Contents, target: Path, progress: Progress) -> None:
    """Write a bundle to a new archive if the name ends in `.tar.zst`, else to a new folder.

    Every file is verified as it is copied.

    Raises
    ------
    UsageError
        The target already exists, or its parent folder does not exist.
    DamagedError
        A file of the bundle is missing or damaged; the target is not created.
    StorageError
        The target cannot be written; it is not created.
    """
    is_archive = target.name.endswith(ARCHIVE_SUFFIX)
    _require_place(target, is_archive=is_archive)
    with (
        translate_errors(f"export to {target}"),
        create_unfinished(target, folder=not is_archive) as unfinished,
    ):
        _require_free(target, is_archive=is_archive)
        if is_archive:
            _write_archive(unfinished, contents, progress)
        else:
            _write_folder(unfinished, contents, progress)
        _require_free(target, is_archive=is_archive)
        rename_into_place(unfinished, target)


def _require_place(target: Path, *, is_archive: bool) -> None:
    if not is_archive and target.suffix.lower() in _OTHER_ARCHIVES:
        raise UsageError(
            f"{target}: archives of this kind are not supported",
            "Use a name that ends in .tar.zst, or a name without an archive suffix for a folder.",
        )
    if not target.absolute().parent.is_dir():
        raise UsageError(
            f"{target}: the folder {target.absolute().parent} does not exist",
            "Create it first, or export to another folder.",
        )
    _require_free(target, is_archive=is_archive)


def _require_free(target: Path, *, is_archive: bool) -> None:
    if not os.path.lexists(target):
        return
    if is_archive or not target.is_dir() or any(target.iterdir()):
        raise UsageError(
            f"{target} already exists", "Use a new name, or remove it: export never overwrites."
        )


def _list_files(contents: Contents, progress: Progress) -> Iterator[_File]:
    """Yield path, size and content of every file; verify the content while it is read."""
    text = contents.manifest.to_json()
    yield MANIFEST, len(text), [text]
    for member in list_side_files(contents.manifest):
        path = contents.folder / member.path
        yield member.path, member.bytes, verify_pieces(read_pieces(path), member, str(path))
    members = list(list_data_files(contents))
    progress.begin("exporting", len(members))
    try:
        for member in members:
            path = contents.tables / member.path.removeprefix(f"{DATA}/")
            yield member.path, member.bytes, verify_pieces(read_pieces(path), member, str(path))
            progress.advance()
    finally:
        progress.end()


def _write_folder(folder: Path, contents: Contents, progress: Progress) -> None:
    for path, _, pieces in _list_files(contents, progress):
        write_file(folder / path, pieces)
    sync_all(folder)


def _write_archive(archive: Path, contents: Contents, progress: Progress) -> None:
    import zstandard

    # With threads, the bytes would depend on the number of threads.
    compressor = zstandard.ZstdCompressor(
        level=_LEVEL, threads=0, write_checksum=True, write_content_size=False
    )
    with archive.open("wb") as file:
        with compressor.stream_writer(file, closefd=False) as packed:
            _write_tar(packed, contents, progress)
        file.flush()
        os.fsync(file.fileno())


def _write_tar(packed: IO[bytes], contents: Contents, progress: Progress) -> None:
    written = 0
    for path, size, pieces in _list_files(contents, progress):
        head = build_header(f"{contents.id}/{path}", size)
        packed.write(head)
        for piece in pieces:
            packed.write(piece)
        padding = -size % tarfile.BLOCKSIZE
        packed.write(bytes(padding))
        written += len(head) + size + padding
    end = 2 * tarfile.BLOCKSIZE
    packed.write(bytes(end + -(written + end) % tarfile.RECORDSIZE))


def build_header(name: str, size: int) -> bytes:
    """Build the tar header of a file."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
