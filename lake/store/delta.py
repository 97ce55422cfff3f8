"""Delta tables: create, open at a version, merge. Nothing else imports Delta's writers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import stamina
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Schema,
    WriterProperties,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from lake.errors import CommitConflictError, DamagedError, SchemaError, UnknownNameError
from lake.model.dataset import PARTITIONS, Column, Dataset
from lake.model.frames import find_varying
from lake.model.market import MARKET_COLUMNS
from lake.model.time import to_ms
from lake.store.faults import translate_errors
from lake.store.local_table import LocalTable
from lake.store.log import require_version
from lake.store.seal import seal_creation, sync_checkpoint
from lake.store.soundness import explain_damage, require_whole_files, set_torn_commits_aside

_DELTA_TYPES: Mapping[str, Any] = {
    "timestamp": "timestamp",
    "date": "date",
    "string": "string",
    "float64": "double",
    "int64": "long",
    "boolean": "boolean",
    "list<float64>": {"type": "array", "elementType": "double", "containsNull": True},
    "list<string>": {"type": "array", "elementType": "string", "containsNull": True},
}
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
_CONFLICT_ATTEMPTS = 100
# Without their last rows, work is repeated, and nothing else is lost.
_REPEATABLE = ("coverage", "jobs")


@dataclass(frozen=True, slots=True)
class MergeResult:
    """Result of a merge: the version of the table afterwards, rows inserted, rows updated."""

    version: int
    inserted: int
    updated: int


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


def create_table(path: Path, dataset: Dataset) -> None:
    """Create the table of a dataset if it does not exist; another writer may be faster."""
    fields = [_build_field(column) for column in dataset.columns]
    schema = Schema.from_json(json.dumps({"type": "struct", "fields": fields}))
    statistics = dict.fromkeys([dataset.time_column, *dataset.key])
    with translate_errors(f"table {dataset.name}"), suppress(CommitFailedError):
        DeltaTable.create(
            path,
            schema=schema,
            mode="ignore",
            partition_by=list(PARTITIONS),
            name=dataset.name,
            description=dataset.title,
            configuration={
                "delta.enableExpiredLogCleanup": "false",
                "delta.dataSkippingStatsColumns": ",".join(statistics),
            },
            # A retry would create the table again, with another id, over that of the faster writer.
            commit_properties=CommitProperties(max_commit_retries=0),
        )
        seal_creation(path)


def open_table(path: Path, dataset: Dataset, version: int | None = None) -> LocalTable:
    """Open the table of a dataset, at its latest version or at another.

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
            if dataset.name not in _REPEATABLE or not set_torn_commits_aside(path):
                raise
            table = _open_sound(path, dataset, version)
    _require_schema(table, dataset)
    return table


def merge(
    table: DeltaTable, dataset: Dataset, rows: pl.DataFrame, metadata: Mapping[str, Any]
) -> MergeResult:
    """Insert rows with new keys, and update revisable rows that differ, in one commit or none.

    Parameters
    ----------
    table
        A handle at any version; afterwards at the latest.
    rows
        Conformed rows, at least one.
    metadata
        `userMetadata` of the commit.

    Raises
    ------
    CommitConflictError
        Other writers committed first at each attempt.
    """
    metrics: dict[str, Any] = {}
    with translate_errors(f"table {dataset.name}"):
        try:
            for attempt in stamina.retry_context(
                on=CommitFailedError, attempts=_CONFLICT_ATTEMPTS, timeout=None, wait_max=2.0
            ):
                with attempt:
                    table.update_incremental()
                    metrics = _merge_once(table, dataset, rows, metadata)
        except CommitFailedError as error:
            raise CommitConflictError(
                f"table {dataset.name}: other writers kept committing first "
                f"({_CONFLICT_ATTEMPTS} attempts)",
                "Run the same command again: nothing of this batch was written.",
            ) from error
    return MergeResult(
        table.version(), metrics["num_target_rows_inserted"], metrics["num_target_rows_updated"]
    )


def replace_files(
    table: DeltaTable,
    added: Sequence[DataFile],
    removed: Sequence[DataFile],
    now: datetime,
    metadata: Mapping[str, Any],
) -> None:
    """Replace data files by others that hold the same rows, in one commit.

    Parameters
    ----------
    table
        A handle at the version from which the rows were read. Later commits of others stay; if
        one of them removed one of our files, this commit fails. With a newer handle, such a
        removal would go unseen, and its rows would come back.

    Raises
    ------
    CommitFailedError
        One of the files was replaced meanwhile: read the rows again, and retry.
    """
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
        partition_by=list(PARTITIONS),
        commit_properties=build_commit_properties(metadata, max_commit_retries=_CONFLICT_ATTEMPTS),
        post_commithook_properties=AFTER_COMMIT,
    )


