"""Read the rows of `quarantine` for checks, with what identifies them."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from lake.errors import UnknownNameError
from lake.model.dataset import Dataset
from lake.model.identity import CONTRADICTS
from lake.model.json_text import match_path
from lake.quality.checks.contradictions import CONTENT
from lake.quality.checks.quarantined import KEY, SEPARATOR
from lake.store.store import Store


def read_rejected(store: Store, as_of: datetime | None) -> pl.DataFrame:
    """Return the rows of `quarantine`, with the key of a rejected row.

    The key is null where the time of a row is part of it, or the raw record does not name it. The
    row itself is null unless it contradicts a stored one: checks compare the two.
    """
    rows = store.read(store.catalog.dataset("quarantine"), as_of=as_of)
    key: pl.Expr = pl.lit(None, dtype=pl.String)
    for table in rows["dataset"].unique():
        dataset = _find_dataset(store, table)
        if dataset is not None and dataset.time_column not in dataset.key:
            parts = [match_path(pl.col("row"), f"$.{name}") for name in dataset.key]
            own = pl.concat_str(parts, separator=SEPARATOR)
            key = pl.when(pl.col("dataset") == table).then(own).otherwise(key)
    content = pl.when(pl.col("reason") == CONTRADICTS).then("row").alias(CONTENT)
    return rows.with_columns(key.alias(KEY), content).drop("stored", strict=False)


def _find_dataset(store: Store, table: str) -> Dataset | None:
    """Return the dataset of a table; None if its file is gone."""
    try:
        return store.catalog.dataset(table)
    except UnknownNameError:
        return None
