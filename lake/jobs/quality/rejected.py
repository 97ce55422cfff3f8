"""Read the rows of `quarantine` for checks, with what identifies them."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from lake.errors import UnknownNameError
from lake.model.dataset import Dataset
from lake.model.identity import CONTRADICTS
from lake.model.json_text import match_path
from lake.model.revision import CONFLICTS
from lake.model.selection import Selection
from lake.quality.checks.contradictions import CONTENT, OPPOSED
from lake.quality.checks.quarantined import KEY, SEPARATOR
from lake.store.store import Store


def read_rejected(store: Store, as_of: datetime | None) -> pl.DataFrame:
    """Return the rows of `quarantine`, with the key of a rejected row.

    The key is null where the time of a row is part of it, or the raw record does not name it. The
    row itself is null unless it contradicts another one: checks compare the two. The other row is
    null unless it came in the same answer.
    """
    rows = store.read(store.catalog.dataset("quarantine"), as_of=as_of)
    key: pl.Expr = pl.lit(None, dtype=pl.String)
    for table in rows["dataset"].unique():
        dataset = _find_dataset(store, table)
        if dataset is not None and dataset.time_column not in dataset.key:
            parts = [match_path(pl.col("row"), f"$.{name}") for name in dataset.key]
            own = pl.concat_str(parts, separator=SEPARATOR)
            key = pl.when(pl.col("dataset") == table).then(own).otherwise(key)
    contradicts = pl.col("reason").is_in([CONTRADICTS, CONFLICTS])
    if "stored" not in rows.columns:  # a table of an earlier version
        rows = rows.with_columns(stored=pl.lit(None, pl.String))
    return rows.with_columns(
        key.alias(KEY),
        pl.when(contradicts).then("row").alias(CONTENT),
        pl.when(pl.col("reason") == CONFLICTS).then("stored").alias(OPPOSED),
    ).drop("stored")


def select_rejected(rejected: pl.DataFrame, table: str, selection: Selection) -> pl.DataFrame:
    """Return the rejected rows of a table and selection; those without a usable time have 1970."""
    selected = pl.col("dataset") == table
    if selection.exchanges:
        selected &= pl.col("exchange").is_in(list(selection.exchanges))
    if selection.symbols:
        selected &= pl.col("symbol").is_in(list(selection.symbols))
    if selection.start is not None:
        selected &= pl.col("timestamp") >= selection.start
    if selection.end is not None:
        selected &= pl.col("timestamp") < selection.end
    return rejected.filter(selected)


def _find_dataset(store: Store, table: str) -> Dataset | None:
    """Return the dataset of a table; None if its file is gone."""
    try:
        return store.catalog.dataset(table)
    except UnknownNameError:
        return None
