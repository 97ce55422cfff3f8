"""The journal of a migration: files that are written and not committed yet, part by part.

A part is the rows of one market and some whole days. A later run takes it if the same files still
hold its rows, and its new files are as they were written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from lake.errors import CommitConflictError, DamagedError
from lake.model.dataset import Dataset
from lake.model.digest import digest_market_days
from lake.model.frames import sort_by
from lake.model.market import MARKET_COLUMNS
from lake.model.partitions import MARKET_DAY
from lake.model.selection import Selection
from lake.model.time import iso
from lake.store.append import write_files
from lake.store.delta import DataFile
from lake.store.hashing import hash_file
from lake.store.locks import lock_file

_NAME = "_migration.jsonl"
_WAIT = timedelta(seconds=5)
_DAYS = {"exchange": pl.String(), "symbol": pl.String(), "date": pl.Date(), "digest": pl.String()}


@dataclass(frozen=True)
class Part:
    """New files of one market and some days, their SHA-256, and the digest of each market-day."""

    files: tuple[DataFile, ...]
    hashes: tuple[str, ...]
    rows: int
    days: pl.DataFrame


@dataclass
class MigrationJournal:
    """The parts that are written.

    Attributes
    ----------
    folder
        The folder of the table.
    reused
        Files of an earlier run that were taken.
    """

    folder: Path
    reused: int = 0
    _parts: dict[str, Part] = field(default_factory=dict)
    _own: set[str] = field(default_factory=set)

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[MigrationJournal]:
        """Open the journal of a table for as long as the block runs; only one process can.

        Raises
        ------
        CommitConflictError
            Another process migrates the table.
        """
        with lock_file(folder / _NAME, timeout=_WAIT) as lock:
            if not lock.is_held:
                raise CommitConflictError(
                    f"table {folder.name}: another process migrates it",
                    "Wait until it has ended.",
                )
            journal = cls(folder)
            for line in (folder / _NAME).read_text().splitlines():
                with suppress(ValueError, KeyError, TypeError):  # the last line may be torn
                    record = json.loads(line)
                    journal._parts[record["key"]] = _parse_part(record)
            yield journal

    def find(self, target: Dataset, selection: Selection, sources: pl.Series) -> Part | None:
        """Return the part of some rows if it is written, and its files are as they were."""
        key = _identify(target, selection, sources)
        part = self._parts.get(key)
        if part is None or key in self._own:
            return part
        for file, digest in zip(part.files, part.hashes, strict=True):
            path = self.folder / file.path
            if not path.is_file() or hash_file(path) != digest:
                return None
        self._own.add(key)
        self.reused += len(part.files)
        return part

    def write(
        self, target: Dataset, selection: Selection, sources: pl.Series, rows: pl.DataFrame
    ) -> Part:
        """Write the new files of some rows, read them back, and note them.

        Raises
        ------
        DamagedError
            They read back differently.
        """
        files = tuple(write_files(self.folder, target, rows, [], syncs=True))
        if not _read(self.folder, target, files).equals(sort_by(rows, target.identity)):
            raise DamagedError(
                f"table {target.name}: rows of {' '.join(selection.symbols)} read back differently "
                "than they were written: the table was not migrated",
                "Check the disk and the memory of this machine. The old files are as they were.",
            )
        hashes = tuple(hash_file(self.folder / file.path) for file in files)
        part = Part(files, hashes, rows.height, digest_market_days(target, rows))
        key = _identify(target, selection, sources)
        with (self.folder / _NAME).open("a") as journal:
            journal.write(json.dumps({"key": key, **_render_part(part)}, default=str) + "\n")
        self._parts[key] = part
        self._own.add(key)
        return part

    def end(self) -> None:
        """Forget all parts: they are committed."""
        (self.folder / _NAME).write_text("")


def _identify(target: Dataset, selection: Selection, sources: pl.Series) -> str:
    """Identify rows and how they are written."""
    kept = [target.granularity, [[c.name, c.type] for c in target.columns]]
    bounds = [iso(time) for time in (selection.start, selection.end) if time is not None]
    place = [*selection.exchanges, *selection.symbols, *bounds]
    text = json.dumps([kept, place, sorted(sources)])
    return hashlib.sha256(text.encode()).hexdigest()


def _read(folder: Path, target: Dataset, files: tuple[DataFile, ...]) -> pl.DataFrame:
    """Read the rows of files, in the order of their identity."""
    shown = target.polars_schema
    frames = [target.empty()]
    for file in files:
        rows = pl.read_parquet(folder / file.path, hive_partitioning=False)
        market = (pl.lit(file.partition[name]).alias(name) for name in MARKET_COLUMNS)
        day = pl.col(target.time_column).dt.date().alias("date")
        dated = rows if "date" in rows.columns else rows.with_columns(day)
        frames.append(dated.with_columns(market).select(list(shown)))
    return sort_by(pl.concat(frames), target.identity)


def _render_part(part: Part) -> dict[str, Any]:
    days = part.days.select(list(_DAYS)).rows()
    return {
        "files": [asdict(file) for file in part.files],
        "hashes": part.hashes,
        "rows": part.rows,
        "days": days,
    }


def _parse_part(record: dict[str, Any]) -> Part:
    files = tuple(DataFile(**file) for file in record["files"])
    days = [(*market, date.fromisoformat(day), digest) for *market, day, digest in record["days"]]
    frame = pl.DataFrame(days, schema=_DAYS, orient="row").select(*MARKET_DAY, "digest")
    return Part(files, tuple(record["hashes"]), record["rows"], frame)
