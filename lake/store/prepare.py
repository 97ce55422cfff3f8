"""Prepare rows for a merge: what becomes of them, given what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, cast

import polars as pl

from lake.model.dataset import Dataset
from lake.model.digest import compute_digest
from lake.model.frames import find_varying
from lake.model.identity import resolve, select_place
from lake.model.market import MARKET_COLUMNS
from lake.model.partitions import MARKET_DAY
from lake.model.revision import CONFLICTS, REVISED_AT, has_repeated_keys, revise
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, iso
from lake.store.conform import keep_latest, mark_conflicting, sort_rows
from lake.store.local_table import LocalTable
from lake.store.reader import TIME_STEP
from lake.store.snapshot import Bounds, Snapshot

REMOVED = "_removed"
_MOST_SPANS = 16
_FEW_FILES = 16
_SMALLEST_GAP = 100  # of all times, as a part: smaller gaps are read


@dataclass(frozen=True)
class MergeBatch:
    """What one attempt to merge writes.

    Attributes
    ----------
    rows
        Rows to be inserted or updated; unique on key and time.
    metadata
        `userMetadata` of the commit.
    fills
        Whether some rows may fill nulls of stored rows.
    is_decided
        Whether the rows have their final form, and `REVISED_AT`: the merge compares nothing.
    is_new
        Whether the rows were compared with the stored ones, and none is one of them.
    removes
        Whether the rows have a column `REMOVED`: those with true are deleted.
    """

    rows: pl.DataFrame
    metadata: Mapping[str, Any] = field(default_factory=dict)
    fills: bool = False
    is_decided: bool = False
    is_new: bool = False
    removes: bool = False


class Preparation:
    """Prepares the rows of one write for each attempt to merge them.

    Rows that never change are compared with the stored ones: only those that are new, or that fill
    a null, are merged, so that rows that are all stored make no commit. So are rows that may change
    where a key comes several times, or where they have a schedule.

    Parameters
    ----------
    rows
        Rows that the dataset admits, in the order in which they came.
    metadata
        `userMetadata` of the commit, without what is known only then: the digest of its rows, and
        the number of contradictions, which count as rejected.
    answers
        The answer of a source that each row is part of, as a number; None: all are of one.

    Attributes
    ----------
    conflicting, opposed
        After the last attempt: rows that contradict a stored row, or a later one of their answer,
        as rejected rows, and the rows that they contradict, line by line.
    kept
        After the last attempt: market and time of the rows of the table that the others are.
    """

    def __init__(
        self,
        dataset: Dataset,
        rows: pl.DataFrame,
        metadata: Mapping[str, Any],
        answers: pl.Series | None = None,
    ) -> None:
        self._dataset = dataset
        self._rows = rows
        self._answers = (
            pl.repeat(0, rows.height, dtype=pl.Int64, eager=True) if answers is None else answers
        )
        self._metadata = metadata
        self.conflicting = self.opposed = self.kept = rows.clear()
        is_revised = dataset.rows == "revisable" and dataset.kind != "record"
        self._is_decided = is_revised and (
            dataset.schedule is not None or has_repeated_keys(dataset, rows)
        )
        needs_stored = dataset.needs_stored or self._is_decided
        self._ready = None if needs_stored else self._prepare(StoredRows.none(dataset))

    def __call__(self, table: LocalTable) -> MergeBatch:
        """Prepare the rows for a merge into the present version of a table."""
        if self._ready is not None:
            return self._ready
        return self._prepare(StoredRows.find(Snapshot(self._dataset, table), self._rows))

    def _prepare(self, stored: StoredRows) -> MergeBatch:
        return (self._revise if self._dataset.rows == "revisable" else self._insert)(stored)

    def _decide(self, stored: StoredRows) -> MergeBatch:
        before = stored.scan.select(self._rows.columns).collect(engine="in-memory")
        outcome = revise(self._dataset, self._rows, self._answers, before)
        self.conflicting = mark_conflicting(outcome.conflicting, CONFLICTS)
        self.opposed, self.kept = outcome.opposed, outcome.kept
        rows = sort_rows(self._dataset, outcome.changed)
        metadata, is_new = self._complete_metadata(rows), bool(rows[REVISED_AT].is_null().all())
        return MergeBatch(rows, metadata, is_decided=True, is_new=is_new)

    def _revise(self, stored: StoredRows) -> MergeBatch:
        if self._is_decided:
            return self._decide(stored)
        rows = keep_latest(self._dataset, self._rows, stored.places)
        self.kept = select_place(self._dataset, rows)
        fills = any(rows[name].null_count() < rows.height for name in self._dataset.fillable)
        return MergeBatch(rows, self._complete_metadata(rows), fills)

    def _insert(self, stored: StoredRows) -> MergeBatch:
        outcome = resolve(self._dataset, self._rows, stored.places, stored.read)
        self.conflicting = mark_conflicting(outcome.conflicting)
        self.opposed, self.kept = outcome.opposed, outcome.kept
        rows = sort_rows(self._dataset, pl.concat([outcome.new, outcome.filled]))
        fills = not outcome.filled.is_empty()
        is_new = not fills and self._dataset.needs_stored
        return MergeBatch(rows, self._complete_metadata(rows), fills, is_new=is_new)

    def _complete_metadata(self, rows: pl.DataFrame) -> dict[str, Any]:
        conflicting = self.conflicting.height
        counts = {"rejected": self._metadata["rejected"] + conflicting, "conflicting": conflicting}
        return {**self._metadata, **counts, **describe_rows(self._dataset, rows)}


def describe_rows(dataset: Dataset, rows: pl.DataFrame) -> dict[str, str]:
    """Describe rows of a commit for its metadata: their digest, and their first and last time."""
    digest = {"digest": compute_digest(dataset, rows)}
    if rows.is_empty():
        return digest
    time = pl.col(dataset.time_column)
    first, last = rows.select(time.min().alias("first"), time.max().alias("last")).row(0)
    return {**digest, "first": iso(first), "last": iso(last)}


@dataclass(frozen=True)
class StoredRows:
    """The stored rows that some rows may be: those of the same dates, at times that are close.

    Attributes
    ----------
    scan
        Scans them, always in the same order.
    places
        Their market, key and time.
    """

    scan: pl.LazyFrame
    places: pl.DataFrame

    @classmethod
    def find(cls, snapshot: Snapshot, rows: pl.DataFrame) -> StoredRows:
        """Read the places of rows that some rows may be."""
        dataset = snapshot.dataset
        names = [name for name in dataset.key if name != dataset.time_column]
        # Ids often grow with time: then no file can hold one of them.
        keys = {name: (rows[name].min(), rows[name].max()) for name in names}
        files = find_touched_files(snapshot, rows, keys)
        if files.is_empty():
            return cls.none(dataset)
        is_close = _is_within_spans(dataset, find_spans(rows[dataset.time_column]))
        scan = snapshot.scan_files(files, select_close(dataset, rows)).filter(is_close)
        return cls(scan, scan.select(dataset.identity).collect(engine="in-memory"))

    @classmethod
    def none(cls, dataset: Dataset) -> StoredRows:
        """Return no rows."""
        nothing = dataset.empty()
        return cls(nothing.lazy(), nothing)

    def read(self, numbers: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
        """Read columns of rows, given their ascending numbers among the places."""
        scan = self.scan.select(columns)
        if numbers.is_empty():
            return pl.DataFrame(schema=scan.collect_schema())
        rows = scan.collect(engine="in-memory")
        return rows if len(numbers) == rows.height else rows[numbers]


def find_spans(times: pl.Series) -> list[tuple[datetime, datetime]]:
    """Find the few spans in which all of some times are, from the first to the last of each.

    A batch holds pages of many windows: of what is stored between them nothing needs to be read.
    """
    ordered = times.unique().sort()
    first, last = cast("tuple[datetime, datetime]", (ordered[0], ordered[-1]))
    wide = (last - first) / _SMALLEST_GAP
    gaps = pl.DataFrame({"end": ordered, "start": ordered.shift(-1)})
    between = gaps.filter(pl.col("start") - pl.col("end") > wide)
    widest = between.top_k(_MOST_SPANS - 1, by=pl.col("start") - pl.col("end")).sort("end")
    starts, ends = [first, *widest["start"]], [*widest["end"], last]
    return list(zip(starts, ends, strict=True))


def _is_within_spans(dataset: Dataset, spans: Sequence[tuple[datetime, datetime]]) -> pl.Expr:
    time, tolerance = pl.col(dataset.time_column), dataset.reach
    if len(spans) == 1:  # the choice of files does the same
        return pl.lit(value=True)
    return pl.any_horizontal(
        time.is_between(start - tolerance, end + tolerance) for start, end in spans
    )


def select_close(dataset: Dataset, rows: pl.DataFrame) -> Selection:
    """Select the markets of rows, and all times that are close to theirs."""
    exchanges, symbols = (tuple(rows[name].unique().sort()) for name in MARKET_COLUMNS)
    times, tolerance = rows[dataset.time_column], dataset.reach
    first, last = cast("tuple[datetime, datetime]", (times.min(), times.max()))
    return Selection(exchanges, symbols, first - tolerance, last + tolerance + MICROSECOND)


def find_bounds(dataset: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
    """Find the times that are close to those of rows, for each market and partition.

    Returns
    -------
    DataFrame
        exchange, symbol, date (the first day of the partition), low, high. Times that reach into
        another partition are there as well.
    """
    time, tolerance = pl.col(dataset.time_column), dataset.reach
    starts = rows.with_columns(dataset.partitioning.start(time))
    varying = find_varying(starts, MARKET_DAY)
    bounds = {"low": time.min() - tolerance, "high": time.max() + tolerance}
    if varying:
        constant = [pl.col(name).first() for name in MARKET_DAY if name not in varying]
        days = starts.group_by(varying).agg(*constant, **bounds)
    else:
        days = starts.select(*(pl.col(name).first() for name in MARKET_DAY), **bounds)
    ends = (dataset.partitioning.start(pl.col(end)) for end in ("low", "high"))
    dates = [days.with_columns(start) for start in ends]
    columns = (*MARKET_DAY, "low", "high")
    return pl.concat(part.select(columns) for part in [days, *dates]).unique(maintain_order=True)


def find_touched_files(
    snapshot: Snapshot, rows: pl.DataFrame, keys: Mapping[str, Bounds] | None = None
) -> pl.DataFrame:
    """Find the files that may hold stored rows of the times of some rows, and of their partitions.

    Parameters
    ----------
    keys
        Smallest and largest values of columns of the key.

    Returns
    -------
    DataFrame
        As `Snapshot.files` gives them.
    """
    dataset = snapshot.dataset
    files = snapshot.find_files(select_close(dataset, rows), keys or {})
    if files.is_empty():
        return files
    last = pl.col("last") + TIME_STEP
    overlaps = (pl.col("first") <= pl.col("high")) & (last > pl.col("low"))
    close = files.join(find_bounds(dataset, rows), on=MARKET_DAY, maintain_order="left")
    chosen = close.filter(overlaps.fill_null(value=True))
    chosen = chosen.select(files.columns).unique("path", maintain_order=True)
    return chosen if chosen.height <= _FEW_FILES else _narrow(dataset, chosen, rows)


def _narrow(dataset: Dataset, files: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Keep the files in whose times a row is: not those between rows that are far apart."""
    time, tolerance = pl.col(dataset.time_column), dataset.reach
    markets = rows.select(*MARKET_COLUMNS, _row=time).sort("_row")
    first = files.with_row_index("_file").with_columns(_first=pl.col("first") - tolerance)
    placed = (
        first.drop_nulls("_first")
        .sort("_first")
        .join_asof(
            markets,
            left_on="_first",
            right_on="_row",
            by=list(MARKET_COLUMNS),
            strategy="forward",
            check_sortedness=False,
        )
    )
    is_far = pl.col("_row").is_null() | (pl.col("_row") > pl.col("last") + TIME_STEP + tolerance)
    far = placed.filter(is_far.fill_null(value=False))["_file"]
    return first.filter(~pl.col("_file").is_in(far.implode())).select(files.columns)


def list_partitions(dataset: Dataset, rows: pl.DataFrame) -> list[date]:
    """List the first days of the partitions of all times that are close to those of rows."""
    times, tolerance = rows[dataset.time_column], dataset.reach
    first, last = cast("tuple[datetime, datetime]", (times.min(), times.max()))
    low, high = map(dataset.partitioning.start_of, (first - tolerance, last + tolerance))
    if low == high:
        return [low]
    return find_bounds(dataset, rows)["date"].unique().sort().to_list()
