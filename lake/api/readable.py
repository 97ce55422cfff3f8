"""Reading a lake: scans, look-ups, alignment, SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from lake.align.align import Aligned, AlignInput, align_tables
from lake.align.policies import How
from lake.api.context import Context, Names
from lake.model.dataset import Dataset
from lake.model.frames import to_pandas
from lake.model.selection import Selection
from lake.model.time import Time, resolve_time
from lake.query.lookup import read_latest, read_row_at
from lake.query.names import Missing, find_dataset, find_table, require_markets
from lake.query.sql import list_views, query
from lake.store.latest import LatestTable

if TYPE_CHECKING:
    import duckdb
    import pandas as pd


class Readable:
    """What reads the rows of a lake."""

    _context: Context

    def dataset(self, table: str, *, timeframe: str | None = None) -> Dataset:
        """The dataset of a table: columns with types, units and meanings, key, checks."""
        return find_dataset(self._context.store, table, timeframe)

    def scan(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
        version: int | None = None,
        as_of: Time | None = None,
        columns: Sequence[str] | None = None,
        ordered: bool = True,
        missing: Missing = "error",
    ) -> pl.LazyFrame:
        """Rows of a table, as `trades` or `bars_1m`.

        Parameters
        ----------
        timeframe
            Of `bars`: `scan("bars", timeframe="1m")` is `scan("bars_1m")`.
        exchange, symbol, since, until
            Which rows: their time is in `[since, until)`; files outside are not opened.
        version, as_of
            Time travel: a version of the table, or the table as it was at a time.
        columns
            All by default.
        ordered
            By exchange, symbol and time. Aggregations are a little quicker without.
        missing
            What to do about a market that the table does not hold: `error`, or `empty` to give no
            rows. One of which nothing happened in the range is not missing.

        Returns
        -------
        LazyFrame
            The dataset's columns; `date` is the UTC day of the time column. Filters put on it
            prune files, too.

        Raises
        ------
        UnknownNameError
            There is no such table, market, version or column: names the closest.
        """
        store, context = self._context.store, self._context
        dataset = self._find(table, timeframe)
        snapshot = store.snapshot(dataset, version=version, as_of=context.time(as_of))
        selection = context.select(exchange, symbol, since, until)
        require_markets(store, [snapshot], selection, missing)
        read = snapshot.scan if ordered else snapshot.scan_unordered
        return read(selection, columns=columns)

    def available(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
        version: int | None = None,
        as_of: Time | None = None,
        missing: Missing = "error",
    ) -> pl.LazyFrame:
        """The rows that `scan` gives, after a column `available_at`: when each could be known."""
        dataset = self._find(table, timeframe)
        rows = self.scan(
            dataset.name,
            exchange=exchange,
            symbol=symbol,
            since=since,
            until=until,
            version=version,
            as_of=as_of,
            missing=missing,
        )
        return rows.select(dataset.availability(), pl.all())

    def to_pandas(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
        version: int | None = None,
        as_of: Time | None = None,
        columns: Sequence[str] | None = None,
        missing: Missing = "error",
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
            version=version,
            as_of=as_of,
            columns=columns,
            missing=missing,
        )
        return to_pandas(rows.collect())

    def align(
        self,
        inputs: Mapping[str, AlignInput | str],
        every: timedelta | str,
        *,
        since: Time,
        until: Time,
        how: How | Mapping[str, How],
        by: Names = (),
    ) -> Aligned:
        """Tables on one grid of times: see `lake.align`; only the range that is needed is read."""
        now = self._context.now()
        return align_tables(
            self.available,
            self._find,
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
        missing: Missing = "error",
    ) -> pl.DataFrame:
        """The last `n` rows of a market, in order of time; of bars, also one that is still open.

        The table stays open between calls, so that they take milliseconds.

        Raises
        ------
        UnknownNameError
            There is no such table or market: names the closest.
        """
        rows = self._follow(table, timeframe, exchange, symbol, missing)
        return read_latest(rows, exchange, symbol, n)

    def at(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: str,
        symbol: str,
        time: Time,
        missing: Missing = "error",
    ) -> pl.DataFrame:
        """The newest row of a market that was known at a time: one row, or none.

        A bar is known at its end, a trade or an order book when it was received where that is
        recorded, anything else at its time. A later row, or a later revision, may be what was
        stored since: for the state of the table at a time, see `as_of` of `scan`.

        Raises
        ------
        UnknownNameError
            There is no such table or market: names the closest.
        """
        rows = self._follow(table, timeframe, exchange, symbol, missing)
        return read_row_at(rows, exchange, symbol, resolve_time(time, self._context.now()))

    def sql(
        self,
        query_text: str,
        parameters: Sequence[Any] | None = None,
        *,
        at: dict[str, int] | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """The result of an SQL query in which every table is a view, as a DuckDB relation.

        `.pl()`, `.arrow()`, `.df()` and `.fetchall()` fetch it.

        Parameters
        ----------
        parameters
            Values of `?` in the query.
        at
            Versions by table: `{"bars_1m": 3}`.

        Raises
        ------
        UsageError
            It is not a query: a lake is never written by SQL.
        UnknownNameError
            It names a table that is not there.
        """
        return query(query_text, list_views(self._context.store, at or {}), parameters)

    def _find(self, table: str, timeframe: str | None = None) -> Dataset:
        return find_table(self._context.store, table, timeframe)

    def _follow(
        self, table: str, timeframe: str | None, exchange: str, symbol: str, missing: Missing
    ) -> LatestTable:
        """A table that stays open, which holds a market."""
        rows = self._context.store.latest(self._find(table, timeframe))
        market = Selection((exchange,), (symbol,))
        require_markets(self._context.store, [rows], market, missing)
        return rows
