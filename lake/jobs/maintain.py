"""Maintenance of a lake: compact tables, and delete files that are no longer needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Literal

import polars as pl

from lake.bundles.repository import Repository
from lake.bundles.retention import list_bundle_files
from lake.errors import UsageError
from lake.jobs.job import WriteCounts, record_job
from lake.model.dataset import Dataset
from lake.model.progress import NoProgress, Progress
from lake.model.time import in_utc, iso
from lake.store import checksums, delta, running
from lake.store.compact import (
    SETTLED_AFTER,
    CompactionResult,
    CompactionRule,
    compact,
    list_files,
    plan_batches,
)
from lake.store.damages import Damages
from lake.store.faults import explain_os_error
from lake.store.ledger import Ledger
from lake.store.locks import lock_for_deletion
from lake.store.snapshot import Snapshot
from lake.store.store import Store, WriteResult
from lake.store.vacuum import VacuumReport, vacuum
from lake.store.verify import TableVerification, verify_tables

KEEP = timedelta(days=7)
_LEFTOVER_AGE = timedelta(hours=1)
_UNFINISHED = ".unfinished-*"
_TEMPORARY = ".*.tmp"


class Maintainer:
    """Maintains the tables of a lake, and never changes what a bundle reads.

    Parameters
    ----------
    store
        Tables of the lake.
    repository
        Bundles of the lake; the files that they need stay.
    """

    def __init__(self, store: Store, repository: Repository) -> None:
        self._store = store
        self._repository = repository
        self._ledger = Ledger(store)

    def optimize(
        self,
        tables: Sequence[str] = (),
        *,
        before: datetime | None = None,
        progress: Progress | None = None,
    ) -> pl.DataFrame:
        """Compact each closed date into one file; the rows stay the same.

        In other partitions, small files are compacted as well if there are more than 64 that were
        written ten minutes ago or earlier. Old files stay until a vacuum deletes them. Ingestion
        and reads may run at the same time.

        Parameters
        ----------
        tables
            All by default.
        before
            Compact the dates that ended by then. Default: all dates before today.

        Returns
        -------
        DataFrame
            By table: `dates` compacted, `rows` in them, `files_before`, `files_after`,
            `bytes_before`, `bytes_after`, `commits`.

        Raises
        ------
        DamagedError
            Rows cannot be read, or would change; the date stays as it was. All other tables are
            compacted, and the error's `report` is the frame.
        CommitConflictError
            Other writers changed the same dates in each attempt.
        UsageError
            `before` is in the future, or has no time zone.
        """
        datasets = self._resolve_datasets(tables)
        end = self._resolve_end(before)
        progress = progress or NoProgress()
        tally = WriteCounts()
        arguments = {"tables": [dataset.name for dataset in datasets], "before": iso(end)}
        with record_job(self._ledger, "maintain optimize", arguments, tally) as job:
            rows = []
            damages = Damages()
            for dataset in datasets:
                with damages.collect(dataset.name):
                    total = self._optimize(dataset, end, job.id, tally, progress, damages)
                    rows.append(asdict(total))
            report = pl.DataFrame(rows, schema=_OPTIMIZE_SCHEMA)
            damages.raise_if_any(report)
        return report

    def vacuum(
        self, tables: Sequence[str] = (), *, keep: timedelta = KEEP, dry_run: bool = False
    ) -> VacuumReport:
        """Delete data files that neither a recent version nor a bundle needs.

        Parameters
        ----------
        tables
            All by default.
        keep
            Versions that were the latest within this time stay readable; one hour or more.
        dry_run
            Only list what would be deleted, and which bundles need which files.

        Raises
        ------
        UsageError
            `keep` is too short.
        DamagedError
            A table is damaged, or the files that a bundle needs of it are unknown: nothing of it
            was deleted. All other tables are vacuumed, and the error's `report` is the report. If
            a bundle itself cannot be read, nothing at all is deleted.
        CommitConflictError
            A bundle is being pinned.
        """
        datasets = self._resolve_datasets(tables)
        if dry_run:
            holds = list_bundle_files(self._repository)
            return vacuum(self._store, datasets, holds, keep=keep, dry_run=True)
        arguments = {
            "tables": [dataset.name for dataset in datasets],
            "keep_seconds": keep.total_seconds(),
        }
        with (
            record_job(self._ledger, "maintain vacuum", arguments, WriteCounts()),
            lock_for_deletion(
                self._store.root
            ),  # before reading the bundles, so that no new one is pinned meanwhile
        ):
            holds = list_bundle_files(self._repository)
            return vacuum(self._store, datasets, holds, keep=keep, dry_run=False)

    def checkpoint(self, tables: Sequence[str] = ()) -> pl.DataFrame:
        """Write checkpoints, so that tables open faster; return table and version.

        A table gets one each 20 commits by itself.
        """
        datasets = self._resolve_datasets(tables)
        arguments = {"tables": [dataset.name for dataset in datasets]}
        with record_job(self._ledger, "maintain checkpoint", arguments, WriteCounts()):
            rows, damages = [], Damages()
            for dataset in datasets:
                with damages.collect(dataset.name):
                    version = self._write_checkpoint(dataset)
                    rows.append({"table": dataset.name, "version": version})
            report = pl.DataFrame(rows, schema={"table": pl.String(), "version": pl.Int64()})
            damages.raise_if_any(report)
        return report

    def gc(self, *, dry_run: bool = False) -> pl.DataFrame:
        """Delete files that crashes left beside the tables, if older than an hour.

        Returns
        -------
        DataFrame
            `path` (relative to the lake), `bytes`, `kind` (`temporary file`, `unfinished bundle`).
        """
        if dry_run:
            return _build_leftovers_frame(self._find_leftovers())
        with (
            record_job(self._ledger, "maintain gc", {}, WriteCounts()),
            lock_for_deletion(self._store.root),
        ):
            leftovers = self._find_leftovers()
            for leftover in leftovers:
                _delete(self._store.root.path / leftover.path)
        return _build_leftovers_frame(leftovers)

    def verify(
        self, tables: Sequence[str] = (), *, progress: Progress | None = None
    ) -> TableVerification:
        """Compare the files of tables with the hashes that were recorded when they were committed.

        Nothing is written. Files of older versions are not read: bundles verify those they need.

        Parameters
        ----------
        tables
            All by default.
        """
        names = (tables,) if isinstance(tables, str) else tuple(tables)
        every = (*self._store.tables(), *self._store.lost_tables())
        datasets = [self._store.catalog.dataset(name) for name in names or sorted(every)]
        unique = {dataset.name: dataset for dataset in datasets}
        return verify_tables(self._store, unique.values(), progress or NoProgress())

    def _optimize(
        self,
        dataset: Dataset,
        end: datetime,
        job_id: str,
        tally: WriteCounts,
        progress: Progress,
        damages: Damages,
    ) -> _Total:
        """Compact a table; dates whose rows cannot be read stay as they are."""
        table = self._store.open_for_writing(dataset)
        rule = CompactionRule(end, self._store.now() - SETTLED_AFTER)
        snapshot = Snapshot(dataset, table)
        batches = plan_batches(list_files(snapshot), snapshot.dataset, rule)
        total = _Total(dataset.name)
        parts = sum(len(batch.partitions) for batch in batches)
        progress.begin(f"compacting {dataset.name}", parts)
        try:
            for batch in batches:
                with damages.collect(dataset.name):
                    now = self._store.now()
                    result = compact(table, dataset, batch, rule, now=now, job_id=job_id)
                    if result is not None:
                        total = total.add(result)
                        tally.add(dataset.name, WriteResult(result.rows, 0, 0, 0, result.version))
                progress.advance(len(batch.partitions))
        finally:
            progress.end()
        return total

    def _resolve_datasets(self, tables: Sequence[str]) -> list[Dataset]:
        """Return the datasets of existing tables."""
        names = (tables,) if isinstance(tables, str) else tuple(tables)
        chosen = [self._store.catalog.dataset(name) for name in names or self._store.tables()]
        unique = list({dataset.name: dataset for dataset in chosen}.values())
        for dataset in unique:
            if not self._store.exists(dataset.name):
                self._store.snapshot(dataset)  # raises: there is no such table
        return unique

    def _resolve_end(self, before: datetime | None) -> datetime:
        now = self._store.now()
        if before is None:
            return datetime.combine(now.astimezone(UTC), time(), UTC)
        before = in_utc(before)
        if before > now:
            raise UsageError(
                f"{iso(before)} is in the future, so its dates are not closed",
                "Give a past time, or none to compact all dates before today.",
            )
        return before

    def _write_checkpoint(self, dataset: Dataset) -> int:
        path = self._store.root.tables / dataset.name
        return delta.write_checkpoint(path, dataset, self._store.clock)

    def _find_leftovers(self) -> list[_Leftover]:
        root = self._store.root
        unfinished = [path for path in root.bundles.glob(_UNFINISHED) if path.is_dir()]
        temporary = [
            *root.path.glob(_TEMPORARY),
            *root.path.glob(f"{running.FOLDER}/{_TEMPORARY}"),
            *root.bundles.rglob(_TEMPORARY),
            *root.tables.glob(f"*/{checksums.FOLDER}/{_TEMPORARY}"),
        ]
        files = [path for path in temporary if not any(path.is_relative_to(u) for u in unfinished)]
        leftovers: list[_Leftover] = []
        for path in (*unfinished, *files):
            with suppress(FileNotFoundError):  # its writer finished meanwhile
                leftovers.append(_Leftover.of(path, root.path))
        latest = self._store.now() - _LEFTOVER_AGE
        return sorted(
            (item for item in leftovers if item.modified < latest), key=lambda item: item.path
        )


@dataclass(frozen=True, slots=True)
class _Total:
    """What an optimization changed in a table."""

    table: str
    dates: int = 0
    rows: int = 0
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    commits: int = 0

    def add(self, result: CompactionResult) -> _Total:
        """Return the total with the result of one more commit."""
        return _Total(
            self.table,
            self.dates + result.dates,
            self.rows + result.rows,
            self.files_before + result.files_before,
            self.files_after + result.files_after,
            self.bytes_before + result.bytes_before,
            self.bytes_after + result.bytes_after,
            self.commits + 1,
        )


_OPTIMIZE_SCHEMA = pl.Schema(
    {
        "table": pl.String(),
        **dict.fromkeys(
            (
                "dates",
                "rows",
                "files_before",
                "files_after",
                "bytes_before",
                "bytes_after",
                "commits",
            ),
            pl.Int64(),
        ),
    }
)


@dataclass(frozen=True, slots=True)
class _Leftover:
    """A file or folder that a crash left; `modified` is the newest time in it."""

    path: str
    bytes: int
    kind: Literal["temporary file", "unfinished bundle"]
    modified: datetime

    @classmethod
    def of(cls, path: Path, root: Path) -> _Leftover:
        everything = [path, *path.rglob("*")]
        facts = [item.lstat() for item in everything]
        return cls(
            str(path.relative_to(root)),
            sum(
                fact.st_size for item, fact in zip(everything, facts, strict=True) if item.is_file()
            ),
            "unfinished bundle" if path.is_dir() else "temporary file",
            datetime.fromtimestamp(max(fact.st_mtime for fact in facts), UTC),
        )


def _delete(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, str(path)) from error


def _build_leftovers_frame(leftovers: Iterable[_Leftover]) -> pl.DataFrame:
    rows = [{"path": item.path, "bytes": item.bytes, "kind": item.kind} for item in leftovers]
    schema = {"path": pl.String(), "bytes": pl.Int64(), "kind": pl.String()}
    return pl.DataFrame(rows, schema=schema)
