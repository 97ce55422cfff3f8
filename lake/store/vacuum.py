"""Vacuum: delete data files that nobody needs, and never those that a bundle needs.

Delta's own vacuum is not used: it depends on properties of the table, which any engine can set.
Here one rule decides: a file is deleted if no version that is kept and no bundle names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import polars as pl

from lake.errors import DamagedError, LakeError, UsageError
from lake.model.dataset import Dataset
from lake.model.time import EPOCH
from lake.store.checksums import forget_files
from lake.store.damages import Damages
from lake.store.faults import translate_errors
from lake.store.history import record_vacuum
from lake.store.log import Commit, read_commits
from lake.store.snapshot import Snapshot
from lake.store.soundness import require_all_commits
from lake.store.store import Store

LEAST_KEEP = timedelta(hours=1)
Reason = Literal["older version", "never committed"]
# The name of a file whose writer was killed may still end in a number.
_DATA_FILE = re.compile(r".*\.parquet(#\d+)?", re.DOTALL)


@dataclass(frozen=True)
class BundleFiles:
    """The files of one table that one bundle needs.

    Attributes
    ----------
    bundle, name
        Its id and its name.
    table, table_id, version
        The table that it pins, and the version.
    paths
        Returns the data files in the bundle's file index: relative to the table, as on disk.
    """

    bundle: str
    name: str
    table: str
    table_id: str
    version: int
    paths: Callable[[], frozenset[str]]


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A data file on disk; its path is relative to the table."""

    path: str
    bytes: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class UnneededFile:
    """A data file that can be deleted, and the reason."""

    file: DiskFile
    reason: Reason


@dataclass(frozen=True)
class VacuumPlan:
    """Plan for one table: files to delete; by bundle id and name, files that only bundles keep."""

    unneeded: tuple[UnneededFile, ...]
    held: Mapping[tuple[str, str], tuple[DiskFile, ...]]


@dataclass(frozen=True)
class VacuumReport:
    """Result of a vacuum, or of its dry run.

    Attributes
    ----------
    files
        `table`, `path`, `bytes`, `reason` (`older version`, `never committed`), `deleted`.
    held
        The `files` and `bytes` that only bundles keep, by bundle and table: `bundle`, `name`,
        `table`, `files`, `bytes`. Files that two bundles keep are counted for both.
    """

    files: pl.DataFrame
    held: pl.DataFrame

    def __repr__(self) -> str:
        return f"<VacuumReport: {self.files.height:,} files, {self.files['bytes'].sum():,} bytes>"


FILES = pl.Schema(
    {
        "table": pl.String(),
        "path": pl.String(),
        "bytes": pl.Int64(),
        "reason": pl.String(),
        "deleted": pl.Boolean(),
    }
)
HELD = pl.Schema(
    {
        "bundle": pl.String(),
        "name": pl.String(),
        "table": pl.String(),
        "files": pl.Int64(),
        "bytes": pl.Int64(),
    }
)


def vacuum(
    store: Store,
    datasets: Sequence[Dataset],
    bundles: Sequence[BundleFiles],
    *,
    keep: timedelta,
    dry_run: bool,
) -> VacuumReport:
    """Delete data files of some tables that nobody needs.

    Files of the latest version are needed, those of every version that was the latest within
    `keep`, and those of every bundle: of the version that it pins, and in its own list of files.

    Parameters
    ----------
    bundles
        The files that bundles need. Hold `locks.lock_for_deletion` while you read them and until
        the end, so that no bundle is made meanwhile.

    Raises
    ------
    UsageError
        `keep` is so short that files of unfinished commits could be deleted.
    DamagedError
        A table is damaged, or the files that a bundle needs of it are unknown: nothing of it was
        deleted. All other tables are vacuumed, and the error's `report` is the report.
    """
    if keep < LEAST_KEEP:
        raise UsageError(
            f"vacuum cannot keep only the last {keep}: files of running writers could be deleted",
            "Keep one hour or more; the default is seven days.",
        )
    damages = Damages()
    plans = _plan_tables(store, datasets, bundles, keep, damages)
    if not dry_run:
        for dataset, plan in plans:
            _delete(store.root.tables / dataset.name, plan.unneeded, store.now())
    report = _build_report(plans, deleted=not dry_run)
    damages.raise_if_any(report)
    return report


def plan_vacuum(
    disk: Iterable[DiskFile],
    history: Sequence[Commit],
    files_at: Callable[[int], frozenset[str]],
    bundles: Mapping[tuple[str, str], frozenset[str]],
    cutoff: datetime,
) -> VacuumPlan:
    """Plan which data files of a table to delete.

    Parameters
    ----------
    disk
        Its data files.
    history
        Its commits, oldest first, at least one.
    files_at
        Returns the files of a version.
    bundles
        The files that each bundle needs, by its id and name.
    cutoff
        Files of versions that were current then, or later, are kept.
    """
    recent = _select_recent(history, cutoff)
    needed = files_at(history[-1].version) | files_at(recent[0].version) | _list_added(recent)
    unneeded = list(_find_unneeded(disk, needed, _list_added(history), cutoff))
    in_bundles = frozenset[str]().union(*bundles.values())
    return VacuumPlan(
        tuple(spare for spare in unneeded if spare.file.path not in in_bundles),
        {
            bundle: tuple(spare.file for spare in unneeded if spare.file.path in paths)
            for bundle, paths in bundles.items()
        },
    )


def _find_unneeded(
    disk: Iterable[DiskFile], needed: frozenset[str], committed: frozenset[str], cutoff: datetime
) -> Iterator[UnneededFile]:
    """Find files that no kept version needs. A new file may belong to an unfinished commit."""
    for file in disk:
        if file.path in needed:
            continue
        if file.path in committed:
            yield UnneededFile(file, "older version")
        elif file.modified < cutoff:
            yield UnneededFile(file, "never committed")


