"""Vacuum: data files that nobody needs any more go; those that a bundle needs never do.

Delta's own vacuum is not used: what it keeps depends on properties of the table, which anybody
can set. Here, one rule decides: a file goes if nothing on a list of needs names it.
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
from lake.store.faults import translate_errors
from lake.store.log import Commit, read_commits
from lake.store.snapshot import Snapshot
from lake.store.store import Store

LEAST_KEEP = timedelta(hours=1)
Reason = Literal["older version", "never committed"]
# Of a file that was being written when its writer died, the name may still have a number.
_DATA_FILE = re.compile(r".*\.parquet(#\d+)?", re.DOTALL)


@dataclass(frozen=True)
class BundleFiles:
    """What one bundle needs of one table.

    Attributes
    ----------
    bundle, name
        The bundle's id, and how users call it.
    table, table_id, version
        What it pins.
    paths
        Gives the data files in its own file index: relative to the table, and as on disk.
    """

    bundle: str
    name: str
    table: str
    table_id: str
    version: int
    paths: Callable[[], frozenset[str]]


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A data file on disk, its path relative to the table."""

    path: str
    bytes: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class UnneededFile:
    """A data file that may go, and why nobody needs it."""

    file: DiskFile
    reason: Reason


@dataclass(frozen=True)
class VacuumPlan:
    """Of one table: what goes, and by bundle and name what would go but for the bundle."""

    unneeded: tuple[UnneededFile, ...]
    held: Mapping[tuple[str, str], tuple[DiskFile, ...]]


