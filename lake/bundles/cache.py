"""A cache of pinned rows as Arrow files that are mapped into memory, not read.

Pinned rows never change, so the cache never goes stale. A file holds the whole selection of one
market, in order. It is written under a temporary name and renamed into place, so that processes can
share a cache. The file `….sha256` beside it has its digest and its name, and the time of its last
use. Each process compares a file with its digest before the first read, and again if the file was
written since; one that differs, such as after a disk error, is removed and filled again.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import polars as pl

from lake.errors import StorageError
from lake.log import get_logger
from lake.settings import CacheSettings
from lake.store.hashing import ExpectedFile, FileChecker, hash_file

_log = get_logger(__name__)
_CHECKER = FileChecker()
_SUFFIX, _DIGEST_SUFFIX = ".arrow", ".sha256"
_SEPARATOR, _CHECKSUM_CHARACTERS = ".", 16
_BATCH_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Identifies a file of the cache: the rows of one market in one table of a bundle.

    `checksum` is that of the manifest. Bundles of several lakes can have one id and differ in what
    digests leave out, such as when each machine received a row.
    """

    bundle_id: str
    checksum: str
    table: str
    exchange: str
    symbol: str

    @property
    def path(self) -> Path:
        """Path of the file, relative to the cache folder."""
        market = f"{quote(self.exchange, safe='')},{quote(self.symbol, safe='')}{_SUFFIX}"
        folder = f"{self.bundle_id}{_SEPARATOR}{self.checksum[:_CHECKSUM_CHARACTERS]}"
        return Path(folder, self.table, market)


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of mapped files.

    Attributes
    ----------
    folder
        Its location; created when it is first needed.
    max_bytes
        Its size limit; the least recently used files are removed first.
    fill_bytes
        Reads do not cache markets that need more than this.
    clock_ns
        The clock that gives the time of the last use of a file.
    checker
        Compares files with their digests; by default one for the whole process.
    """

    folder: Path
    max_bytes: int
    fill_bytes: int
    clock_ns: Callable[[], int] = time.time_ns
    checker: FileChecker = field(default_factory=lambda: _CHECKER, compare=False)

    def get(self, key: CacheKey, columns: Iterable[str] | None = None) -> pl.DataFrame | None:
        """Return the mapped rows of a market, or None if they are not cached."""
        import pyarrow as pa
        from pyarrow import ipc

        path = self.folder / key.path
        try:
            if not self._is_right(key):
                return None
            with pa.memory_map(str(path)) as mapped:
                table = ipc.open_file(mapped).read_all()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, StorageError, pa.ArrowException) as error:
            _log.warning("cached file cannot be read", path=str(path), reason=str(error))
            return None
        with suppress(OSError):  # a cache owned by another user is valid, too
            self._mark_used(_locate_digest(path))
        return pl.DataFrame(table if columns is None else table.select(list(columns)))

    def _is_right(self, key: CacheKey) -> bool:
        """Whether a file has the digest that was recorded for it; one that differs is removed.

        Raises
        ------
        OSError
            The file, or the file with its digest, cannot be read.
        """
        path = self.folder / key.path
        size = path.stat().st_size
        digest, _, name = _locate_digest(path).read_text(errors="replace").partition("  ")
        expected = ExpectedFile(str(path), size, digest)
        if name == str(key.path) and not self.checker.find_wrong([expected]):
            return True
        _log.warning("cached file differs from its digest, and is filled again", path=str(path))
        with suppress(OSError):
            _remove(path)
        return False

    def put(self, key: CacheKey, frames: Iterable[pl.DataFrame]) -> int:
        """Store the rows of a market, passed in order; return the size of the file in bytes.

        Raises
        ------
        StorageError
            The rows need more than the limit of the cache, or the disk is full.
        """
        path = self.folder / key.path
        unfinished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._write(unfinished, frames)
                size = unfinished.stat().st_size
                digest = hash_file(unfinished)
                unfinished.replace(path)
                unfinished.write_text(f"{digest}  {key.path}")
                self._mark_used(unfinished)
                unfinished.replace(_locate_digest(path))
            finally:
                unfinished.unlink(missing_ok=True)
            self._evict(path)
        except OSError as error:
            raise StorageError(
                f"cache {self.folder} cannot be written: {error.strerror}",
                "Free some disk space, or set another folder: cache.folder in lake.toml.",
            ) from error
        return size

    def bytes(self) -> int:
        """Return the size of all files in bytes."""
        return sum(size for _, size, _ in self._files())

    def remove(self, bundle_id: str) -> None:
        """Remove the files of a bundle."""
        for path, _, _ in self._files():
            folder = path.relative_to(self.folder).parts[0]
            if folder.partition(_SEPARATOR)[0] == bundle_id:
                _remove(path)

    def _write(self, path: Path, frames: Iterable[pl.DataFrame]) -> None:
        import pyarrow as pa
        from pyarrow import ipc

        batches = _join_frames(frames)
        first = next(batches)
        newest = pl.CompatLevel.newest()  # strings in Polars' own layout: no copy
        with path.open("xb") as file:
            writer: pa.RecordBatchFileWriter = ipc.new_file(
                file, first.head(0).to_arrow(compat_level=newest).schema
            )
            with writer:
                for frame in (first, *batches):
                    writer.write_table(frame.to_arrow(compat_level=newest))
                    self._require_room(path, file.tell())
            file.flush()
            os.fsync(file.fileno())

    def _require_room(self, path: Path, size: int) -> None:
        if size > self.max_bytes:
            raise StorageError(
                f"cache {self.folder}: {path.parent} needs more than the limit of "
                f"{self.max_bytes:,} bytes",
                "Raise `cache.max_bytes` in lake.toml, or pin a smaller selection.",
            )

    def _evict(self, newest: Path) -> None:
        """Remove the least recently used files until the cache is within its limit."""
        files = sorted(self._files(), key=lambda file: file[2])
        total = sum(size for _, size, _ in files)
        for path, size, _ in files:
            if total <= self.max_bytes:
                return
            if path != newest:
                _remove(path)  # processes that have mapped it keep its content
                total -= size
                _log.info("evicted from the cache", path=str(path), bytes=size)

    def _mark_used(self, path: Path) -> None:
        """Record the last use as the time of the file with the digest."""
        os.utime(path, ns=(self.clock_ns(),) * 2)

    def _files(self) -> Iterator[tuple[Path, int, int]]:
        """Yield the files with their sizes and times of last use."""
        for path in self.folder.glob(f"*/*/[!.]*{_SUFFIX}"):
            try:
                size = path.stat().st_size
            except FileNotFoundError:  # another process was faster
                continue
            used_ns = 0
            with suppress(FileNotFoundError):  # written by an earlier version
                used_ns = _locate_digest(path).stat().st_mtime_ns
            yield path, size, used_ns


def open_cache(settings: CacheSettings) -> Cache | None:
    """Open the cache that the settings describe, by default in the user's cache folder."""
    if not settings.enabled:
        return None
    folder = settings.folder or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "lake"
    )
    return Cache(folder.expanduser(), settings.max_bytes, settings.fill_bytes)


def _locate_digest(path: Path) -> Path:
    """Return the path of the digest of a file."""
    return path.with_name(path.name + _DIGEST_SUFFIX)


def _remove(path: Path) -> None:
    """Remove a file with its digest."""
    path.unlink(missing_ok=True)
    _locate_digest(path).unlink(missing_ok=True)


def _join_frames(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Join frames into batches of about a million rows: a mapped batch is one chunk."""
    pending: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        pending.append(frame)
        rows += frame.height
        if rows >= _BATCH_ROWS:
            yield pl.concat(pending).rechunk()
            pending, rows = [], 0
    if pending:
        yield pl.concat(pending).rechunk()
