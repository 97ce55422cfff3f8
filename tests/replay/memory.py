"""A source of frames in memory, and a naive replay written from the documentation alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from lake.model.catalog import Catalog, builtin_files
from lake.model.dataset import Dataset
from lake.model.selection import Selection
from lake.replay.merge import Batch
from tests.model.everything import TEXT

Row = dict[str, Any]
Market = tuple[str, str, str]
RANKS = ("funding", "trades", "orderbooks")


def catalog_with(*texts: str) -> Catalog:
    """Return the built-in datasets and those of some dataset files."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, text in enumerate(texts):
            name = text.split('"')[1]
            files.append(Path(folder) / str(number) / f"{name}.toml")
            files[-1].parent.mkdir()
            files[-1].write_text(text, encoding="utf-8")
        return Catalog([*builtin_files(), *files])


# Sorted by columns that may be null, and not by time.
CATALOG = catalog_with(TEXT.replace("[columns]", 'sort = ["text", "number"]\n\n[columns]'))


@dataclass(frozen=True)
class Read:
    """One call of `Memory.rows`."""

    market: Market
    start: datetime
    end: datetime
    rows: int


class Memory:
    """A source of frames by table; nullable columns may be omitted."""

    def __init__(self, frames: Mapping[str, pl.DataFrame], catalog: Catalog = CATALOG) -> None:
        self._catalog = catalog
        self._frames = {table: whole(catalog.dataset(table), f) for table, f in frames.items()}
        self.reads: list[Read] = []

    def dataset(self, table: str) -> Dataset:
        return self._catalog.dataset(table)

    def days(self, tables: Sequence[str], selection: Selection) -> pl.DataFrame:
        assert selection.start is None
        assert selection.end is None
        found = [self._days(table, selection) for table in tables if table in self._frames]
        return pl.concat([_NO_DAYS, *found])

    def _days(self, table: str, selection: Selection) -> pl.DataFrame:
        dataset = self.dataset(table)
        time = pl.col(dataset.time_column)
        delay = (dataset.availability() - time).dt.total_microseconds()
        predicate = selection.predicate(dataset)
        frame = self._frames[table]
        selected = frame if predicate is None else frame.filter(predicate)
        days = selected.group_by("exchange", "symbol", "date").agg(
            rows=pl.len().cast(pl.Int64),
            first=time.min(),
            last=time.max(),
            min_delay_us=delay.min(),
            max_delay_us=delay.max(),
        )
        return days.select(pl.lit(table).alias("table"), pl.all())

    def rows(
        self, table: str, exchange: str, symbol: str, start: datetime, end: datetime
    ) -> pl.DataFrame:
        dataset = self.dataset(table)
        time = pl.col(dataset.time_column)
        frame = self._frames[table].filter(
            (pl.col("exchange") == exchange) & (pl.col("symbol") == symbol),
            (time >= start) & (time < end),
        )
        self.reads.append(Read((table, exchange, symbol), start, end, frame.height))
        return frame.sort(dataset.sort)

    def known(self, table: str) -> pl.DataFrame:
        """Return the rows of a table with the time at which each became known."""
        known = self._frames[table].with_columns(self.dataset(table).availability())
        return known.drop_nulls("available_at")


def whole(dataset: Dataset, frame: pl.DataFrame) -> pl.DataFrame:
    """Add the missing columns of the dataset to rows."""
    missing = {
        column.name: pl.lit(None, column.dtype)
        for column in dataset.columns
        if column.name not in frame.columns
    }
    missing["date"] = pl.col(dataset.time_column).dt.date()
    return frame.with_columns(**missing).select(list(dataset.polars_schema))


def naive_replay(
    source: Memory, tables: Iterable[str], selection: Selection, by: str
) -> list[tuple[str, Row]]:
    """Return table and row of all rows, sorted by the key in the documentation."""
    found = []
    for table in set(tables):
        dataset = source.dataset(table)
        for row in source.known(table).to_dicts():
            time = row["available_at" if by == "available_at" else dataset.time_column]
            after = selection.start is None or time >= selection.start
            if after and (selection.end is None or time < selection.end):
                market = row["exchange"], row["symbol"]
                names = dict.fromkeys([*dataset.sort, *dataset.key])
                keys = [comparable(row[name]) for name in names]
                found.append(((time, rank(dataset), *market, keys), (table, row)))
    return [item for _, item in sorted(found, key=lambda pair: pair[0])]


def rank(dataset: Dataset) -> tuple[int, int, str]:
    if dataset.timeframe is not None:
        return -1, dataset.timeframe.seconds, dataset.name
    place = RANKS.index(dataset.name) if dataset.name in RANKS else len(RANKS)
    return place, 0, dataset.name


def comparable(value: Any) -> tuple[Any, ...]:
    if value is None:
        return (0,)
    return (1, len(value.encode()), value) if isinstance(value, str) else (1, value)


def list_rows(batches: Iterable[Batch]) -> list[tuple[str, Row]]:
    """Return table and row of all rows of batches, in order of their positions."""
    found = [
        (row.pop("position"), (table, row))
        for batch in batches
        for table, frame in batch.frames.items()
        for row in frame.to_dicts()
    ]
    found.sort(key=lambda pair: pair[0])
    assert [position for position, _ in found] == list(range(len(found)))
    return [item for _, item in found]


_NO_DAYS = pl.DataFrame(
    schema={
        "table": pl.String(),
        "exchange": pl.String(),
        "symbol": pl.String(),
        "date": pl.Date(),
        "rows": pl.Int64(),
        "first": pl.Datetime("us", "UTC"),
        "last": pl.Datetime("us", "UTC"),
        "min_delay_us": pl.Int64(),
        "max_delay_us": pl.Int64(),
    }
)
