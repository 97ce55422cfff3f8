"""Verify the files of a table: compare data files and log with the hashes recorded at commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from lake.errors import DamagedError, LakeError, StorageError, UnknownNameError
from lake.model.dataset import Dataset
from lake.model.progress import Progress
from lake.model.words import count
from lake.store.checksums import (
    LOG_PREFIX,
    find_last,
    hash_if_present,
    list_records,
    name_checkpoint,
    name_log_entry,
    order_records,
    read_record,
)
from lake.store.damages import UNREADABLE, Damages
from lake.store.faults import translate_errors
from lake.store.hashing import hash_files
from lake.store.log import has_lost_log, list_newest_entry
from lake.store.reader import FILES
from lake.store.soundness import describe_vanished, find_fault, is_readable
from lake.store.store import Store

Kind = Literal["damaged", "missing", "unrecorded"]
PROBLEMS = pl.Schema(
    {
        "table": pl.String(),
        "path": pl.String(),
        "kind": pl.String(),
        "expected": pl.String(),
        "found": pl.String(),
    }
)


@dataclass(frozen=True)
class TableVerification:
    """The result of verifying tables.

    Attributes
    ----------
    tables
        One row per table: `table`, `version`, `files` and `bytes` of its live data files,
        `commits`, and how many files and commits are `damaged`, `missing` or `unrecorded`.
    files
        Files that are not as they were committed: `table`, `path` (relative to the table), `kind`,
        `expected` and `found` (SHA-256, or what is wrong). `damaged`: the content is another.
        `missing`: there is no file; of a table whose whole log is gone, each commit. `unrecorded`:
        no checksum was recorded, because an earlier version of lake or another program wrote the
        file, or because its writer crashed; the next writer of lake records it then.
    """

    tables: pl.DataFrame
    files: pl.DataFrame

    @property
    def problems(self) -> pl.DataFrame:
        """The files that are damaged or missing."""
        return self.files.filter(pl.col("kind") != "unrecorded")

    @property
    def is_intact(self) -> bool:
        """Whether no file is damaged or missing."""
        return self.problems.is_empty()

    def __repr__(self) -> str:
        counts = self.tables.select(pl.col("files", "damaged", "missing", "unrecorded").sum())
        files, damaged, missing, unrecorded = counts.row(0)
        return (
            f"<TableVerification: {files:,} files, {damaged:,} damaged, {missing:,} missing, "
            f"{unrecorded:,} without a checksum>"
        )


@dataclass(frozen=True, slots=True)
class _Problem:
    path: str
    kind: Kind
    expected: str | None = None
    found: str | None = None


@dataclass
class _Expected:
    """What the files of a table must be: their hashes by path, and damaged records."""

    hashes: dict[str, str] = field(default_factory=dict)
    damaged: list[Path] = field(default_factory=list)

    @classmethod
    def read(cls, table: Path) -> _Expected:
        expected = cls()
        for record in sorted(list_records(table), key=order_records):
            try:
                expected.hashes.update(read_record(record.path).iter_rows())
            except DamagedError:
                expected.damaged.append(record.path)
        return expected


def verify_tables(
    store: Store, datasets: Iterable[Dataset], progress: Progress
) -> TableVerification:
    """Verify the live data files and the whole log of tables, by their recorded hashes.

    Raises
    ------
    StorageError
        The storage refuses files. All others are verified, and the error has the result.
    """
    tables, problems, damages = [], [], Damages()
    for dataset in datasets:
        name = dataset.name
        with damages.collect(name), translate_errors(f"table {name}"):
            summary, found = _verify_table(store, dataset, progress, damages)
            tables.append({"table": name, **summary})
            problems += [
                {"table": name, "path": p.path, "kind": p.kind, "expected": p.expected,
                 "found": p.found}
                for p in found
            ]  # fmt: skip
    result = TableVerification(
        pl.DataFrame(tables, schema=_TABLES), pl.DataFrame(problems, schema=PROBLEMS)
    )
    damages.raise_if_any(result)
    return result


_NO_LOG = "its data files are there, and no commit is"
_TABLES = pl.Schema(
    {
        "table": pl.String(),
        **dict.fromkeys(
            ("version", "files", "bytes", "commits", "damaged", "missing", "unrecorded"),
            pl.Int64(),
        ),
    }
)


def _verify_table(
    store: Store, dataset: Dataset, progress: Progress, damages: Damages
) -> tuple[dict[str, int | None], list[_Problem]]:
    folder = store.root.tables / dataset.name
    expected = _Expected.read(folder)
    problems = [_Problem(str(path.relative_to(folder)), "damaged") for path in expected.damaged]
    newest = list_newest_entry(folder)
    problems += _verify_log(folder, newest, expected)
    problems += _verify_checkpoints(folder, newest, expected)
    version: int | None = None
    files = pl.DataFrame(schema=FILES)
    try:
        snapshot = store.snapshot(dataset)
        version, files = snapshot.version, snapshot.files()
    except (UnknownNameError, *UNREADABLE) as error:
        if not problems:
            problems.append(_explain_unopened(folder, error))
    problems += _verify_data(folder, files, expected, progress, damages)
    counts = {
        kind: sum(problem.kind == kind for problem in problems)
        for kind in ("damaged", "missing", "unrecorded")
    }
    size = int(files["bytes"].sum())
    return {
        "version": version, "files": files.height, "bytes": size, "commits": newest + 1, **counts
    }, problems  # fmt: skip


def _explain_unopened(folder: Path, error: LakeError) -> _Problem:
    """Return the problem of a table that cannot be opened; raise what is none of its files."""
    if isinstance(error, UnknownNameError) or has_lost_log(folder):
        return _Problem(LOG_PREFIX, "missing", None, _NO_LOG)
    if isinstance(error, StorageError):
        raise error
    return _Problem(LOG_PREFIX, "damaged", "readable", error.message)


def _verify_log(folder: Path, newest: int, expected: _Expected) -> Iterator[_Problem]:
    """Verify each commit, also those that vanished; one without a record must be readable."""
    last = max(newest, find_last(list_records(folder)))
    names = [name_log_entry(version) for version in range(last + 1)]
    present = [name for name in names if (folder / name).exists()]
    digests = dict(zip(present, hash_files([folder / name for name in present]), strict=True))
    for version, name in enumerate(names):
        recorded, found = expected.hashes.get(name), digests.get(name)
        if recorded is None:
            fault = find_fault(folder, version)
            if fault:
                yield _Problem(name, "damaged", "readable", f"a commit that {fault}")
        elif found is None:
            yield _Problem(name, "missing", recorded, describe_vanished(version))
        elif found != recorded:
            yield _Problem(name, "damaged", recorded, found)


def _verify_checkpoints(folder: Path, newest: int, expected: _Expected) -> Iterator[_Problem]:
    """Verify recorded checkpoints; a missing one is not needed, as its commits are there."""
    for name in map(name_checkpoint, range(newest + 1)):
        recorded = expected.hashes.get(name)
        found = hash_if_present(folder / name) if recorded else None
        if found not in (None, recorded):
            yield _Problem(name, "damaged", recorded, found)


def _verify_data(
    folder: Path, files: pl.DataFrame, expected: _Expected, progress: Progress, damages: Damages
) -> Iterator[_Problem]:
    """Verify data files; of those that the storage refuses nothing is known but that."""
    refused: dict[Path | str, StorageError] = {}
    sizes = dict(files.select("path", "bytes").iter_rows())
    present = [path for path in sizes if (folder / path).is_file()]
    progress.begin(f"hashing {folder.name}", len(present))
    digests = hash_files([folder / path for path in present], progress, refused)
    progress.end()
    hashes = dict(zip(present, digests, strict=True))
    if refused:
        damages.add(folder.name, _join_refused(refused))
    for file in refused:
        del sizes[str(Path(file).relative_to(folder))]
    for path, size in sizes.items():
        recorded = expected.hashes.get(path)
        problem = _compare_file(folder, path, size, recorded, hashes.get(path))
        if problem is not None:
            yield problem


def _join_refused(refused: Mapping[Path | str, StorageError]) -> StorageError:
    """Return one error for all files that the storage refuses."""
    first = refused[min(refused, key=str)]
    more = len(refused) - 1
    return (
        StorageError(f"{first.message}; and {count(more, 'more file')}", first.hint)
        if more
        else first
    )


def _compare_file(
    folder: Path, path: str, size: int, recorded: str | None, found: str | None
) -> _Problem | None:
    """Compare the size and hash of a data file with what was recorded."""
    if found is None:
        return _Problem(path, "missing", recorded)
    if recorded is None and not is_readable(folder / path, size):
        return _Problem(path, "damaged", f"{size} readable bytes", found)
    if recorded is None:
        return _Problem(path, "unrecorded", None, found)
    return None if found == recorded else _Problem(path, "damaged", recorded, found)
