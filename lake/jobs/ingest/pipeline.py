"""Fetch many windows of one exchange at once, collect their pages in batches, write these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from lake.errors import SourceError, SourceRefusedError, UnknownNameError
from lake.jobs.ingest.agenda import Agenda
from lake.jobs.ingest.batch import Batch
from lake.jobs.ingest.plan import Task
from lake.sources.base import FetchRequest, Page, RangeSource

_PAGES_WAITING = 64
_FLUSH_SECONDS = 30.0

_Item = tuple[Task, tuple[FetchRequest, Page] | None]


class Pipeline:
    """Fetches tasks and writes the rows that they give.

    While one batch is written, the next is collected: memory is bounded by two batches.

    Parameters
    ----------
    write
        Commits a batch; runs in a thread.
    on_page
        Called with each page, its task and its request.
    on_complete
        Called with each task of which all pages came.
    """

    def __init__(
        self,
        source: RangeSource,
        write: Callable[[Batch], None],
        on_page: Callable[[Task, FetchRequest, Page], None],
        on_complete: Callable[[Task], None] | None = None,
        *,
        concurrency: int,
        batch_rows: int,
    ) -> None:
        self._source = source
        self._write = write
        self._on_page = on_page
        self._on_complete = on_complete
        self._concurrency = concurrency
        self._batch_rows = batch_rows

    async def run(self, agenda: Agenda) -> None:
        """Fetch and write all tasks; if it is stopped, write what was fetched until then.

        What the source does not give is noted in the agenda.
        """
        queue: asyncio.Queue[_Item | None] = asyncio.Queue(_PAGES_WAITING)
        collector = asyncio.create_task(self._collect(queue))
        fetchers = [
            asyncio.create_task(self._fetch(agenda, queue))
            for _ in range(min(self._concurrency, len(agenda)))
        ]
        try:
            await _wait_for(fetchers, collector)
        finally:
            for fetcher in fetchers:
                fetcher.cancel()
            await asyncio.gather(*fetchers, return_exceptions=True)
            if not collector.done():
                await queue.put(None)
            await collector

    async def _fetch(self, agenda: Agenda, queue: asyncio.Queue[_Item | None]) -> None:
        while (task := agenda.take()) is not None:
            try:
                async with aclosing(self._source.fetch(task.requests, task.window)) as pages:
                    async for answered in pages:
                        await queue.put((task, answered))
            except SourceError as error:
                agenda.fail(task, error)
            except UnknownNameError as error:
                refusal = SourceRefusedError(error.message, error.hint, reason="not_listed")
                agenda.fail(task, refusal)
            else:
                await queue.put((task, None))
                agenda.complete(task)

    async def _collect(self, queue: asyncio.Queue[_Item | None]) -> None:
        clock = asyncio.get_running_loop().time
        batch, writing, flushed = Batch(), None, clock()
        while (item := await queue.get()) is not None:
            self._take(item, batch)
            if batch.rows >= self._batch_rows or clock() - flushed > _FLUSH_SECONDS:
                if writing is not None:
                    await writing
                writing = asyncio.create_task(asyncio.to_thread(self._write, batch))
                batch, flushed = Batch(), clock()
        if writing is not None:
            await writing
        await asyncio.to_thread(self._write, batch)

    def _take(self, item: _Item, batch: Batch) -> None:
        task, answered = item
        if answered is not None:
            self._on_page(task, *answered)
            batch.add(*answered)
        elif self._on_complete is not None:
            self._on_complete(task)


async def _wait_for(fetchers: list[asyncio.Task[None]], collector: asyncio.Task[None]) -> None:
    running = set(fetchers)
    while running:
        done, _ = await asyncio.wait({*running, collector}, return_when=asyncio.FIRST_COMPLETED)
        for finished in done:
            finished.result()
        running -= done
