"""`Lake.maintenance`: compact tables, delete what nobody needs. It changes no row of a bundle."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from lake.api.context import Context, Names
from lake.jobs.maintain import KEEP, Maintainer
from lake.model.progress import Progress
from lake.model.time import Time, parse_duration
from lake.store.vacuum import VacuumReport


class Maintenance:
    """Maintenance of a lake's tables."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._maintainer = Maintainer(context.store, context.repository)

    def __repr__(self) -> str:
        return f"<Lake.maintenance of {self._context.root.path}>"

    def optimize(
        self,
        table: Names = (),
        *,
        timeframe: Names = (),
        before: Time | None = None,
        progress: Progress | None = None,
    ) -> pl.DataFrame:
        """Compact each closed date into one file; the rows stay the same.

        Old files stay until a vacuum takes them. Ingestion and reads may go on meanwhile.

        Parameters
        ----------
        table
            One or several; all by default.
        before
            Dates that ended by then are closed; by default those before today.

        Returns
        -------
        DataFrame
            By table: `dates` compacted, `rows` in them, `files_before`, `files_after`,
            `bytes_before`, `bytes_after`, `commits`.

        Raises
        ------
        DamagedError
            Rows would have changed, or cannot be read: that date is as it was.
        CommitConflictError
            Others kept rewriting the same dates.
        UsageError
            `before` is in the future, or has no time zone.
        """
        return self._maintainer.optimize(
            self._context.tables(table, timeframe),
            before=self._context.time(before),
            progress=progress,
        )

    def vacuum(
        self,
        table: Names = (),
        *,
        timeframe: Names = (),
        keep: timedelta | str = KEEP,
        dry_run: bool = False,
    ) -> VacuumReport:
        """Delete data files that neither a recent version nor a bundle needs.

        Parameters
        ----------
        table
            One or several; all by default.
        keep
            Versions that were the latest within this time stay readable: a duration or text as
            `7d`; one hour or more.
        dry_run
            Only list what would be deleted, and which bundle holds what back.

        Raises
        ------
        UsageError
            `keep` is too short.
        DamagedError
            It cannot be known what is needed: nothing was deleted.
        CommitConflictError
            A bundle is being made.
        """
        keep_duration = parse_duration(keep) if isinstance(keep, str) else keep
        return self._maintainer.vacuum(
            self._context.tables(table, timeframe), keep=keep_duration, dry_run=dry_run
        )

    def checkpoint(self, table: Names = (), *, timeframe: Names = ()) -> pl.DataFrame:
        """Write checkpoints, which make tables quicker to open: table, version.

        Delta writes one by itself every hundred commits.
        """
        return self._maintainer.checkpoint(self._context.tables(table, timeframe))

    def gc(self, *, dry_run: bool = False) -> pl.DataFrame:
        """Delete what crashes have left beside the tables, if it is older than an hour.

        Returns
        -------
        DataFrame
            `path` (relative to the lake), `bytes`, `kind` (`temporary file`, `unfinished bundle`).
        """
        return self._maintainer.gc(dry_run=dry_run)
