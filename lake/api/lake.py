"""`Lake`: write, ingest and describe tables; bundles, quality, alerts and maintenance."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from lake.api.context import Context, Names, utc_now
from lake.api.readable import Readable
from lake.model.partitions import Granularity
from lake.model.progress import NoProgress, Progress
from lake.model.selection import Selection, as_tuple
from lake.model.time import Time, TimeRange, resolve_time
from lake.query.names import find_table, find_tables
from lake.settings import Settings
from lake.store.root import Root

if TYPE_CHECKING:
    from lake.api.alerts import Alerts
    from lake.api.bundles import Bundles
    from lake.api.maintenance import Maintenance
    from lake.api.quality import Quality
    from lake.jobs.ingest.report import IngestReport
    from lake.store.store import WriteResult


class Lake(Readable):
    """A lake: its tables, its bundles, and the ways to add data.

    Open one with `lake.open(uri)`. All times are UTC, all ranges `[since, until)`.

    Parameters
    ----------
    settings
        The settings; `uri` is the location of the lake.
    now
        Returns the present time; replaced in tests.

    Attributes
    ----------
    bundles, quality, alerts, maintenance
        Operations other than reading and writing.

    Raises
    ------
    ConfigError
        There is no lake at the URI.
    """

    def __init__(self, settings: Settings, now: Callable[[], datetime] = utc_now) -> None:
        self._context = Context.open(settings, now)
        self.settings = settings
        self.root = self._context.root

    # A command that only reads does not import what the others need.
    @cached_property
    def bundles(self) -> Bundles:
        """Pin, open, list, verify, compare, export, import and remove bundles."""
        from lake.api.bundles import Bundles

        return Bundles(self._context)

    @cached_property
    def quality(self) -> Quality:
        """Check tables, read findings and scores, repair, report."""
        from lake.api.quality import Quality

        return Quality(self._context)

    @cached_property
    def alerts(self) -> Alerts:
        """Evaluate rules, notify and test channels, list sent alerts."""
        from lake.api.alerts import Alerts

        return Alerts(self._context)

    @cached_property
    def maintenance(self) -> Maintenance:
        """Compact tables, delete unneeded files, verify."""
        from lake.api.maintenance import Maintenance

        return Maintenance(self._context)

    @classmethod
    def create(
        cls,
        settings: Settings,
        granularity: dict[str, Granularity] | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> Lake:
        """Make a new lake at the URI of the settings.

        `granularity` sets, by table, whether files are kept by `day`, `month` or `year`.

        Raises
        ------
        ConfigError
            A lake exists already, or the folder is not empty.
        StorageError
            The lake cannot be written.
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
        covers: tuple[Time, Time] | None = None,
    ) -> WriteResult:
        """Write rows into a table, with the same rules and merge as ingested rows.

        Parameters
        ----------
        rows
            `exchange`, `symbol` and the columns of the dataset; nullable columns may be missing,
            and so may `closed` of bars: then those that have ended are closed. Other types of
            numbers, and times in UTC or another zone, are cast where every value stays exactly what
            it is. Rows that break a rule, that never change and contradict a stored row, or that
            contradict a later row of the frame, go to the table `quarantine`.
        source
            Origin of the rows, for the audit.
        covers
            `(since, until)`, of which `rows` has all rows of each of its markets. It is recorded in
            `coverage` (source `write`), so that checks can tell what is missing from what never
            was, and `ingest` does not ask for it. Without it, the reason of a gap is unknown. Of
            bars, it counts up to the last one that ends in it: a later one was still open then.

        Returns
        -------
        WriteResult
            Counts of rows that were inserted, updated, rejected (of these, conflicting with other
            rows of their key) or already stored.

        Raises
        ------
        SchemaError
            The frame as a whole does not fit the dataset, or a value would change by a cast.
        UsageError
            The table holds internal records of the lake; `covers` is empty, reversed, or ends in
            the future, or `rows` has no rows and so names no market.
        """
        from lake.jobs.ingest.write import write_rows

        dataset = self.dataset(table, timeframe=timeframe)
        span = None
        if covers is not None:
            now = self._context.now()
            since, until = (resolve_time(time, now) for time in covers)
            span = TimeRange(since, until)
        return write_rows(self._context.store, dataset, rows, source, span)

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
        """Fetch the uncovered parts of a range, store the rows, and check them.

        What cannot be fetched stops nothing else and is raised at the end. A refusal is remembered
        and asked again after an hour, then a day, then every week; `IngestReport.failures` names
        both.

        Without arguments, continue all covered tables and markets up to now; a table or an exchange
        alone restricts this.

        Parameters
        ----------
        table
            `trades`, `funding`, `bars_1m`; one or several.
        timeframe
            Timeframes of `bars`, one or several. Default: `1m`.
        exchange, symbol
            Markets, named as in ccxt. Without symbols: those with coverage.
        since, until
            The range. Without `since`: from the end of coverage; without `until`: up to now.
        refetch
            Fetch covered parts again; a venue's revisions replace bars that differ. Refused parts
            are asked again, too.

        Raises
        ------
        SourceError
            Something that was asked for could not be fetched: `SourceUnavailableError` where a
            venue stays down, `SourceRefusedError` where it refused. All else is stored and checked,
            the error's `report` is the `IngestReport`, and the same call continues from there.
        DamagedError
            A requested table is damaged; as `SourceError` otherwise.
        UnknownNameError, UsageError
            An exchange, market, timeframe or the range is invalid, or nothing is covered yet:
            nothing was fetched.
        """
        from lake.api.blocking import run
        from lake.jobs.ingest.request import IngestChoice, choose_requests
        from lake.jobs.ingest.run import ingest_and_check

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
        """Fetch and store the present order books.

        `depth`: levels per side; None: the default of the venue.
        """
        from lake.api.blocking import run
        from lake.jobs.ingest.run import fetch_order_books

        context = self._context
        symbols = as_tuple(symbol)
        return run(fetch_order_books(context.store, context.settings, exchange, symbols, depth))

    def instruments(self, exchange: str, *, symbol: Names = ()) -> IngestReport:
        """Fetch specifications of markets, all by default, and store those that changed."""
        from lake.api.blocking import run
        from lake.jobs.ingest.run import fetch_instruments

        context = self._context
        return run(fetch_instruments(context.store, context.settings, exchange, as_tuple(symbol)))

    def describe(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        exchange: Names = (),
        symbol: Names = (),
    ) -> pl.DataFrame:
        """Describe the columns of a table: column, type, unit, null, meaning.

        Units of amounts are those of the selected markets, by the table `instruments`.

        Raises
        ------
        UnknownNameError
            The dataset does not exist, or no table holds a market; the hint suggests similar names.
        """
        from lake.query.markets import describe_units
        from lake.query.overview import describe_columns

        dataset = self.dataset(table, timeframe=timeframe)
        selection = Selection(as_tuple(exchange), as_tuple(symbol))
        store = self._context.store
        self._context.require_known_markets(selection)
        return describe_columns(dataset, describe_units(store, dataset, selection))

    def tables(self) -> pl.DataFrame:
        """List the tables: rows, markets, first and last time, size in bytes, version."""
        from lake.query.overview import list_tables

        return list_tables(self._context.store)

    def status(self) -> pl.DataFrame:
        """List rows, coverage, holes, what is open and why, and what is unchecked, by market.

        It goes by the log: `Lake.maintenance.verify` sees whether files are missing or changed.
        """
        from lake.query.overview import read_status

        return read_status(self._context.store)

    def versions(self, table: str, *, timeframe: str | None = None) -> pl.DataFrame:
        """List the commits of a table, newest first: time, operation, rows, job, source.

        `readable`: false for versions of which a vacuum has removed files.
        """
        from lake.query.audit import list_versions

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
        """List the commits of tables, newest first: who wrote what, when and why.

        Parameters
        ----------
        table
            One or several; all by default.
        exchange, symbol
            Commits that added or removed files of these markets, including compactions.
        since, until
            Commits in `[since, until)`.
        job
            Job id or prefix: `20260131` matches all jobs of that day.
        source, operation
            Values as in the result: `ccxt:binance`; `merge`, in upper or lower case.
        limit
            Maximum number of commits, newest first. Without other filters, few more are read.

        Returns
        -------
        DataFrame
            `time`, `table`, `version`, `operation`; `job` and `source`; `rows` passed to the write,
            and of these `inserted`, `updated` and `rejected`; `deleted` rows; `digest` of the rows;
            `why`: the request of the job. A value that a commit does not record is null.

        Raises
        ------
        UnknownNameError
            A table or job does not exist; the hint suggests similar names.
        UsageError
            The range is reversed, or not in UTC.
        """
        from lake.query.audit import AuditFilter, list_commits

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
        """List the jobs, oldest first.

        Parameters
        ----------
        since, until
            Jobs that started in `[since, until)`.
        job
            Job id or prefix.

        Raises
        ------
        UnknownNameError
            The job does not exist; the hint suggests similar names.
        """
        from lake.query.audit import list_jobs

        return list_jobs(self._context.store, self._context.select((), (), since, until), job)

    def coverage(
        self,
        table: Names = (),
        *,
        timeframe: Names = (),
        exchange: Names = (),
        symbol: Names = (),
    ) -> pl.DataFrame:
        """List covered intervals, adjacent ones joined: table, exchange, symbol, start, end.

        The table `coverage` has the answer of each source, also what one no longer serves.
        """
        from lake.query.overview import read_coverage

        store, selection = self._context.store, self._context.select(exchange, symbol)
        tables = find_tables(store, as_tuple(table), as_tuple(timeframe), must_exist=False)
        return read_coverage(store, tables, selection)
