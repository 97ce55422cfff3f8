"""Replay: merges rows of many tables and markets into one ordered stream, in bounded memory.

Rows are ordered by their ordering time: the time when each could first be known (`available_at`: a
bar at its end, or any row when it was received, if that was recorded and is later), or the time
column (`timestamp`). `lake.replay.ordering` defines the order of rows with the same time.

The range is divided into windows with about the same number of rows. For each window, each market
is read far enough that no row is missing; rows that become known after the window wait for a later
one. Every row is read once: a market's next range starts where its last one ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, get_args

import numpy as np
import polars as pl

from lake.errors import DamagedError, SchemaError, UsageError
from lake.model.dataset import Dataset
from lake.model.selection import Selection
from lake.model.time import EPOCH, MICROSECOND, iso
from lake.model.visibility import AVAILABLE_AT, Visibility
from lake.replay.ordering import arrange, rank_dataset, read_times

Order = Literal["available_at", "timestamp"]
POSITION = "position"
WINDOW_ROWS = 500_000
"""Approximate number of rows per window. Rows with lists count more: they are longer."""

_ROWS_A_LIST = 8


class Source(Protocol):
    """A source of rows for a replay."""

    def dataset(self, table: str) -> Dataset:
        """Return the dataset of a table; an unknown table is an error."""

    def days(self, tables: Sequence[str], selection: Selection) -> pl.DataFrame:
        """Return numbers and times of rows: one row per market-day, or per part of one.

        Returns
        -------
        DataFrame
            `table`, `exchange`, `symbol`, `rows`; `first` and `last`, the exact first and last
                value of the time column (Datetime us UTC); `min_delay_us` and `max_delay_us`, the
                minimum and maximum of availability minus time column. The finer the parts, the more
                even the windows.
        """

    def rows(
        self, table: str, exchange: str, symbol: str, start: datetime, end: datetime
    ) -> pl.DataFrame:
        """Read rows with times in `[start, end)`, in order of `dataset.sort`, with all columns."""


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of a replay.

    Attributes
    ----------
    frames
        The rows of each table, in order; tables without rows are absent. Two columns precede those
        of the dataset: `position` (Int64), the number of the row in the whole replay, without gaps
        across tables, and `available_at` (Datetime us UTC).
    datasets
        The dataset of each frame, by table.
    first
        Position of the first row.
    rows
        Number of rows in all frames together.
    first_us, last_us
        Ordering time of the first and the last row, in microseconds since 1970.
    """

    frames: Mapping[str, pl.DataFrame]
    datasets: Mapping[str, Dataset]
    first: int
    rows: int
    first_us: int
    last_us: int

    def __repr__(self) -> str:
        tables = ", ".join(self.frames)
        return f"<Batch: rows {self.first:,} to {self.first + self.rows:,} of {tables}>"


def replay(
    source: Source,
    tables: Sequence[str],
    selection: Selection,
    *,
    by: Order = "available_at",
    batch_rows: int = 100_000,
    window_rows: int = WINDOW_ROWS,
) -> Iterator[Batch]:
    """Yield the rows of some tables in order of time; `lake.replay.ordering` breaks ties.

    Parameters
    ----------
    source
        The source of the rows.
    tables
        Names of tables in any order; duplicates count once.
    selection
        Markets, and the range `[start, end)` of the ordering time.
    by
        `available_at`: no row comes before it could be known. `timestamp`: the time column. This
        order shows a bar at its open, so it is not suitable for testing a strategy.
    batch_rows
        Rows of each batch; only the last batch may have fewer.
    window_rows
        Approximate number of rows per read; it bounds the memory and changes nothing else.

    Raises
    ------
    UsageError
        `tables` is empty, a number is not positive, or `by` is unknown.
    SchemaError
        A dataset has a column with the name of one that a replay adds.
    DamagedError
        The source has rows that were known earlier than its `min_delay_us` allows.
    """
    if by not in get_args(Order):
        raise UsageError(f"by is {by!r}", f"Use one of {', '.join(get_args(Order))}.")
    for name, value in (("batch_rows", batch_rows), ("window_rows", window_rows)):
        if value < 1:
            raise UsageError(f"{name} is {value}", "Use a positive number of rows.")
    datasets = _load_datasets(source, tables)
    days = source.days([dataset.name for dataset in datasets], _drop_range(selection))
    parts = _plan_parts(days, by, selection)
    readers = [
        (dataset, _open_readers(source, dataset, by, selection, parts.filter(table=dataset.name)))
        for dataset in datasets
    ]
    return _build_batches(
        readers, _plan_windows(parts, datasets, selection, window_rows), by, batch_rows
    )


