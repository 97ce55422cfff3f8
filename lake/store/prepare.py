"""Prepare rows for a merge: what becomes of them, given what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from lake.model.dataset import Dataset
from lake.model.digest import compute_digest
from lake.model.identity import resolve
from lake.model.market import MARKET_COLUMNS
from lake.model.selection import Selection
from lake.model.time import MICROSECOND
from lake.store.conform import keep_latest, mark_conflicting, sort_rows
from lake.store.local_table import LocalTable
from lake.store.reader import TIME_STEP
from lake.store.snapshot import Snapshot


@dataclass(frozen=True)
class MergeBatch:
    """What one attempt to merge writes.

    Attributes
    ----------
    rows
        Rows to be inserted or updated, with their stored date; unique on key and time.
    metadata
        `userMetadata` of the commit.
    fills
        Whether some rows may fill nulls of stored rows.
    """

    rows: pl.DataFrame
    metadata: Mapping[str, Any] = field(default_factory=dict)
    fills: bool = False


class Preparation:
    """Prepares the rows of one write for each attempt to merge them.

    Rows that never change are compared with the stored ones: only those that are new, or that fill
    a null, are merged, so that rows that are all stored make no commit.

    Parameters
    ----------
    rows
        Rows that the dataset admits, in the order in which they came.
    metadata
        `userMetadata` of the commit, without what is known only then: the digest of its rows, and
        the number of contradictions, which count as rejected.

    Attributes
    ----------
    conflicting, opposed
        After the last attempt: rows that contradict a stored row, as rejected rows, and the rows
        that they contradict, line by line.
    kept
        After the last attempt: market and time of the rows of the table that the others are.
    """

    def __init__(self, dataset: Dataset, rows: pl.DataFrame, metadata: Mapping[str, Any]) -> None:
        self._dataset = dataset
        self._rows = rows
        self._metadata = metadata
        self.conflicting = self.opposed = self.kept = rows.clear()
        self._ready = None if dataset.needs_stored else self._prepare(rows.clear())

    def __call__(self, table: LocalTable) -> MergeBatch:
        """Prepare the rows for a merge into the present version of a table."""
        if self._ready is not None:
            return self._ready
        dataset = self._dataset
        columns = dataset.identity if dataset.rows == "revisable" else dataset.polars_schema
        return self._prepare(read_stored(Snapshot(dataset, table), self._rows, list(columns)))

    def _prepare(self, stored: pl.DataFrame) -> MergeBatch:
        return (self._revise if self._dataset.rows == "revisable" else self._insert)(stored)

    def _revise(self, stored: pl.DataFrame) -> MergeBatch:
        rows = keep_latest(self._dataset, self._rows, stored)
        self.kept = rows.select(*MARKET_COLUMNS, self._dataset.time_column)
        fills = any(rows[name].null_count() < rows.height for name in self._dataset.fillable)
        return MergeBatch(rows, self._complete_metadata(rows), fills)

    def _insert(self, stored: pl.DataFrame) -> MergeBatch:
        outcome = resolve(self._dataset, self._rows, stored)
        self.conflicting = mark_conflicting(outcome.conflicting)
        self.opposed, self.kept = outcome.opposed, outcome.kept
        rows = sort_rows(self._dataset, pl.concat([outcome.new, outcome.filled]))
        fills = not outcome.filled.is_empty()
        return MergeBatch(rows, self._complete_metadata(rows), fills)

    def _complete_metadata(self, rows: pl.DataFrame) -> dict[str, Any]:
        conflicting = self.conflicting.height
        counts = {"rejected": self._metadata["rejected"] + conflicting, "conflicting": conflicting}
        return {**self._metadata, **counts, "digest": compute_digest(self._dataset, rows)}


def read_stored(snapshot: Snapshot, rows: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Read the stored rows that some rows may be: those of their keys, at times that are close."""
    dataset = snapshot.dataset
    time, tolerance = pl.col(dataset.time_column), dataset.time_tolerance
    first, last = rows.select(time.min(), last=time.max()).row(0)
    exchanges, symbols = (tuple(rows[name].unique()) for name in MARKET_COLUMNS)
    until = last + tolerance + MICROSECOND
    selection = Selection(exchanges, symbols, first - tolerance, until)
    dates = list_dates(dataset, rows)
    files = snapshot.files(selection).filter(pl.col("date").is_in(dates.implode()))
    if files.is_empty():
        return dataset.empty().select(columns)
    keys = rows.lazy().select(dataset.full_key).unique()
    stored = snapshot.scan_files(files, selection).select(columns)
    return stored.join(keys, on=dataset.full_key, how="semi").collect()


def find_touched_files(snapshot: Snapshot, rows: pl.DataFrame) -> pl.DataFrame:
    """Find the files that may hold stored rows of the keys and times of some rows.

    Returns
    -------
    DataFrame
        As `Snapshot.files` gives them.
    """
    dataset = snapshot.dataset
    time, tolerance = pl.col(dataset.time_column), dataset.time_tolerance
    spans = rows.group_by(MARKET_COLUMNS).agg(
        from_time=time.min() - tolerance, until=time.max() + tolerance
    )
    exchanges, symbols = (tuple(spans[name].unique()) for name in MARKET_COLUMNS)
    start, end = spans.select(pl.col("from_time").min(), pl.col("until").max()).row(0)
    files = snapshot.files(Selection(exchanges, symbols, start, end + MICROSECOND))
    is_near = (pl.col("last") + TIME_STEP > pl.col("from_time")) & (
        pl.col("first") <= pl.col("until")
    )
    near = files.join(spans, on=MARKET_COLUMNS).filter(is_near.fill_null(value=True))
    return near.filter(pl.col("date").is_in(list_dates(dataset, rows).implode()))


def list_dates(dataset: Dataset, rows: pl.DataFrame) -> pl.Series:
    """List the stored dates of all times that are close to those of rows."""
    time = pl.col(dataset.time_column)
    shifts = (-dataset.time_tolerance, dataset.time_tolerance)
    widened = [rows.select(time + shift) for shift in dict.fromkeys(shifts)]
    return pl.concat(widened).select(dataset.partition_date().unique().sort()).to_series()
