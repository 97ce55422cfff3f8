"""A table in memory with one file per day, which needs no storage."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lake.model.dataset import Dataset
from lake.model.selection import Selection
from lake.store.reader import EVERYTHING, FILES, TableReader, may_hold_rows


class ReaderInMemory(TableReader):
    """The frame must have all columns of the dataset."""

    def __init__(self, dataset: Dataset, frame: pl.DataFrame) -> None:
        self.dataset = dataset
        self._frame = frame.select(list(dataset.polars_schema)).cast(dataset.polars_schema)

    @property
    def uri(self) -> str:
        return f"memory:{self.dataset.name}"

    def files(self, selection: Selection = EVERYTHING) -> pl.DataFrame:
        time = pl.col(self.dataset.time_column)
        listed = self._frame.group_by("exchange", "symbol", "date", maintain_order=True).agg(
            path=pl.lit("none"),
            rows=pl.len().cast(pl.Int64),
            bytes=pl.lit(0, dtype=pl.Int64),
            first=time.min().dt.truncate("1ms"),
            last=time.max().dt.truncate("1ms"),
        )
        return listed.select(list(FILES)).filter(may_hold_rows(selection))

    def _read(
        self, selection: Selection, wanted: Sequence[str], predicate: pl.Expr | None
    ) -> pl.DataFrame:
        rows, partitioning = self._frame.lazy(), self.dataset.partitioning
        if partitioning.keeps_date:
            rows = rows.with_columns(pl.lit("").alias(partitioning.column))
        frame = self.select_rows(rows, selection)
        if predicate is not None:
            frame = frame.filter(predicate)
        return self.sort_rows(frame, selection, wanted)
