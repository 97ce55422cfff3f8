"""Fetch windows of one market again, as an ingestion does."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property

import polars as pl

from lake.errors import SourceError
from lake.jobs.ingest import plan
from lake.jobs.ingest.agenda import Agenda
from lake.jobs.ingest.batch import BatchWriter
from lake.jobs.ingest.pipeline import Pipeline
from lake.jobs.ingest.plan import Task
from lake.jobs.repairs.plan import Group, Target
from lake.jobs.repairs.spans import Moments, Windows
from lake.model.dataset import TIMESTAMP
from lake.model.intervals import RangeSet, union
from lake.model.time import TimeRange
from lake.settings import Settings
from lake.sources.base import FetchRequest, Page, RangeSource


class Answer:
    """The pages that a source gave for a group.

    Attributes
    ----------
    source
        Name of the source.
    errors
        Why it did not give some windows.
    """

    def __init__(self, source: str, time_column: str) -> None:
        self.source = source
        self.errors: tuple[SourceError, ...] = ()
        self._time_column = time_column
        self._settled: list[TimeRange] = []
        self._frames: list[pl.DataFrame] = []

    def add(self, page: Page, suspects: Windows) -> None:
        """Add a page; of its rows only those of suspect intervals are kept."""
        if page.settled:
            self._settled.append(page.settled)
        is_suspect = suspects.locate(page.frame[self._time_column]).is_not_null()
        if is_suspect.any():
            self._frames.append(page.frame.filter(is_suspect))

    @property
    def is_begun(self) -> bool:
        """Whether the source settled anything: then it is not down."""
        return bool(self._settled)

    def settles(self, target: Target) -> bool:
        """Whether the answer is complete for a target's interval."""
        settled = self._settled_ranges
        at = bisect_right(settled, target.span.start, key=lambda item: item.start) - 1
        return at >= 0 and target.span.end <= settled[at].end

    def select_rows(self, target: Target) -> pl.DataFrame:
        """Return the rows of a target's interval, in the columns that the source gave."""
        rows, moments = self._sorted_rows
        return moments.select_rows(rows, target.span)

    @cached_property
    def _settled_ranges(self) -> RangeSet:
        """Computed once, after the last page."""
        return union(self._settled)

    @cached_property
    def _sorted_rows(self) -> tuple[pl.DataFrame, Moments]:
        time = pl.DataFrame(schema={self._time_column: TIMESTAMP})
        rows = pl.concat([time, *self._frames], how="diagonal")
        rows = rows.sort(self._time_column, maintain_order=True)
        return rows, Moments(rows[self._time_column])


async def refetch(
    source: RangeSource,
    group: Group,
    windows: Sequence[TimeRange],
    writer: BatchWriter,
    settings: Settings,
) -> Answer:
    """Fetch windows again and store what they give, with its coverage.

    A window that the source does not give stops no other; the answer has the errors.

    Parameters
    ----------
    writer
        Stores the rows, under the name of the source.
    settings
        Rows per commit.

    Raises
    ------
    SourceError, UsageError
        The source does not serve this market or dataset at all.
    """
    answer = Answer(writer.origin.source, group.dataset.time_column)
    suspects = Windows(union(t.span for t in group.targets if t.kind == "suspect"))

    def on_page(_: Task, _request: FetchRequest, page: Page) -> None:
        answer.add(page, suspects)

    await source.market(group.market.symbol)
    await source.require(group.dataset, group.market)
    request = FetchRequest(group.dataset, group.market)
    tasks = plan.plan_tasks({request: windows}, source.window, source.batch_size)
    pipeline = Pipeline(
        source,
        writer.write,
        on_page,
        batch_rows=settings.ingest.batch_rows,
    )
    agenda = Agenda(tasks)
    await pipeline.run(agenda)
    answer.errors = tuple(dict.fromkeys(failed.error for failed in agenda.failures))
    return answer
