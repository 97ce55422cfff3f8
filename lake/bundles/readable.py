"""Reading a bundle: scans, look-ups, alignment, SQL; always the pinned files."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lake.align.align import Aligned, AlignInput, align_tables
from lake.align.policies import How
from lake.bundles.cache import Cache
from lake.bundles.cache_writer import CacheWriter
from lake.bundles.contents import Contents, group_tables
from lake.bundles.table import PinnedTable
from lake.model.dataset import Dataset
from lake.model.frames import to_pandas
from lake.model.names import expand_table, expand_tables, require_markets
from lake.model.selection import Selection, as_tuple
from lake.model.time import Time, resolve_time
from lake.query.known import scan_known
from lake.query.lookup import read_latest, read_row_at
from lake.query.sql import query
from lake.query.sql_views import View

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa


class ReadableBundle:
    """What reads the pinned rows: see `Bundle`."""

    def __init__(
        self, contents: Contents, cache: Cache | None = None, *, now: Callable[[], datetime]
    ) -> None:
        self.contents = contents
        self._now = now
        self._cache = cache
        self._checked = contents.create_checker()
        self._filler = CacheWriter()
        self._opened: dict[str, PinnedTable] = {}

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables that the bundle pins."""
        return tuple(ref.table for _, ref in self.contents.manifest.refs())

    def dataset(self, table: str, *, timeframe: str | None = None) -> Dataset:
        """The dataset of a pinned table, as it was then: columns, key, time column.

        Raises
        ------
        UnknownNameError
            The table is not in the bundle.
        """
        return self._find(table, timeframe)

    def scan(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: str | Sequence[str] = (),
        symbol: str | Sequence[str] = (),
        since: Time | None = None,
        until: Time | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.LazyFrame:
        """Rows of a pinned table, ordered by exchange, symbol and time.

        Parameters are those of `Lake.scan`; they narrow what was pinned.

        Raises
        ------
        UnknownNameError
            The table, market, column or range is not in the bundle.
        DamagedError
            When it is collected: a file is missing, or not what was pinned.
        """
        pinned = self._table(self._find(table, timeframe).name)
        wanted = self.select(exchange, symbol=symbol, since=since, until=until)
        narrowed = wanted.within(pinned.pinned)
        require_markets(pinned.dataset.name, pinned.markets, wanted)
        return pinned.scan(narrowed, columns=columns)

    def arrow(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: str | Sequence[str] = (),
        symbol: str | Sequence[str] = (),
        since: Time | None = None,
        until: Time | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """The rows that `scan` gives, as an Arrow table."""
        rows = self.scan(
            table,
            timeframe=timeframe,
            exchange=exchange,
            symbol=symbol,
            since=since,
            until=until,
            columns=columns,
        )
        return rows.collect().to_arrow()

    def to_pandas(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: str | Sequence[str] = (),
        symbol: str | Sequence[str] = (),
        since: Time | None = None,
        until: Time | None = None,
        columns: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """The rows that `scan` gives, as a pandas frame; pandas is an extra.

        Raises
        ------
        UsageError
            It is not installed.
        """
        rows = self.scan(
            table,
            timeframe=timeframe,
            exchange=exchange,
            symbol=symbol,
            since=since,
            until=until,
            columns=columns,
        )
        return to_pandas(rows.collect())

    def sql(
        self,
        query_text: str,
        parameters: Sequence[Any] | None = None,
        *,
        allow_files: Sequence[Path | str] = (),
    ) -> duckdb.DuckDBPyRelation:
        """The result of an SQL query over the pinned tables, as a DuckDB relation.

        The last column of a table is `available_at`, when a row became available: join on it. The
        query reads the bundle, and the folders `allow_files` of your own files; nothing else.

        Raises
        ------
        UsageError
            The text is not a query, or it reads a file elsewhere.
        UnknownNameError
            The query names a table that is not in the bundle.
        """
        relation = query(query_text, self.views(), parameters, allow_files)
        # It knows paths only; what was unpacked for this bundle has to outlive it.
        weakref.finalize(relation, id, self.contents.files)
        return relation

    def views(self) -> dict[str, View]:
        """By name, the pinned tables as SQL sees them."""
        return {
            table: View(
                self.contents.tables / table,
                lambda table=table: self._table(table),  # type: ignore[misc]
                self._table(table).pinned,
            )
            for table in self.tables
        }

    def available(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: str | Sequence[str] = (),
        symbol: str | Sequence[str] = (),
        since: Time | None = None,
        until: Time | None = None,
    ) -> pl.LazyFrame:
        """The rows that `scan` gives, after a column `available_at`: when each could be known.

        `lake.as_of_join` wants it.
        """
        dataset = self._find(table, timeframe)
        rows = self.scan(dataset.name, exchange=exchange, symbol=symbol, since=since, until=until)
        return rows.select(dataset.availability(), pl.all())

    def align(
        self,
        inputs: Mapping[str, AlignInput | str],
        every: timedelta | str,
        *,
        since: Time,
        until: Time,
        how: How | Mapping[str, How],
        by: str | Sequence[str] = (),
    ) -> Aligned:
        """Tables on one grid of times: see `lake.align`; only the range that is needed is read."""
        now = self._now()
        return align_tables(
            self._scan_known,
            inputs,
            every,
            since=resolve_time(since, now),
            until=resolve_time(until, now),
            how=how,
            by=by,
        )

    def latest(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: str,
        symbol: str,
        n: int = 1,
    ) -> pl.DataFrame:
        """The last `n` rows of a market, in order of time."""
        rows = self._table(self._find(table, timeframe).name)
        require_markets(rows.dataset.name, rows.markets, Selection((exchange,), (symbol,)))
        return read_latest(rows, exchange, symbol, n)

    def at(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: str,
        symbol: str,
        time: Time,
    ) -> pl.DataFrame:
        """The newest row of a market that was known at a time: one row, or none."""
        rows = self._table(self._find(table, timeframe).name)
        require_markets(rows.dataset.name, rows.markets, Selection((exchange,), (symbol,)))
        return read_row_at(rows, exchange, symbol, resolve_time(time, self._now()))

    @cached_property
    def _families(self) -> dict[str, list[str]]:
        return group_tables(self.contents)

    def _scan_known(
        self, rows: AlignInput, since: datetime | None, until: datetime, *, witnesses: bool
    ) -> pl.LazyFrame:
        """Return the rows that became available in a range, after a column `available_at`."""
        pinned = self._table(self._find(rows.table, rows.timeframe).name)
        markets = self.select(rows.exchange, symbol=rows.symbol)
        require_markets(pinned.dataset.name, pinned.markets, markets)
        return scan_known(pinned, markets, since, until, witnesses=pinned if witnesses else None)

    def _find(self, table: str, timeframe: str | None) -> Dataset:
        return self._table(expand_table(table, timeframe, self._families)).dataset

    def _expand(
        self, table: str | Sequence[str], timeframe: str | Sequence[str]
    ) -> tuple[str, ...]:
        """The pinned tables that names mean; all of them where none is named."""
        names = expand_tables(as_tuple(table), as_tuple(timeframe), self._families)
        for name in names:
            self.contents.ref(name)
        return names or self.tables

    def select(
        self,
        exchange: str | Sequence[str] = (),
        *,
        symbol: str | Sequence[str] = (),
        since: Time | None = None,
        until: Time | None = None,
    ) -> Selection:
        """The rows that users mean by names and a range.

        Raises
        ------
        UsageError
            The range is empty, or a bound is no time.
        """
        now = self._now()
        start, end = resolve_time(since, now), resolve_time(until, now)
        return Selection(as_tuple(exchange), as_tuple(symbol), start, end)

    def _table(self, table: str) -> PinnedTable:
        if table not in self._opened:
            self._opened[table] = PinnedTable.open(
                self.contents, table, self._checked, self._cache, self._filler
            )
        return self._opened[table]
