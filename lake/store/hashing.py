"""SHA-256 of data files: in parallel, and only once a process for files that stay as they are."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lake.model.progress import NoProgress, Progress

_READ_BYTES = 1024 * 1024
_LARGE_BYTES = 1024 * 1024
_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    """A file, and what it must hold."""

    path: str
    bytes: int
    sha256: str


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    # Below Python's file objects: with many small files, they take longer than hashing does.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, min(os.fstat(descriptor).st_size, _READ_BYTES))
        found = hashlib.sha256(content)
        while content:
            content = os.read(descriptor, _READ_BYTES)
            found.update(content)
        return found.hexdigest()
    finally:
        os.close(descriptor)


def hash_files(paths: Sequence[Path], progress: Progress | None = None) -> list[str]:
    """SHA-256 of each file, by all cores; progress advances by files."""
    progress = progress or NoProgress()

    def one(path: Path) -> str:
        found = hash_file(path)
        progress.advance()
        return found

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(one, paths))


@dataclass
class FileChecker:
    """Remembers which files were found right, until something touches them. Safe for threads."""

    _stamps: dict[tuple[str, str], _Stamp] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find_wrong(self, files: Iterable[ExpectedFile]) -> list[ExpectedFile]:
        """Files that are missing, or do not hold what is expected; all others are right."""
        found: list[ExpectedFile] = []
        unknown: list[tuple[ExpectedFile, _Stamp]] = []
        for file in files:
            stamp = _read_stamp(file.path)
            if stamp is None or stamp[1] != file.bytes:
                found.append(file)
            elif self._stamps.get((file.path, file.sha256)) != stamp:
                unknown.append((file, stamp))
        found.extend(
            file for part in _hash_in_parallel(unknown) for file in self._compare_hashes(part)
        )
        return found

    def _compare_hashes(
        self, part: Iterable[tuple[ExpectedFile, _Stamp, str]]
    ) -> Iterator[ExpectedFile]:
        for file, stamp, digest in part:
            if digest == file.sha256:
                with self._lock:
                    self._stamps[file.path, file.sha256] = stamp
            else:
                yield file


def _hash_in_parallel(
    files: Sequence[tuple[ExpectedFile, _Stamp]],
) -> Iterator[list[tuple[ExpectedFile, _Stamp, str]]]:
    """Files with their digests; large ones by all cores, a part a core.

    Threads that hash small files wait for each other more than they hash.
    """

    def part(number: int) -> list[tuple[ExpectedFile, _Stamp, str]]:
        return [(file, stamp, _hash_if_there(file.path)) for file, stamp in files[number::cores]]

    large = sum(file.bytes for file, _ in files) >= _LARGE_BYTES * len(files)
    cores = min(os.cpu_count() or 1, len(files)) if large else 1
    if not files:
        return
    if cores == 1:
        yield part(0)
    else:
        with ThreadPoolExecutor(cores) as threads:
            yield from threads.map(part, range(cores))


def _hash_if_there(path: str) -> str:
    try:
        return hash_file(path)
    except FileNotFoundError:  # deleted since its stamp was taken
        return ""


def _read_stamp(path: str) -> _Stamp | None:
    """What changes when a file is written to, replaced, or renamed; None where it is missing."""
    try:
        found = os.stat(path)  # noqa: PTH116 - Path.stat takes twice the time
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
