"""`Lake.maintenance`: compact tables, delete unneeded files. No row of a bundle changes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from lake.api.context import Context, Names
from lake.jobs.maintain import KEEP, Maintainer
from lake.jobs.migrate import Migrator, to_frame
from lake.model.partitions import Granularity
from lake.model.progress import Progress
from lake.model.time import Time, parse_duration
from lake.store.vacuum import VacuumReport
from lake.store.verify import TableVerification


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

        In other partitions, small files are compacted as well if there are more than 64 that were
        written ten minutes ago or earlier.

        Old files stay until a vacuum deletes them. Ingestion and reads may run at the same time.

        Parameters
        ----------
        table
            One or several; all by default.
        before
            Compact the dates that ended by then. Default: all dates before today.

        Returns
        -------
        DataFrame
            By table: `dates` compacted, `rows` in them, `files_before`, `files_after`,
            `bytes_before`, `bytes_after`, `commits`.

        Raises
        ------
        DamagedError
            Rows cannot be read, or would change; the date stays as it was.
        CommitConflictError
            Other writers changed the same dates in each attempt.
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
            Versions that were the latest within this time stay readable: a duration, or text such
            as `7d`; one hour or more.
        dry_run
            Only list what would be deleted, and which bundles need which files.

        Raises
        ------
        UsageError
            `keep` is too short.
        DamagedError
            The needed files cannot be determined; nothing was deleted.
        CommitConflictError
            A bundle is being pinned.
        """
        keep_duration = parse_duration(keep) if isinstance(keep, str) else keep
        return self._maintainer.vacuum(
            self._context.tables(table, timeframe), keep=keep_duration, dry_run=dry_run
        )

    def verify(
        self, table: Names = (), *, timeframe: Names = (), progress: Progress | None = None
    ) -> TableVerification:
        """Compare the live files of tables with the SHA-256 that was recorded at each commit.

        Parameters
        ----------
        table
            One or several; all by default.

        Returns
        -------
        TableVerification
            `is_intact`; `problems`: damaged and missing files; `files`: these, and files without a
            recorded hash, which an earlier version or another program wrote; `tables`: counts.

        Raises
        ------
        StorageError
            The storage refuses files. All others are verified, and the error's `report` has that.
        """
        names = self._context.tables(table, timeframe, may_be_lost=True)
        return self._maintainer.verify(names, progress=progress)

    def migrate(
        self,
        granularity: Mapping[str, Granularity] | None = None,
        *,
        apply: bool = False,
        progress: Progress | None = None,
    ) -> pl.DataFrame:
        """List, or make, what tables need to be as `lake.json` and the dataset files say.

        Columns are added without rewriting a file. A change of the granularity rewrites the files
        of a table, and swaps them in one commit, while others read and write; a run that was
        killed is completed by the next one. Bundles and older versions keep the files they need.

        Parameters
        ----------
        granularity
            By table, `day`, `month` or `year`: how its files are kept from now on.
        apply
            Make the steps; otherwise only list them.

        Returns
        -------
        DataFrame
            By step: `table`, `step` (`columns` or `granularity`), `before`, `after`, and the `rows`
            and `files` to rewrite.

        Raises
        ------
        DamagedError
            A table cannot be read; it stays as it was, and all others are migrated.
        CommitConflictError
            Another process migrates the same table.
        """
        migrator = Migrator(self._context.store, granularity or {})
        return to_frame(migrator.migrate(progress) if apply else migrator.plan())

    def checkpoint(self, table: Names = (), *, timeframe: Names = ()) -> pl.DataFrame:
        """Write checkpoints, so that tables open faster; return table and version.

        A table gets one each 20 commits by itself.
        """
        return self._maintainer.checkpoint(self._context.tables(table, timeframe))

    def gc(self, *, dry_run: bool = False) -> pl.DataFrame:
        """Delete files that crashes left beside the tables, if older than an hour.

        Returns
        -------
        DataFrame
            `path` (relative to the lake), `bytes`, `kind` (`temporary file`, `unfinished bundle`).
        """
        return self._maintainer.gc(dry_run=dry_run)
