"""Read a lake: scans, look-ups, alignment, SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lake.api.context import Context, Names
from lake.model.dataset import Dataset
from lake.model.frames import to_pandas
from lake.model.selection import Selection
from lake.model.time import Time, resolve_time
from lake.query.names import Missing, find_dataset, find_table, require_markets

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

    from lake.align.align import Aligned, AlignInput
    from lake.align.policies import How
    from lake.store.latest import LatestTable


class Readable:
    """Reads the rows of a lake."""

    _context: Context

    def dataset(self, table: str, *, timeframe: str | None = None) -> Dataset:
        """Return the dataset of a table: columns with types, units and meanings, key, checks."""
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
        """Return rows of a table, such as `trades` or `bars_1m`.

        Parameters
        ----------
        timeframe
            Timeframe of `bars`: `scan("bars", timeframe="1m")` equals `scan("bars_1m")`.
        exchange, symbol, since, until
            Markets and range: times are in `[since, until)`; other files are not opened.
        version, as_of
            Time travel: a version of the table, or the table as it was at a time.
        columns
            Names of columns; all by default.
        ordered
            Sort by exchange, symbol and time. Aggregations are slightly faster without.
        missing
            For a market that the table does not hold: `error` raises, `empty` returns no rows. A
            market without rows in the range is not missing.

        Returns
        -------
        LazyFrame
            The dataset's columns; `date` is the UTC day of the time column. Filters on the
            LazyFrame also prune files.

        Raises
        ------
        UnknownNameError
            A table, market, version or column does not exist; the hint suggests similar names.
        UsageError
            `as_of` is in the future.
        """
        store, context = self._context.store, self._context
        dataset = self._find(table, timeframe)
        snapshot = store.snapshot(dataset, version=version, as_of=context.past(as_of))
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
        """Return the rows of `scan` after a column `available_at`: when each became available.

        Open bars are left out: they are not available before they are final.
        """
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
        return rows.select(dataset.availability(), pl.all()).drop_nulls("available_at")

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
        """Return the rows of `scan` as a pandas frame; pandas is an extra.

        Raises
        ------
        UsageError
            pandas is not installed.
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
        """Align tables to one grid of times, and read only the needed range: see `lake.align`."""
        from lake.align.align import align_tables

        now = self._context.now()
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
        missing: Missing = "error",
    ) -> pl.DataFrame:
        """Return the last `n` rows of a market, in order of time, including an open bar.

        The table stays open between calls, so that each takes milliseconds.

        Raises
        ------
        UnknownNameError
            The table or market does not exist; the hint suggests similar names.
        """
        from lake.query.lookup import read_latest

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
        """Return the newest row of a market that was available at a time: one row, or none.

        A bar is available at its end (an open one never), any other row at its time, and each when
        it was received if that was recorded and is later. Rows may have been stored or revised
        since: for the state of the table at a time, see `as_of` of `scan`.

        Raises
        ------
        UnknownNameError
            The table or market does not exist; the hint suggests similar names.
        """
        from lake.query.lookup import read_row_at

        rows = self._follow(table, timeframe, exchange, symbol, missing)
        return read_row_at(rows, exchange, symbol, resolve_time(time, self._context.now()))

    def sql(
        self,
        query_text: str,
        parameters: Sequence[Any] | None = None,
        *,
        at: dict[str, int] | None = None,
        as_of: Time | None = None,
        allow_files: Sequence[Path | str] = (),
    ) -> duckdb.DuckDBPyRelation:
        """Run an SQL query in which every table is a view; return a DuckDB relation.

        A query reads the lake and nothing else: no other file, no host, no variable of Python.

        The last column of a view is `available_at`, when a row became available: join on it, such
        as `ASOF JOIN bars_1h b ON b.available_at <= t.timestamp`. A join on the open time of bars
        would see up to a whole bar of the future.

        `.pl()`, `.arrow()`, `.df()` and `.fetchall()` fetch it. `now()` is the time of this call,
        whenever that happens. Files that cannot hold rows of the query, by its conditions on
        exchange, symbol, date and time, are not opened.

        Parameters
        ----------
        parameters
            Values of `?` in the query.
        at
            Versions by table: `{"bars_1m": 3}`.
        as_of
            Read the other tables as they were at a time.
        allow_files
            Folders of your own files that the query may read too.

        Raises
        ------
        UsageError
            The text is not a query (SQL cannot write to a lake), it reads a file elsewhere, or
            `as_of` is in the future.
        UnknownNameError
            The query names a table that does not exist.
        """
        from lake.query.sql import query
        from lake.query.sql_views import list_views

        views = list_views(self._context.store, at or {}, self._context.past(as_of))
        return query(query_text, views, parameters, allow_files)

    def _scan_known(
        self, rows: AlignInput, since: datetime | None, until: datetime, *, witnesses: bool
    ) -> pl.LazyFrame:
        """Return the rows that became available in a range, after a column `available_at`."""
        from lake.query.known import scan_known

        store = self._context.store
        dataset = self._find(rows.table, rows.timeframe)
        snapshot = store.snapshot(dataset)
        markets = self._context.select(rows.exchange, rows.symbol, None, None)
        require_markets(store, [snapshot], markets, "error")
        latest = store.latest(dataset) if witnesses else None
        return scan_known(snapshot, markets, since, until, witnesses=latest)

    def _find(self, table: str, timeframe: str | None = None) -> Dataset:
        return find_table(self._context.store, table, timeframe)

    def _follow(
        self, table: str, timeframe: str | None, exchange: str, symbol: str, missing: Missing
    ) -> LatestTable:
        """Return a table that stays open between calls, and require that it holds the market."""
        rows = self._context.store.latest(self._find(table, timeframe))
        market = Selection((exchange,), (symbol,))
        require_markets(self._context.store, [rows], market, missing)
        return rows
