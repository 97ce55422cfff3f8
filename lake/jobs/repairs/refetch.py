"""Asking a source again for windows of one market, by the same way as an ingestion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from lake.jobs import plan
from lake.jobs.batch import Batch
from lake.jobs.pipeline import Pipeline
from lake.jobs.plan import Task
from lake.jobs.repairs.plan import Group, Target
from lake.jobs.report import Tally
from lake.model.intervals import subtract
from lake.model.time import TimeRange
from lake.settings import Settings
from lake.sources.base import Page, Source
from lake.store.ledger import Ledger
from lake.store.store import Origin, Store


@dataclass
class Answer:
    """What a source gave.

    Attributes
    ----------
    source
        Its name.
    settled
        Of which intervals it told everything.
    rows
        What it gave for suspect rows, in its own columns.
    """

    source: str
    settled: list[TimeRange] = field(default_factory=list)
    rows: list[pl.DataFrame] = field(default_factory=list)

    def answers(self, target: Target) -> bool:
        """Whether it told everything of a target's interval."""
        return not subtract([target.span], self.settled)

    def given(self, target: Target, time_column: str) -> pl.DataFrame:
        """The rows that it gave for a target's interval."""
        inside = pl.col(time_column).is_between(target.span.start, target.span.end, closed="left")
        found = [frame.filter(inside) for frame in self.rows]
        return pl.concat(found, how="diagonal") if found else pl.DataFrame()


async def refetch(
    store: Store,
    settings: Settings,
    source: Source,
    name: str,
    group: Group,
    windows: Sequence[TimeRange],
    job_id: str,
    tally: Tally,
) -> Answer:
    """Fetch windows again and store what they give, with its coverage.

    Parameters
    ----------
    name
        What is recorded as the source.

    Raises
    ------
    SourceError, UsageError
        It failed, or cannot give this; what it gave before is stored.
    """
    answer = Answer(name)
    suspects = [target.span for target in group.targets if target.kind == "suspect"]
    wanted = _within(group.dataset.time_column, suspects)

    def on_page(_: Task, page: Page | None) -> None:
        if page is None:
            return
        if page.settled:
            answer.settled.append(page.settled)
        if suspects and page.frame.height:
            answer.rows.append(page.frame.filter(wanted))

    def write(batch: Batch) -> None:
        batch.write(store, Ledger(store), Origin(job_id, name), tally)

    await source.market(group.market.symbol)
    await source.require(group.dataset, group.market)
    tasks = plan.tasks(group.dataset, group.market, windows, source.window(group.dataset))
    pipeline = Pipeline(
        source,
        write,
        on_page,
        concurrency=settings.http.concurrency,
        batch_rows=settings.ingest.batch_rows,
    )
    await pipeline.run(tasks)
    return answer


def _within(column: str, spans: Sequence[TimeRange]) -> pl.Expr:
    time = pl.col(column)
    terms = [time.is_between(span.start, span.end, closed="left") for span in spans]
    return pl.any_horizontal(terms) if terms else pl.lit(value=False)
