"""One pinned table: reads rows from the cache, or from data files that are verified first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import polars as pl

from lake.bundles.cache import Cache, CacheKey
from lake.bundles.cache_writer import CacheWriter
from lake.bundles.contents import Contents
from lake.errors import DamagedError
from lake.model.dataset import Dataset
from lake.model.selection import Selection
from lake.store.chunks import chunk_selection
from lake.store.hashing import ExpectedFile, FileChecker
from lake.store.index import FileIndex
from lake.store.reader import EVERYTHING, TableReader, may_hold_rows

# Mean size of a mapped cell; strings are views of 16 bytes.
_CELL_BYTES = 12


@dataclass(frozen=True)
class PinnedTable(TableReader):
    """The pinned selection of a table.

    Attributes
    ----------
    dataset
        The dataset at the time of the pin.
    folder
        The folder of the table's data files.
    index
        The index of the files that hold the selection.
    pinned
        The pinned selection.
    closed_only
        Whether the pin left out open bars.
    added_columns
        Columns that some of the files lack, because the table got them later.
    list_days
        Returns the market-days of the bundle.
    checker
        Checks files against their SHA-256 and remembers the right ones.
    bundle_id, checksum
        The id of the bundle, and the checksum of its manifest.
    cache, cache_writer
        The cache of mapped rows or None, and the queue that fills it.
    """

    dataset: Dataset
    folder: Path
    index: FileIndex
    pinned: Selection
    added_columns: tuple[str, ...]
    list_days: Callable[[], pl.DataFrame]
    checker: FileChecker
    bundle_id: str
    checksum: str
    cache: Cache | None
    cache_writer: CacheWriter
    closed_only: bool = False

    @classmethod
    def open(
        cls,
        contents: Contents,
        table: str,
        checker: FileChecker | None = None,
        cache: Cache | None = None,
        cache_writer: CacheWriter | None = None,
    ) -> PinnedTable:
        """Open a table of a bundle; without a cache, rows are read from its files."""
        ref = contents.ref(table)
        return cls(
            dataset=contents.dataset(table),
            folder=contents.tables / table,
            index=contents.files,
            pinned=ref.selection.selection,
            closed_only=bool(ref.left_out),
            added_columns=contents.manifest.data_dictionary[table].added_columns,
            list_days=lambda: contents.days,
            checker=checker or contents.create_checker(),
            bundle_id=contents.id,
            checksum=contents.manifest.checksum,
            cache=cache,
            cache_writer=cache_writer or CacheWriter(),
        )

    @property
    def uri(self) -> str:
        return str(self.folder)

    def list_lacking(self) -> tuple[str, ...]:
        return self.added_columns

    def clip(self, selection: Selection) -> Selection | None:
        return selection.overlap(self.pinned)

    def find_late(self, selection: Selection, since: datetime) -> Selection | None:
        latest = pl.col("last") + pl.duration(microseconds="max_delay_us")
        days = self.list_days().filter(
            may_hold_rows(selection), latest >= since, table=self.dataset.name
        )
        first = days["first"].min()
        return replace(selection, start=first) if isinstance(first, datetime) else None

    @cached_property
    def markets(self) -> list[tuple[str, str]]:
        """Exchange and symbol of the pinned markets, sorted."""
        markets = self.index.files(self.dataset.name, self.pinned).select("exchange", "symbol")
        return sorted(markets.unique().rows())

    def files(self, selection: Selection = EVERYTHING) -> pl.DataFrame:
        """Return the data files of a selection after verifying that they are the pinned ones.

        Raises
        ------
        DamagedError
            A file is missing or differs from the pinned file.
        """
        within = self.clip(selection)
        if within is None:
            return self.index.files(self.dataset.name, self.pinned).clear()
        files = self.index.files(self.dataset.name, within)
        expected = map(ExpectedFile, self.locate(files["path"]), files["bytes"], files["sha256"])
        mismatches = self.checker.find_wrong(expected)
        if mismatches:
            names = ", ".join(sorted(file.path for file in mismatches))
            raise DamagedError(
                f"table {self.dataset.name}: files are missing or differ from the pinned files: "
                f"{names}",
                f"`lake bundle verify {self.bundle_id[:12]}` lists all such files; restore them "
                "from a backup or an export.",
            )
        return files

    def _read(
        self, selection: Selection, wanted: Sequence[str], predicate: pl.Expr | None
    ) -> pl.DataFrame:
        within = self.clip(selection)
        if within is None:
            return self.dataset.empty().select(wanted)
        if self.cache is None:
            return self._read_files(within, wanted, predicate)
        columns = wanted if predicate is None else None
        results = [
            self._read_cached(market, within, columns) for market in self._list_markets(within)
        ]
        cached = [rows for rows in results if rows is not None]
        if not cached or len(cached) < len(results):
            return self._read_files(within, wanted, predicate)
        rows = pl.concat(cached)
        if predicate is not None:
            rows = rows.lazy().filter(predicate).collect()
        return rows.select(wanted)

    def _list_markets(self, selection: Selection) -> list[tuple[str, str]]:
        if len(selection.exchanges) == len(selection.symbols) == 1:
            return [(selection.exchanges[0], selection.symbols[0])]
        return [
            (exchange, symbol)
            for exchange, symbol in self.markets
            if exchange in (selection.exchanges or (exchange,))
            and symbol in (selection.symbols or (symbol,))
        ]

    def _read_cached(
        self, market: tuple[str, str], selection: Selection, wanted: Sequence[str] | None
    ) -> pl.DataFrame | None:
        """Read the rows of a market from the cache; if they are absent, schedule caching them."""
        if self.cache is None:
            return None
        time = self.dataset.time_column
        columns = None if wanted is None else list(dict.fromkeys([*wanted, time]))
        rows = self.cache.get(self._build_cache_key(market), columns)
        if rows is None:
            self._fill_later(market)
            return None
        times = rows[time]
        start = 0 if selection.start is None else times.search_sorted(selection.start, "left")
        end = len(times) if selection.end is None else times.search_sorted(selection.end, "left")
        return rows.slice(start, end - start)

    def _read_files(
        self, selection: Selection, wanted: Sequence[str], predicate: pl.Expr | None
    ) -> pl.DataFrame:
        rows = self.scan_files(self.files(selection), selection)
        if predicate is not None:
            rows = rows.filter(predicate)
        return self.sort_rows(rows, selection, wanted)

    def warm(self, market: tuple[str, str]) -> int:
        """Cache the rows of a market; return the size in bytes, or 0 if they were cached already.

        Raises
        ------
        DamagedError
            A file is missing or differs from the pinned file.
        StorageError
            The rows do not fit into the cache.
        """
        if self.cache is None or self.cache.get(self._build_cache_key(market)) is not None:
            return 0
        return self.cache.put(self._build_cache_key(market), self.read_pieces(market))

    def read_pieces(self, market: tuple[str, str]) -> Iterator[pl.DataFrame]:
        """Yield the rows of a market in order, about a million at a time."""
        pinned = Selection((market[0],), (market[1],), self.pinned.start, self.pinned.end)
        columns = list(self.dataset.polars_schema)
        for part in chunk_selection(self, self.files(pinned), pinned):
            yield self._read_files(part, columns, None)

    def _fill_later(self, market: tuple[str, str]) -> None:
        cache = self.cache
        if cache is None:
            return
        market_selection = Selection((market[0],), (market[1],))
        rows = int(self.index.files(self.dataset.name, market_selection)["rows"].sum())
        if rows * len(self.dataset.columns) * _CELL_BYTES <= cache.fill_bytes:
            self.cache_writer.submit(self._build_cache_key(market).path, lambda: self.warm(market))

    def _build_cache_key(self, market: tuple[str, str]) -> CacheKey:
        return CacheKey(self.bundle_id, self.checksum, self.dataset.name, *market)
