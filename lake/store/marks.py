"""Marks of checks: up to which version the commits of each table are checked."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.store.store import Origin, Store

_ANY = "*"


class Marks:
    """Reads and records the table `checks`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dataset = store.catalog.dataset("checks")

    def read(self) -> dict[str, int]:
        """Return the mark of each table; a table that was never checked has none."""
        rows = self._rows().group_by("dataset").agg(pl.col("version").max())
        return dict(rows.iter_rows())

    def record(self, versions: Mapping[str, int], job_id: str) -> None:
        """Record that all commits of tables up to a version are checked."""
        before = self._rows().group_by("dataset").agg(pl.col("version", "timestamp").max())
        known = {table: (version, first) for table, version, first in before.iter_rows()}
        now = self._store.now()
        rows = [
            {
                "exchange": _ANY,
                "symbol": _ANY,
                "dataset": table,
                "timestamp": known[table][1] if table in known else now,
                "version": version,
                "job_id": job_id,
                "checked_at": now,
            }
            for table, version in versions.items()
            if table not in known or known[table][0] != version
        ]
        if rows:
            types = dict.fromkeys(("timestamp", "checked_at"), TIMESTAMP)
            frame = pl.DataFrame(rows, schema_overrides=types)
            self._store.write(self._dataset, frame, Origin(job_id, "lake"))

    def _rows(self) -> pl.DataFrame:
        return self._store.read(self._dataset)
