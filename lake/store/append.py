"""Append rows of which none is stored: new files, and one entry in the log.

A merge of delta-rs loads the whole list of files, before and after: its cost grows with the table.
Where the list shows that no file can hold one of the rows, or the rows were compared with the
stored ones, there is nothing to merge. The commit must follow the version that was read: if anyone
else has committed meanwhile, it fails, and all is repeated. So it never doubles a row.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from deltalake.exceptions import CommitFailedError

from lake.model.dataset import Dataset
from lake.model.frames import sort_by
from lake.model.time import to_ms
from lake.store.columns import build_file_schema
from lake.store.compact import FILE_ROWS, compute_statistics, write_rows
from lake.store.delta import DataFile, create_due_checkpoint
from lake.store.local_table import LocalTable
from lake.store.log import CLOCK, STAMP, locate_log_file
from lake.store.root import write_new_file
from lake.version import VERSION

_INVARIANTS = "delta.invariants"
# Later versions of the protocol may require of a writer what only delta-rs does.
_WRITER_VERSION = 2


def can_append(table: LocalTable, dataset: Dataset) -> bool:
    """Whether a table asks nothing of a writer but files with the columns of the dataset."""
    fields = table.schema().fields
    return (
        table.protocol().min_writer_version <= _WRITER_VERSION
        and table.metadata().partition_columns == list(dataset.partitions)
        and {field.name for field in fields} == {*dataset.polars_schema, *dataset.partitions}
        and not any(_INVARIANTS in field.metadata for field in fields)
    )


def append(
    table: LocalTable, dataset: Dataset, rows: pl.DataFrame, metadata: Mapping[str, Any]
) -> None:
    """Write rows to new files, and commit them as the version after that of the handle.

    Parameters
    ----------
    table
        A handle at the version with which the rows were compared; afterwards at the latest.
    rows
        Of all partitions, with the columns of the dataset.
    metadata
        `userMetadata` of the commit, with its stamp.

    Raises
    ------
    CommitFailedError
        Another writer has committed since that version: nothing was committed.
    """
    folder, version = Path(table.folder), table.version() + 1
    written: list[str] = []
    try:
        added = write_files(folder, dataset, rows, written)
        info = _build_info(rows.height, len(added), metadata)
        time_ms = info["commitInfo"]["timestamp"]
        commit_actions(folder, version, [info, *(build_add(file, time_ms) for file in added)])
    except BaseException:  # Ctrl-C too: nobody uses files that no commit names
        _discard(folder, version, written)
        raise
    table.follow()
    create_due_checkpoint(table)


def write_files(
    folder: Path, dataset: Dataset, rows: pl.DataFrame, written: list[str], *, syncs: bool = False
) -> list[DataFile]:
    """Write the rows of each partition to a file of its own; add each path before it is written.

    `syncs`: sync them to disk here; the seal of a commit does it, too.
    """
    added: list[DataFile] = []
    partitions, names = dataset.partitions, build_file_schema(dataset).names()
    dated = rows.with_columns(dataset.partitioning.value(pl.col("date")))
    parts = dated.partition_by(partitions, as_dict=True, include_key=False, maintain_order=True)
    for key, part in parts.items():
        values = {name: str(value) for name, value in zip(partitions, key, strict=True)}
        place = "/".join(f"{name}={quote(value, safe='')}" for name, value in values.items())
        (folder / place).mkdir(parents=True, exist_ok=True)
        ordered = sort_by(part.select(names), dataset.sort)
        for number, piece in enumerate(ordered.iter_slices(FILE_ROWS)):
            path = f"{place}/part-{number:05}-{uuid.uuid4()}-c000.zstd.parquet"
            written.append(path)
            size = write_rows(folder / path, piece, syncs=syncs)
            added.append(DataFile(path, size, values, compute_statistics(dataset, piece)))
    return added


def _build_info(rows: int, files: int, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Build the `commitInfo`: that of a merge which has only inserted rows."""
    time = to_ms(datetime.fromisoformat(metadata.get(CLOCK, metadata[STAMP])))
    metrics = {
        "num_source_rows": rows,
        "num_target_rows_inserted": rows,
        "num_target_rows_updated": 0,
        "num_target_rows_deleted": 0,
        "num_output_rows": rows,
        "num_target_files_added": files,
        "num_target_files_removed": 0,
    }
    return {
        "commitInfo": {
            "timestamp": time,
            "operation": "MERGE",
            "operationParameters": {"notMatchedPredicates": '[{"actionType":"insert"}]'},
            "operationMetrics": metrics,
            # A concurrent writer must not take the files for unrelated ones.
            "isBlindAppend": False,
            "clientVersion": f"lake.{VERSION}",
            "userMetadata": json.dumps(metadata, separators=(",", ":")),
        }
    }


def build_add(file: DataFile, time_ms: int) -> dict[str, Any]:
    """Build the entry of the log that adds a file."""
    return {
        "add": {
            "path": quote(file.path, safe="/=~"),
            "partitionValues": dict(file.partition),
            "size": file.bytes,
            "modificationTime": time_ms,
            "dataChange": True,
            "stats": json.dumps(file.statistics, separators=(",", ":")),
        }
    }


def commit_actions(folder: Path, version: int, actions: Sequence[Mapping[str, Any]]) -> None:
    """Write the entry of a version in the log.

    Raises
    ------
    CommitFailedError
        Another writer has committed this version.
    """
    lines = (json.dumps(action, separators=(",", ":"), ensure_ascii=False) for action in actions)
    content = "".join(f"{line}\n" for line in lines).encode()
    try:
        write_new_file(locate_log_file(folder, version), content)
    except FileExistsError as error:
        raise CommitFailedError(f"version {version} was committed by another writer") from error


def _discard(folder: Path, version: int, written: Sequence[str]) -> None:
    """Delete files that were not committed: an error may come after the commit."""
    entry = locate_log_file(folder, version)
    content = entry.read_text() if entry.exists() else ""
    for path in written:
        if quote(path, safe="/=~") not in content:
            (folder / path).unlink(missing_ok=True)
