"""Rows that follow from the stored ones: computed anew for each attempt to commit them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from lake.model.dataset import Dataset
from lake.model.digest import compute_digest
from lake.store.conform import REASON, check_rows, sort_rows
from lake.store.local_table import LocalTable
from lake.store.prepare import REMOVED, MergeBatch
from lake.store.snapshot import Snapshot


@dataclass(frozen=True)
class Update:
    """How to change the stored rows of a table.

    Attributes
    ----------
    rows
        Rows to insert, or to store instead of those of their key.
    removed
        Stored rows to delete.
    """

    rows: pl.DataFrame
    removed: pl.DataFrame


Compute = Callable[[Snapshot], Update]
"""Takes a table as it is, and returns how to change it."""


class UpdatePreparation:
    """Prepares an update for each attempt to merge it.

    Attributes
    ----------
    rejected
        After the last attempt: rows that break a rule of the dataset, with the reason.
    """

    def __init__(self, dataset: Dataset, compute: Compute, metadata: Mapping[str, Any]) -> None:
        self._dataset = dataset
        self._compute = compute
        self._metadata = metadata
        self.rejected = pl.DataFrame(schema={REASON: pl.String()})

    def __call__(self, table: LocalTable) -> MergeBatch:
        """Compute the update of the present version of a table."""
        dataset = self._dataset
        update = self._compute(Snapshot(dataset, table))
        checked = check_rows(dataset, update.rows)
        self.rejected = checked.rejected
        facts = {
            "rows": update.rows.height,
            "rejected": checked.rejected.height,
            "digest": compute_digest(dataset, checked.rows),
        }
        rows, removes = checked.rows, not update.removed.is_empty()
        if removes:
            gone = check_rows(dataset, update.removed).rows
            marked = [(rows, False), (gone, True)]
            rows = pl.concat(
                part.with_columns(pl.lit(mark).alias(REMOVED)) for part, mark in marked
            )
        return MergeBatch(sort_rows(dataset, rows), {**self._metadata, **facts}, removes=removes)
