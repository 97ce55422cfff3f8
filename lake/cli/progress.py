"""Show progress bars on stderr, and the summary of an ingestion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lake.model.words import count
from lake.text import escape_unseen

if TYPE_CHECKING:
    from rich.console import Console

    from lake.jobs.ingest.report import Failure, IngestReport, Unanswered
    from lake.model.intervals import RangeSet

_MAX_RANGES = 5
_CONTRADICTS = "of them contradicts another row of its key"
_CONTRADICT = "of them contradict other rows of their keys"


class _Done(ProgressColumn):
    """Rows so far and rows per second; without rows, units done and total."""

    def render(self, task: Task) -> Text:
        rows = int(task.fields["rows"])
        if not rows:
            return Text(f"{task.completed:,.0f}/{task.total or 0:,.0f}")
        rate = rows / task.elapsed if task.elapsed else 0.0
        return Text(f"{count(rows, 'row')}  {rate:,.0f}/s")


class ProgressBar:
    """Shows the progress of a piece of work if the console is a terminal; then its summary.

    It is a `lake.model.progress.Progress`.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            _Done(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal or console.quiet,
        )
        self._task: TaskID | None = None
        self._rows = 0

    def begin(self, what: str, total: float, /) -> None:
        self._rows = 0
        self._bar.start()
        self._task = self._bar.add_task(escape_unseen(what), total=total, rows=0)

    def advance(self, count: float = 1, *, rows: int = 0, what: str | None = None) -> None:
        if self._task is not None:
            self._rows += rows
            text = None if what is None else escape_unseen(what)
            self._bar.update(self._task, advance=count, rows=self._rows, description=text)

    def end(self, outcome: object | None = None, /) -> None:
        from lake.jobs.ingest.report import IngestReport

        self._bar.stop()  # shows the last state once more
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        if isinstance(outcome, IngestReport):
            show_notes(self._console, [outcome])


def show_notes(console: Console, reports: Iterable[IngestReport]) -> None:
    """Print the notes on ingestions."""
    for report in reports:
        for note in notes(report):
            console.print(note, soft_wrap=True)


def notes(report: IngestReport) -> list[str]:
    """Return notes on an ingestion: job, duration, what was not fetched and why, rejected rows."""
    if report.job_id is None:
        what = (
            "what is open was refused before" if report.failures else "the whole range is covered"
        )
        return [f"Nothing to do: {what}.", *map(_describe_failure, report.failures)]
    requests = count(report.requests, "request")
    took = f"{count(report.rows, 'row')} in {report.seconds:.1f} s, {requests}"
    lines = [f"Job {report.job_id}: {report.status}, {took}."]
    lines += map(_describe_failure, report.failures)
    lines += map(_describe_unanswered, report.unanswered)
    lines += [
        f"The instruments of {item.exchange} are not recorded: {item.message}"
        for item in report.unrecorded
    ]
    rejected = sum(table.rejected for table in report.tables)
    if rejected:
        refused = count(rejected, "row was refused", "rows were refused")
        lines.append(f"{refused}: the table quarantine has the reasons.")
    conflicting = report.conflicting
    if conflicting:
        lines.append(f"{count(conflicting, _CONTRADICTS, _CONTRADICT)}: quarantine has both.")
    cleared = sum(table.cleared for table in report.tables)
    if cleared:
        times = count(cleared, "time")
        lines.append(f"{times} out of range became null: the log names the columns.")
    return lines


def _describe_failure(failure: Failure) -> str:
    what = f"{failure.table} of {failure.market}{_format_ranges(failure.ranges)}"
    if failure.again_at is None:
        return f"Not fetched ({failure.reason}): {what}: {failure.message}"
    again = f"{failure.again_at:%Y-%m-%d %H:%M} UTC"
    return f"Not asked again before {again} ({failure.reason}): {what}: {failure.message}"


def _describe_unanswered(left: Unanswered) -> str:
    what = f"{left.table} of {left.market}{_format_ranges(left.ranges)}"
    if left.reason == "not_given":
        return f"The venue no longer serves {what}"
    return f"The venue did not answer for {what}"


def _format_ranges(ranges: RangeSet) -> str:
    """Format ranges for a line; of many only the first ones."""
    more = f" and {len(ranges) - _MAX_RANGES} more" if len(ranges) > _MAX_RANGES else ""
    listed = ", ".join(map(str, ranges[:_MAX_RANGES]))
    return f", {listed}{more}" if ranges else ""
