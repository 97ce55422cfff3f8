"""Copies files in pieces: hashes them on the way, writes them aside, renames them into place."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lake.bundles.archive.members import Member
from lake.errors import DamagedError
from lake.store.locks import lock_file
from lake.store.root import sync_folder

PIECE_BYTES = 1 << 20


def read_pieces(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in pieces.

    Raises
    ------
    DamagedError
        The file does not exist.
    """
    if not path.is_file():
        raise DamagedError(
            f"{path} is missing", "Restore it from a backup, or import the bundle again."
        )
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def verify_pieces(pieces: Iterable[bytes], member: Member, place: str) -> Iterator[bytes]:
    """Yield the same pieces; verify their size and digest after the last piece.

    Raises
    ------
    DamagedError
        Size or digest differ; the message names the file by `place`.
    """
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        size += len(piece)
        if size > member.bytes:
            break
        digest.update(piece)
        yield piece
    if size != member.bytes or digest.hexdigest() != member.sha256:
        raise DamagedError(
            f"{place} differs from the pinned file",
            "Restore it from a backup, or import the bundle again.",
        )


def write_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a new file and flush it to disk; the folder must be flushed separately."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def sync_all(folder: Path) -> None:
    """Flush a folder and all folders below it to disk, so that they survive a power failure."""
    for place, _, _ in os.walk(folder):
        sync_folder(Path(place))


def rename_into_place(unfinished: Path, target: Path) -> None:
    """Rename a finished file or folder to its target."""
    unfinished.rename(target)
    sync_folder(target.parent)


@contextmanager
def create_unfinished(target: Path, *, folder: bool) -> Iterator[Path]:
    """Create an empty file or folder beside a target; `rename_into_place` makes it the target.

    Without that call it is removed at the end. Remains of a killed process are removed at the
    start. Other writers to the same target wait.
    """
    path = target.with_name(f".{target.name}.unfinished")
    with lock_file(path, folder=folder) as lock:
        try:
            _clear(path)
            yield path
        finally:
            if lock.is_in_place():
                _clear(path)
                if folder:
                    path.rmdir()
                else:
                    path.unlink()


def _clear(path: Path) -> None:
    if path.is_file():
        os.truncate(path, 0)
        return
    for child in path.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
