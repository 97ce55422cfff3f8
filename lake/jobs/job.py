"""Run jobs: the ledger shows them while they run, and records how they ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from lake.errors import LakeError
from lake.log import get_logger
from lake.store.ledger import Job, Ledger
from lake.store.store import WriteResult

_log = get_logger(__name__)
Status = Literal["ok", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class TableReport:
    """Counts of the rows that a job wrote to a table, and the table's version afterwards.

    `conflicting`: rows that contradict a stored row of the same key; part of `rejected`. `cleared`:
    times out of range that became null.
    """

    table: str
    rows: int
    inserted: int
    updated: int
    rejected: int
    version: int | None
    conflicting: int = 0
    cleared: int = 0


@dataclass
class WriteCounts:
    """Sums of written rows, by table."""

    tables: dict[str, TableReport] = field(default_factory=dict)

    def add(self, table: str, written: WriteResult) -> None:
        """Add the counts of a write, and keep its version."""
        previous = self.tables.get(table, TableReport(table, 0, 0, 0, 0, None))
        self.tables[table] = TableReport(
            table,
            previous.rows + written.rows,
            previous.inserted + written.inserted,
            previous.updated + written.updated,
            previous.rejected + written.rejected,
            written.version,
            previous.conflicting + written.conflicting,
            previous.cleared + written.cleared,
        )

    def counts(self) -> dict[str, int]:
        """Return the sums over all tables, as the ledger records them."""
        names: Sequence[str] = ("rows", "inserted", "updated", "rejected")
        return {name: sum(getattr(t, name) for t in self.tables.values()) for name in names}


@contextmanager
def record_job(
    ledger: Ledger, command: str, arguments: Mapping[str, Any], tally: WriteCounts
) -> Iterator[Job]:
    """Run the block as a job, and record how it ended; an error is recorded and raised again.

    Meanwhile other processes see that it runs; if this one is killed, or cannot record the end,
    that it was interrupted.
    """
    job = ledger.start_job(command, arguments)
    try:
        yield job
    except BaseException as error:  # Ctrl-C too: recorded, and raised again
        stopped = isinstance(error, (KeyboardInterrupt, asyncio.CancelledError))
        status: Status = "interrupted" if stopped else "failed"
        try:
            reason = "stopped by a signal" if stopped else str(error) or type(error).__name__
            ledger.finish_job(job, status, tally.counts(), reason)
        except LakeError as record_error:
            # The first error matters more than the failure to record it.
            _log.error("job not recorded", job=job.id, reason=record_error.message)
        raise
    ledger.finish_job(job, "ok", tally.counts())
