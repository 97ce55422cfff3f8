"""Rows of a user's own, on the same way into a table as all others."""

from __future__ import annotations

import polars as pl

from lake.errors import UsageError
from lake.jobs.job import WriteCounts, record_job
from lake.model.dataset import Dataset
from lake.store.ledger import Ledger
from lake.store.store import Origin, Store, WriteResult


def write_rows(store: Store, dataset: Dataset, rows: pl.DataFrame, source: str) -> WriteResult:
    """Write a frame into a table as a job.

    Raises
    ------
    SchemaError
        The frame as a whole does not fit the dataset.
    UsageError
        The table is the lake's own record, or `rows` is no frame.
    """
    if not isinstance(rows, pl.DataFrame):
        raise UsageError(
            f"rows for {dataset.name} are a {type(rows).__name__}, not a Polars DataFrame",
            "Make one with pl.DataFrame(rows), or collect a LazyFrame.",
        )
    if dataset.kind == "record":
        raise UsageError(
            f"{dataset.name} is the lake's own record, and written by itself only",
            f"Nobody else writes {', '.join(store.catalog.records)}.",
        )
    counts = WriteCounts()
    with record_job(Ledger(store), f"write {dataset.name}", {"source": source}, counts) as job:
        written = store.write(dataset, rows, Origin(job.id, source))
        counts.add(dataset.name, written)
    return written