def _load_datasets(source: Source, tables: Sequence[str]) -> list[Dataset]:
    """Return the datasets in the order of their rows at equal times."""
    if not tables:
        raise UsageError("no tables to replay", "Name at least one, such as bars_1m or trades.")
    datasets = {dataset.name: dataset for dataset in map(source.dataset, tables)}
    for dataset in datasets.values():
        names = {column.name for column in dataset.columns}
        own = {AVAILABLE_AT} if dataset.available_at == AVAILABLE_AT else set()
        for name in sorted(names & {POSITION, AVAILABLE_AT} - own):
            raise SchemaError(
                f"table {dataset.name} cannot be replayed: it has a column {name!r}",
                f"A replay adds {POSITION} and {AVAILABLE_AT}; rename the column.",
            )
    return sorted(datasets.values(), key=rank_dataset)


def _drop_range(selection: Selection) -> Selection:
    """Return the selection without its range, which bounds the ordering time, not rows' times."""
    return Selection(selection.exchanges, selection.symbols)


def _plan_parts(days: pl.DataFrame, by: Order, selection: Selection) -> pl.DataFrame:
    """Return the market-days that may have rows in the range, with times in microseconds.

    `first`, `last`: bounds of the time column for rows that may be in the range. `min_delay`,
    `max_delay`: minimum and maximum of the ordering time minus the time column.
    """
    uses_delay = int(by == "available_at")
    parts = days.filter(pl.col("rows") > 0).select(
        *("table", "exchange", "symbol", "rows"),
        pl.col("first", "last").to_physical(),
        min_delay=pl.col("min_delay_us").cast(pl.Int64) * uses_delay,
        max_delay=pl.col("max_delay_us").cast(pl.Int64) * uses_delay,
    )
    if selection.start is not None:
        start = _to_us(selection.start)
        starts = pl.max_horizontal("first", start - pl.col("max_delay"))
        share = (pl.col("last") + 1 - starts) / (pl.col("last") + 1 - pl.col("first"))
        parts = parts.filter(starts <= pl.col("last"))
        parts = parts.with_columns(first=starts, rows=pl.col("rows") * share)
    if selection.end is not None:
        parts = parts.filter(pl.col("first") + pl.col("min_delay") < _to_us(selection.end))
    return parts.with_columns(pl.col("rows").cast(pl.Float64))


