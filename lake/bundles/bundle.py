"""An open bundle: reads come from the pinned files, whatever was ingested since the pin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import polars as pl

from lake.bundles.archive.write import export
from lake.bundles.left_out import list_left_out
from lake.bundles.manifest import Manifest
from lake.bundles.readable import ReadableBundle
from lake.bundles.replay_source import PinnedSource
from lake.bundles.verify import Problem, verify
from lake.model.catalog import builtin
from lake.model.dataset import TIMESTAMP
from lake.model.progress import NoProgress, Progress
from lake.model.time import Time
from lake.quality.report.document import Report
from lake.replay.events import Event, read_events
from lake.replay.merge import Batch, Order, replay


class Bundle(ReadableBundle):
    """The rows that a manifest pins.

    Files are checked against their SHA-256 before their rows are read; a missing or changed file
    raises `DamagedError` and never gives other rows.

    Parameters
    ----------
    contents
        The manifest, the lists beside it and the place of the data files.
    cache
        The cache of mapped rows; None for no cache.
    now
        Returns the current time, for relative times such as `7d`.
    """

    def __repr__(self) -> str:
        return f"<Bundle {self.id[:12]}: {', '.join(self.tables)}>"

    @property
    def manifest(self) -> Manifest:
        """The manifest: pinned tables, metadata, data dictionary and instruments."""
        return self.contents.manifest

    @property
    def id(self) -> str:
        """The digest of the content: the same rows have the same id."""
        return self.contents.id

    @property
    def quality(self) -> Report | None:
        """The quality report of the pin; None if no check was run."""
        report = self.contents.quality
        # The report is written before the bundle has an id.
        return report and replace(report, bundle_id=self.id)

    def coverage(
        self, table: str | Sequence[str] = (), *, timeframe: str | Sequence[str] = ()
    ) -> pl.DataFrame:
        """Return the intervals covered at the pin: table, exchange, symbol, start, end.

        An uncovered interval was never requested or never answered. A row missing from a covered
        interval did not exist at the source.
        """
        tables = self._expand(table, timeframe)
        rows = [part.model_dump() for part in self.manifest.coverage if part.table in tables]
        text = dict.fromkeys(("table", "exchange", "symbol"), pl.String())
        return pl.DataFrame(rows, schema={**text, "start": TIMESTAMP, "end": TIMESTAMP})

    def left_out(self) -> pl.DataFrame:
        """Return the open bars in the selection, which are not final and so not pinned.

        One row per table and market: table, exchange, symbol, rows, and the open times of the first
        and the last of these bars.
        """
        return list_left_out(ref for _, ref in self.manifest.refs())

    def instruments(self) -> pl.DataFrame:
        """Return the specification of each market at the pin: one row per market that has one."""
        schema = builtin().dataset("instruments").polars_schema
        kinds = {name: kind for name, kind in schema.items() if name != "date"}
        times = [name for name, kind in kinds.items() if kind == TIMESTAMP]
        rows = list(self.manifest.instruments)
        frame = pl.DataFrame(rows, schema={**kinds, **dict.fromkeys(times, pl.String())})
        return frame.with_columns(
            pl.col(times).str.to_datetime(time_unit="us", time_zone="UTC", strict=True)
        )

    @overload
    def replay(
        self,
        table: str | Sequence[str] = (),
        *,
        timeframe: str | Sequence[str] = (),
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
        timeframe: str | Sequence[str] = (),
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
        timeframe: str | Sequence[str] = (),
        exchange: str | Sequence[str] = (),
        symbol: str | Sequence[str] = (),
        since: Time | None = None,
        until: Time | None = None,
        by: Order = "available_at",
        batch: int | None = None,
    ) -> Iterator[Event] | Iterator[Batch]:
        """Yield the rows of all or some tables and markets as one stream in a total order.

        `lake.replay.ordering` defines the order of rows of one instant. Memory use is bounded and
        does not depend on the range.

        Parameters
        ----------
        table
            One or several; all by default.
        since, until
            The range `[since, until)` of the ordering time.
        by
            `available_at` yields no row before it could be known, so a bar comes at its end.
            `timestamp` uses the time column, so a bar comes at its open.
        batch
            Rows per batch: yields `Batch`, whose frames number their rows in `position`. None
            yields `Bar`, `Trade`, `OrderBook`, `Funding`, and named tuples of other tables.

        Raises
        ------
        UnknownNameError
            A table is not in the bundle.
        DamagedError
            A file is missing or differs from the pinned file.
        """
        selection = self.select(exchange, symbol=symbol, since=since, until=until)
        source = PinnedSource(self.contents, self._table)
        chosen = self._expand(table, timeframe)
        if batch is None:
            return read_events(replay(source, chosen, selection, by=by))
        return replay(source, chosen, selection, by=by, batch_rows=batch)

    def verify(self, *, deep: bool = False, progress: Progress | None = None) -> list[Problem]:
        """Return every difference from the pin; an empty list means that the bundle is whole.

        Parameters
        ----------
        deep
            Also read every row and compare each market-day with its digest.
        """
        return verify(self.contents, deep=deep, progress=progress or NoProgress())

    def export(self, path: str | Path, *, progress: Progress | None = None) -> Path:
        """Write the bundle to one file or folder that `lake.open_bundle(path)` opens anywhere.

        The same bundle gives the same bytes. Returns the path.

        Parameters
        ----------
        path
            A new file if the name ends in `.tar.zst`, otherwise a new or empty folder.

        Raises
        ------
        UsageError
            The path exists and is not an empty folder.
        DamagedError
            A file is missing or differs from the pinned file; nothing is left at the path.
        StorageError
            The disk is full or not writable; nothing is left at the path.
        """
        target = Path(path).expanduser()
        export(self.contents, target, progress or NoProgress())
        return target

    def warm(
        self,
        table: str | Sequence[str] = (),
        *,
        timeframe: str | Sequence[str] = (),
        progress: Progress | None = None,
    ) -> int:
        """Cache the rows of all or some tables; return the size of what was added, in bytes.

        Raises
        ------
        StorageError
            The rows do not fit into the cache.
        """
        progress = progress or NoProgress()
        pinned = [self._table(name) for name in self._expand(table, timeframe)]
        progress.begin("filling the cache", sum(len(rows.markets) for rows in pinned))
        size = 0
        for rows in pinned:
            for market in rows.markets:
                size += rows.warm(market)
                progress.advance()
        progress.end()
        return size

    def finish(self) -> None:
        """Wait until the cache holds the rows that reads have scheduled for it."""
        self._filler.finish()
