"""Compare rows before and after a change. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

import polars as pl

from lake.jobs.repairs.spans import Windows
from lake.model.dataset import Dataset
from lake.model.json_text import write_json
from lake.model.partitions import MARKET_DAY
from lake.model.time import TimeRange, iso

SHOWN_ROWS = 20


@dataclass(frozen=True)
class Changes:
    """The rows that differ.

    Attributes
    ----------
    inserted
        New rows.
    before, after
        Updated rows, in their old and in their new form.
    removed
        Deleted rows.
    """

    inserted: pl.DataFrame
    before: pl.DataFrame
    after: pl.DataFrame
    removed: pl.DataFrame

    @property
    def written(self) -> pl.DataFrame:
        """New and updated rows, in their new form."""
        return pl.concat([self.inserted, self.after])

    @property
    def replaced(self) -> pl.DataFrame:
        """Updated and deleted rows, in their old form."""
        return pl.concat([self.before, self.removed])

    def __bool__(self) -> bool:
        return not (self.written.is_empty() and self.removed.is_empty())

    @classmethod
    def empty(cls, dataset: Dataset) -> Changes:
        """Return changes of no row."""
        return cls(*(dataset.empty() for _ in fields(cls)))

    @classmethod
    def concat(cls, parts: Sequence[Changes]) -> Changes:
        """Concatenate changes, at least one, of which no two share a key."""
        return cls(*(pl.concat(getattr(part, item.name) for part in parts) for item in fields(cls)))

    def times(self, dataset: Dataset) -> pl.Series:
        """Return the times of all rows that are new, updated or deleted."""
        return pl.concat([self.written, self.removed])[dataset.time_column]

    def split_by_window(
        self, dataset: Dataset, windows: Sequence[TimeRange]
    ) -> Iterator[tuple[TimeRange, Changes]]:
        """Yield the changes in each window, in order; windows without changes are left out."""
        parts, lookup = [], Windows(windows)
        for item in fields(self):
            rows = getattr(self, item.name)
            numbers = lookup.locate(rows[dataset.time_column])
            marked = rows.with_columns(numbers.alias("_window")).drop_nulls("_window")
            parts.append(marked.partition_by("_window", include_key=False, as_dict=True))
        nothing = dataset.empty()
        for key in sorted(set().union(*parts)):
            yield windows[key[0]], Changes(*(part.get(key, nothing) for part in parts))


def compare_rows(dataset: Dataset, before: pl.DataFrame, after: pl.DataFrame) -> Changes:
    """Compare the rows of one market before and after."""
    key = list(dataset.row_key)
    inserted = after.join(before, on=key, how="anti")
    values = [c.name for c in dataset.columns if c.name not in {*MARKET_DAY, *key}]
    was = before.select(*key, *(pl.col(name).alias(f"_was_{name}") for name in values))
    both = after.join(was, on=key)
    different = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(f"_was_{name}")) for name in values
    )
    updated = both.filter(different).select(after.columns)
    old = before.join(updated, on=key, how="semi")
    return Changes(inserted, old, updated, before.join(after, on=key, how="anti"))


def to_json(rows: pl.DataFrame) -> str:
    """Return the first rows, without their market, as a JSON list of objects."""
    shown = rows.head(SHOWN_ROWS).drop(MARKET_DAY, strict=False)
    return write_json(shown.to_dicts(), default=_to_plain)


def _to_plain(value: Any) -> str:
    if isinstance(value, datetime):
        return iso(value)
    assert isinstance(value, date)  # noqa: S101 - nothing else in a dataset is unknown to JSON
    return value.isoformat()