def _plan_windows(
    parts: pl.DataFrame, datasets: Sequence[Dataset], selection: Selection, window_rows: int
) -> list[int]:
    """Return the ordering times at which windows end, for rows spread evenly over market-days."""
    if parts.is_empty():
        return []
    weights = {dataset.name: _weigh_row(dataset) for dataset in datasets}
    starts = (parts["first"] + parts["min_delay"]).to_numpy()
    ends = (parts["last"] + parts["min_delay"] + 1).to_numpy()
    weight = parts["table"].replace_strict(weights, return_dtype=pl.Float64) * parts["rows"]
    density = weight.to_numpy() / (ends - starts)
    times = np.concatenate([starts, ends])
    order = np.argsort(times, kind="stable")
    times = times[order]
    slopes = np.cumsum(np.concatenate([density, -density])[order])
    steps = np.maximum(slopes[:-1], 0) * np.diff(times)
    total = np.concatenate([[0.0], np.cumsum(steps)])
    targets = np.arange(1, total[-1] // window_rows + 1) * window_rows
    window_ends = np.unique(np.interp(targets, total, times).astype(np.int64))
    last = int((parts["last"] + parts["max_delay"]).to_numpy().max()) + 1
    if selection.end is not None:
        last = min(last, _to_us(selection.end))
    return [*window_ends[window_ends < last].tolist(), last]


def _weigh_row(dataset: Dataset) -> int:
    """Return the weight of a row, in rows without lists."""
    return 1 + _ROWS_A_LIST * sum(column.type.startswith("list") for column in dataset.columns)


class _MarketReader:
    """Reads one market of one table in order of its time column."""

    def __init__(
        self,
        source: Source,
        dataset: Dataset,
        market: tuple[str, str],
        parts: pl.DataFrame,
        in_range: pl.Expr,
    ) -> None:
        self._source = source
        self._dataset = dataset
        self._market = market
        self._first = parts["first"].to_numpy()
        self._last = parts["last"].to_numpy()
        self._min_delay = parts["min_delay"].to_numpy()
        self._in_range = in_range
        self._position = int(self._first.min())
        self._last_until: int | None = None
        self._pending: pl.DataFrame | None = None

    def read_until(self, until: int, column: str) -> pl.DataFrame | None:
        """Read the next rows whose ordering time, in `column`, is before `until`."""
        rows = self._read_next(self._find_reach(until), column)
        if self._pending is not None:
            rows = self._pending if rows is None else pl.concat([self._pending, rows])
        self._last_until = until
        if rows is None:
            return None
        ready = rows[column].to_physical() < until
        if ready.all():
            self._pending = None
            return rows
        self._pending = rows.filter(~ready)
        return rows.filter(ready)

    def _find_reach(self, until: int) -> int:
        """Return the bound of the time column for rows with an ordering time before `until`."""
        latest = np.minimum(self._last + 1, until - self._min_delay)
        return int(latest[latest > self._first].max(initial=self._position))

    def _read_next(self, end: int, column: str) -> pl.DataFrame | None:
        start, self._position = self._position, end
        if not np.any((self._first < end) & (self._last >= start)):
            return None
        rows = self._source.rows(self._dataset.name, *self._market, _from_us(start), _from_us(end))
        names = [name for name in self._dataset.polars_schema if name != AVAILABLE_AT]
        rows = rows.select(self._dataset.availability(), *names).filter(self._in_range)
        if rows.is_empty():
            return None
        earliest = read_times(rows, column).min()
        if self._last_until is not None and earliest < self._last_until:
            raise DamagedError(
                f"table {self._dataset.name}, {' '.join(self._market)}: a row was known at "
                f"{iso(_from_us(int(earliest)))}, earlier than the minimum delay of its day allows",
                "`lake bundle verify` shows whether the bundle is intact.",
            )
        return rows


def _open_readers(
    source: Source, dataset: Dataset, by: Order, selection: Selection, parts: pl.DataFrame
) -> list[_MarketReader]:
    """Return the readers of a table's markets, in order of exchange and symbol."""
    visible = Visibility(dataset, selection.start, selection.end)
    in_range = visible.includes(pl.col(_ordering_column(dataset, by)))
    markets = sorted(parts.select("exchange", "symbol").unique().rows())
    groups = parts.partition_by("exchange", "symbol", as_dict=True)
    return [_MarketReader(source, dataset, market, groups[market], in_range) for market in markets]


def _build_batches(
    readers: Sequence[tuple[Dataset, Sequence[_MarketReader]]],
    window_ends: Sequence[int],
    by: Order,
    batch_rows: int,
) -> Iterator[Batch]:
    buffer = _BatchBuffer(by)
    for window_end in window_ends:
        for dataset, markets in readers:
            column = _ordering_column(dataset, by)
            results = [reader.read_until(window_end, column) for reader in markets]
            frames = [frame for frame in results if frame is not None]
            if frames:
                buffer.stage(dataset, arrange(dataset, frames, column))
        buffer.merge()
        while buffer.rows >= batch_rows:
            yield buffer.take_batch(batch_rows)
    if buffer.rows:
        yield buffer.take_batch(buffer.rows)


class _BatchBuffer:
    """Rows in order that are not in a batch yet."""

    def __init__(self, by: Order) -> None:
        self._by = by
        self._datasets: dict[str, Dataset] = {}
        self._staged: dict[str, pl.DataFrame] = {}
        self._frames: dict[str, pl.DataFrame] = {}
        self._first = 0
        self.rows = 0

    def stage(self, dataset: Dataset, frame: pl.DataFrame) -> None:
        """Add the rows of one table to the next merge; tables come in order of rank."""
        self._datasets[dataset.name] = dataset
        self._staged[dataset.name] = frame

    def merge(self) -> None:
        """Number the staged rows across all tables, after the rows in the buffer."""
        staged, self._staged = self._staged, {}
        if not staged:
            return
        times = [read_times(frame, self._ordering_column(table)) for table, frame in staged.items()]
        order = np.argsort(np.concatenate(times), kind="stable")
        positions = np.empty_like(order)
        positions[order] = np.arange(order.size) + (self._first + self.rows)
        parts = np.split(positions, np.cumsum([part.size for part in times[:-1]]))
        for (table, frame), part in zip(staged.items(), parts, strict=True):
            numbered = frame.select(pl.Series(POSITION, part, pl.Int64), pl.all())
            buffered = self._frames.get(table)
            self._frames[table] = numbered if buffered is None else pl.concat([buffered, numbered])
        self.rows += order.size

    def take_batch(self, rows: int) -> Batch:
        """Remove and return the next rows."""
        first, end = self._first, self._first + rows
        batch_frames, rest = {}, {}
        for table, frame in self._frames.items():
            count = int(frame[POSITION].search_sorted(end, side="left"))
            if count:
                batch_frames[table] = frame.head(count)
            if count < frame.height:
                rest[table] = frame.slice(count)
        self._frames, self._first, self.rows = rest, end, self.rows - rows
        ends = [
            frame[self._ordering_column(table)].to_physical()
            for table, frame in batch_frames.items()
        ]
        return Batch(
            frames=batch_frames,
            datasets={table: self._datasets[table] for table in batch_frames},
            first=first,
            rows=rows,
            first_us=min(times[0] for times in ends),
            last_us=max(times[-1] for times in ends),
        )

    def _ordering_column(self, table: str) -> str:
        return _ordering_column(self._datasets[table], self._by)


def _ordering_column(dataset: Dataset, by: Order) -> str:
    """Return the column of the ordering time."""
    return AVAILABLE_AT if by == "available_at" else dataset.time_column


def _to_us(time: datetime) -> int:
    return (time - EPOCH) // MICROSECOND


def _from_us(microseconds: int) -> datetime:
    return EPOCH + microseconds * MICROSECOND
