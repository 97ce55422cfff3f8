"""Files on their way: in pieces, hashed as they pass, written aside and put in place whole."""

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
    """The content of a file.

    Raises
    ------
    DamagedError
        There is no such file.
    """
    if not path.is_file():
        raise DamagedError(
            f"{path} is missing", "Restore it from a backup, or import the bundle again."
        )
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def verify_pieces(pieces: Iterable[bytes], member: Member, place: str) -> Iterator[bytes]:
    """The same pieces; they are what the member must be when the last of them has passed.

    Raises
    ------
    DamagedError
        They are something else: says which file, by its place.
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
            f"{place} is not what was pinned",
            "Restore it from a backup, or import the bundle again.",
        )


def write_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a new file that survives a power cut, if its folder does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def sync_all(folder: Path) -> None:
    """Let a folder and all below it survive a power cut."""
    for place, _, _ in os.walk(folder):
        sync_folder(Path(place))


def rename_into_place(unfinished: Path, target: Path) -> None:
    """Give what was written aside its place."""
    unfinished.rename(target)
    sync_folder(target.parent)


@contextmanager
def create_unfinished(target: Path, *, folder: bool) -> Iterator[Path]:
    """An empty file or folder beside a target, to write what will be it; see `rename_into_place`.

    What was not settled is removed at the end, and what a killed process left here is removed at
    the start. Who writes to the same target waits.
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
