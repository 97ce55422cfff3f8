"""SHA-256 of what each commit of a table wrote, beside its Delta log.

Delta's log names no hashes, so that a flipped bit in a data file is read as another value. After a
commit, its writer records the hashes of its data files and of its log entry in the folder
`_checksums` of the table. Other engines ignore folders whose name begins with an underscore.

A record is a text that `sha256sum --check` reads in the table's folder: one line per file, the hash
and the path relative to the table. The first line is a comment with the hash of all later lines.
`N.sha256` holds version N. Records of many versions are joined to `FIRST-LAST.sha256`, so that the
number of files stays small; where two records name one path, that of the single version counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from lake.errors import DamagedError
from lake.store.faults import name_refused
from lake.store.hashing import hash_file
from lake.store.log import has_entry, list_newest_entry
from lake.store.root import replace_file, sync_folder, write_new_file

FOLDER = "_checksums"
LOG_PREFIX = "_delta_log/"
_NAME = re.compile(r"(\d{20})(?:-(\d{20}))?\.sha256")
_HEAD = re.compile(rb"# lake checksums 1 ([0-9a-f]{64})\n")
_HASH_CHARACTERS = 64
_JOIN_AFTER = 100
_JOIN_ALL_AFTER = 100 * _JOIN_AFTER
_SCHEMA = pl.Schema({"path": pl.String(), "sha256": pl.String()})


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """A record on disk, and the versions that it holds: `first` to `last`."""

    first: int
    last: int
    path: Path

    @property
    def is_single(self) -> bool:
        """Whether it holds one version, and was not joined."""
        return "-" not in self.path.name


@dataclass
class Checksums:
    """The recorded hashes of a table; reads each record once. Not safe to share among threads."""

    table: Path
    _records: frozenset[Path] = frozenset()
    _hashes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_SCHEMA))

    def find(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the hashes of those of some files that have one, by path.

        Raises
        ------
        DamagedError
            A record is damaged.
        """
        self._load()
        wanted = pl.Series(list(paths), dtype=pl.String)
        listed = self._hashes.filter(pl.col("path").is_in(wanted.implode()))
        return dict(listed.iter_rows())  # of several hashes, the last one

    def require_unchanged(self, paths: Iterable[str], what: str) -> None:
        """Refuse data files that differ from their record, before something relies on them.

        Files without a record pass: an older version of lake or another engine wrote them.

        Parameters
        ----------
        what
            What is not done then, for the message: `not compacted`.

        Raises
        ------
        DamagedError
            A file differs or is missing, or a record is damaged.
        """
        wanted = list(paths)
        for path, expected in self.find(wanted).items() if wanted else ():
            found = hash_if_present(self.table / path)
            if found != expected:
                raise build_mismatch_error(self.table, path, found, what)

    def require_unchanged_log(self, version: int, what: str) -> None:
        """Refuse a log that differs from its records, as far as the state of a version needs it.

        These are the checkpoint before, if there is one, and the commits since. A changed log may
        name other files, or other bounds of their times.

        Raises
        ------
        DamagedError
            A file of the log differs, or a record is damaged.
        """
        first = version
        while first > 0 and not (self.table / name_checkpoint(first)).exists():
            first -= 1
        names = [name_log_entry(number) for number in range(first, version + 1)]
        present = [
            name for name in (name_checkpoint(first), *names) if (self.table / name).exists()
        ]
        self.require_unchanged(present, what)

    def _load(self) -> None:
        """Read records that are new; all if some are gone, because they were joined."""
        while True:
            records = {record.path: record for record in list_records(self.table)}
            kept = self._records if self._records <= records.keys() else frozenset[Path]()
            new = sorted((r for path, r in records.items() if path not in kept), key=order_records)
            with suppress(FileNotFoundError):  # another process has just joined records: list again
                lines = [line for record in new for line in _read_lines(record.path)]
                known = self._hashes if kept else self._hashes.clear()
                self._hashes, self._records = pl.concat([known, _parse(lines)]), frozenset(records)
                return


def order_records(record: Record) -> tuple[bool, Record]:
    """Order records so that of two hashes of one path, that of the single version comes last."""
    return record.is_single, record


def list_records(table: Path) -> list[Record]:
    """List the records of a table, by version."""
    records = []
    with suppress(FileNotFoundError):
        for path in (table / FOLDER).iterdir():
            match = _NAME.fullmatch(path.name)
            if match:
                first = int(match[1])
                records.append(Record(first, int(match[2] or first), path))
    return sorted(records)


def read_record(path: Path) -> pl.DataFrame:
    """Read a record: `path` and `sha256`, in the order of its lines.

    Raises
    ------
    FileNotFoundError
        It does not exist (any more).
    DamagedError
        It was changed since it was written.
    """
    return _parse(_read_lines(path))


def write_record(table: Path, version: int, hashes: Mapping[str, str], *, replace: bool) -> None:
    """Record the hashes of a version, by path, and sync them to disk.

    Parameters
    ----------
    replace
        Replace an existing record, as the writer of the version does; others leave it.
    """
    path = _make_folder(table) / f"{version:020}.sha256"
    content = _render(hashes.items())
    if replace:
        replace_file(path, content)
    else:
        with suppress(FileExistsError):
            write_new_file(path, content)
    sync_folder(path.parent)


