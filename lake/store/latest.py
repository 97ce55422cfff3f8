"""The present state of a table, read through one handle that follows its commits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from lake.model.dataset import Dataset
from lake.model.selection import Selection
from lake.store import delta
from lake.store.faults import translate_errors
from lake.store.reader import EVERYTHING, TableReader
from lake.store.snapshot import Snapshot


class LatestTable(TableReader):
    """The latest rows of a table: each read sees what was committed before it.

    The handle stays open, with its list of files, so that a look-up takes milliseconds. Safe to
    share among threads.
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        self._lock = threading.Lock()
        self._table = delta.open_table(path, dataset)
        self._snapshot = Snapshot(dataset, self._table)
        self.dataset = self._snapshot.dataset
        self._table.list_live()

    @property
    def uri(self) -> str:
        return self._table.folder

    def list_lacking(self) -> tuple[str, ...]:
        return self._snapshot.list_lacking()

    def files(self, selection: Selection = EVERYTHING) -> pl.DataFrame:
        with self._lock:
            self._follow()
            return self._snapshot.files(selection)

    def _read(
        self, selection: Selection, columns: Sequence[str], predicate: pl.Expr | None
    ) -> pl.DataFrame:
        frame = self.scan_files(self.files(selection), selection)
        return self.sort_rows(
            frame if predicate is None else frame.filter(predicate), selection, columns
        )

    def _follow(self) -> None:
        """Follow later commits; of each, only its own entry in the log is read."""
        with translate_errors(f"table {self.dataset.name}"):
            self._table.follow()
            self._table.require_sound()
        self._snapshot = Snapshot(self.dataset, self._table)
        self.dataset = self._snapshot.dataset  # a migration may have changed its granularity
