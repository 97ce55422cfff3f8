"""`Lake.bundles`: pin, open, list, verify, compare, export, import, remove."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, overload

import polars as pl

from lake.api.context import Context, Names
from lake.bundles.archive.importing import import_bundle
from lake.bundles.bundle import Bundle
from lake.bundles.cache import Cache, open_cache
from lake.bundles.catalog import list_bundles
from lake.bundles.contents import Contents, group_tables
from lake.bundles.diff import diff_days, diff_rows
from lake.bundles.pin import PinRequest
from lake.bundles.verify import Problem
from lake.jobs.pin import pin, remove_bundle
from lake.model.names import expand_tables
from lake.model.progress import NoProgress, Progress
from lake.model.selection import as_tuple
from lake.model.time import Time


class Bundles:
    """Bundles of a lake.

    A reference is a bundle's name, its id (at least eight digits), or `NAME@ID`.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def __repr__(self) -> str:
        return f"<Lake.bundles of {self._context.root.path}>"

    def pin(
        self,
        name: str,
        *,
        table: Names,
        timeframe: Names = (),
        exchange: Names = (),
        symbol: Names = (),
        since: Time | None = None,
        until: Time | None = None,
        as_of: Time | None = None,
        require_complete: bool = False,
        min_quality: float | None = None,
        check: bool = True,
        note: str = "",
        move: bool = False,
        progress: Progress | None = None,
    ) -> Bundle:
        """Pin a selection of tables under a name, as they are now or were at a time.

        The same selection of the same rows always has the same id.

        Parameters
        ----------
        as_of
            Pin the tables as they were at this time.
        require_complete
            Refuse if an interval of the selection is not covered.
        min_quality
            Refuse if the quality score (0 to 1) is lower.
        check
            Check the pinned rows, and keep score and report with the bundle.
        move
            Move an existing name to the new bundle; the old one stays available as `NAME@ID`.

        Raises
        ------
        UnknownNameError
            A table or market has no rows in the selection.
        QualityError
            The rows do not meet the requirements; the message names the intervals.
        UsageError
            The name belongs to a bundle with other rows.
        """
        request = PinRequest(
            name=name,
            tables=self._context.tables(table, timeframe),
            selection=self._context.select(exchange, symbol, since, until),
            as_of=self._context.time(as_of),
            require_complete=require_complete,
            min_quality=min_quality,
            check=check,
            note=note,
            move=move,
        )
        context = self._context
        contents = pin(
            context.store, context.repository, context.settings, request, progress or NoProgress()
        )
        return self._build_bundle(contents)

    def open(self, reference: str, *, cache: bool = True) -> Bundle:
        """Open a bundle.

        Parameters
        ----------
        cache
            Whether to keep rows memory-mapped for the next read.

        Raises
        ------
        UnknownNameError
            The reference matches no bundle, or several.
        DamagedError
            The bundle has changed since it was pinned.
        """
        contents = self._context.repository.open(reference)
        return self._build_bundle(contents, cache=cache)

    def ls(self) -> pl.DataFrame:
        """List bundles: name, id, time of the pin, contents, range, rows, bytes, score, problem."""
        return list_bundles(self._context.repository)

    def resolve(self, reference: str) -> str:
        """Return the id of a bundle.

        Raises
        ------
        UnknownNameError
            The reference matches no bundle, or several.
        """
        return self._context.repository.resolve(reference)

    def verify(
        self, reference: str, *, deep: bool = False, progress: Progress | None = None
    ) -> list[Problem]:
        """Return all differences from the pinned state: see `Bundle.verify`."""
        return self.open(reference).verify(deep=deep, progress=progress)

    @overload
    def diff(
        self,
        before: str,
        after: str,
        *,
        table: Names = (),
        timeframe: Names = (),
        rows: Literal[False] = False,
    ) -> pl.DataFrame: ...

    @overload
    def diff(
        self,
        before: str,
        after: str,
        *,
        table: Names = (),
        timeframe: Names = (),
        rows: Literal[True],
    ) -> Iterator[pl.DataFrame]: ...

    def diff(
        self,
        before: str,
        after: str,
        *,
        table: Names = (),
        timeframe: Names = (),
        rows: bool = False,
    ) -> pl.DataFrame | Iterator[pl.DataFrame]:
        """Compare two bundles: return the market-days that differ, and the jobs that wrote them.

        `lake.bundles.diff.diff_days` documents the columns.

        Parameters
        ----------
        table
            One or several; all by default.
        rows
            Return the rows and values that differ instead, in parts:
            `lake.bundles.diff.diff_rows` documents the columns.
        """
        repository = self._context.repository
        contents = repository.open(before), repository.open(after)
        tables = expand_tables(as_tuple(table), as_tuple(timeframe), group_tables(*contents))
        return (diff_rows if rows else diff_days)(*contents, tables)

    def export(self, reference: str, path: str | Path, *, progress: Progress | None = None) -> Path:
        """Write a bundle to a file or folder that opens without a lake: see `Bundle.export`."""
        return self.open(reference, cache=False).export(path, progress=progress)

    def import_(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        move: bool = False,
        progress: Progress | None = None,
    ) -> Bundle:
        """Import an exported bundle into this lake, after verifying all its rows against its id.

        A bundle that exists already stays as it is, unless files of it are damaged: then it is
        replaced.

        Parameters
        ----------
        path
            Output of `Bundle.export`: a `.tar.zst` file or a folder.
        name
            Name of the bundle. Default: none, and the bundle is opened by its id.
        move
            Move an existing name to this bundle; the old one stays available as `NAME@ID`.

        Raises
        ------
        UnknownNameError
            The path does not exist.
        DamagedError
            The file or folder is incomplete, forged or not an exported bundle, or the lake has
            other rows under its id; the lake stays unchanged.
        UsageError
            The name belongs to a bundle with other rows.
        """
        source = Path(path).expanduser()
        contents = import_bundle(
            self._context.root, source, name, move=move, progress=progress or NoProgress()
        )
        return self._build_bundle(contents)

    def rm(self, reference: str) -> tuple[str, list[str]]:
        """Remove a bundle, so that a vacuum may delete its files; return its id and its names."""
        return remove_bundle(self._context.repository, self._open_cache(), reference)

    def warm(
        self,
        reference: str,
        *,
        table: Names = (),
        timeframe: Names = (),
        progress: Progress | None = None,
    ) -> int:
        """Read a bundle's rows into the cache; return their size in bytes: see `Bundle.warm`."""
        return self.open(reference).warm(table, timeframe=timeframe, progress=progress)

    def _build_bundle(self, contents: Contents, *, cache: bool = True) -> Bundle:
        opened_cache = self._open_cache() if cache else None
        return Bundle(contents, opened_cache, now=self._context.now)

    def _open_cache(self) -> Cache | None:
        return open_cache(self._context.settings.cache)
