"""Delta tables: create, open at a version, replace files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    WriterProperties,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from lake.errors import CommitConflictError, DamagedError, UnknownNameError
from lake.model.dataset import Dataset
from lake.model.time import to_ms
from lake.retries import retry
from lake.store.checksums import name_checkpoint
from lake.store.clock import CommitClock
from lake.store.columns import build_missing_fields, build_schema, list_bounded, require_columns
from lake.store.faults import translate_errors
from lake.store.heal import drop_torn_checkpoint, heal_end
from lake.store.local_table import LocalTable
from lake.store.log import has_table, list_removed, read_actions, require_log, require_version
from lake.store.seal import seal_checkpoint, seal_creation
from lake.store.soundness import (
    explain_damage,
    forget_vanished,
    require_all_commits,
    require_whole_files,
    set_torn_commits_aside,
)
from lake.version import VERSION

GROUP_ROWS = 131_072
# Prices and ids rarely repeat: without dictionaries, files are smaller and written faster.
WRITER = WriterProperties(
    compression="ZSTD",
    compression_level=3,
    max_row_group_size=GROUP_ROWS,
    default_column_properties=ColumnProperties(dictionary_enabled=False),
)
# A clean-up of the log after a commit would delete versions that a bundle pins.
AFTER_COMMIT = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
CONFLICT_ATTEMPTS = 100
_CHECKPOINT_INTERVAL = "delta.checkpointInterval"
# Each run opens tables: the entries since the last checkpoint cost it more than the checkpoints do.
_INTERVAL = 20
# Without their last rows, work is repeated, and nothing else is lost: what becomes of such rows.
REPEATABLE = {
    "coverage": "what they recorded is requested again",
    "jobs": "the jobs that they recorded are no longer listed",
    "checks": "the next check repeats the checks that they recorded",
    "scores": "run `lake quality check` to compute the scores again",
    "instruments": "the next ingestion fetches the specifications again, valid from then on",
}
# No source has older specifications: a fault that is not at the end of the log is for the user.
_ONLY_LAST = ("instruments",)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file to be committed.

    `path` is relative to the table and as on disk; `partition` and `statistics` are as Delta's
    log has them.
    """

    path: str
    bytes: int
    partition: Mapping[str, str | None]
    statistics: Mapping[str, Any]


def create_table(path: Path, dataset: Dataset, clock: CommitClock) -> None:
    """Create the table of a dataset if it does not exist; another writer may be faster."""
    with translate_errors(f"table {dataset.name}"), suppress(CommitFailedError):
        DeltaTable.create(
            path,
            schema=build_schema(dataset),
            mode="ignore",
            partition_by=list(dataset.partitions),
            name=dataset.name,
            description=dataset.title,
            configuration={
                "delta.enableExpiredLogCleanup": "false",
                _CHECKPOINT_INTERVAL: str(_INTERVAL),
                "delta.dataSkippingStatsColumns": ",".join(list_bounded(dataset)),
            },
            commit_properties=build_commit_properties(clock.stamp({}, path)),
        )
        seal_creation(path)


def open_table(
    path: Path, dataset: Dataset, version: int | None = None, clock: CommitClock | None = None
) -> LocalTable:
    """Open the table of a dataset, at its latest version or at another.

    Parameters
    ----------
    clock
        Stamps commits; only handles that are never used to commit need none.

    Raises
    ------
    UnknownNameError
        There is no such table, or no such version.
    SchemaError
        The columns of the table differ from those of the dataset.
    DamagedError
        Its log cannot be read.
    """
    with translate_errors(f"table {dataset.name}"):
        try:
            table = _open_sound(path, dataset, version)
        except DamagedError:
            if not _set_torn_aside(path, dataset):
                raise
            table = _open_sound(path, dataset, version)
    require_columns(table.schema(), dataset)
    table.clock = clock
    return table


def open_for_writing(path: Path, dataset: Dataset, clock: CommitClock) -> LocalTable:
    """Open the table of a dataset to commit to it; create it if it does not exist.

    Commits at its end that a crash left unsealed and unreadable are undone: see `lake.store.heal`.

    Raises
    ------
    SchemaError
        The columns of the table differ from those of the dataset.
    DamagedError
        Its log cannot be read, or commits vanished from its end.
    """
    with translate_errors(f"table {dataset.name}"):
        if dataset.name in REPEATABLE and dataset.name not in _ONLY_LAST:
            forget_vanished(path, REPEATABLE[dataset.name])
        else:
            require_all_commits(path)
        heal_end(path, clock)
    if not has_table(path):
        create_table(path, dataset, clock)
    try:
        return open_table(path, dataset, clock=clock)
    except DamagedError:
        with translate_errors(f"table {dataset.name}"):
            is_healed = drop_torn_checkpoint(path) or heal_end(path, clock, lists_log=True)
        if not is_healed:
            raise
        return open_table(path, dataset, clock=clock)


def add_missing_columns(table: LocalTable, dataset: Dataset, job_id: str) -> None:
    """Add the columns of a dataset that a table lacks, in one commit that changes no rows.

    Parameters
    ----------
    table
        A handle at any version; afterwards at the latest if columns were missing.

    Raises
    ------
    CommitConflictError
        Other writers committed first at each attempt.
    """
    if not build_missing_fields(table.schema(), dataset):
        return
    where = f"table {dataset.name}"
    try:
        for attempt in retry(CommitFailedError, attempts=CONFLICT_ATTEMPTS, wait_max=2.0):
            with attempt, translate_errors(where), table.committing():
                _add_columns_once(table, dataset, job_id)
    except CommitFailedError as error:
        raise CommitConflictError(
            f"{where}: other writers kept committing first ({CONFLICT_ATTEMPTS} attempts)",
            "Run the same command again: nothing was written.",
        ) from error


