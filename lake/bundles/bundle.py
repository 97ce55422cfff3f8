"""A bundle that is open: reads come from the pinned files, whatever is ingested since."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import polars as pl

from lake.align.align import Aligned, AlignInput, align_tables
from lake.align.policies import How
from lake.bundles.archive.write import export
from lake.bundles.cache import Cache
from lake.bundles.cache_writer import CacheWriter
from lake.bundles.contents import Contents
from lake.bundles.manifest import Manifest
from lake.bundles.replay_source import PinnedSource
from lake.bundles.table import PinnedTable
from lake.bundles.verify import Problem, verify
from lake.model.catalog import builtin
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.frames import to_pandas
from lake.model.progress import NoProgress, Progress
from lake.model.selection import Selection, as_tuple
from lake.model.time import Time, resolve_time
from lake.quality.report.document import Report
from lake.query.lookup import read_latest, read_row_at
from lake.query.sql import View, query
from lake.replay.events import Event, read_events
from lake.replay.merge import Batch, Order, replay
from lake.store.hashing import Checked

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa


class Bundle:
    """The rows that a manifest pins.

    Files are checked against their SHA-256 before rows come out of them; a file that is missing
    or was changed is a `DamagedError`, never other rows.

    Parameters
    ----------
    contents
        What it consists of.
    cache
        Where rows are kept mapped; None: nowhere.
    now
        Gives the present, for times as `7d`.
    """

    def __init__(
        self, contents: Contents, cache: Cache | None = None, *, now: Callable[[], datetime]
    ) -> None:
        self.contents = contents
        self._now = now
        self._cache = cache
        self._checked = Checked()
        self._filler = CacheWriter()
        self._opened: dict[str, PinnedTable] = {}

    def __repr__(self) -> str:
        return f"<Bundle {self.id[:12]}: {', '.join(self.tables)}>"

    @property
    def manifest(self) -> Manifest:
        """What is pinned, with metadata, data dictionary and instruments."""
        return self.contents.manifest

    @property
    def id(self) -> str:
        """Digest of the content: the same rows have the same id."""
        return self.contents.id

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables that the bundle pins."""
        return tuple(ref.table for _, ref in self.manifest.refs())

    def dataset(self, table: str) -> Dataset:
        """The dataset of a pinned table, as it was then: columns, key, time column."""
        return self.contents.dataset(table)

    def scan(
        self,
        table: str,
        *,
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
        pinned = self._table(table)
        asked = Selection(as_tuple(exchange), as_tuple(symbol), *self._times(since, until))
        return pinned.scan(asked.within(pinned.pinned), columns=columns)

    def arrow(self, table: str, **narrowed: Any) -> pa.Table:
        """The rows that `scan` gives, as an Arrow table."""
        return self.scan(table, **narrowed).collect().to_arrow()

    def to_pandas(self, table: str, **narrowed: Any) -> pd.DataFrame:
        """The rows that `scan` gives, as a pandas frame; pandas is an extra.

        Raises
        ------
        UsageError
            It is not installed.
        """
        return to_pandas(self.scan(table, **narrowed).collect())

    def sql(
        self, query_text: str, parameters: Sequence[Any] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """The result of an SQL query over the pinned tables, as a DuckDB relation."""
        relation = query(query_text, self.views(), parameters)
        # It knows paths only; what was unpacked for this bundle has to outlive it.
        weakref.finalize(relation, id, self.contents.files)
        return relation

    def views(self) -> dict[str, View]:
        """By name, the pinned tables as SQL sees them."""
        return {
            table: View(lambda table=table: self._table(table), self._table(table).pinned)  # type: ignore[misc]
            for table in self.tables
        }

    @property
    def quality(self) -> Report | None:
        """The report on quality that was made when it was pinned; None: it was not checked."""
        made = self.contents.quality
        # It was written before the bundle had an id.
        return made and replace(made, bundle_id=self.id)

    def coverage(self, table: str | None = None) -> pl.DataFrame:
        """Intervals that were answered when it was pinned: table, exchange, symbol, start, end.

        An interval that is not there was never asked for, or never answered; in one that is,
        missing rows did not exist at the source.
        """
        rows = [part.model_dump() for part in self.manifest.coverage if table in (None, part.table)]
        text = dict.fromkeys(("table", "exchange", "symbol"), pl.String())
        return pl.DataFrame(rows, schema={**text, "start": TIMESTAMP, "end": TIMESTAMP})

    def instruments(self) -> pl.DataFrame:
        """The specification of each market as it was then; a row a market, where one is known."""
        schema = builtin().dataset("instruments").polars_schema
        kinds = {name: kind for name, kind in schema.items() if name != "date"}
        times = [name for name, kind in kinds.items() if kind == TIMESTAMP]
        rows = list(self.manifest.instruments)
        frame = pl.DataFrame(rows, schema={**kinds, **dict.fromkeys(times, pl.String())})
        return frame.with_columns(
            pl.col(times).str.to_datetime(time_unit="us", time_zone="UTC", strict=True)
        )

    def available(self, table: str, **narrowed: Any) -> pl.LazyFrame:
        """The rows that `scan` gives, after a column `available_at`: when each could be known.

        `lake.as_of_join` wants it.
        """
        return self.scan(table, **narrowed).select(self.dataset(table).availability(), pl.all())

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
        """The last `n` rows of a market, in order of time."""
        return read_latest(self._table(table), exchange, symbol, n)

    def at(self, table: str, *, exchange: str, symbol: str, time: Time) -> pl.DataFrame:
        """The newest row of a market that was known at a time: one row, or none."""
        return read_row_at(self._table(table), exchange, symbol, resolve_time(time, self._now()))

    @overload
    def replay(
        self,
        table: str | Sequence[str] = (),
        *,
        exchange: str | Sequence[str] = (),
        symbol: str | Sequence[str] = (),
        since: Time | None = None,
        until: Time | None = None,
        by: Order = "available_at",
        batch: None = None,
    ) -> Iterator[Event]: ...

    @overload
    def replay(
        self,
        table: str | Sequence[str] = (),
        *,
        exchange: str | Sequence[str] = (),
        symbol: str | Sequence[str] = (),
        since: Time | None = None,
        until: Time | None = None,
        by: Order = "available_at",
        batch: int,
    ) -> Iterator[Batch]: ...

    def replay(
        self,
        table: str | Sequence[str] = (),
        *,
        exchange: str | Sequence[str] = (),
        symbol: str | Sequence[str] = (),
        since: Time | None = None,
        until: Time | None = None,
        by: Order = "available_at",
        batch: int | None = None,
    ) -> Iterator[Event] | Iterator[Batch]:
        """The rows of all or some tables and markets as one stream, ordered to the last tie.

        The order at one instant is told in `lake.replay.ordering`. Memory stays bounded, whatever
        the range.

        Parameters
        ----------
        table
            One or several; all by default.
        since, until
            The range `[since, until)` of the ordering time.
        by
            `available_at`: no row comes before it could be known, a bar at its end. `timestamp`:
            by the time column, which shows a bar at its open.
        batch
            Rows a batch: gives `Batch`, whose frames are numbered by `position`. None: gives
            `Bar`, `Trade`, `OrderBook`, `Funding`, and named tuples of other tables.

        Raises
        ------
        UnknownNameError
            A table is not in the bundle.
        DamagedError
            A file is missing or not what was pinned.
        """
        selection = Selection(as_tuple(exchange), as_tuple(symbol), *self._times(since, until))
        source = PinnedSource(self.contents, self._table)
        chosen = as_tuple(table) or self.tables
        if batch is None:
            return read_events(replay(source, chosen, selection, by=by))
        return replay(source, chosen, selection, by=by, batch_rows=batch)

    def verify(self, *, deep: bool = False, progress: Progress | None = None) -> list[Problem]:
        """Everything that is not as it was pinned; an empty list: the bundle is whole.

        Parameters
        ----------
        deep
            Also read every row, and compare each market-day with its digest.
        """
        return verify(self.contents, deep=deep, progress=progress or NoProgress())

    def export(self, path: str | Path, *, progress: Progress | None = None) -> Path:
        """Write all of it to one file or folder that opens anywhere: `lake.open_bundle(path)`.

        The same bundle gives the same bytes. Gives the path.

        Parameters
        ----------
        path
            A new file, where its name ends in `.tar.zst`; else a new or empty folder.

        Raises
        ------
        UsageError
            There is something already.
        DamagedError
            A file is missing, or is not what was pinned; nothing is left at the path.
        StorageError
            The disk is full or not writable; nothing is left at the path.
        """
        target = Path(path).expanduser()
        export(self.contents, target, progress or NoProgress())
        return target

    def warm(self, table: str | Sequence[str] = (), *, progress: Progress | None = None) -> int:
        """Put all rows, or those of some tables, into the cache; gives the bytes that it took.

        Raises
        ------
        StorageError
            The cache cannot hold them.
        """
        progress = progress or NoProgress()
        pinned = [self._table(name) for name in as_tuple(table) or self.tables]
        progress.begin("filling the cache", sum(len(rows.markets) for rows in pinned))
        size = 0
        for rows in pinned:
            for market in rows.markets:
                size += rows.warm(market)
                progress.advance()
        progress.end()
        return size

    def finish(self) -> None:
        """Wait until the cache holds what reads have asked it to keep."""
        self._filler.finish()

    def _times(
        self, since: Time | None, until: Time | None
    ) -> tuple[datetime | None, datetime | None]:
        now = self._now()
        return resolve_time(since, now), resolve_time(until, now)

    def _table(self, table: str) -> PinnedTable:
        if table not in self._opened:
            self._opened[table] = PinnedTable.of(
                self.contents, table, self._checked, self._cache, self._filler
            )
        return self._opened[table]
