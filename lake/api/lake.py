"""A lake: its tables, what brings data into them, and its namespaces."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from lake.api.alerts import Alerts
from lake.api.blocking import run
from lake.api.bundles import Bundles
from lake.api.context import Context, Names, utc_now
from lake.api.maintenance import Maintenance
from lake.api.quality import Quality
from lake.api.readable import Readable
from lake.jobs.ingest.report import IngestReport
from lake.jobs.ingest.request import IngestChoice, choose_requests
from lake.jobs.ingest.run import fetch_instruments, fetch_order_books, ingest_and_check
from lake.jobs.ingest.write import write_rows
from lake.model.dataset import Granularity
from lake.model.progress import NoProgress, Progress
from lake.model.selection import as_tuple
from lake.model.time import Time, resolve_time
from lake.query.audit import AuditFilter, list_commits, list_jobs, list_versions
from lake.query.names import find_table, find_tables
from lake.query.overview import describe_columns, list_tables, read_coverage, read_status
from lake.settings import Settings
from lake.store.root import Root
from lake.store.store import WriteResult

if TYPE_CHECKING:
    pass


class Lake(Readable):
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

    def write(
        self,
        table: str,
        rows: pl.DataFrame,
        *,
        timeframe: str | None = None,
        source: str = "python",
    ) -> WriteResult:
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
        WriteResult
            Counts of rows that were new, replaced another, were refused, or were there already.

        Raises
        ------
        SchemaError
            The frame as a whole does not fit the dataset.
        UsageError
            The table is the lake's own record.
        """
        dataset = self.dataset(table, timeframe=timeframe)
        return write_rows(self._context.store, dataset, rows, source)

    def ingest(
        self,
        table: Names = (),
        *,
        timeframe: Names = (),
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
            `trades`, `funding`, `bars_1m`; one or several.
        timeframe
            Of `bars`: `1m` by default; one or several.
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
            as_tuple(timeframe),
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

    def describe(self, table: str, *, timeframe: str | None = None) -> pl.DataFrame:
        """The data dictionary of a table: one row a column (column, type, unit, null, meaning)."""
        return describe_columns(self.dataset(table, timeframe=timeframe))

    def tables(self) -> pl.DataFrame:
        """The tables that exist: rows, markets, first and last time, size in bytes, version."""
        return list_tables(self._context.store)

    def status(self) -> pl.DataFrame:
        """By table and market: rows, what is covered, how many holes, the age of the newest."""
        return read_status(self._context.store)

    def versions(self, table: str, *, timeframe: str | None = None) -> pl.DataFrame:
        """The commits of a table, newest first: time, operation, rows, job, source."""
        store = self._context.store
        return list_versions(store, find_table(store, table, timeframe).name)

    def audit(
        self,
        table: Names = (),
        *,
        timeframe: Names = (),
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
        tables = self._context.tables(table, timeframe)
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
        self,
        table: Names = (),
        *,
        timeframe: Names = (),
        exchange: Names = (),
        symbol: Names = (),
    ) -> pl.DataFrame:
        """Covered intervals, neighbours joined: table, exchange, symbol, start, end."""
        store, selection = self._context.store, self._context.select(exchange, symbol)
        tables = find_tables(store, as_tuple(table), as_tuple(timeframe), must_exist=False)
        return read_coverage(store, tables, selection)
