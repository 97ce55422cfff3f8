"""A bundle that is open: reads come from the pinned files, whatever is ingested since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import polars as pl

from lake.bundles.archive.write import export
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

if TYPE_CHECKING:
    pass


class Bundle(ReadableBundle):
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
    def quality(self) -> Report | None:
        """The report on quality that was made when it was pinned; None: it was not checked."""
        made = self.contents.quality
        # It was written before the bundle had an id.
        return made and replace(made, bundle_id=self.id)

    def coverage(
        self, table: str | Sequence[str] = (), *, timeframe: str | Sequence[str] = ()
    ) -> pl.DataFrame:
        """Intervals that were answered when it was pinned: table, exchange, symbol, start, end.

        An interval that is not there was never asked for, or never answered; in one that is,
        missing rows did not exist at the source.
        """
        tables = self._expand(table, timeframe)
        rows = [part.model_dump() for part in self.manifest.coverage if part.table in tables]
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
        selection = self.select(exchange, symbol, since, until)
        source = PinnedSource(self.contents, self._table)
        chosen = self._expand(table, timeframe)
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

    def warm(
        self,
        table: str | Sequence[str] = (),
        *,
        timeframe: str | Sequence[str] = (),
        progress: Progress | None = None,
    ) -> int:
        """Put all rows, or those of some tables, into the cache; gives the bytes that it took.

        Raises
        ------
        StorageError
            The cache cannot hold them.
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
        """Wait until the cache holds what reads have asked it to keep."""
        self._filler.finish()