@dataclass(frozen=True)
class VacuumReport:
    """What a vacuum did, or would do.

    Attributes
    ----------
    files
        `table`, `path`, `bytes`, `reason` (`older version`, `never committed`), `deleted`.
    held
        By bundle and table, how many `files` and `bytes` would go if the bundle were not there:
        `bundle`, `name`, `table`, `files`, `bytes`. What two bundles hold is counted for both.
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
    holds: Sequence[BundleFiles],
    *,
    keep: timedelta,
    dry_run: bool,
) -> VacuumReport:
    """Delete the data files of some tables that nobody needs.

    Needed are those of the latest version, of every version that was the latest within `keep`,
    and of every hold: by the version that it pins, and by its own list of files.

    Parameters
    ----------
    holds
        What bundles need. Hold `locks.lock_for_deletion` from before it is read until the end, so
        that no bundle is made meanwhile.

    Raises
    ------
    UsageError
        `keep` is so short that files of commits in flight could go.
    DamagedError
        What is needed cannot be told: nothing was deleted.
    """
    if keep < LEAST_KEEP:
        raise UsageError(
            f"vacuum cannot keep only the last {keep}: files of writers at work could go",
            "Keep one hour or more; the default is seven days.",
        )
    plans = _plan_tables(store, datasets, holds, keep)
    if not dry_run:
        for dataset, plan in plans:
            _delete(store.root.tables / dataset.name, plan.unneeded)
    return _build_report(plans, deleted=not dry_run)


def plan_vacuum(
    disk: Iterable[DiskFile],
    history: Sequence[Commit],
    files_at: Callable[[int], frozenset[str]],
    holds: Mapping[tuple[str, str], frozenset[str]],
    cutoff: datetime,
) -> VacuumPlan:
    """What of a table may go.

    Parameters
    ----------
    disk
        Its data files.
    history
        Its commits, oldest first, at least one.
    files_at
        Gives the files of a version.
    holds
        The files that each bundle needs.
    cutoff
        What was there then, or since, is kept.
    """
    recent = _select_recent(history, cutoff)
    needed = files_at(history[-1].version) | files_at(recent[0].version)
    needed = needed.union(*(commit.added for commit in recent))
    named = frozenset[str]().union(*(commit.added for commit in history))
    spare = [
        UnneededFile(file, "older version" if file.path in named else "never committed")
        for file in disk
        if file.path not in needed and (file.path in named or file.modified < cutoff)
    ]
    held = frozenset[str]().union(*holds.values())
    return VacuumPlan(
        tuple(one for one in spare if one.file.path not in held),
        {
            bundle: tuple(one.file for one in spare if one.file.path in paths)
            for bundle, paths in holds.items()
        },
    )


def _select_recent(history: Sequence[Commit], cutoff: datetime) -> Sequence[Commit]:
    """The version that was current at the cutoff, and all later ones.

    The clocks of writers may differ, so that times go back: the first later commit decides.
    """
    later = (number for number, commit in enumerate(history) if commit.time > cutoff)
    return history[max(0, next(later, len(history)) - 1) :]


def _plan_tables(
    store: Store, datasets: Sequence[Dataset], holds: Sequence[BundleFiles], keep: timedelta
) -> list[tuple[Dataset, VacuumPlan]]:
    now = store.now()
    cutoff = now - min(keep, now - EPOCH)
    plans = []
    for dataset in datasets:
        own = [hold for hold in holds if hold.table == dataset.name]
        with translate_errors(f"table {dataset.name}"):
            plans.append((dataset, _plan_table(store, dataset, own, cutoff)))
    return plans


def _plan_table(
    store: Store, dataset: Dataset, holds: Sequence[BundleFiles], cutoff: datetime
) -> VacuumPlan:
    latest = store.snapshot(dataset)
    # Listed before the log is read: what a commit takes in later is not on the list.
    disk = list(list_data_files(Path(latest.uri)))
    history = list(read_commits(Path(latest.uri)))
    _require_whole(latest, disk)

    def files_at(version: int) -> frozenset[str]:
        return _list_paths(store.snapshot(dataset, version=version))

    needs: dict[tuple[str, str], frozenset[str]] = {}
    for hold in holds:
        bundle = (hold.bundle, hold.name)
        needs[bundle] = needs.get(bundle, frozenset()) | _find_needed(latest, hold, files_at)
    return plan_vacuum(disk, history, files_at, needs, cutoff)


def _find_needed(
    latest: Snapshot, hold: BundleFiles, files_at: Callable[[int], frozenset[str]]
) -> frozenset[str]:
    """What a bundle needs. A table made anew shares no version with the one that it pinned."""
    if hold.table_id != latest.table_id:
        return hold.paths()
    try:
        return files_at(hold.version) | hold.paths()
    except LakeError as error:
        raise DamagedError(
            f"table {hold.table}: what bundle {hold.name} ({hold.bundle[:12]}) needs cannot be "
            f"told, so nothing is deleted: {error.message}",
            "Restore the table's log or the bundle from a backup, or remove the bundle: "
            f"`lake bundle rm {hold.name}`.",
        ) from error


def _require_whole(latest: Snapshot, disk: Iterable[DiskFile]) -> None:
    """Refuse where the log and the disk do not speak of the same files: no rule would hold."""
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
    """The data files in a table's folder; the log and hidden files are none."""
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


def _delete(table: Path, unneeded: Iterable[UnneededFile]) -> None:
    """One by one: wherever it is cut off, what remains is as good as before."""
    with translate_errors(f"table {table.name}"):
        for one in unneeded:
            (table / one.file.path).unlink(missing_ok=True)
    for folder in {(table / one.file.path).parent for one in unneeded}:
        _remove_empty(folder, table)


def _remove_empty(folder: Path, table: Path) -> None:
    """Remove a folder without files, and those above it that then have none."""
    with suppress(OSError):  # it holds files: that is the usual case
        while folder != table:
            folder.rmdir()
            folder = folder.parent


def _build_report(plans: Iterable[tuple[Dataset, VacuumPlan]], *, deleted: bool) -> VacuumReport:
    files = [
        {
            "table": dataset.name,
            "path": one.file.path,
            "bytes": one.file.bytes,
            "reason": one.reason,
            "deleted": deleted,
        }
        for dataset, plan in plans
        for one in plan.unneeded
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
