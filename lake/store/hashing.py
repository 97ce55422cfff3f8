"""SHA-256 of data files: in parallel, and once per process for files that do not change."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from lake.errors import StorageError
from lake.model.progress import NoProgress, Progress

_READ_BYTES = 1024 * 1024
_LARGE_BYTES = 1024 * 1024
_FILES_PER_TASK = 16
_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    """A file with the size and SHA-256 that it must have."""

    path: str
    bytes: int
    sha256: str


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file, as 64 hex digits.

    Raises
    ------
    StorageError
        The storage refuses it. A missing file is a `FileNotFoundError`.
    """
    try:
        return _hash_file(path)
    except OSError as error:
        from lake.store.faults import explain_os_error, find_reason  # only now: it imports much

        if find_reason(error) is None:
            raise
        raise explain_os_error(error, f"file {path}") from error


def _hash_file(path: str | Path) -> str:
    # Below Python's file objects: with many small files, they take longer than hashing does.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, min(os.fstat(descriptor).st_size, _READ_BYTES))
        digest = hashlib.sha256(content)
        while content:
            content = os.read(descriptor, _READ_BYTES)
            digest.update(content)
        return digest.hexdigest()
    finally:
        os.close(descriptor)


def is_plain_file(path: str | Path, folder: Path) -> bool:
    """Whether a path is a regular file inside a folder, and nothing below the folder is a link."""
    relative = os.path.relpath(path, folder)
    real = os.path.realpath(path)
    return real == os.path.join(os.path.realpath(folder), relative) and os.path.isfile(real)  # noqa: PTH113, PTH118 - for each of many files


def hash_files(
    paths: Sequence[Path | str],
    progress: Progress | None = None,
    refused: dict[Path | str, StorageError] | None = None,
) -> list[str]:
    """Return the SHA-256 of each file, computed on all cores; progress advances by files.

    Parameters
    ----------
    refused
        Gets the errors of files that the storage refuses, whose hash is empty; None: the first one
        is raised.
    """
    progress = progress or NoProgress()

    def hash_some(some: Sequence[Path | str]) -> list[str]:
        digests = []
        for path in some:
            try:
                digests.append(hash_file(path))
            except StorageError as error:
                if refused is None:
                    raise
                refused[path] = error
                digests.append("")
            progress.advance()
        return digests

    # A task costs as much as hashing a small file: each task takes several.
    parts = [
        paths[start : start + _FILES_PER_TASK] for start in range(0, len(paths), _FILES_PER_TASK)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(chain.from_iterable(threads.map(hash_some, parts)))


@dataclass
class FileChecker:
    """Compares files with their hashes, and once per file until it changes. Safe for threads.

    With a `folder`, what is outside it or reached by a link is wrong: somebody else made it.
    """

    folder: Path | None = None
    _stamps: dict[tuple[str, str], _Stamp] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find_wrong(self, files: Iterable[ExpectedFile]) -> list[ExpectedFile]:
        """Return the files that are missing or outside, or whose size or hash is another one."""
        wrong: list[ExpectedFile] = []
        unknown: list[tuple[ExpectedFile, _Stamp]] = []
        for file in files:
            stamp = _read_stamp(file.path)
            if stamp is None or stamp[1] != file.bytes:
                wrong.append(file)
            elif self._stamps.get((file.path, file.sha256)) == stamp:
                continue
            elif self.folder is not None and not is_plain_file(file.path, self.folder):
                wrong.append(file)
            else:
                unknown.append((file, stamp))
        wrong.extend(
            file for part in _hash_in_parallel(unknown) for file in self._compare_hashes(part)
        )
        return wrong

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
    """Hash files: large ones on all cores, one part per core.

    Threads that hash small files spend more time waiting for each other than hashing.
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
    """Return facts that change with any write, replacement or renaming; None if it is missing."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - Path.stat takes twice the time
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
