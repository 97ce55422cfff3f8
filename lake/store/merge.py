"""Merge rows into a Delta table: insert new ones, update those that may change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl
from deltalake.exceptions import CommitFailedError
from deltalake.table import TableMerger

from lake.errors import CommitConflictError
from lake.model.dataset import Dataset
from lake.model.frames import find_varying
from lake.model.market import MARKET_COLUMNS
from lake.model.partitions import MARKET_DAY
from lake.model.revision import REVISED_AT, write_change
from lake.retries import retry
from lake.store import delta
from lake.store.append import append, can_append
from lake.store.columns import fit_granularity
from lake.store.delta import format_literal, quote
from lake.store.faults import translate_errors
from lake.store.local_table import LocalTable
from lake.store.prepare import (
    REMOVED,
    MergeBatch,
    find_spans,
    find_touched_files,
    list_partitions,
)
from lake.store.reader import FILES, TIME_STEP
from lake.store.snapshot import Snapshot

_CHANGES = ("inserted", "updated", "deleted")
_MOST_PLACES = 64


@dataclass(frozen=True, slots=True)
class MergeResult:
    """Result of a merge.

    Attributes
    ----------
    version
        The version of the table afterwards.
    inserted, updated
        Counts of rows.
    metadata
        `userMetadata` of the commit; None if there was none.
    """

    version: int
    inserted: int
    updated: int
    metadata: Mapping[str, Any] | None


def merge(
    table: LocalTable, dataset: Dataset, prepare: Callable[[LocalTable], MergeBatch]
) -> MergeResult:
    """Insert rows with new keys, and update revisable rows that differ, in one commit or none.

    Parameters
    ----------
    table
        A handle at any version; afterwards at the latest.
    prepare
        Gives the rows for the version that the handle is at. If another writer commits to the same
        partitions before this merge, both are repeated: the commit is of what `prepare` has read.

    Raises
    ------
    CommitConflictError
        Other writers committed first at each attempt.
    DamagedError
        A file that might be rewritten is not as it was committed: nothing was written.
    """
    with translate_errors(f"table {dataset.name}"):
        try:
            attempts = retry(CommitFailedError, attempts=delta.CONFLICT_ATTEMPTS, wait_max=2.0)
            for attempt in attempts:
                with attempt, table.committing(loads=False):
                    return _merge_once(table, dataset, prepare(table))
        except CommitFailedError as error:
            raise CommitConflictError(
                f"table {dataset.name}: other writers kept committing first "
                f"({delta.CONFLICT_ATTEMPTS} attempts)",
                "Run the same command again: nothing of this batch was written.",
            ) from error
    raise AssertionError("unreachable: the last attempt returns or raises")


def _merge_once(table: LocalTable, dataset: Dataset, batch: MergeBatch) -> MergeResult:
    if batch.rows.is_empty():
        return MergeResult(table.version(), 0, 0, None)
    dataset = fit_granularity(dataset, table.metadata().partition_columns)
    stamped = table.stamp(batch.metadata)
    touched = _find_touched(table, dataset, batch)
    if touched.is_empty() and not batch.removes and can_append(table, dataset):
        append(table, dataset, batch.rows, stamped)
        return MergeResult(table.version(), batch.rows.height, 0, stamped)
    table.load()
    period = dataset.partitioning.value(pl.col("date"))
    merger = table.merge(
        batch.rows.with_columns(period),
        predicate=_build_predicate(dataset, batch, touched),
        source_alias="s",
        target_alias="t",
        writer_properties=delta.WRITER,
        commit_properties=delta.build_commit_properties(stamped),
        post_commithook_properties=delta.AFTER_COMMIT,
    )
    metrics = _add_actions(merger, dataset, batch).execute()
    inserted, updated, deleted = (metrics[f"num_target_rows_{name}"] for name in _CHANGES)
    metadata = stamped if inserted or updated or deleted else None
    return MergeResult(table.version(), inserted, updated, metadata)


def _find_touched(table: LocalTable, dataset: Dataset, batch: MergeBatch) -> pl.DataFrame:
    """Find the files that may hold rows of a batch; those that may be rewritten must be sound."""
    if batch.is_new:
        return pl.DataFrame(schema=FILES)
    touched = find_touched_files(Snapshot(dataset, table), batch.rows)
    if dataset.rows == "revisable" or batch.fills:
        table.checksums.require_unchanged(touched["path"], f"nothing was written to {dataset.name}")
    return touched


def _add_actions(merger: TableMerger, dataset: Dataset, batch: MergeBatch) -> TableMerger:
    """Add what a merge does with rows that are new, and with those that are stored."""
    if batch.removes:
        return _add_removal(merger, dataset)
    if batch.is_decided:
        values = _take_all(dataset)
        return merger.when_not_matched_insert(values).when_matched_update(values)
    merger = merger.when_not_matched_insert(_take_all(dataset))
    if dataset.rows == "revisable":
        merger = _revise_matched(merger, dataset)
    return _fill_matched(merger, dataset) if batch.fills else merger


def _add_removal(merger: TableMerger, dataset: Dataset) -> TableMerger:
    """Delete stored rows that are marked in the batch; insert or replace the others."""
    values = _take_all(dataset)
    removed = f"s.{quote(REMOVED)}"
    merger = merger.when_matched_delete(removed)
    merger = merger.when_matched_update(values, f"NOT {removed}")
    return merger.when_not_matched_insert(values, f"NOT {removed}")


def _revise_matched(merger: TableMerger, dataset: Dataset) -> TableMerger:
    """Replace stored rows by rows that differ in content, but never a value by an unknown one."""
    condition = write_change(dataset)
    if dataset.keep_when:
        condition = f"{condition} AND NOT ({dataset.keep_when})"
    kept = {*dataset.fillable, *dataset.kept_values}
    updates = _take_all(dataset)
    updates |= {quote(n): f"COALESCE(s.{quote(n)}, t.{quote(n)})" for n in kept}
    return merger.when_matched_update(updates, predicate=condition)


def _take_all(dataset: Dataset) -> dict[str, str]:
    """Take each column from the new row; stored ones that the dataset lacks stay, or are null."""
    names = dict.fromkeys([*dataset.polars_schema, *dataset.partitions])
    return {quote(name): f"s.{quote(name)}" for name in names}


def _fill_matched(merger: TableMerger, dataset: Dataset) -> TableMerger:
    """Fill nulls of stored rows from rows of equal content."""
    names = [quote(name) for name in dataset.fillable]
    lacking = " OR ".join(f"(t.{name} IS NULL AND s.{name} IS NOT NULL)" for name in names)
    updates = {name: f"COALESCE(t.{name}, s.{name})" for name in names}
    same = f"NOT {write_change(dataset)}"
    return merger.when_matched_update(updates, predicate=f"({lacking}) AND {same}")


def _build_predicate(dataset: Dataset, batch: MergeBatch, touched: pl.DataFrame) -> str:
    """Build the condition of a merge: equal keys and times, and literals that prune files.

    Columns that the literals fix are not compared again: joining by strings costs most.
    """
    rows = batch.rows
    terms = [_build_places(dataset, touched) or _build_bounds(dataset, rows)]
    keys = {name: name for name in (*find_varying(rows, MARKET_COLUMNS), *dataset.row_key)}
    if batch.is_decided:
        keys[dataset.time_column] = REVISED_AT
    terms.extend(f"t.{quote(name)} = s.{quote(own)}" for name, own in keys.items())
    return " AND ".join(terms)


def _build_places(dataset: Dataset, touched: pl.DataFrame) -> str | None:
    """Build the condition for the places of files: market, date and times of each.

    One old row, or windows of several markets, then lead to no other file than their own. None:
    there are too many different places, or the times of a file are not known.
    """
    bounds = touched.group_by("first", "last").agg(pl.col(MARKET_DAY).unique().sort())
    if (
        not 0 < bounds.height <= _MOST_PLACES
        or bounds["first", "last"].null_count().sum_horizontal().item()
    ):
        return None
    time = f"t.{quote(dataset.time_column)}"
    places = []
    for first, last, *values in bounds.sort("first", "last").iter_rows():
        low, high = format_literal(first), format_literal(last + TIME_STEP)
        terms = [*_build_partitions(dataset, *values), f"{time} >= {low}", f"{time} <= {high}"]
        places.append(f"({' AND '.join(terms)})")
    return f"({' OR '.join(places)})"


def _build_partitions(
    dataset: Dataset, exchanges: Sequence[str], symbols: Sequence[str], starts: Sequence[date]
) -> list[str]:
    """Build the conditions for markets, and for partitions that begin on some days."""
    periods = list(map(dataset.partitioning.value_of, starts))
    return [
        f"t.{quote(name)} IN ({', '.join(map(format_literal, values))})"
        for name, values in zip(dataset.partitions, (exchanges, symbols, periods), strict=True)
    ]


def _build_bounds(dataset: Dataset, rows: pl.DataFrame) -> str:
    """Build the condition for all markets and dates of rows, and for times close to theirs."""
    exchanges, symbols = (rows[name].unique().sort().to_list() for name in MARKET_COLUMNS)
    starts = list_partitions(dataset, rows)
    partitions = _build_partitions(dataset, exchanges, symbols, starts)
    return " AND ".join([*partitions, _build_spans(dataset, rows)])


def _build_spans(dataset: Dataset, rows: pl.DataFrame) -> str:
    """Build the condition for times close to those of rows; between far windows no file is read."""
    time, tolerance = f"t.{quote(dataset.time_column)}", dataset.reach
    spans = [
        f"({time} >= {format_literal(start - tolerance)}"
        f" AND {time} <= {format_literal(end + tolerance)})"
        for start, end in find_spans(rows[dataset.time_column])
    ]
    return f"({' OR '.join(spans)})"
