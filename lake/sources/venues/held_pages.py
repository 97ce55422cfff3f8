"""Hold pages back until those after them continue them: an answer may be of another market."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from lake.model.time import TimeRange
from lake.sources.base import Page
from lake.sources.ccxt_client import Client
from lake.sources.faults import ANSWERS_COMPARED, build_contradiction_error


class ContradictionError(Exception):
    """Two answers cannot both be of the market; it never leaves `hold_back`."""


async def hold_back(
    walk: Callable[[TimeRange], AsyncGenerator[Page]],
    window: TimeRange,
    *,
    pages_held: int,
    client: Client,
    what: str,
) -> AsyncGenerator[Page]:
    """Yield the pages of a window once enough pages follow them, or the window ends.

    After a contradiction the pages that wait are dropped, and the rest of the window is fetched
    again.

    Parameters
    ----------
    walk
        Yields the pages of a range in order of time; raises `ContradictionError` where an answer
        contradicts the one before it.
    pages_held
        How many pages wait.
    what
        What is fetched, for messages.

    Raises
    ------
    SourceUnavailableError
        Contradictions without progress.
    """
    start, contradictions = window.start, 0
    while start < window.end and start < client.venue_now():
        held: deque[Page] = deque()
        try:
            async with aclosing(walk(TimeRange(start, window.end))) as pages:
                async for page in pages:
                    held.append(page)
                    if len(held) > pages_held:
                        first = held.popleft()
                        contradictions = 0
                        start = first.end if first.settled or first.not_given else start
                        yield first
        except ContradictionError as error:
            contradictions += 1
            client.contradictions += 1
            if contradictions == ANSWERS_COMPARED:
                raise build_contradiction_error(client.id, f"{what}: {error}") from error
            continue
        for page in held:
            yield page
        return
