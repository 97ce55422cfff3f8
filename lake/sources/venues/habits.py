"""What the answers of a venue have shown of its habits; its markets share it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lake.model.time import TimeRange
from lake.sources.frames import range_or_none

# If a venue returns at most this many rows, its page size is unknown.
MIN_PAGE_ROWS = 10

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where a venue begins to refuse what is too long ago.

    Attributes
    ----------
    refused
        A time from which it refuses to answer, as all times before it.
    accepted
        A later time from which it answers.
    words
        Why it refuses, in its own words.
    """

    refused: datetime
    accepted: datetime
    words: str

    def cut(self, window: TimeRange, step: timedelta) -> TimeRange | None:
        """Return the part of a window that the venue does not refuse; None if it refuses all.

        The boundary moves with time: a step after it is left out, too.
        """
        return range_or_none(max(window.start, self.accepted + step), window.end)


@dataclass
class Habits:
    """Page sizes and boundaries by method.

    Attributes
    ----------
    page_sizes
        Rows to ask for, where the venue gives fewer than ccxt believes.
    boundaries
        By method and timeframe.
    lock
        Held while a boundary is searched for.
    """

    page_sizes: dict[str, int] = field(default_factory=dict)
    boundaries: dict[Key, Boundary] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _largest: dict[str, int] = field(default_factory=dict)

    def record_rows(self, method: str, rows: int) -> None:
        """Record the count of the rows of an answer."""
        self._largest[method] = max(rows, self.largest(method))

    def largest(self, method: str) -> int:
        """Return the most rows that an answer had so far, but at least `MIN_PAGE_ROWS`."""
        return self._largest.get(method, MIN_PAGE_ROWS)