def read_log_hash(table: Path, version: int) -> str | None:
    """Return the recorded hash of a version's log entry; None without an intact record of its own.

    Tables are opened in spite of a damaged record: `lake verify table` reports it.
    """
    path = table / FOLDER / f"{version:020}.sha256"
    with suppress(FileNotFoundError, DamagedError):
        return dict(read_record(path).iter_rows()).get(name_log_entry(version))
    return None


def name_log_entry(version: int) -> str:
    """Return the path of a version's log entry, relative to the table."""
    return f"{LOG_PREFIX}{version:020}.json"


def name_checkpoint(version: int) -> str:
    """Return the path of a version's checkpoint, relative to the table."""
    return f"{LOG_PREFIX}{version:020}.checkpoint.parquet"


def join_records(table: Path, version: int) -> None:
    """Join records after a version: the single ones each 100 versions, all each 10,000."""
    if version % _JOIN_AFTER != _JOIN_AFTER - 1:
        return
    records = list_records(table)
    if version % _JOIN_ALL_AFTER != _JOIN_ALL_AFTER - 1:
        records = [record for record in records if record.is_single]
    _rewrite(table, records, frozenset())


def forget_files(table: Path, paths: Collection[str]) -> None:
    """Drop deleted data files from the records, and join all records."""
    if paths:
        _rewrite(table, list_records(table), frozenset(paths))


def forget_later(table: Path, newest: int) -> None:
    """Drop records of versions after the newest whose commits were moved away.

    Otherwise, the next commits with these numbers would differ from their records until they have
    their own.
    """
    for record in list_records(table):
        is_gone = record.first > newest and not (table / name_log_entry(record.first)).exists()
        if record.is_single and is_gone:
            record.path.unlink(missing_ok=True)


def find_last(records: Iterable[Record]) -> int:
    """Return the last version that records hold; -1 without records."""
    return max((record.last for record in records), default=-1)


def list_vanished(table: Path) -> list[Record]:
    """List the records of versions after the newest commit in the log.

    A version is recorded when its commit is on disk. So a commit that another writer makes now is
    in the log before its record is: records are listed first.
    """
    records = list_records(table)
    last = find_last(records)
    if last < 0 or has_entry(table, last):
        return []
    newest = list_newest_entry(table)
    return [record for record in records if record.last > newest]


def hash_if_present(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if it does not exist."""
    try:
        return hash_file(path)
    except FileNotFoundError:
        return None


def build_mismatch_error(table: Path, path: str, found: str | None, what: str) -> DamagedError:
    """Build the error for a file that differs from its record, or is missing."""
    state = "is missing" if found is None else "was changed since it was committed"
    return DamagedError(
        f"table {table.name}: {table / path} {state}: {what}",
        f"Check the disk. `lake verify table {table.name}` lists all such files; restore them from "
        "a backup, or from an exported bundle that has them.",
    )


def _read_lines(path: Path) -> list[str]:
    with name_refused(path):
        content = path.read_bytes()
    head = _HEAD.match(content)
    body = content[head.end() :] if head else b""
    if head is None or hashlib.sha256(body).hexdigest().encode() != head[1]:
        raise DamagedError(
            f"{path} is damaged: its content does not match its first line",
            "Restore it from a backup, or delete it: the files that it names then have no "
            "checksum, as `lake verify table` reports.",
        )
    return body.decode().split("\n")[:-1]


def _parse(lines: list[str]) -> pl.DataFrame:
    series = pl.Series("line", lines, dtype=pl.String)
    digests = series.str.slice(0, _HASH_CHARACTERS)
    return pl.DataFrame(
        {"path": series.str.slice(_HASH_CHARACTERS + 2), "sha256": digests}, schema=_SCHEMA
    )


def _rewrite(table: Path, records: list[Record], dropped: Collection[str]) -> None:
    """Replace records by one, without dropped paths.

    The new record is written before the old ones are deleted: readers find each path in at least
    one, whenever they look. A damaged record stays as it is, for `lake verify table` to report.
    """
    intact: dict[Record, pl.DataFrame] = {}
    for record in sorted(records, key=order_records):
        with suppress(FileNotFoundError, DamagedError):
            intact[record] = read_record(record.path)
    if not intact or (len(intact) == 1 and not dropped):
        return
    hashes = pl.concat(list(intact.values())).unique("path", keep="last", maintain_order=True)
    hashes = hashes.filter(~pl.col("path").is_in(list(dropped)))
    first, last = min(r.first for r in intact), max(r.last for r in intact)
    joined = table / FOLDER / f"{first:020}-{last:020}.sha256"
    replace_file(joined, _render(hashes.iter_rows()))
    sync_folder(joined.parent)
    for record in intact:
        if record.path != joined:
            record.path.unlink(missing_ok=True)


def _render(hashes: Iterable[tuple[str, str]]) -> bytes:
    body = "".join(f"{digest}  {path}\n" for path, digest in hashes).encode()
    return b"# lake checksums 1 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _make_folder(table: Path) -> Path:
    folder = table / FOLDER
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        sync_folder(table)
    return folder
