"""Fetch many windows of one exchange at once, collect their pages in batches, write these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
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

    As many tasks are fetched at once as the source wants at the time. While one batch is written,
    the next is collected: memory is bounded by two batches, and a page of each task.

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
        batch_rows: int,
    ) -> None:
        self._source = source
        self._write = write
        self._on_page = on_page
        self._on_complete = on_complete
        self._batch_rows = batch_rows
        self._fetchers: set[asyncio.Task[None]] = set()
        self._has_ended = asyncio.Event()

    async def run(self, agenda: Agenda) -> None:
        """Fetch and write all tasks; if it is stopped, write what was fetched until then.

        What the source does not give is noted in the agenda.
        """
        queue: asyncio.Queue[_Item | None] = asyncio.Queue(_PAGES_WAITING)
        collector = self._start(self._collect(queue))
        self._start_fetchers(agenda, queue)
        try:
            await self._wait_for_fetchers(collector)
        finally:
            for fetcher in self._fetchers:
                fetcher.cancel()
            await asyncio.gather(*self._fetchers, return_exceptions=True)
            if not collector.done():
                await queue.put(None)
            await collector

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._has_ended.set())
        return task

    def _start_fetchers(self, agenda: Agenda, queue: asyncio.Queue[_Item | None]) -> None:
        """Start as many more as the source wants, while there are tasks for them."""
        for _ in range(min(self._source.concurrency - len(self._fetchers), len(agenda))):
            self._fetchers.add(self._start(self._fetch(agenda, queue)))

    async def _wait_for_fetchers(self, collector: asyncio.Task[None]) -> None:
        while self._fetchers:
            await self._has_ended.wait()
            self._has_ended.clear()
            for task in [task for task in (*self._fetchers, collector) if task.done()]:
                task.result()
                self._fetchers.discard(task)

    async def _fetch(self, agenda: Agenda, queue: asyncio.Queue[_Item | None]) -> None:
        while (task := agenda.take()) is not None:
            try:
                async with aclosing(self._source.fetch(task.requests, task.window)) as pages:
                    async for answered in pages:
                        await queue.put((task, answered))
                        self._start_fetchers(agenda, queue)
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