def write_checkpoint(path: Path, dataset: Dataset) -> int:
    """Write a checkpoint of the latest version of a table; return that version."""
    table = open_table(path, dataset)
    with translate_errors(f"table {dataset.name}"):
        table.create_checkpoint()
        sync_checkpoint(path, table.version())
    return table.version()


def build_commit_properties(
    metadata: Mapping[str, Any], max_commit_retries: int | None = None
) -> CommitProperties:
    text = json.dumps(metadata, separators=(",", ":"))
    return CommitProperties({"userMetadata": text}, max_commit_retries)


def _open_sound(path: Path, dataset: Dataset, version: int | None) -> LocalTable:
    """Open a table, and refuse a damaged log."""
    try:
        table = LocalTable(path, version=version)
    except TableNotFoundError:
        raise UnknownNameError(
            f"table {dataset.name} does not exist yet",
            f"Ingest something into it: `lake ingest {dataset.family} --help`.",
        ) from None
    except (DeltaError, OverflowError) as error:
        if version is not None:
            require_version(path, dataset, version)
        raise explain_damage(path) or error from error
    table.require_sound()
    if dataset.name in _REPEATABLE and version is None:
        require_whole_files(path, table.version())
    return table


def _merge_once(
    table: DeltaTable, dataset: Dataset, rows: pl.DataFrame, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    merger = table.merge(
        rows,
        predicate=_build_predicate(dataset, rows),
        source_alias="s",
        target_alias="t",
        writer_properties=WRITER,
        commit_properties=build_commit_properties(metadata),
        post_commithook_properties=AFTER_COMMIT,
    ).when_not_matched_insert_all()
    if dataset.rows == "revisable":
        merger = merger.when_matched_update_all(predicate=_build_difference(dataset))
    return merger.execute()


def _build_predicate(dataset: Dataset, rows: pl.DataFrame) -> str:
    """Build the condition of a merge: equal keys, and literals that prune the table's files.

    Columns that the literals fix are not compared again: joining by strings costs most.
    """
    terms = [
        f"t.{_quote(name)} IN ({', '.join(format_literal(v) for v in rows[name].unique().sort())})"
        for name in PARTITIONS
    ]
    time = _quote(dataset.time_column)
    terms.append(f"t.{time} >= {format_literal(rows[dataset.time_column].min())}")
    terms.append(f"t.{time} <= {format_literal(rows[dataset.time_column].max())}")
    day = () if dataset.time_column in dataset.key else ("date",)
    keys = (*find_varying(rows, MARKET_COLUMNS), *day, *dataset.key)
    terms.extend(f"t.{_quote(name)} = s.{_quote(name)}" for name in keys)
    return " AND ".join(terms)


def _build_difference(dataset: Dataset) -> str:
    values = [c.name for c in dataset.columns if c.name not in {*PARTITIONS, *dataset.key}]
    terms = [f"(t.{_quote(v)} IS DISTINCT FROM s.{_quote(v)})" for v in values]
    different = f"({' OR '.join(terms)})"
    return f"{different} AND NOT ({dataset.keep_when})" if dataset.keep_when else different


def _quote(name: str) -> str:
    return f'"{name}"'


def format_literal(value: object) -> str:
    if isinstance(value, datetime):
        return f"arrow_cast('{value.isoformat()}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    if isinstance(value, date):
        return f"DATE '{value}'"
    return "'" + str(value).replace("'", "''") + "'"


def _build_field(column: Column) -> dict[str, Any]:
    unit = f" [{column.unit}]" if column.unit else ""
    return {
        "name": column.name,
        "type": _DELTA_TYPES[column.type],
        "nullable": column.nullable,
        "metadata": {"comment": f"{column.meaning}{unit}"},
    }


def _require_schema(table: DeltaTable, dataset: Dataset) -> None:
    stored = {field.name: field.type for field in table.schema().fields}
    for name, kind in ((column.name, _DELTA_TYPES[column.type]) for column in dataset.columns):
        if name not in stored:
            raise SchemaError(
                f"table {dataset.name} has no column {name!r}, but its dataset file has it",
                f"Restore schemas/{dataset.family}.toml to what it was when the table was created.",
            )
        if json.loads(stored[name].to_json()) != kind:
            raise SchemaError(
                f"table {dataset.name}: column {name!r} has another type than in its dataset file",
                f"Restore schemas/{dataset.family}.toml to what it was when the table was created.",
            )