def replace_files(
    table: LocalTable,
    added: Sequence[DataFile],
    removed: Sequence[DataFile],
    now: datetime,
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """Replace data files by others that hold the same rows, in one commit.

    Parameters
    ----------
    table
        A handle at the version from which the rows were read; afterwards at the latest. Later
        commits of others stay; if one of them removed one of our files, this commit fails.

    Returns
    -------
    dict
        The metadata with the stamp.

    Raises
    ------
    CommitFailedError
        One of the files was replaced meanwhile: read the rows again, and retry.
    """
    read = table.version()
    with table.committing():
        _require_not_removed(table, read, removed)
        stamped = table.stamp(metadata)
        _commit_files(table, added, removed, now, stamped)
    return stamped


def _require_not_removed(table: LocalTable, read: int, removed: Sequence[DataFile]) -> None:
    """Refuse to replace files that a commit after the version read has removed."""
    ours, folder = {file.path for file in removed}, Path(table.folder)
    for version in range(read + 1, table.version() + 1):
        if not ours.isdisjoint(list_removed(read_actions(folder, version))):
            raise CommitFailedError(f"commit {version} has replaced the same files")


def _commit_files(
    table: DeltaTable,
    added: Sequence[DataFile],
    removed: Sequence[DataFile],
    now: datetime,
    metadata: Mapping[str, Any],
) -> None:
    now_ms = to_ms(now)
    # Delta has a flag for commits that change no rows, and a concurrent MERGE trusts it: it would
    # not see that a row that it updates has moved to another file, and would duplicate the row.
    changes = True
    adds = [
        AddAction(f.path, f.bytes, f.partition, now_ms, changes, json.dumps(f.statistics))
        for f in added
    ]
    removes = [RemoveAction(f.path, changes, now_ms, f.bytes, dict(f.partition)) for f in removed]
    table.create_write_transaction(
        [*adds, *removes],
        mode="append",
        schema=table.schema(),
        partition_by=table.metadata().partition_columns,
        commit_properties=build_commit_properties(metadata),
        post_commithook_properties=AFTER_COMMIT,
    )


def _add_columns_once(table: LocalTable, dataset: Dataset, job_id: str) -> None:
    fields = build_missing_fields(table.schema(), dataset)
    if not fields:  # another writer was faster
        return
    names = [field.name for field in fields]
    facts = {"job": job_id, "source": "lake", "lake": VERSION, "added_columns": names}
    metadata = table.stamp(facts)
    table.alter.add_columns(
        fields,
        commit_properties=build_commit_properties(metadata),
        post_commithook_properties=AFTER_COMMIT,
    )
    table.seal(metadata)


def write_checkpoint(path: Path, dataset: Dataset, clock: CommitClock) -> int:
    """Write a checkpoint of the latest version of a table, if it has none; return that version."""
    table = open_for_writing(path, dataset, clock)
    version = table.version()
    with translate_errors(f"table {dataset.name}"):
        if not (path / name_checkpoint(version)).exists():
            table.create_checkpoint()
            seal_checkpoint(path, version)
    return version


def create_due_checkpoint(table: LocalTable) -> None:
    """Write a checkpoint of the version of a handle if one is due, by the rule of delta-rs.

    None if another program has just committed: this must not undo what the caller says of its own.
    """
    interval = table.metadata().configuration.get(_CHECKPOINT_INTERVAL, _INTERVAL)
    if (table.version() + 1) % int(interval) == 0:
        with suppress(CommitFailedError):
            table.load()
            table.create_checkpoint()


def build_commit_properties(metadata: Mapping[str, Any]) -> CommitProperties:
    """Build the properties of a commit that fails if another writer was faster.

    A retry of delta-rs would commit with the same stamp, which might be earlier than that of the
    faster writer; and it would create a table again, with another id.
    """
    return CommitProperties({"userMetadata": format_metadata(metadata)}, max_commit_retries=0)


def format_metadata(metadata: Mapping[str, Any]) -> str:
    """Format the `userMetadata` of a commit."""
    return json.dumps(metadata, separators=(",", ":"))


def _set_torn_aside(path: Path, dataset: Dataset) -> bool:
    consequence = REPEATABLE.get(dataset.name)
    if consequence is None:
        return False
    is_whole_history = dataset.name in _ONLY_LAST
    return set_torn_commits_aside(path, consequence, only_last=is_whole_history)


def _open_sound(path: Path, dataset: Dataset, version: int | None) -> LocalTable:
    """Open a table, and refuse a damaged log."""
    try:
        table = LocalTable(path, version=version)
    except TableNotFoundError:
        if dataset.name not in REPEATABLE:
            require_log(path)
        raise UnknownNameError(
            f"table {dataset.name} does not exist yet",
            f"Ingest something into it: `lake ingest {dataset.family} --help`.",
        ) from None
    except (DeltaError, OverflowError) as error:
        if version is not None:
            require_version(path, dataset, version)
        raise explain_damage(path) or error from error
    table.require_sound()
    if dataset.name in REPEATABLE and version is None:
        require_whole_files(path, table.version())
    return table


def quote(name: str) -> str:
    return f'"{name}"'


def format_literal(value: object) -> str:
    if isinstance(value, datetime):
        return f"arrow_cast('{value.isoformat()}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    if isinstance(value, date):
        return f"DATE '{value}'"
    if isinstance(value, int):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"
