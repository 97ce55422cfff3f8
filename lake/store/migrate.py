"""Change the granularity of a table: rewrite its files, and swap them in one commit.

Delta keeps one partitioning for a whole table, so that all files change at once. The new ones are
written first, part by part, beside those in use; a journal in the table's folder names them. One
commit then replaces metadata and files, and readers see each row once either way. A run that was
killed is completed by the next one, which takes the parts of the journal whose rows are unchanged.
The table keeps its id and its versions: old files stay as long as a bundle, or a version that a
vacuum keeps, needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from lake.errors import DamagedError
from lake.model.dataset import Dataset
from lake.model.digest import combine_digests
from lake.model.market import MARKET_COLUMNS
from lake.model.progress import Progress
from lake.model.time import to_ms
from lake.store import delta
from lake.store.append import build_add, commit_actions
from lake.store.chunks import chunk_selection
from lake.store.columns import build_metadata, keep_stored
from lake.store.faults import translate_errors
from lake.store.local_table import LocalTable
from lake.store.migration_journal import MigrationJournal, Part
from lake.store.reader import EVERYTHING, may_hold_rows
from lake.store.snapshot import Snapshot
from lake.version import VERSION

_UNCHANGED = "the table was not migrated"


@dataclass(frozen=True)
class MigrationResult:
    """What a change of granularity did: the version afterwards, rows and files before and after.

    `reused`: new files that an earlier run had written before it was interrupted.
    """

    version: int
    rows: int
    files_before: int
    files_after: int
    reused: int


def change_granularity(
    table: LocalTable, dataset: Dataset, *, now: datetime, job_id: str, progress: Progress
) -> MigrationResult:
    """Rewrite the files of a table for the granularity of a dataset, while others read and write.

    Parameters
    ----------
    table
        A handle that nobody else uses, at any version; afterwards at the latest.

    Raises
    ------
    DamagedError
        A file is not as it was committed, or new files read back differently.
    CommitConflictError
        Another process migrates the same table, or others kept committing to it.
    SchemaError
        The table has a column of a type that this version does not know.
    """
    folder = Path(table.folder)
    with translate_errors(f"table {dataset.name}"), MigrationJournal.open(folder) as journal:
        with table.hold():
            delta.add_missing_columns(table, dataset, job_id)
        table.update_incremental()
        _stage(table, dataset, journal, progress)
        with table.hold(), table.committing():
            # What was committed since is little, and nobody commits meanwhile.
            parts = _stage(table, dataset, journal, progress)
            return _swap(table, dataset, parts, now, job_id, journal)


def _stage(
    table: LocalTable, dataset: Dataset, journal: MigrationJournal, progress: Progress
) -> list[Part]:
    """Write the new files of all rows, except those that the journal has already."""
    snapshot = Snapshot(keep_stored(dataset, table), table)
    target = replace(snapshot.dataset, granularity=dataset.granularity)
    files = snapshot.files()
    table.checksums.require_unchanged_log(snapshot.version, _UNCHANGED)
    parts: list[Part] = []
    progress.begin(f"migrating {dataset.name}", int(files["rows"].sum()))
    try:
        for selection in chunk_selection(snapshot, files, EVERYTHING):
            sources = files.filter(may_hold_rows(selection))["path"]
            part = journal.find(target, selection, sources)
            if part is None:
                table.checksums.require_unchanged(sources, _UNCHANGED)
                part = journal.write(target, selection, sources, snapshot.collect(selection))
            parts.append(part)
            progress.advance(part.rows)
    finally:
        progress.end()
    _require_all_rows(dataset, files, parts)
    return parts


def _require_all_rows(dataset: Dataset, files: pl.DataFrame, parts: Sequence[Part]) -> None:
    written = sum(part.rows for part in parts)
    if files["rows"].null_count() == 0 and written != files["rows"].sum():
        raise DamagedError(
            f"table {dataset.name}: its files hold {written} rows, and the log says "
            f"{files['rows'].sum()}: {_UNCHANGED}",
            "Look for damaged files with `lake verify table`.",
        )


def _swap(
    table: LocalTable,
    dataset: Dataset,
    parts: Sequence[Part],
    now: datetime,
    job_id: str,
    journal: MigrationJournal,
) -> MigrationResult:
    """Replace partitioning and files in one commit."""
    snapshot = Snapshot(dataset, table)
    old = pl.DataFrame(table.get_add_actions(flatten=True))
    rows = sum(part.rows for part in parts)
    days = [part.days for part in parts]
    metadata = table.stamp(
        {
            "job": job_id,
            "source": "lake",
            "changes": False,
            "lake": VERSION,
            "rows": rows,
            "digest": combine_digests(pl.concat(days)) if days else None,
            "granularity": [snapshot.dataset.granularity, dataset.granularity],
        }
    )
    now_ms = to_ms(now)
    added = [file for part in parts for file in part.files]
    actions = [
        _build_info(metadata, now_ms),
        build_metadata(table, dataset),
        *_build_removes(snapshot, old, now_ms),
        *(build_add(file, now_ms) for file in added),
    ]
    commit_actions(Path(table.folder), table.version() + 1, actions)
    table.update_incremental()
    table.seal(metadata)
    journal.end()
    return MigrationResult(table.version(), rows, old.height, len(added), journal.reused)


def _build_info(metadata: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    properties = delta.format_metadata(metadata)
    info = {"timestamp": now_ms, "operation": "WRITE", "operationParameters": {"mode": "Overwrite"}}
    more = {"isBlindAppend": False, "clientVersion": f"lake.{VERSION}", "userMetadata": properties}
    return {"commitInfo": {**info, **more}}


def _build_removes(snapshot: Snapshot, old: pl.DataFrame, now_ms: int) -> list[dict[str, Any]]:
    """Build the removal of all files, by their paths as the log has them."""
    if old.is_empty():
        return []
    places = snapshot.files().select("path", *MARKET_COLUMNS, "date", "bytes")
    by_path = {path: rest for path, *rest in places.iter_rows()}
    partitioning, removes = snapshot.dataset.partitioning, []
    for raw in old["path"]:
        exchange, symbol, start, size = by_path[unquote(raw)]
        period = str(partitioning.value_of(start))
        values = dict(zip(partitioning.columns, (exchange, symbol, period), strict=True))
        facts = {"path": raw, "deletionTimestamp": now_ms, "dataChange": True, "size": size}
        more = {"extendedFileMetadata": True, "partitionValues": values}
        removes.append({"remove": {**facts, **more}})
    return removes
