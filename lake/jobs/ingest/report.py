"""What an ingestion did, as it is shown and recorded."""

from __future__ import annotations

from dataclasses import dataclass

from lake.jobs.job import Status, TableReport
from lake.model.intervals import RangeSet
from lake.model.market import Market


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
