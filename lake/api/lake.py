"""A lake: its tables, what brings data into them, and its namespaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from lake.align.align import Aligned, AlignInput, align_tables
from lake.align.policies import How
from lake.api.alerts import Alerts
from lake.api.blocking import run
from lake.api.bundles import Bundles
from lake.api.context import Context, Names, utc_now
from lake.api.maintenance import Maintenance
from lake.api.quality import Quality
from lake.jobs.ingest.report import IngestReport
from lake.jobs.ingest.request import IngestChoice, choose_requests
from lake.jobs.ingest.run import fetch_instruments, fetch_order_books, ingest_and_check
from lake.jobs.ingest.write import write_rows
from lake.model.dataset import Dataset, Granularity
from lake.model.frames import to_pandas
from lake.model.progress import NoProgress, Progress
from lake.model.selection import Selection, as_tuple
from lake.model.time import Time, resolve_time
from lake.query.audit import AuditFilter, list_commits, list_jobs, list_versions
from lake.query.lookup import read_latest, read_row_at
from lake.query.overview import describe_columns, list_tables, read_coverage, read_status
from lake.query.sql import lake_views, query
from lake.settings import Settings
from lake.store.root import Root
from lake.store.store import Written

if TYPE_CHECKING:
    import duckdb
    import pandas as pd


class Lake:
    """A lake: its tables, its bundles, and what brings data into it.

    Made by `lake.open(uri)`. All times are UTC, all ranges `[since, until)`.

    Parameters
    ----------
    settings
        Its `uri` says where the lake is.
    now
        The present; replaced in tests.

    Attributes
    ----------
    bundles, quality, alerts, maintenance
        What can be done beside reading and writing.

    Raises
    ------
    ConfigError
        There is no lake at the URI.
    """

    def __init__(self, settings: Settings, now: Callable[[], datetime] = utc_now) -> None:
        self._context = Context.open(settings, now)
        self.settings = settings
        self.root = self._context.root
        self.bundles = Bundles(self._context)
        self.quality = Quality(self._context)
        self.alerts = Alerts(self._context)
        self.maintenance = Maintenance(self._context)

    @classmethod
    def create(
        cls,
        settings: Settings,
        granularity: dict[str, Granularity] | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> Lake:
        """Make a new lake at the URI of the settings.

        `granularity` says for single tables whether `date` is a `day` or a `year` in storage.

        Raises
        ------
        ConfigError
            There is one already, or the folder is not empty.
        StorageError
            It cannot be written.
        """
        Root.create(settings.uri, now(), granularity)
        return cls(settings, now)

    def __repr__(self) -> str:
        return f"<Lake {self.root.path}>"

    def dataset(self, table: str) -> Dataset:
        """The dataset of a table: columns with types, units and meanings, key, checks."""
        return self._context.store.catalog.dataset(table)

    def write(self, table: str, rows: pl.DataFrame, *, source: str = "python") -> Written:
        """Put rows of one's own into a table, by the same way as all others: checked, merged once.

        Parameters
        ----------
        rows
            `exchange`, `symbol` and the columns of the dataset, with exactly their types; nullable
            ones may be missing. Rows that break a rule go to the table `quarantine`.
        source
            Where they come from, for the audit.

        Returns
        -------
        Written
            Counts of rows that were new, replaced another, were refused, or were there already.

        Raises
        ------
        SchemaError
            The frame as a whole does not fit the dataset.
        UsageError
            The table is the lake's own record.
        """
        return write_rows(self._context.store, table, rows, source)

    def ingest(
        self,
        table: Names = (),
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
        refetch: bool = False,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Fetch what of a range is not covered yet, store it, and check what that touched.

        Without arguments it goes on with everything that is covered; a table or an exchange alone
        narrows that.

        Parameters
        ----------
        table
            `trades`, `funding`, or bars with their timeframe: `bars_1m`; one or several.
        exchange, symbol
            Markets in ccxt's names; without symbols, those of which something is covered.
        since, until
            The range; without `since` it goes on from what is covered, without `until` up to now.
        refetch
            Ask again for what is covered: a venue's revisions replace bars that differ.

        Raises
        ------
        SourceUnavailableError
            The venue stays down; what it gave is stored, and the same call goes on from there.
        UnknownNameError, UsageError
            The exchange, market, timeframe or range cannot be met, or nothing is covered yet.
        """
        context = self._context
        now = context.now()
        choice = IngestChoice(
            as_tuple(table),
            as_tuple(exchange),
            as_tuple(symbol),
            resolve_time(since, now),
            resolve_time(until, now),
            refetch,
        )
        requests = choose_requests(context.store, choice)
        return run(
            ingest_and_check(context.store, context.settings, requests, progress or NoProgress())
        )

    def order_books(
        self, exchange: str, *, symbol: Names, depth: int | None = None
    ) -> IngestReport:
        """Fetch and store order books as they are now.

        `depth`: in levels a side; None: the venue's own.
        """
        context = self._context
        symbols = as_tuple(symbol)
        return run(fetch_order_books(context.store, context.settings, exchange, symbols, depth))

    def instruments(self, exchange: str, *, symbol: Names = ()) -> IngestReport:
        """Fetch the specifications of markets and store those that changed; all by default."""
        context = self._context
        return run(fetch_instruments(context.store, context.settings, exchange, as_tuple(symbol)))

    def describe(self, table: str) -> pl.DataFrame:
        """The data dictionary of a table: one row a column (column, type, unit, null, meaning)."""
        return describe_columns(self.dataset(table))

    def tables(self) -> pl.DataFrame:
        """The tables that exist: rows, markets, first and last time, size in bytes, version."""
        return list_tables(self._context.store)

    def status(self) -> pl.DataFrame:
        """By table and market: rows, what is covered, how many holes, the age of the newest."""
        return read_status(self._context.store)

    def versions(self, table: str) -> pl.DataFrame:
        """The commits of a table, newest first: time, operation, rows, job, source."""
        return list_versions(self._context.store, table)

    def audit(
        self,
        table: Names = (),
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
        job: str | None = None,
        source: str | None = None,
        operation: str | None = None,
        limit: int | None = None,
    ) -> pl.DataFrame:
        """Who wrote what, when and why: the commits of some tables or of all, newest first.

        Parameters
        ----------
        table
            One or several; all by default.
        exchange, symbol
            Files of these markets were added or removed, be it to store the same rows otherwise.
        since, until
            Committed in `[since, until)`.
        job
            A job's id, or how it begins: `20260131` means all jobs of that day.
        source, operation
            As the result has them: `ccxt:binance`; `merge`, in any case.
        limit
            The newest so many. Without other choices, only about as many are read.

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
        tables = as_tuple(table)
        selection = self._context.select(exchange, symbol, since, until)
        wanted = AuditFilter(tables, selection, job, source, operation)
        return list_commits(self._context.store, wanted, limit)

    def jobs(
        self,
        *,
        since: Time | None = None,
        until: Time | None = None,
        job: str | None = None,
    ) -> pl.DataFrame:
        """What has run, oldest first.

        Parameters
        ----------
        since, until
            Started in `[since, until)`.
        job
            A job's id, or how it begins.

        Raises
        ------
        UnknownNameError
            There is no such job: names the closest.
        """
        return list_jobs(self._context.store, self._context.select((), (), since, until), job)

    def coverage(
        self, table: str | None = None, *, exchange: Names = (), symbol: Names = ()
    ) -> pl.DataFrame:
        """Covered intervals, neighbours joined: table, exchange, symbol, start, end."""
        return read_coverage(
            self._context.store, table, Selection(as_tuple(exchange), as_tuple(symbol))
        )

    def scan(
        self,
        table: str,
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
        version: int | None = None,
        as_of: Time | None = None,
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
        snapshot = self._context.store.snapshot(
            self.dataset(table), version=version, as_of=self._context.time(as_of)
        )
        selection = self._context.select(exchange, symbol, since, until)
        read = snapshot.scan if ordered else snapshot.scan_unordered
        return read(selection, columns=columns)

    def available(self, table: str, **narrowed: Any) -> pl.LazyFrame:
        """The rows that `scan` gives, after a column `available_at`: when each could be known."""
        return self.scan(table, **narrowed).select(self.dataset(table).availability(), pl.all())

    def to_pandas(self, table: str, **narrowed: Any) -> pd.DataFrame:
        """The rows that `scan` gives, as a pandas frame; pandas is an extra.

        Raises
        ------
        UsageError
            It is not installed.
        """
        return to_pandas(self.scan(table, **narrowed).collect())

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
            self.dataset,
            inputs,
            every,
            since=resolve_time(since, now),
            until=resolve_time(until, now),
            how=how,
            by=by,
        )

    def latest(self, table: str, *, exchange: str, symbol: str, n: int = 1) -> pl.DataFrame:
        """The last `n` rows of a market, in order of time; of bars, also one that is still open.

        The table stays open between calls, so that they take milliseconds.

        Raises
        ------
        UnknownNameError
            There is no such table.
        """
        return read_latest(self._context.store.latest(self.dataset(table)), exchange, symbol, n)

    def at(self, table: str, *, exchange: str, symbol: str, time: Time) -> pl.DataFrame:
        """The newest row of a market that was known at a time: one row, or none.

        A bar is known at its end, a trade or an order book when it was received where that is
        recorded, anything else at its time. A later row, or a later revision, may be what was
        stored since: for the state of the table at a time, see `as_of` of `scan`.

        Raises
        ------
        UnknownNameError
            There is no such table.
        """
        return read_row_at(
            self._context.store.latest(self.dataset(table)),
            exchange,
            symbol,
            resolve_time(time, self._context.now()),
        )

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
        return query(query_text, lake_views(self._context.store, at or {}), parameters)
