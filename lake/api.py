"""The Python API: a thin façade over jobs and reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from lake.errors import UsageError
from lake.jobs.ingest import Ingestion, Wish
from lake.jobs.record import recorded
from lake.jobs.report import IngestReport, Progress, Silent, Tally
from lake.jobs.snapshots import ingest_instruments, ingest_order_books
from lake.model.dataset import Dataset, Granularity
from lake.model.market import Market
from lake.model.selection import Selection
from lake.read.bundles.bundle import Bundle, as_tuple
from lake.read.bundles.pin import pin
from lake.read.bundles.repository import Repository
from lake.read.overview import audit, bundles, coverage, status, tables, versions
from lake.read.sql import View, query
from lake.settings import Settings, load_settings
from lake.sources.base import Source
from lake.store.ledger import Ledger
from lake.store.root import Root
from lake.store.store import Origin, Store, Written

if TYPE_CHECKING:
    import duckdb

_Result = TypeVar("_Result")
Names = str | Sequence[str]
_OWN_RECORD = ("coverage", "quarantine", "jobs")


def utc_now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


class Lake:
    """A lake: its tables, its bundles, and what brings data into it.

    Made by `lake.open(uri)`. All times are UTC, all ranges `[since, until)`.

    Parameters
    ----------
    settings
        Its `uri` says where the lake is.
    now
        The present; replaced in tests.

    Raises
    ------
    ConfigError
        There is no lake at the URI.
    """

    def __init__(self, settings: Settings, now: Callable[[], datetime] = utc_now) -> None:
        self.settings = settings
        self.root = Root.open(settings.uri)
        self._store = Store(self.root, now)
        self._ledger = Ledger(self._store)
        self._repository = Repository(self.root)
        self._now = now

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

    def dataset(self, name: str) -> Dataset:
        """The dataset of a table: columns with types, units and meanings, key, checks."""
        return self._store.catalog.dataset(name)

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
        return tables(self._store)

    def status(self) -> pl.DataFrame:
        """By table and market: rows, what is covered, how many holes, the age of the newest."""
        return status(self._store)

    def versions(self, table: str) -> pl.DataFrame:
        """The commits of a table, newest first: time, operation, rows, job, source."""
        return versions(self._store, table)

    def audit(self, table: str | None = None, limit: int | None = None) -> pl.DataFrame:
        """The commits of one table or of all, newest first."""
        return audit(self._store, table, limit)

    def jobs(self) -> pl.DataFrame:
        """What has run, oldest first."""
        return self._ledger.jobs()

    def coverage(
        self, table: str | None = None, *, exchange: Names = (), symbol: Names = ()
    ) -> pl.DataFrame:
        """Covered intervals, neighbours joined: table, exchange, symbol, start, end."""
        return coverage(self._store, table, Selection(as_tuple(exchange), as_tuple(symbol)))

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
        return snapshot.scan(selection, columns=columns, ordered=ordered)

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

    def pin(
        self,
        name: str,
        datasets: Names,
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: datetime | None = None,
        until: datetime | None = None,
        note: str = "",
        move: bool = False,
    ) -> Bundle:
        """Pin a selection of tables as they are now, under a name.

        The same selection of the same rows has the same id. `move` lets a name that exists point
        to the new bundle; the old one stays, as `NAME@ID`.

        Raises
        ------
        UnknownNameError
            A table or market has no rows in the selection.
        UsageError
            The name is taken by other rows.
        """
        selection = Selection(as_tuple(exchange), as_tuple(symbol), since, until)
        manifest = pin(self._store, as_tuple(datasets), selection, note)
        saved = self._repository.save(name, manifest, move=move)
        return Bundle(self._store, saved, saved.id)

    def bundles(self) -> pl.DataFrame:
        """The bundles: name, id, when pinned, datasets, symbols, range, rows."""
        return bundles(self._repository)

    def bundle(self, reference: str) -> Bundle:
        """The bundle of a name, an id (at least eight digits), or `NAME@ID`."""
        bundle_id = self._repository.resolve(reference)
        return Bundle(self._store, self._repository.load(bundle_id), bundle_id)

    def write(self, table: str, rows: pl.DataFrame, source: str = "python") -> Written:
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
        if table in _OWN_RECORD:
            raise UsageError(
                f"{table} is the lake's own record, and written by itself only",
                f"Nobody else writes {', '.join(_OWN_RECORD)}.",
            )
        tally = Tally()
        with recorded(self._ledger, f"write {table}", {"source": source}, tally) as job:
            written = self._store.write(self.dataset(table), rows, Origin(job.id, source))
            tally.add(table, written)
        return written

    def ingest(
        self,
        table: str,
        *,
        exchange: str,
        symbol: Names,
        since: datetime | None = None,
        until: datetime | None = None,
        refetch: bool = False,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Fetch what of a range is not covered yet, and store it.

        Parameters
        ----------
        table
            `trades`, `funding`, or bars with their timeframe: `bars_1m`.
        since, until
            The range; without `since` it goes on from what is covered, without `until` up to now.
        refetch
            Ask again for what is covered: a venue's revisions replace bars that differ.

        Raises
        ------
        SourceUnavailableError
            The venue stays down; what it gave is stored, and the same call goes on from there.
        UnknownNameError, UsageError
            The exchange, market, timeframe or range cannot be met.
        """
        wishes = [
            Wish(self.dataset(table), Market(exchange, one), since, until, refetch)
            for one in as_tuple(symbol)
        ]
        return self.ingest_all(wishes, progress)

    def ingest_all(self, wishes: Sequence[Wish], progress: Progress | None = None) -> IngestReport:
        """Several datasets, markets and exchanges in one job."""
        ingestion = Ingestion(self._store, self.settings, self._connect, progress or Silent())
        return _run(ingestion.run(wishes))

    def covered_markets(self) -> list[tuple[str, Market]]:
        """Tables and markets of which something is covered: what `lake ingest` goes on with."""
        rows = self.coverage().select("table", "exchange", "symbol").unique(maintain_order=True)
        return [(table, Market(exchange, symbol)) for table, exchange, symbol in rows.iter_rows()]

    def ingest_order_books(
        self, exchange: str, symbol: Names, depth: int | None = None
    ) -> IngestReport:
        """Store the order books as they are now, to a depth in levels (None: the venue's own)."""
        if depth is not None and depth < 1:
            raise UsageError(f"depth {depth} is not a number of levels", "Give 1 or more.")
        markets = [Market(exchange, one) for one in as_tuple(symbol)]
        return _run(ingest_order_books(self._store, self._connect(exchange), markets, depth))

    def ingest_instruments(self, exchange: str, symbol: Names = ()) -> IngestReport:
        """Store the specifications that changed; of all markets by default."""
        symbols = as_tuple(symbol) or None
        return _run(ingest_instruments(self._store, self._connect(exchange), exchange, symbols))

    def _connect(self, exchange: str) -> Source:
        from lake.sources.ccxt_rest import CcxtSource

        return CcxtSource(
            exchange,
            now=self._now,
            http=self.settings.http,
            retry=self.settings.retry,
            exchange=self.settings.exchanges.get(exchange),
        )

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


def open_lake(uri: str | Path | None = None, *, config: Path | None = None) -> Lake:
    """See `lake.open`."""
    overrides = {} if uri is None else {"uri": str(uri)}
    return Lake(load_settings(overrides, config=config))


def _run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of a coroutine, also where an event loop runs already, as in a notebook."""
    if not _inside_event_loop():
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _inside_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
