"""A bundle as the source of a replay: market-days, and ranges of one market's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from lake.bundles.contents import Contents
from lake.bundles.table import PinnedTable
from lake.model.dataset import Dataset
from lake.model.selection import Selection


@dataclass(frozen=True)
class PinnedSource:
    """Implements `lake.replay.merge.Source` for a bundle."""

    contents: Contents
    open_table: Callable[[str], PinnedTable]

    def dataset(self, table: str) -> Dataset:
        """Return the dataset of a table."""
        return self.contents.dataset(table)

    def days(self, tables: Sequence[str], selection: Selection) -> pl.DataFrame:
        """Return the market-days of the selection's markets.

        Bundles of earlier versions may list rows that were available before they happened, because
        a clock was behind; now they are available when they happened.
        """
        conditions = [pl.col("table").is_in(list(tables))]
        if selection.exchanges:
            conditions.append(pl.col("exchange").is_in(list(selection.exchanges)))
        if selection.symbols:
            conditions.append(pl.col("symbol").is_in(list(selection.symbols)))
        days = self.contents.days.filter(*conditions)
        announced = [table for table in tables if self.dataset(table).announcement_column]
        delays = pl.col("min_delay_us", "max_delay_us")
        may_be_early = pl.col("table").is_in(announced)
        return days.with_columns(pl.when(may_be_early).then(delays).otherwise(delays.clip(0)))

    def rows(
        self, table: str, exchange: str, symbol: str, start: datetime, end: datetime
    ) -> pl.DataFrame:
        """Read the rows of one market with times in `[start, end)`, in order."""
        return self.open_table(table).collect(Selection((exchange,), (symbol,), start, end))
