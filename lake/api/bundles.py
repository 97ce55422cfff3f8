"""Bundles of a lake: pin, open, list, remove."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl

from lake.api.opened import Names, Opened
from lake.bundles.archive.importing import import_bundle
from lake.bundles.bundle import Bundle, as_tuple
from lake.bundles.cache import Cache, open_cache
from lake.bundles.catalog import list_bundles
from lake.bundles.diff import diff_days, diff_rows
from lake.bundles.pin import PinRequest
from lake.jobs.maintain import Maintainer
from lake.jobs.pin import pin
from lake.model.progress import NoProgress, Progress
from lake.model.selection import Selection
from lake.store import locks


class Bundles(Opened):
    """What pins a lake, and reads what is pinned."""

    def pin(
        self,
        name: str,
        datasets: Names,
        *,
        exchange: Names = (),
        symbol: Names = (),
        since: datetime | None = None,
        until: datetime | None = None,
        as_of: datetime | None = None,
        require_complete: bool = False,
        min_quality: float | None = None,
        check: bool = True,
        note: str = "",
        move: bool = False,
        progress: Progress | None = None,
    ) -> Bundle:
        """Pin a selection of tables under a name: as they are now, or as they were.

        The same selection of the same rows has the same id.

        Parameters
        ----------
        as_of
            Pin the tables as they were at this time.
        require_complete
            Refuse where an interval of the selection was never answered by its source.
        min_quality
            Refuse where the quality score (0 to 1) is lower.
        check
            Run the checks over what is pinned, and keep score and report with the bundle.
        move
            Let a name that exists point to the new bundle; the old one stays, as `NAME@ID`.

        Raises
        ------
        UnknownNameError
            A table or market has no rows in the selection.
        QualityError
            What is there falls short of what is demanded: says where.
        UsageError
            The name is taken by other rows.
        """
        request = PinRequest(
            name=name,
            tables=as_tuple(datasets),
            selection=Selection(as_tuple(exchange), as_tuple(symbol), since, until),
            as_of=as_of,
            require_complete=require_complete,
            min_quality=min_quality,
            check=check,
            note=note,
            move=move,
        )
        contents = pin(
            self._store, self._repository, self.settings, request, progress or NoProgress()
        )
        return Bundle(contents, self._cache())

    def import_bundle(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        move: bool = False,
        progress: Progress | None = None,
    ) -> Bundle:
        """Put an exported bundle into this lake, after checking all of it.

        A bundle that is here already stays as it is, unless it is damaged: then it is replaced.

        Parameters
        ----------
        path
            What `Bundle.export` wrote: a `.tar.zst` or a folder.
        name
            By which it is opened; by its id alone otherwise.
        move
            Let a name that exists point to it; the old one stays, as `NAME@ID`.

        Raises
        ------
        UnknownNameError
            There is nothing at the path.
        DamagedError
            It is not whole, or no exported bundle; nothing is left in the lake.
        UsageError
            The name is taken by other rows.
        """
        source = Path(path).expanduser()
        contents = import_bundle(
            self.root, source, name, move=move, progress=progress or NoProgress()
        )
        return Bundle(contents, self._cache())

    def bundles(self) -> pl.DataFrame:
        """The bundles: name, id, when pinned, what of, range, rows, bytes, score, problem."""
        return list_bundles(self._repository)

    def bundle(self, reference: str, *, cache: bool = True) -> Bundle:
        """The bundle of a name, an id (at least eight digits), or `NAME@ID`.

        `cache`: whether rows that were read once are kept mapped for the next read.
        """
        return Bundle(self._repository.open(reference), self._cache() if cache else None)

    def bundle_id(self, reference: str) -> str:
        """The id that a name, the beginning of an id, or `NAME@ID` means."""
        return self._repository.resolve(reference)

    def remove_bundle(self, reference: str) -> tuple[str, list[str]]:
        """Release a bundle: what only it needs may be vacuumed. Gives its id and its names."""
        with locks.exclusive(self.root):
            bundle_id = self._repository.resolve(reference)
            names = self._repository.remove(bundle_id)
        cache = self._cache()
        if cache is not None:
            cache.remove(bundle_id)
        return bundle_id, names

    def diff(self, before: str, after: str, tables: Names = ()) -> pl.DataFrame:
        """The market-days that are not the same in two bundles, and which jobs wrote into them.

        `lake.bundles.diff.diff_days` says what the columns mean.
        """
        contents = self._repository.open(before), self._repository.open(after)
        return diff_days(*contents, as_tuple(tables))

    def diff_rows(self, before: str, after: str, tables: Names = ()) -> Iterator[pl.DataFrame]:
        """The rows and values that are not the same in two bundles, a part at a time.

        `lake.bundles.diff.diff_rows` says what the columns mean.
        """
        contents = self._repository.open(before), self._repository.open(after)
        return diff_rows(*contents, as_tuple(tables))

    @property
    def maintenance(self) -> Maintainer:
        """Compaction, vacuum, checkpoints: none of it changes what a bundle reads."""
        return Maintainer(self._store, self._repository)

    def _cache(self) -> Cache | None:
        return open_cache(self.settings.cache)
