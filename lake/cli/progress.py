"""Progress bars on stderr, and the summary of an ingestion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lake.cli.session import Session

if TYPE_CHECKING:
    from lake.jobs.ingest.report import IngestReport


class _Rows(ProgressColumn):
    """Rows so far, and rows a second."""

    def render(self, task: Task) -> Text:
        rows = int(task.fields["rows"])
        rate = rows / task.elapsed if task.elapsed else 0.0
        return Text(f"{rows:,} rows  {rate:,.0f}/s")


class Bar:
    """Shows how far an ingestion is, where stderr is a terminal."""

    def __init__(self, session: Session) -> None:
        self._session = session
        console = session.stderr()
        self._progress = Progress(
            TextColumn("ingesting"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            _Rows(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal or session.quiet,
        )
        self._task: TaskID | None = None

    def planned(self, span_seconds: float) -> None:
        self._progress.start()
        self._task = self._progress.add_task("", total=span_seconds, rows=0)
        self._rows = 0

    def advanced(self, rows: int, span_seconds: float) -> None:
        if self._task is not None:
            self._rows += rows
            self._progress.update(self._task, advance=span_seconds, rows=self._rows)

    def finished(self, report: IngestReport) -> None:
        self._progress.stop()
        tell(self._session, [report])


class Steps:
    """Shows how far a piece of work is, where stderr is a terminal; see `lake.model.progress`."""

    def __init__(self, session: Session) -> None:
        console = session.stderr()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal or session.quiet,
        )
        self._task: TaskID | None = None

    def begin(self, what: str, total: int) -> None:
        self._progress.start()
        self._task = self._progress.add_task(what, total=total)

    def advance(self, count: int = 1) -> None:
        if self._task is not None:
            self._progress.advance(self._task, count)

    def end(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._progress.stop()


def tell(session: Session, reports: Iterable[IngestReport]) -> None:
    """Say on stderr what a user should know of ingestions beside their counts."""
    console = session.stderr()
    for report in reports:
        for note in notes(report):
            console.print(note, highlight=False, markup=False, soft_wrap=True)


def notes(report: IngestReport) -> list[str]:
    """What a user should know of an ingestion beside its counts."""
    if report.job_id is None:
        return ["Nothing to do: all of it is covered already."]
    took = f"{report.rows:,} rows in {report.seconds:.1f} s, {report.requests} requests"
    said = [f"Job {report.job_id}: {report.status}, {took}."]
    for left in report.unanswered:
        ranges = ", ".join(str(item) for item in left.ranges)
        said.append(f"Not answered by the venue: {left.table} of {left.market}: {ranges}")
    rejected = sum(table.rejected for table in report.tables)
    if rejected:
        said.append(f"{rejected:,} rows were refused: see the reasons in table quarantine.")
    return said
