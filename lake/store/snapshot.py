"""One table at one version: what every read starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import unquote

import polars as pl
from polars.io.plugins import register_io_source

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
        schema = self.dataset.polars_schema
        for name in columns or ():
            if name not in schema:
                raise UnknownNameError(
                    f"table {self.dataset.name} has no column {name!r}",
                    f"It has {', '.join(schema)}.",
                )
        frame = self._ordered(selection) if ordered else self._unordered(selection)
        return frame.select(columns) if columns else frame

    def _ordered(self, selection: Selection) -> pl.LazyFrame:
        """Rows in order. Files mostly are, so that a look is cheaper than the sort it saves."""
        order = self._order(selection)
        schema = self.dataset.polars_schema

        def read(
            columns: list[str] | None,
            predicate: pl.Expr | None,
            limit: int | None,
            _batch_rows: int | None,
        ) -> Iterator[pl.DataFrame]:
            wanted = list(columns or schema)
            with translated(f"table {self.dataset.name}"):
                if predicate is None:
                    frame = self._file_by_file(selection)
                else:
                    frame = self._unordered(selection).filter(predicate)
                needed = dict.fromkeys([*wanted, *order])
                rows = sorted_by(frame.select(list(needed)).collect(), order)
            yield rows.select(wanted).head(rows.height if limit is None else limit)

        return register_io_source(read, schema=schema, is_pure=True)

    def _unordered(self, selection: Selection) -> pl.LazyFrame:
        """Rows by Polars' own Delta scan, which prunes files by the statistics in the log."""
        with translated(f"table {self.dataset.name}"):
            frame = pl.scan_delta(self.table)
        return self._selected(frame, selection)

    def _file_by_file(self, selection: Selection) -> pl.LazyFrame:
        """The same rows with the files in order of market and time."""
        files = self.files(selection)
        if files.is_empty():
            return self.dataset.empty().lazy()
        paths = [f"{self.uri}/{path}" for path in files["path"]]
        partitions = {name: self.dataset.polars_schema[name] for name in PARTITIONS}
        frame = pl.scan_parquet(
            paths, glob=False, hive_partitioning=True, hive_schema=partitions
        ).select(list(self.dataset.polars_schema))
        return self._selected(frame, selection)

    def _selected(self, frame: pl.LazyFrame, selection: Selection) -> pl.LazyFrame:
        predicate = selection.predicate(self.dataset)
        if predicate is not None:
            frame = frame.filter(predicate)
        if self.dataset.granularity == "year":
            time = pl.col(self.dataset.time_column)
            frame = frame.with_columns(time.dt.date().alias("date"))
        return frame

    def collect(
        self, selection: Selection = EVERYTHING, *, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """The rows of a selection, read now, in order."""
        return self.scan(selection, columns=columns).collect()

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
        """Whether a file may hold rows; one that another engine wrote without statistics may."""
        terms = [pl.lit(value=True)]
        if selection.exchanges:
            terms.append(pl.col("exchange").is_in(list(selection.exchanges)))
        if selection.symbols:
            terms.append(pl.col("symbol").is_in(list(selection.symbols)))
        if selection.start is not None:
            after = pl.col("last") + TIME_STEP > selection.start
            terms.append(after.fill_null(value=True))
        if selection.end is not None:
            before = pl.col("first") < selection.end
            terms.append(before.fill_null(value=True))
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
