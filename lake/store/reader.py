"""Read rows from the data files of one table, in order; only files that may hold them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import polars as pl
from polars.io.plugins import register_io_source

from lake.errors import LakeError, UnknownNameError
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.frames import sort_by
from lake.model.market import MARKET_COLUMNS
from lake.model.selection import Selection
from lake.store.columns import build_scan_options
from lake.store.faults import translate_errors

EVERYTHING = Selection()
# Delta's log truncates the times of its statistics to milliseconds.
TIME_STEP = timedelta(milliseconds=1)

FILES = pl.Schema(
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


class TableReader(ABC):
    """Reader of one table, in a state that does not change.

    Attributes
    ----------
    dataset
        What the rows are.
    closed_only
        Whether open bars are left out, because they are not final.
    """

    dataset: Dataset
    closed_only: bool = False

    @property
    @abstractmethod
    def uri(self) -> str:
        """The table's folder."""

    @abstractmethod
    def files(self, selection: Selection = EVERYTHING) -> pl.DataFrame:
        """List the data files that may hold rows of a selection.

        Returns
        -------
        DataFrame
            `path` (relative to the table, as on disk), `exchange`, `symbol`, `date` (the first day
            of its partition), `rows`, `bytes`, `first` and `last` time, rounded down to
            milliseconds; ordered by market and time.
        """

    def locate(self, paths: Iterable[str]) -> list[str]:
        """Return the full paths of data files, whose paths are relative to the table."""
        folder = f"{self.uri}/"
        return [folder + path for path in paths]

    def clip(self, selection: Selection) -> Selection | None:
        """Return the part of a selection that the reader can hold; None if there is none."""
        return selection

    def find_late(self, selection: Selection, _since: datetime) -> Selection | None:
        """Narrow a selection to what may hold rows that were received since; None: no row was."""
        return selection

    def list_lacking(self) -> tuple[str, ...]:
        """List the columns of the dataset that some or all data files lack: null in their rows."""
        return ()

    @abstractmethod
    def _read(
        self, selection: Selection, columns: Sequence[str], predicate: pl.Expr | None
    ) -> pl.DataFrame:
        """Read sorted rows of these columns that match a predicate."""

    def scan(
        self,
        selection: Selection = EVERYTHING,
        *,
        columns: Sequence[str] | None = None,
    ) -> pl.LazyFrame:
        """Scan a selection, sorted by exchange, symbol and time; other files are not opened."""
        self.require_columns(columns or ())
        schema = self.dataset.polars_schema

        def read(
            projection: list[str] | None,
            predicate: pl.Expr | None,
            limit: int | None,
            _batch_rows: int | None,
        ) -> Iterator[pl.DataFrame]:
            with translate_errors(f"table {self.dataset.name}"):
                rows = self._read(selection, projection or list(schema), predicate)
            yield rows.head(rows.height if limit is None else limit)

        frame = register_io_source(read, schema=schema, is_pure=True)
        return frame.select(columns) if columns else frame

    def collect(
        self, selection: Selection = EVERYTHING, *, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Read the rows of a selection, sorted as by `scan`."""
        return self.scan(selection, columns=columns).collect()

    def require_columns(self, columns: Sequence[str]) -> None:
        """Raise an error for columns that the table does not have."""
        schema = self.dataset.polars_schema
        for name in columns:
            if name not in schema:
                raise UnknownNameError(
                    f"table {self.dataset.name} has no column {name!r}",
                    f"It has {', '.join(schema)}.",
                )

    def sort_rows(
        self, frame: pl.LazyFrame, selection: Selection, columns: Sequence[str]
    ) -> pl.DataFrame:
        """Collect sorted rows. Most files are sorted, and checking that is cheaper than a sort."""
        one_market = len(selection.exchanges) == 1 and len(selection.symbols) == 1
        market = [] if one_market else ["exchange", "symbol"]
        order = [*market, *self.dataset.sort]
        needed = dict.fromkeys([*columns, *order])
        if len(needed) < len(self.dataset.columns):  # to select all would copy them
            frame = frame.select(list(needed))
        # Inside an IO source, the in-memory engine is faster.
        rows = frame.collect(engine="in-memory")
        return sort_by(rows, order).select(columns)

    def scan_files(self, files: pl.DataFrame, selection: Selection) -> pl.LazyFrame:
        """Scan data files for the rows of a selection, in the order of the files."""
        if files.is_empty():
            return self.dataset.empty().lazy()
        paths = self.locate(files["path"])
        partitioning = self.dataset.partitioning
        partitions = dict.fromkeys(MARKET_COLUMNS, pl.String())
        frame = pl.scan_parquet(
            paths,
            glob=False,
            hive_partitioning=True,
            hive_schema={**partitions, partitioning.column: partitioning.dtype},
            **build_scan_options(self.dataset, self.list_lacking()),
        )
        return self.select_rows(frame, self._find_remaining(files, selection))

    def _find_remaining(self, files: pl.DataFrame, selection: Selection) -> Selection:
        """Return the part of a selection that the choice of files does not fulfil."""
        first, last, unknown = files.select(
            pl.col("first").min(),
            pl.col("last").max() + TIME_STEP,
            unknown=pl.any_horizontal(pl.col("first", "last").has_nulls()),
        ).row(0)
        early = selection.start is not None and (unknown or first < selection.start)
        late = selection.end is not None and (unknown or last > selection.end)
        return Selection(
            start=selection.start if early else None, end=selection.end if late else None
        )

    def select_rows(self, frame: pl.LazyFrame, selection: Selection) -> pl.LazyFrame:
        """Filter stored rows by a selection, and hide the month or year by which files are kept."""
        predicate = selection.predicate(self.dataset)
        if predicate is not None:
            frame = frame.filter(predicate)
        if self.closed_only:
            frame = frame.filter(pl.col("closed").ne_missing(other=False))
        partitioning = self.dataset.partitioning
        return frame.drop(partitioning.column) if partitioning.keeps_date else frame


class UnreadableTable(TableReader):
    """A table that cannot be opened because it is damaged: each read raises the error.

    Whoever needs no row of it goes on.
    """

    def __init__(self, dataset: Dataset, error: LakeError) -> None:
        self.dataset = dataset
        self._error = error

    @property
    def uri(self) -> str:
        raise self._error

    def files(self, _: Selection = EVERYTHING) -> pl.DataFrame:
        raise self._error

    def _read(self, *_: object) -> pl.DataFrame:
        raise self._error


def may_hold_rows(selection: Selection) -> pl.Expr:
    """Whether a file may hold rows of a selection; a file without statistics may."""
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


OpenRows = Callable[[], TableReader]
