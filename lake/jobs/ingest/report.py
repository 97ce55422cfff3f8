"""The report of an ingestion."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from lake.jobs.job import Status, TableReport
from lake.jobs.touched import Touched
from lake.model.intervals import RangeSet
from lake.model.market import Market
from lake.model.words import count

FailureReason = Literal[
    "not_listed", "too_long_ago", "forbidden", "refused", "unavailable", "unusable", "damaged"
]


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Past ranges for which a source neither gave rows nor confirmed that there are none.

    `reason`: `no_answer`, or `not_given`: the source no longer serves that time.
    """

    table: str
    market: Market
    ranges: RangeSet
    reason: Literal["no_answer", "not_given"] = "no_answer"


@dataclass(frozen=True, slots=True)
class Failure:
    """Ranges of a market that could not be fetched, or not be stored.

    Attributes
    ----------
    reason
        `not_listed`: the market is gone. `too_long_ago`, `forbidden`, `refused`: the source refused
        the ranges. `unavailable`: it gave no usable answer in any attempt. `unusable`: its answer
        cannot be read. `damaged`: the table is damaged, so that nothing can be stored in it;
        without ranges, nothing was asked for.
    message
        What the source said, or what is damaged.
    again_at
        Of a refusal of an earlier run that was not asked again in this one: when it will be. None
        where it failed in this run.
    """

    table: str
    market: Market
    ranges: RangeSet
    reason: FailureReason
    message: str
    again_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """An exchange whose specifications could not be fetched: `instruments` is as it was."""

    exchange: str
    message: str


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
        Past ranges that stay open although the source answered.
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
    failures
        What could not be fetched and why: asked for in this run, or refused in an earlier one.
    unrecorded
        Exchanges that did not give the specifications of the markets, whose rows are stored.
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
    failures: tuple[Failure, ...] = ()
    unrecorded: tuple[Unrecorded, ...] = ()

    def __repr__(self) -> str:
        score = "" if self.score is None else f", score {self.score:.6f}"
        conflicting = f", {self.conflicting:,} conflicting" if self.conflicting else ""
        job = self.job_id or "no job"
        return f"<IngestReport {job}: {self.status}, {count(self.rows, 'row')}{conflicting}{score}>"

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def conflicting(self) -> int:
        """Count of rows that contradict another of their key: `quarantine` has both."""
        return sum(table.conflicting for table in self.tables)


NOTHING_TO_DO = IngestReport(None, "ok", (), (), 0, 0, 0.0)
