"""Rows of a user's own, on the same way into a table as all others."""

from __future__ import annotations

import polars as pl

from lake.errors import UsageError
from lake.jobs.job import WriteCounts, record_job
from lake.query.overview import RECORD
from lake.store.ledger import Ledger
from lake.store.store import Origin, Store, Written


def write_rows(store: Store, table: str, rows: pl.DataFrame, source: str) -> Written:
    """Write a frame into a table as a job.

    Raises
    ------
    SchemaError
        The frame as a whole does not fit the dataset.
    UsageError
        The table is the lake's own record.
    """
    if table in RECORD:
        raise UsageError(
            f"{table} is the lake's own record, and written by itself only",
            f"Nobody else writes {', '.join(RECORD)}.",
        )
    counts = WriteCounts()
    with record_job(Ledger(store), f"write {table}", {"source": source}, counts) as job:
        written = store.write(store.catalog.dataset(table), rows, Origin(job.id, source))
        counts.add(table, written)
    return written
