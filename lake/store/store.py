"""The store of one lake: its tables, and the only path by which rows are written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from lake.errors import LakeError, SchemaError, UnknownNameError, UsageError
from lake.log import get_logger
from lake.model.dataset import Dataset
from lake.model.market import MARKET_COLUMNS, Market
from lake.model.partitions import Granularity
from lake.model.selection import Selection
from lake.model.time import TimeRange
from lake.store import delta, log
from lake.store.clock import CommitClock
from lake.store.columns import require_nulls_fit
from lake.store.compact import CompactionRule, compact, find_crowded
from lake.store.conform import REASON, build_quarantine_rows, check_rows
from lake.store.faults import translate_errors
from lake.store.heal import heal_end
from lake.store.latest import LatestTable
from lake.store.local_table import LocalTable
from lake.store.merge import merge
from lake.store.prepare import Preparation
from lake.store.reader import EVERYTHING
from lake.store.replace import Change, ReplaceResult, replace_rows
from lake.store.reports import report_cleared, report_conflicts
from lake.store.root import Root
from lake.store.snapshot import Snapshot
from lake.store.soundness import require_sound_end
from lake.store.update import Compute, UpdatePreparation
from lake.version import VERSION

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of rows: the job that writes them, and the source that sent them."""

    job_id: str
    source: str


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Result of a write: rows inserted, updated and rejected; the others were stored already.

    Attributes
    ----------
    version
        Version of the table afterwards; None if it does not exist, as all were rejected.
    conflicting
        Rows that contradict another row of the same key: a stored one that never changes, or a
        later one of the same answer; part of `rejected`.
    kept
        `exchange`, `symbol` and time column of the rows of the table that the written rows now are:
        inserted, updated or stored before, each once.
    cleared
        Number of times out of range that became null; their rows are stored without them.
    """

    rows: int
    inserted: int
    updated: int
    rejected: int
    version: int | None
    conflicting: int = 0
    kept: pl.DataFrame = field(default_factory=pl.DataFrame, compare=False, repr=False)
    cleared: int = 0

    @property
    def unchanged(self) -> int:
        return self.rows - self.inserted - self.updated - self.rejected


class Store:
    """Tables of a lake. Safe to share among threads: writes to one table wait for each other.

    Parameters
    ----------
    root
        The lake.
    now
        Returns the present time.
    """

    def __init__(self, root: Root, now: Callable[[], datetime]) -> None:
        self.root = root
        self.catalog = root.read_catalog()
        self.now = now
        self.clock = CommitClock(now)
        self._handles: dict[str, LocalTable] = {}
        self._latest: dict[str, LatestTable] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self._foreign: set[str] = set()

    def tables(self) -> tuple[str, ...]:
        """List the names of the tables that exist; those of other programs are reported once."""
        folders = self.root.tables.glob("*")
        names = sorted(folder.name for folder in folders if self.exists(folder.name))
        return tuple(name for name in names if self._is_described(name))

    def lost_tables(self) -> tuple[str, ...]:
        """List the names of tables whose log is gone, although their files are there."""
        folders = self.root.tables.glob("*")
        return tuple(sorted(folder.name for folder in folders if log.has_lost_log(folder)))

    def data_tables(self) -> tuple[str, ...]:
        """List the names of tables with data: neither references nor records of the lake."""
        names = self.tables()
        return tuple(name for name in names if self.catalog.dataset(name).kind == "data")

    def exists(self, name: str) -> bool:
        """Whether there is a table, if only its data: without its log it cannot be read.

        A record without its log counts as none where that costs repeated work only.
        """
        path = self.root.tables / name
        is_lost = name not in delta.REPEATABLE and log.has_lost_log(path)
        return is_lost or log.has_table(path)

    def create(self, dataset: Dataset) -> None:
        """Create the table of a dataset, without rows, if it does not exist."""
        if not self.exists(dataset.name):
            with self._get_lock(dataset.name):
                self._get_handle(dataset)

    def heal(self) -> None:
        """Undo what a crash left unfinished and unreadable at the end of any table.

        A command that writes calls it before it reads anything: see `lake.store.heal`.

        Raises
        ------
        ConfigError
            The lake needs a later version to write to it.
        """
        self.root.require_writer()
        for name in self.tables():
            try:
                self.catalog.dataset(name)
                with translate_errors(f"table {name}"):
                    heal_end(self.root.tables / name, self.clock)
            except UnknownNameError:
                continue  # of another program, or its dataset file is gone
            except LakeError as error:  # whoever needs the table gets an error from it
                _log.error("table not healed", table=name, reason=error.message)

    def require_writable(self, dataset: Dataset) -> None:
        """Refuse a table that exists and cannot be written to because its log is damaged.

        Raises
        ------
        DamagedError
            A commit is damaged or missing.
        SchemaError
            The columns of the table differ from those of the dataset.
        """
        if self.exists(dataset.name):
            with self._get_lock(dataset.name):
                self._get_handle(dataset)
            self.version(dataset)

    def write(
        self,
        dataset: Dataset,
        frame: pl.DataFrame,
        origin: Origin,
        answers: pl.Series | None = None,
    ) -> WriteResult:
        """Check rows, quarantine the rejected ones, and merge the others into the table.

        Rows that are stored already change nothing: writing them twice is safe. Rows that never
        change and contradict a stored row of their key are quarantined with that row. Of rows that
        may change the last one of a key is stored; if it came in one answer with others that
        contradict it, those are quarantined with it.

        Parameters
        ----------
        frame
            `exchange`, `symbol` and the columns of the dataset.
        answers
            The answer of the source that each row is part of, as a number; None: all rows are of
            one.

        Raises
        ------
        SchemaError
            The frame as a whole does not fit the dataset.
        CommitConflictError, StorageError, DamagedError
            No row was written, except rejected rows to quarantine. If only contradictions could not
            be quarantined, the others are stored; the same write finds them again.
        """
        checked = check_rows(dataset, frame)
        rejected = checked.rejected.height
        cleared = report_cleared(dataset, checked.cleared)
        if rejected:
            self._quarantine(dataset, checked.rejected, origin)
        if checked.rows.is_empty():
            if rejected:
                self.create(dataset)  # so that checks and the status tell of the rejected rows
            version = self.snapshot(dataset).version if self.exists(dataset.name) else None
            none = checked.rows.select(*MARKET_COLUMNS, dataset.time_column)
            return WriteResult(frame.height, 0, 0, rejected, version, kept=none, cleared=cleared)
        metadata = {
            "job": origin.job_id,
            "source": origin.source,
            "lake": VERSION,
            "rows": frame.height,
            "rejected": rejected,
        }
        parts = None if answers is None else answers[checked.numbers]
        prepare = Preparation(dataset, checked.rows, metadata, parts)
        with self._get_lock(dataset.name):
            handle = self._get_handle(dataset)
            with handle.hold():
                delta.add_missing_columns(handle, dataset, origin.job_id)
                require_nulls_fit(handle.schema(), dataset, checked.rows)
                merged = merge(handle, dataset, prepare)
                handle.seal(merged.metadata)
            if merged.metadata is not None and dataset.kind != "data":
                self._compact(handle, dataset, origin)
        conflicting = prepare.conflicting.height
        if conflicting:
            self._quarantine(dataset, prepare.conflicting, origin, prepare.opposed)
            report_conflicts(dataset, prepare.conflicting, origin.source, origin.job_id)
        return WriteResult(
            frame.height,
            merged.inserted,
            merged.updated,
            rejected + conflicting,
            merged.version,
            conflicting,
            prepare.kept,
            cleared,
        )

    def update(self, dataset: Dataset, compute: Compute, origin: Origin) -> None:
        """Change rows as follows from the stored ones, in one commit or none.

        Parameters
        ----------
        compute
            Called with the table while no other process of the lake commits to it; again if another
            engine did: the commit is of exactly what it has read.

        Raises
        ------
        CommitConflictError, StorageError, DamagedError
            Nothing was changed, except that rejected rows may be in quarantine.
        """
        metadata = {"job": origin.job_id, "source": origin.source, "lake": VERSION}
        prepare = UpdatePreparation(dataset, compute, metadata)
        with self._get_lock(dataset.name):
            handle = self._get_handle(dataset)
            with handle.hold():
                delta.add_missing_columns(handle, dataset, origin.job_id)
                merged = merge(handle, dataset, prepare)
                handle.seal(merged.metadata)
            if merged.metadata is not None and dataset.kind != "data":
                self._compact(handle, dataset, origin)
        if prepare.rejected.height:
            self._quarantine(dataset, prepare.rejected, origin)

    def replace(
        self, dataset: Dataset, market: Market, window: TimeRange, change: Change, origin: Origin
    ) -> ReplaceResult:
        """Replace all rows of a market in a range, to undo or to delete.

        See `lake.store.replace.replace_rows`.
        """
        metadata = {"job": origin.job_id, "source": origin.source, "lake": VERSION}
        with self._get_lock(dataset.name):
            handle = self._get_handle(dataset)
            with handle.hold():
                delta.add_missing_columns(handle, dataset, origin.job_id)
                return replace_rows(handle, dataset, market, window, change, metadata)

    def keep_by(self, granularity: Mapping[str, Granularity]) -> None:
        """Record the granularities that tables have from now on, unlike their dataset files."""
        self.root = self.root.set_granularity(granularity)
        self.catalog.keep_by(granularity)

    def snapshot(
        self, dataset: Dataset, *, version: int | None = None, as_of: datetime | None = None
    ) -> Snapshot:
        """Open a table at its latest version, at another, or as of a time.

        Raises
        ------
        UnknownNameError
            There is no such table or version.
        """
        if version is not None and as_of is not None:
            raise UsageError("version and as_of exclude each other", "Give one of them.")
        if as_of is not None and self.exists(dataset.name):
            version = log.find_version(self.root.tables / dataset.name, dataset, as_of, self.now())
        return Snapshot(dataset, self.open(dataset, version), is_named=version is not None)

    def open(self, dataset: Dataset, version: int | None = None) -> LocalTable:
        """Open a table, at its latest version or at another: a handle that the caller owns.

        Raises as `lake.store.delta.open_table` does.
        """
        return delta.open_table(self.root.tables / dataset.name, dataset, version, self.clock)

    def open_for_writing(self, dataset: Dataset) -> LocalTable:
        """Open a table to commit to it: a handle that the caller owns.

        Raises as `lake.store.delta.open_for_writing` and `Root.require_writer` do.
        """
        self.root.require_writer()
        return delta.open_for_writing(self.root.tables / dataset.name, dataset, self.clock)

    def latest(self, dataset: Dataset) -> LatestTable:
        """Return the reader of the latest rows of a table, which stays open."""
        path = self.root.tables / dataset.name
        with self._get_lock(dataset.name):
            latest = self._latest.get(dataset.name)
            if latest is None or not self.exists(dataset.name):
                latest = self._latest[dataset.name] = LatestTable(path, dataset)
            return latest

    def version(self, dataset: Dataset) -> int:
        """Read the latest version of a table, without opening it."""
        if not self.exists(dataset.name):
            return self.snapshot(dataset).version
        with translate_errors(f"table {dataset.name}"):
            return require_sound_end(self.root.tables / dataset.name)

    def read(
        self, dataset: Dataset, selection: Selection = EVERYTHING, as_of: datetime | None = None
    ) -> pl.DataFrame:
        """Read rows of a table, now or as of a time; empty if it did not exist."""
        try:
            table = self.latest(dataset) if as_of is None else self.snapshot(dataset, as_of=as_of)
        except UnknownNameError:
            return dataset.empty()
        return table.collect(selection)

    def _compact(self, handle: LocalTable, dataset: Dataset, origin: Origin) -> None:
        """Compact the partitions of a table of the lake itself that have too many files.

        What was written stays written whatever becomes of this: the next write tries again.
        """
        batch = find_crowded(handle)
        if batch is None:
            return
        try:
            rule = CompactionRule(before=None, settled=None)
            compact(handle, dataset, batch, rule, now=self.now(), job_id=origin.job_id)
        except LakeError as error:
            _log.warning("small files not compacted", table=dataset.name, reason=error.message)

    def _quarantine(
        self,
        dataset: Dataset,
        rejected: pl.DataFrame,
        origin: Origin,
        opposed: pl.DataFrame | None = None,
    ) -> None:
        if dataset.name == "quarantine":
            raise SchemaError(f"rows for quarantine are refused: {rejected[REASON][0]}")
        rows = build_quarantine_rows(dataset, rejected, origin.job_id, self.now(), opposed)
        self.write(self.catalog.dataset("quarantine"), rows, origin)

    def _is_described(self, name: str) -> bool:
        """Whether a dataset file describes a table; report once if not."""
        try:
            self.catalog.dataset(name)
        except UnknownNameError:
            if name not in self._foreign:
                _log.warning(
                    "table skipped: no dataset file describes it; add one to the folder schemas of "
                    "the lake, or move the table away",
                    table=name,
                )
                self._foreign.add(name)
            return False
        return True

    def _get_handle(self, dataset: Dataset) -> LocalTable:
        path = self.root.tables / dataset.name
        self.root.require_writer()
        if dataset.name not in self._handles:
            self._handles[dataset.name] = delta.open_for_writing(path, dataset, self.clock)
        return self._handles[dataset.name]

    def _get_lock(self, name: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(name, threading.Lock())
