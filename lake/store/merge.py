"""Merge rows into a Delta table: insert new ones, update those that may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import stamina
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from lake.errors import CommitConflictError
from lake.model.dataset import PARTITIONS, Dataset
from lake.model.frames import find_varying
from lake.model.market import MARKET_COLUMNS
from lake.store import delta
from lake.store.delta import format_literal, quote
from lake.store.faults import translate_errors


@dataclass(frozen=True, slots=True)
class MergeResult:
    """Result of a merge: the version of the table afterwards, rows inserted, rows updated."""

    version: int
    inserted: int
    updated: int


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
                on=CommitFailedError, attempts=delta.CONFLICT_ATTEMPTS, timeout=None, wait_max=2.0
            ):
                with attempt:
                    table.update_incremental()
                    metrics = _merge_once(table, dataset, rows, metadata)
        except CommitFailedError as error:
            raise CommitConflictError(
                f"table {dataset.name}: other writers kept committing first "
                f"({delta.CONFLICT_ATTEMPTS} attempts)",
                "Run the same command again: nothing of this batch was written.",
            ) from error
    return MergeResult(
        table.version(), metrics["num_target_rows_inserted"], metrics["num_target_rows_updated"]
    )


def _merge_once(
    table: DeltaTable, dataset: Dataset, rows: pl.DataFrame, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    merger = table.merge(
        rows,
        predicate=_build_predicate(dataset, rows),
        source_alias="s",
        target_alias="t",
        writer_properties=delta.WRITER,
        commit_properties=delta.build_commit_properties(metadata),
        post_commithook_properties=delta.AFTER_COMMIT,
    ).when_not_matched_insert_all()
    if dataset.rows == "revisable":
        merger = merger.when_matched_update_all(predicate=_build_difference(dataset))
    return merger.execute()


def _build_predicate(dataset: Dataset, rows: pl.DataFrame) -> str:
    """Build the condition of a merge: equal keys, and literals that prune the table's files.

    Columns that the literals fix are not compared again: joining by strings costs most.
    """
    terms = [
        f"t.{quote(name)} IN ({', '.join(format_literal(v) for v in rows[name].unique().sort())})"
        for name in PARTITIONS
    ]
    time = quote(dataset.time_column)
    terms.append(f"t.{time} >= {format_literal(rows[dataset.time_column].min())}")
    terms.append(f"t.{time} <= {format_literal(rows[dataset.time_column].max())}")
    day = () if dataset.time_column in dataset.key else ("date",)
    keys = (*find_varying(rows, MARKET_COLUMNS), *day, *dataset.key)
    terms.extend(f"t.{quote(name)} = s.{quote(name)}" for name in keys)
    return " AND ".join(terms)


def _build_difference(dataset: Dataset) -> str:
    values = [c.name for c in dataset.columns if c.name not in {*PARTITIONS, *dataset.key}]
    terms = [f"(t.{quote(v)} IS DISTINCT FROM s.{quote(v)})" for v in values]
    different = f"({' OR '.join(terms)})"
    return f"{different} AND NOT ({dataset.keep_when})" if dataset.keep_when else different
