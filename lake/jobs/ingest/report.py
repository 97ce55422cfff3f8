"""The report of an ingestion."""

from __future__ import annotations

from dataclasses import dataclass

from lake.jobs.job import Status, TableReport
from lake.model.intervals import RangeSet
from lake.model.market import Market
from lake.model.time import TimeRange


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Past ranges for which a source neither gave rows nor confirmed that there are none."""

    table: str
    market: Market
    ranges: RangeSet


@dataclass(frozen=True, slots=True)
class Touched:
    """A range of a table and market in which a job wrote rows or recorded an answer."""

    table: str
    market: Market
    range: TimeRange


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What a job did.

    Attributes
    ----------
    job_id
        None where nothing was missing: then there is no job.
    tables
        Counts of rows, by table.
    unanswered
        Past ranges that stay open.
    windows
        Count of the windows that were fetched completely.
    requests
        Count of requests sent, repeats included.
    findings
        Count of open findings of severity warning or worse in the rows that it touched; None
        where these were not checked.
    score
        Quality of these rows, 0 to 1; None where they were not checked.
    touched
        What it wrote or settled, also where it failed: the ranges to check.
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
    touched: tuple[Touched, ...] = ()

    def __repr__(self) -> str:
        score = "" if self.score is None else f", score {self.score:.6f}"
        return f"<IngestReport {self.job_id or 'no job'}: {self.status}, {self.rows:,} rows{score}>"

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


NOTHING_TO_DO = IngestReport(None, "ok", (), (), 0, 0, 0.0)
