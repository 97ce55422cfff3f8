"""One table at one version: every read of a lake starts here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from lake.model.dataset import RECEIVED_AT, TIMESTAMP, Dataset
from lake.model.market import MARKET_COLUMNS
from lake.model.selection import Selection
from lake.store.columns import add_lacking, find_lacking, fit_granularity
from lake.store.faults import translate_errors
from lake.store.history import require_kept
from lake.store.local_table import LocalTable
from lake.store.reader import EVERYTHING, FILES, TIME_STEP, TableReader, may_hold_rows

Bounds = tuple[Any, Any]


@dataclass(frozen=True)
class Snapshot(TableReader):
    """A table at a version. Later commits do not change its rows.

    Attributes
    ----------
    dataset
        What the rows are, with the granularity that the table has at that version.
    table
        A handle at that version; whoever moves it to another drops the snapshot first.
    is_named
        Whether the version was asked for, so that a vacuum may have removed its files.
    """

    dataset: Dataset
    table: LocalTable
    closed_only: bool = False
    is_named: bool = False

    def __post_init__(self) -> None:
        fitted = fit_granularity(self.dataset, self.table.metadata().partition_columns)
        object.__setattr__(self, "dataset", fitted)

    @property
    def version(self) -> int:
        return self.table.version()

    @property
    def table_id(self) -> str:
        """Unique for ever: a table that is created again under the same name has another id."""
        return str(self.table.metadata().id)

    @property
    def uri(self) -> str:
        return self.table.folder

    def list_lacking(self) -> tuple[str, ...]:
        return self._lacking

    @cached_property
    def _lacking(self) -> tuple[str, ...]:
        return find_lacking(self.table.schema(), self.dataset)

    def scan_unordered(
        self, selection: Selection = EVERYTHING, *, columns: Sequence[str] | None = None
    ) -> pl.LazyFrame:
        """Scan a selection in any order; a filter on the result skips files by their statistics."""
        self.require_columns(columns or ())
        if self.is_named:
            self.files(selection)
        with translate_errors(f"table {self.dataset.name}"):
            stored = add_lacking(pl.scan_delta(self.table), self.table.schema(), self.dataset)
            frame = self.select_rows(stored, selection)
        return frame.select(columns or list(self.dataset.polars_schema))

    def _read(
        self, selection: Selection, columns: Sequence[str], predicate: pl.Expr | None
    ) -> pl.DataFrame:
        if predicate is None:
            frame = self.scan_files(self.files(selection), selection)
        else:
            frame = self.scan_unordered(selection).filter(predicate)
        return self.sort_rows(frame, selection, columns)

    def files(self, selection: Selection = EVERYTHING) -> pl.DataFrame:
        """List data files as every reader does; a vacuum may have removed those of a named version.

        Raises
        ------
        UnknownNameError
            A vacuum has removed one of them.
        """
        files = self.find_files(selection, {})
        if self.is_named:
            require_kept(Path(self.uri), self.version, files["path"].to_list())
        return files

    def find_files(self, selection: Selection, keys: Mapping[str, Bounds]) -> pl.DataFrame:
        """List the data files that may hold rows of a selection and keys between two values.

        Returns as `files` does.
        """
        return self._choose_files(
            selection,
            lambda statistics: [_may_hold(statistics, key, *ends) for key, ends in keys.items()],
        )

    def find_late(self, selection: Selection, since: datetime) -> Selection | None:
        files = self._choose_files(selection, lambda statistics: [_may_be_late(statistics, since)])
        if files.is_empty():
            return None
        first = None if files["first"].null_count() else files["first"].min()
        return replace(selection, start=first) if isinstance(first, datetime) else selection

    def _choose_files(
        self, selection: Selection, build_terms: Callable[[pl.Schema], Sequence[pl.Expr]]
    ) -> pl.DataFrame:
        """List the data files for which all terms over the statistics in the log are true."""
        with translate_errors(f"table {self.dataset.name}"):
            actions = self.table.list_live()
        time, partitioning = self.dataset.time_column, self.dataset.partitioning
        if actions.is_empty():
            return pl.DataFrame(schema=FILES)
        files = actions.select(
            pl.all_horizontal(pl.lit(value=True), *build_terms(actions.schema)).alias("_held"),
            "path",
            *(pl.col(f"partition.{name}").alias(name) for name in MARKET_COLUMNS),
            partitioning.to_start(pl.col(f"partition.{partitioning.column}")),
            rows=pl.col("num_records"),
            bytes=pl.col("size_bytes"),
            first=pl.col(f"min.{time}").cast(TIMESTAMP),
            last=pl.col(f"max.{time}").cast(TIMESTAMP),
        )
        chosen = files.filter("_held", may_hold_rows(selection)).drop("_held")
        return chosen.sort("exchange", "symbol", "first", "path")


def _may_hold(statistics: pl.Schema, name: str, low: Any, high: Any) -> pl.Expr:
    """Whether a file may hold values of a column between two; one without statistics may."""
    least, most = f"min.{name}", f"max.{name}"
    if statistics.get(least) != pl.Series([low]).dtype:
        return pl.lit(value=True)
    overlaps: pl.Expr = (pl.col(least) <= high) & (pl.col(most) >= low)
    return overlaps.fill_null(value=True)


def _may_be_late(statistics: pl.Schema, since: datetime) -> pl.Expr:
    """Whether a file may hold rows received at a time or later; one without statistics may."""
    newest, unrecorded = f"max.{RECEIVED_AT}", f"null_count.{RECEIVED_AT}"
    if newest not in statistics or unrecorded not in statistics:
        return pl.lit(value=True)
    never = (pl.col(unrecorded) == pl.col("num_records")).fill_null(value=False)
    late = (pl.col(newest).cast(TIMESTAMP) + TIME_STEP > since).fill_null(value=True)
    return ~never & late
