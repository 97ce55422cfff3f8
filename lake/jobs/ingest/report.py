"""What an ingestion did, as it is shown and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lake.model.intervals import RangeSet
from lake.model.market import Market
from lake.store.store import Written

Status = Literal["ok", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class TableReport:
    """Of one table: rows that arrived, and what became of them; its version afterwards."""

    table: str
    rows: int
    inserted: int
    updated: int
    rejected: int
    version: int | None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A past interval that the source neither gave rows for nor said to be empty."""

    table: str
    market: Market
    ranges: RangeSet


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What a job did. Without tasks there is no job: `job_id` is None and nothing was asked.

    `findings`: how many are open of severity warning or worse in what it touched, `score`: the
    quality of that (0 to 1); None where it was not checked.
    """

    job_id: str | None
    status: Status
    tables: tuple[TableReport, ...]
    unanswered: tuple[Unanswered, ...]
    windows: int
    requests: int
    seconds: float
    findings: int | None = None
    score: float | None = None

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


NOTHING_TO_DO = IngestReport(None, "ok", (), (), 0, 0, 0.0)


class Progress(Protocol):
    """Who is told how far an ingestion is; all spans are seconds of market time."""

    def planned(self, span_seconds: float) -> None: ...

    def advanced(self, rows: int, span_seconds: float) -> None: ...

    def finished(self, report: IngestReport) -> None: ...


class Silent:
    """A progress that tells nobody."""

    def planned(self, span_seconds: float) -> None: ...

    def advanced(self, rows: int, span_seconds: float) -> None: ...

    def finished(self, report: IngestReport) -> None: ...


@dataclass
class WriteCounts:
    """Adds up what was written, by table."""

    tables: dict[str, TableReport] = field(default_factory=dict)

    def add(self, table: str, written: Written) -> None:
        so_far = self.tables.get(table, TableReport(table, 0, 0, 0, 0, None))
        self.tables[table] = TableReport(
            table,
            so_far.rows + written.rows,
            so_far.inserted + written.inserted,
            so_far.updated + written.updated,
            so_far.rejected + written.rejected,
            written.version,
        )

    def counts(self) -> dict[str, int]:
        """Sums over all tables, as the ledger records them."""
        names: Sequence[str] = ("rows", "inserted", "updated", "rejected")
        return {name: sum(getattr(t, name) for t in self.tables.values()) for name in names}
