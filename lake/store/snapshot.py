"""One table at one version: what every read starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import unquote

import polars as pl

from lake.errors import UnknownNameError
from lake.model.dataset import PARTITIONS, TIMESTAMP, Dataset
from lake.model.frames import sorted_by
from lake.model.selection import Selection
from lake.store.delta import LocalTable
from lake.store.faults import translated

EVERYTHING = Selection()
# Delta's log cuts the times of its statistics down to milliseconds.
TIME_STEP = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Snapshot:
    """A table at a version. Later commits do not change what it gives."""

    dataset: Dataset
    table: LocalTable

    @property
    def version(self) -> int:
        return self.table.version()

    @property
    def table_id(self) -> str:
        """Unique for ever: a table made anew under the same name has another."""
        return str(self.table.metadata().id)

    @property
    def uri(self) -> str:
        """The table's folder."""
        return self.table.folder

    def scan(
        self,
        selection: Selection = EVERYTHING,
        *,
        columns: Sequence[str] | None = None,
        ordered: bool = True,
    ) -> pl.LazyFrame:
        """The rows of a selection; files outside it are not opened.

        `ordered`: by exchange, symbol and time. A filter put on the result prunes files too.
        """
        dataset = self.dataset
        for name in columns or ():
            if name not in dataset.polars_schema:
                raise UnknownNameError(
                    f"table {dataset.name} has no column {name!r}",
                    f"It has {', '.join(dataset.polars_schema)}.",
                )
        with translated(f"table {dataset.name}"):
            frame = pl.scan_delta(self.table)
        predicate = selection.predicate(dataset)
        if predicate is not None:
            frame = frame.filter(predicate)
        if dataset.granularity == "year":
            frame = frame.with_columns(pl.col(dataset.time_column).dt.date().alias("date"))
        if ordered:
            frame = frame.sort(self._order(selection), maintain_order=True)
        return frame.select(columns) if columns else frame

    def collect(
        self, selection: Selection = EVERYTHING, *, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """The rows of a selection, read now, ordered by exchange, symbol and time."""
        needed = dict.fromkeys([*(columns or self.dataset.polars_schema), *self._order(selection)])
        with translated(f"table {self.dataset.name}"):
            rows = self.scan(selection, columns=list(needed), ordered=False).collect()
        rows = sorted_by(rows, self._order(selection))
        return rows.select(columns) if columns else rows

    def files(self, selection: Selection = EVERYTHING) -> pl.DataFrame:
        """The data files that may hold rows of a selection.

        Returns
        -------
        DataFrame
            `path` (relative to the table, as on disk), `exchange`, `symbol`, `date` (as stored),
            `rows`, `bytes`, `first` and `last` time, rounded down to milliseconds; ordered by
            market and time.
        """
        with translated(f"table {self.dataset.name}"):
            actions = pl.DataFrame(self.table.get_add_actions(flatten=True))
        time = self.dataset.time_column
        if actions.is_empty():
            return pl.DataFrame(schema=_FILES)
        files = actions.select(
            # The log encodes paths once more than the disk does.
            pl.col("path").map_elements(unquote, return_dtype=pl.String),
            *(pl.col(f"partition.{name}").alias(name) for name in PARTITIONS),
            rows=pl.col("num_records"),
            bytes=pl.col("size_bytes"),
            first=pl.col(f"min.{time}").cast(TIMESTAMP),
            last=pl.col(f"max.{time}").cast(TIMESTAMP),
        )
        return files.filter(self._touches(selection)).sort("exchange", "symbol", "first", "path")

    def _touches(self, selection: Selection) -> pl.Expr:
        terms = [pl.lit(value=True)]
        if selection.exchanges:
            terms.append(pl.col("exchange").is_in(list(selection.exchanges)))
        if selection.symbols:
            terms.append(pl.col("symbol").is_in(list(selection.symbols)))
        if selection.start is not None:
            terms.append(pl.col("last") + TIME_STEP > selection.start)
        if selection.end is not None:
            terms.append(pl.col("first") < selection.end)
        return pl.all_horizontal(terms)

    def _order(self, selection: Selection) -> list[str]:
        one_market = len(selection.exchanges) == 1 and len(selection.symbols) == 1
        market = [] if one_market else ["exchange", "symbol"]
        return [*market, *self.dataset.sort]


_FILES = pl.Schema(
    {
        "path": pl.String(),
        "exchange": pl.String(),
        "symbol": pl.String(),
        "date": pl.Date(),
        "rows": pl.Int64(),
        "bytes": pl.Int64(),
        "first": TIMESTAMP,
        "last": TIMESTAMP,
    }
)
