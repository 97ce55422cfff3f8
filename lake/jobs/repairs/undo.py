"""Undo a repair: restore the rows that it changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from lake.errors import DamagedError, UnknownNameError
from lake.jobs.job import WriteCounts, record_job
from lake.jobs.repairs.changes import SHOWN_ROWS, Changes, compare_rows
from lake.jobs.repairs.coverage import take_back_coverage
from lake.jobs.repairs.records import Records, read_rows, recover
from lake.jobs.repairs.report import UndoReport
from lake.model.dataset import Dataset
from lake.model.market import Market
from lake.model.time import TimeRange, iso
from lake.store.ledger import Ledger
from lake.store.locks import lock_for_repair
from lake.store.store import Origin, Store


def undo(store: Store, repair_id: str) -> UndoReport:
    """Restore the rows that a repair changed, in one commit, and their coverage.

    Rows that it inserted are deleted, rows that it replaced get their old values back. Rows that
    were changed again since stay, and the report names them; if all were, the repair stays done,
    so that it can be undone after the later ones. To undo a repair twice changes nothing; to undo
    a mark lets the source be asked again. Coverage stays as it is only where the repair stays done.

    Raises
    ------
    UnknownNameError
        There is no such repair.
    DamagedError
        The versions before and after it cannot be read any more.
    CommitConflictError
        Others kept writing into the table, or are repairing the lake: nothing was changed.
    """
    with lock_for_repair(store.root):
        return _undo_repair(store, repair_id)


def _undo_repair(store: Store, repair_id: str) -> UndoReport:
    recover(store)
    records = Records(store)
    row = _read_record(records, repair_id)
    dataset = store.catalog.dataset(row["dataset"])
    market = Market(row["exchange"], row["symbol"])
    window = TimeRange(row["timestamp"], row["end"])
    if row["status"] == "undone":
        version = store.version(dataset)
        nothing = (0, 0, 0, (), ())
        return UndoReport(None, repair_id, dataset.name, market, window, *nothing, version)
    counts = WriteCounts()
    with record_job(Ledger(store), "quality undo", {"repair": repair_id}, counts) as job:
        restoring = _Restoration(dataset, _read_changes(store, dataset, market, window, row))
        origin = Origin(job.id, f"undo:{repair_id}")
        restoring(read_rows(store, dataset, market, window))
        if restoring.is_due:
            # Before its rows: after a crash in between, the source is merely asked once more.
            take_back_coverage(store, dataset, market, row, origin)
        replaced = store.replace(dataset, market, window, restoring, origin)
        if restoring.is_due:
            records.record_undo(row, job.id)
    later = _find_later(records, row) if restoring.kept.height else ()
    return UndoReport(
        job.id,
        repair_id,
        dataset.name,
        market,
        window,
        restoring.removed,
        restoring.restored,
        restoring.kept.height,
        tuple(iso(time) for time in restoring.kept[dataset.time_column].head(SHOWN_ROWS)),
        later,
        replaced.version,
    )


@dataclass
class _Restoration:
    """Restores the rows of a range to what they were before a repair, and counts them."""

    dataset: Dataset
    changed: Changes
    removed: int = 0
    restored: int = 0
    kept: pl.DataFrame = field(default_factory=pl.DataFrame)

    @property
    def is_due(self) -> bool:
        """Whether there is anything to undo: not if all rows were changed again since."""
        return bool(self.removed or self.restored or self.kept.is_empty())

    def __call__(self, rows: pl.DataFrame) -> pl.DataFrame:
        key, columns = list(self.dataset.row_key), rows.columns
        written = self.changed.written.select(columns)
        gone = self.changed.removed.select(columns).join(rows, on=key, how="anti")
        same = {"on": columns, "nulls_equal": True}
        ours = rows.join(written, how="semi", **same)  # type: ignore[arg-type]
        was = self.changed.before.select(columns)
        back = was.join(ours, on=key, how="semi")
        concerned = rows.join(written, on=key, how="semi")
        foreign = concerned.join(ours, on=key, how="anti")
        self.kept = foreign.join(was, how="anti", **same)  # type: ignore[arg-type]
        self.restored = back.height + gone.height
        self.removed = ours.height - back.height
        return pl.concat([rows.join(ours, on=key, how="anti"), back, gone])


def _read_record(records: Records, repair_id: str) -> dict[str, Any]:
    rows = records.rows().filter(pl.col("repair_id") == repair_id)
    if rows.is_empty():
        raise UnknownNameError(
            f"there is no repair {repair_id!r}", "`lake quality repairs` lists all of them."
        )
    return rows.row(0, named=True)


def _find_later(records: Records, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Find the IDs of the repairs that changed rows of the same range since, newest first."""
    same = [pl.col(name) == row[name] for name in ("dataset", "exchange", "symbol")]
    overlaps = (pl.col("timestamp") < row["end"]) & (pl.col("end") > row["timestamp"])
    after = pl.col("version_after") > row["version_after"]
    is_applied = (pl.col("status") == "done") & (pl.col("method") != "mark")
    later = records.rows().filter(*same, overlaps, after, is_applied)
    return tuple(later.sort("version_after", descending=True)["repair_id"])


def _read_changes(
    store: Store, dataset: Dataset, market: Market, window: TimeRange, row: Mapping[str, Any]
) -> Changes:
    versions = (row["version_before"], row["version_after"])
    try:
        before, after = (read_rows(store, dataset, market, window, v) for v in versions)
    except (DamagedError, UnknownNameError) as error:
        raise DamagedError(
            f"repair {row['repair_id']} cannot be undone: versions {versions[0]} and {versions[1]} "
            f"of {dataset.name} cannot be read: {error.message}",
            "A vacuum removes files that only old versions need: bundles keep what they pin.",
        ) from error
    return compare_rows(dataset, before, after)