def _list_added(commits: Iterable[Commit]) -> frozenset[str]:
    return frozenset[str]().union(*(commit.added for commit in commits))


def _select_recent(history: Sequence[Commit], cutoff: datetime) -> Sequence[Commit]:
    """Select the version that was current at the cutoff, and all later ones.

    Clocks of writers differ, so that times may go back: the first later commit decides.
    """
    later = (number for number, commit in enumerate(history) if commit.time > cutoff)
    return history[max(0, next(later, len(history)) - 1) :]


def _plan_tables(
    store: Store,
    datasets: Sequence[Dataset],
    bundles: Sequence[BundleFiles],
    keep: timedelta,
    damages: Damages,
) -> list[tuple[Dataset, VacuumPlan]]:
    now = store.now()
    cutoff = now - min(keep, now - EPOCH)
    plans = []
    for dataset in datasets:
        own = [bundle for bundle in bundles if bundle.table == dataset.name]
        with damages.collect(dataset.name), translate_errors(f"table {dataset.name}"):
            plans.append((dataset, _plan_table(store, dataset, own, cutoff)))
    return plans


def _plan_table(
    store: Store, dataset: Dataset, bundles: Sequence[BundleFiles], cutoff: datetime
) -> VacuumPlan:
    require_all_commits(store.root.tables / dataset.name)  # its files would seem to be of no commit
    latest = store.snapshot(dataset)
    # Listed before the log is read, so that files of later commits are not on the list.
    disk = list(list_data_files(Path(latest.uri)))
    history = list(read_commits(Path(latest.uri)))
    _require_whole(latest, disk)

    def files_at(version: int) -> frozenset[str]:
        return _list_paths(Snapshot(dataset, store.open(dataset, version)))

    needs: dict[tuple[str, str], frozenset[str]] = {}
    for files in bundles:
        bundle = (files.bundle, files.name)
        needs[bundle] = needs.get(bundle, frozenset()) | _find_needed(latest, files, files_at)
    return plan_vacuum(disk, history, files_at, needs, cutoff)


def _find_needed(
    latest: Snapshot, files: BundleFiles, files_at: Callable[[int], frozenset[str]]
) -> frozenset[str]:
    """Find the files that a bundle needs. A table created again has none of the pinned versions."""
    if files.table_id != latest.table_id:
        return files.paths()
    try:
        return files_at(files.version) | files.paths()
    except LakeError as error:
        raise DamagedError(
            f"table {files.table}: the files that bundle {files.name} ({files.bundle[:12]}) needs "
            f"are unknown, so nothing is deleted: {error.message}",
            "Restore the table's log or the bundle from a backup, or remove the bundle: "
            f"`lake bundle rm {files.name}`.",
        ) from error


def _require_whole(latest: Snapshot, disk: Iterable[DiskFile]) -> None:
    """Raise an error if files of the latest version are missing: then no rule is reliable."""
    missing = _list_paths(latest) - {file.path for file in disk}
    if missing:
        raise DamagedError(
            f"table {latest.dataset.name}: {len(missing)} of its data files are not on disk, "
            f"as {min(missing)}: nothing is deleted",
            "Restore the files from a backup first.",
        )


def _list_paths(snapshot: Snapshot) -> frozenset[str]:
    return frozenset(snapshot.files()["path"])


def list_data_files(table: Path) -> Iterator[DiskFile]:
    """List the data files in the folder of a table; the log and hidden files are not data files."""
    for folder, folders, names in os.walk(table):
        folders[:] = [name for name in folders if not name.startswith(("_", "."))]
        for name in names:
            path = Path(folder, name)
            if name.startswith(("_", ".")) or not _DATA_FILE.fullmatch(name) or path.is_symlink():
                continue
            with suppress(FileNotFoundError):  # a writer has just given it its final name
                facts = path.stat()
                modified = datetime.fromtimestamp(facts.st_mtime, UTC)
                yield DiskFile(str(path.relative_to(table)), facts.st_size, modified)


def _delete(table: Path, unneeded: Sequence[UnneededFile], now: datetime) -> None:
    """Delete files one by one, then their checksums: an interruption leaves a valid table."""
    with translate_errors(f"table {table.name}"):
        if any(spare.reason == "older version" for spare in unneeded):
            record_vacuum(table, now)
        for spare in unneeded:
            (table / spare.file.path).unlink(missing_ok=True)
        forget_files(table, {spare.file.path for spare in unneeded})
    for folder in {(table / spare.file.path).parent for spare in unneeded}:
        _remove_empty(folder, table)


def _remove_empty(folder: Path, table: Path) -> None:
    """Remove a folder without files, and folders above it that become empty."""
    with suppress(OSError):  # usually it holds files
        while folder != table:
            folder.rmdir()
            folder = folder.parent


def _build_report(plans: Iterable[tuple[Dataset, VacuumPlan]], *, deleted: bool) -> VacuumReport:
    files = [
        {
            "table": dataset.name,
            "path": spare.file.path,
            "bytes": spare.file.bytes,
            "reason": spare.reason,
            "deleted": deleted,
        }
        for dataset, plan in plans
        for spare in plan.unneeded
    ]
    held = [
        {
            "bundle": bundle,
            "name": name,
            "table": dataset.name,
            "files": len(files),
            "bytes": sum(file.bytes for file in files),
        }
        for dataset, plan in plans
        for (bundle, name), files in plan.held.items()
        if files
    ]
    return VacuumReport(
        pl.DataFrame(files, schema=FILES).sort("table", "path"),
        pl.DataFrame(held, schema=HELD).sort("name", "bundle", "table"),
    )
