"""A table as it is now, time after time: one handle that follows the commits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from lake.model.dataset import Dataset
from lake.model.selection import Selection
from lake.store import delta
from lake.store.faults import translate_errors
from lake.store.reader import EVERYTHING, TableReader, may_hold_rows
from lake.store.snapshot import Snapshot


class LatestTable(TableReader):
    """The latest rows of a table. What it reads is as new as the moment of the read.

    A handle that stays open, with its list of files, is what makes a look-up take milliseconds.
    Safe to share among threads.
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        self.dataset = dataset
        self._path = path
        self._lock = threading.Lock()
        self._table = delta.open_table(path, dataset)
        self._files = Snapshot(dataset, self._table).files()

    @property
    def uri(self) -> str:
        return self._table.folder

    def files(self, selection: Selection = EVERYTHING) -> pl.DataFrame:
        with self._lock:
            self._follow()
            return self._files.filter(may_hold_rows(selection))

    def _read(
        self, selection: Selection, wanted: Sequence[str], predicate: pl.Expr | None
    ) -> pl.DataFrame:
        frame = self.scan_files(self.files(selection), selection)
        return self.sort_rows(
            frame if predicate is None else frame.filter(predicate), selection, wanted
        )

    def _follow(self) -> None:
        """Take in what was committed since; the next commit's file tells whether there is any."""
        after = self._path / "_delta_log" / f"{self._table.version() + 1:020}.json"
        if after.exists():
            with translate_errors(f"table {self.dataset.name}"):
                self._table.update_incremental()
            self._files = Snapshot(self.dataset, self._table).files()
