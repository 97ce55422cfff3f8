"""What a repair did, or would do, as reports show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lake.model.market import Market
from lake.model.time import TimeRange
from lake.model.words import count

Method = Literal["refetch", "derive", "interpolate", "mark"]


@dataclass(frozen=True, slots=True)
class PlannedRepair:
    """A step that a dry run plans: a window to fetch again, or rows to derive or interpolate.

    `rows` is None where only the source can tell.
    """

    table: str
    market: Market
    window: TimeRange
    method: Method
    source: str
    findings: tuple[str, ...]
    why: str
    rows: int | None


@dataclass(frozen=True, slots=True)
class AppliedRepair:
    """One repair, as recorded in the table `repairs`; `undo` takes its ID."""

    repair_id: str
    table: str
    market: Market
    window: TimeRange
    method: Method
    source: str
    findings: tuple[str, ...]
    inserted: int
    updated: int


@dataclass(frozen=True, slots=True)
class FailedRepair:
    """What was not repaired, with the reason."""

    table: str
    market: Market
    window: TimeRange
    findings: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a run did.

    Attributes
    ----------
    job_id
        None where there was nothing to do, and for a dry run.
    planned
        The steps that a dry run plans.
    applied
        Repairs that changed rows.
    marked
        Findings that the source confirmed: it was asked, and repeats itself.
    failed
        What was not repaired, with the reason.
    skipped
        IDs of findings that were repaired before, and not checked since.
    recovered
        Repairs of an earlier run that was killed, whose records were completed first.
    unchanged
        Count of rows that a source gave and that were stored in this form already.
    requests
        Count of requests sent, repeats included.
    """

    job_id: str | None
    dry_run: bool
    planned: tuple[PlannedRepair, ...] = ()
    applied: tuple[AppliedRepair, ...] = ()
    marked: tuple[AppliedRepair, ...] = ()
    failed: tuple[FailedRepair, ...] = ()
    skipped: tuple[str, ...] = ()
    recovered: tuple[AppliedRepair, ...] = ()
    unchanged: int = 0
    requests: int = 0
    seconds: float = 0.0

    def __repr__(self) -> str:
        done = (
            f"{len(self.planned):,} planned" if self.dry_run else f"{len(self.applied):,} applied"
        )
        return f"<RepairReport {self.job_id or 'no job'}: {done}, {len(self.failed):,} failed>"

    @property
    def inserted(self) -> int:
        return sum(repair.inserted for repair in self.applied)

    @property
    def updated(self) -> int:
        return sum(repair.updated for repair in self.applied)


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What an undo did.

    Attributes
    ----------
    removed
        Count of rows that the repair had inserted, and that were deleted.
    restored
        Count of rows that the repair had replaced, and that have their old values again.
    kept
        Count of rows that were changed again since the repair, and stay as they are.
    kept_times
        Times of the first twenty of these, in ISO-8601.
    later
        IDs of the repairs that changed rows in the same range since, newest first; only where rows
        stay. If they are undone in this order, this one can be undone.
    version
        Version of the table afterwards.
    """

    job_id: str | None
    repair_id: str
    table: str
    market: Market
    window: TimeRange
    removed: int
    restored: int
    kept: int
    kept_times: tuple[str, ...]
    later: tuple[str, ...]
    version: int

    def __repr__(self) -> str:
        rows = (
            f"{count(self.removed, 'row')} removed, {self.restored:,} restored, {self.kept:,} kept"
        )
        return f"<UndoReport {self.repair_id}: {rows}>"
