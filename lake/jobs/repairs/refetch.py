"""Asking a source again for windows of one market, by the same way as an ingestion."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property

import polars as pl

from lake.jobs.ingest import plan
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
    """What a source gave.

    Attributes
    ----------
    source
        Its name.
    """

    def __init__(self, source: str, time_column: str) -> None:
        self.source = source
        self._time_column = time_column
        self._settled: list[TimeRange] = []
        self._frames: list[pl.DataFrame] = []

    def add(self, page: Page, suspects: Windows) -> None:
        """Take in a page: of what it tells everything, and what it says of suspect rows."""
        if page.settled:
            self._settled.append(page.settled)
        held = suspects.locate(page.frame[self._time_column]).is_not_null()
        if held.any():
            self._frames.append(page.frame.filter(held))

    def settles(self, target: Target) -> bool:
        """Whether it told everything of a target's interval."""
        settled = self._known
        at = bisect_right(settled, target.span.start, key=lambda item: item.start) - 1
        return at >= 0 and target.span.end <= settled[at].end

    def select_rows(self, target: Target) -> pl.DataFrame:
        """The rows that it gave for a target's interval, in its own columns."""
        rows, moments = self._given
        return moments.select_rows(rows, target.span)

    @cached_property
    def _known(self) -> RangeSet:
        """Made when all pages are in."""
        return union(self._settled)

    @cached_property
    def _given(self) -> tuple[pl.DataFrame, Moments]:
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

    Parameters
    ----------
    writer
        Stores it, under the name of the source.
    settings
        How to ask, and how many rows to commit at once.

    Raises
    ------
    SourceError, UsageError
        It failed, or cannot give this; what it gave before is stored.
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
        concurrency=settings.http.concurrency,
        batch_rows=settings.ingest.batch_rows,
    )
    await pipeline.run(tasks)
    return answer
