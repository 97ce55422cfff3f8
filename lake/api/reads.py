"""Reading a lake: scans, SQL, look-ups, overviews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from lake.align.align import Aligned, AlignInput, align_feeds
from lake.align.policies import How
from lake.api.opened import Names, Opened
from lake.bundles.bundle import as_tuple
from lake.model.selection import Selection
from lake.query.audit import AuditFilter, list_commits, list_versions
from lake.query.lookup import read_latest, read_row_at
from lake.query.overview import list_tables, read_coverage, read_status
from lake.query.sql import View, query

if TYPE_CHECKING:
    import duckdb


class Reads(Opened):
    """What reads a lake."""

    def describe(self, name: str) -> pl.DataFrame:
        """The data dictionary of a table: one row a column (column, type, unit, null, meaning)."""
        return pl.DataFrame(
            [
                {
                    "column": column.name,
                    "type": column.type,
                    "unit": column.unit,
                    "nullable": column.nullable,
                    "key": column.name in self.dataset(name).full_key,
                    "meaning": column.meaning,
                }
                for column in self.dataset(name).columns
            ]
        )

    def tables(self) -> pl.DataFrame:
        """The tables that exist: rows, markets, first and last time, size in bytes, version."""
        return list_tables(self._store)

    def status(self) -> pl.DataFrame:
        """By table and market: rows, what is covered, how many holes, the age of the newest."""
        return read_status(self._store)

    def versions(self, table: str) -> pl.DataFrame:
        """The commits of a table, newest first: time, operation, rows, job, source."""
        return list_versions(self._store, table)

    def audit(
        self,
        table: Names | None = None,
        limit: int | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        job: str | None = None,
        source: str | None = None,
        operation: str | None = None,
        exchange: Names = (),
        symbol: Names = (),
    ) -> pl.DataFrame:
        """Who wrote what, when and why: the commits of some tables or of all, newest first.

        Parameters
        ----------
        table
            One or several; all by default.
        limit
            The newest so many. Without other choices, only about as many are read.
        since, until
            Committed in `[since, until)`.
        job
            A job's id, or how it begins: `20260131` means all jobs of that day.
        source, operation
            As the result has them: `ccxt:binance`; `merge`, in any case.
        exchange, symbol
            Files of these markets were added or removed, be it to store the same rows otherwise.

        Returns
        -------
        DataFrame
            `time`, `table`, `version`, `operation`; `job` and `source`; `rows` that were given,
            and of these `inserted`, `updated` and `rejected` ones; `deleted` rows; `digest` of the
            rows; `why`: what the job was asked for. Null is what a commit does not say.

        Raises
        ------
        UnknownNameError
            There is no such table or job: names the closest.
        UsageError
            The range is reversed, or not in UTC.
        """
        tables = as_tuple(table or ())
        selection = Selection(as_tuple(exchange), as_tuple(symbol), since, until)
        wanted = AuditFilter(tables, selection, job, source, operation)
        return list_commits(self._store, wanted, limit)

    def jobs(self) -> pl.DataFrame:
        """What has run, oldest first."""
        return self._ledger.jobs()

    def coverage(
        self, table: str | None = None, *, exchange: Names = (), symbol: Names = ()
    ) -> pl.DataFrame:
        """Covered intervals, neighbours joined: table, exchange, symbol, start, end."""
        return read_coverage(self._store, table, Selection(as_tuple(exchange), as_tuple(symbol)))

    def scan(
        self,
        table: str,
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: datetime | None = None,
        until: datetime | None = None,
        version: int | None = None,
        as_of: datetime | None = None,
        columns: Sequence[str] | None = None,
        ordered: bool = True,
    ) -> pl.LazyFrame:
        """Rows of a table, as `trades` or `bars_1m`.

        Parameters
        ----------
        exchange, symbol, since, until
            Which rows: their time is in `[since, until)`; files outside are not opened.
        version, as_of
            Time travel: a version of the table, or the table as it was at a time.
        columns
            All by default.
        ordered
            By exchange, symbol and time. Aggregations are a little quicker without.

        Returns
        -------
        LazyFrame
            The dataset's columns; `date` is the UTC day of the time column. Filters put on it
            prune files, too.

        Raises
        ------
        UnknownNameError
            There is no such table, version or column.
        """
        snapshot = self._store.snapshot(self.dataset(table), version=version, as_of=as_of)
        selection = Selection(as_tuple(exchange), as_tuple(symbol), since, until)
        read = snapshot.scan if ordered else snapshot.scan_unordered
        return read(selection, columns=columns)

    def available(self, table: str, **narrowed: Any) -> pl.LazyFrame:
        """The rows that `scan` gives, after a column `available_at`: when each could be known."""
        return self.scan(table, **narrowed).select(self.dataset(table).availability(), pl.all())

    def align(
        self,
        feeds: Mapping[str, AlignInput | str],
        every: timedelta | str,
        *,
        start: datetime,
        end: datetime,
        how: How | Mapping[str, How],
        by: Names = (),
    ) -> Aligned:
        """Tables on one grid of times: see `lake.align`; only the range that is needed is read."""
        return align_feeds(
            self.available, self.dataset, feeds, every, start=start, end=end, how=how, by=by
        )

    def latest(self, table: str, exchange: str, symbol: str, n: int = 1) -> pl.DataFrame:
        """The last `n` rows of a market, in order of time; of bars, also one that is still open.

        The table stays open between calls, so that they take milliseconds.

        Raises
        ------
        UnknownNameError
            There is no such table.
        """
        return read_latest(self._store.latest(self.dataset(table)), exchange, symbol, n)

    def at(self, table: str, exchange: str, symbol: str, time: datetime) -> pl.DataFrame:
        """The newest row of a market that was known at a time: one row, or none.

        A bar is known at its end, a trade or an order book when it was received where that is
        recorded, anything else at its time. A later row, or a later revision, may be what was
        stored since: for the state of the table at a time, see `as_of` of `scan`.

        Raises
        ------
        UnknownNameError
            There is no such table.
        """
        return read_row_at(self._store.latest(self.dataset(table)), exchange, symbol, time)

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
        return query(query_text, self._views(at or {}), parameters)

    def _views(self, at: dict[str, int]) -> dict[str, View]:
        for name in at:
            self.dataset(name)
        return {
            name: View(
                lambda name=name: self._store.snapshot(  # type: ignore[misc]
                    self.dataset(name), version=at.get(name)
                )
            )
            for name in self._store.tables()
        }
