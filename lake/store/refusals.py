"""Refusals: what a source refused to give, why, and when it is asked again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.intervals import RangeSet, intersect
from lake.model.market import Market, StoredMarket
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, TimeRange
from lake.store.reader import EVERYTHING
from lake.store.store import Origin, Store

_PAUSES = (timedelta(hours=1), timedelta(days=1), timedelta(days=7))
"""Before a refusal is asked again, by the number of runs in which it came; the last one repeats."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An interval of a table and market that a source refused.

    Attributes
    ----------
    start, end
        The interval; no end: all later times, too.
    times
        Number of runs in which it was refused.
    refused_at
        When it was refused last.
    again_at
        When it is asked again.
    """

    table: str
    market: Market
    source: str
    start: datetime
    end: datetime | None
    reason: str
    message: str
    times: int
    refused_at: datetime
    again_at: datetime

    def limit(self, covered: RangeSet) -> Refusal:
        """Return it with an end where it has none and later times were fetched since."""
        if self.end is not None or not covered or covered[-1].end <= self.refused_at:
            return self
        return replace(self, end=max(self.refused_at, self.start + MICROSECOND))

    def within(self, ranges: RangeSet) -> RangeSet:
        """Return the parts of ranges that are refused."""
        last = max((item.end for item in ranges), default=self.start)
        end = last if self.end is None else self.end
        return intersect(ranges, [TimeRange(self.start, end)]) if self.start < end else ()


@dataclass(frozen=True, slots=True)
class NewRefusal:
    """An interval that a source has just refused; no end: all later times, too."""

    table: str
    market: Market
    start: datetime
    end: datetime | None
    reason: str
    message: str


class Refusals:
    """Reads and records the table `refusals`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dataset = store.catalog.dataset("refusals")

    def read(self, selection: Selection = EVERYTHING) -> list[Refusal]:
        """Return the refusals of a selection, also those that were fetched since."""
        rows = self._store.read(self._dataset, selection)
        return [
            Refusal(
                row["dataset"],
                StoredMarket(row["exchange"], row["symbol"]),
                row["source"],
                row["timestamp"],
                row["end"],
                row["reason"],
                row["message"],
                row["times"],
                row["refused_at"],
                row["again_at"],
            )
            for row in rows.iter_rows(named=True)
        ]

    def record(self, refusals: Sequence[NewRefusal], origin: Origin) -> None:
        """Record refusals; each pause before the next request is longer, up to a week.

        One for the same reason as before, in an overlapping range, is the same refusal: it grows.
        """
        if not refusals:
            return
        now = self._store.now()
        grown = self._grow(refusals, origin.source)
        rows = [
            {
                "exchange": item.market.exchange,
                "symbol": item.market.symbol,
                "dataset": item.table,
                "source": origin.source,
                "timestamp": item.start,
                "end": item.end,
                "reason": item.reason,
                "message": item.message,
                "times": times + 1,
                "job_id": origin.job_id,
                "refused_at": now,
                "again_at": now + _PAUSES[min(times, len(_PAUSES) - 1)],
            }
            for item, times in grown
        ]
        types = dict.fromkeys(("timestamp", "end", "refused_at", "again_at"), TIMESTAMP)
        self._store.write(self._dataset, pl.DataFrame(rows, schema_overrides=types), origin)

    def _grow(
        self, refusals: Iterable[NewRefusal], source: str
    ) -> Iterator[tuple[NewRefusal, int]]:
        """Join each to the earlier refusals that it repeats; yield it with their count of runs."""
        items = list(refusals)
        selection = Selection(
            tuple(dict.fromkeys(item.market.exchange for item in items)),
            tuple(dict.fromkeys(item.market.symbol for item in items)),
        )
        before = [old for old in self.read(selection) if old.source == source]
        grown: dict[tuple[str, str, str, datetime], tuple[NewRefusal, int]] = {}
        for item in items:
            same = [old for old in before if _repeats(item, old)]
            joined = _join(item, same)
            place = (item.table, item.market.exchange, item.market.symbol, joined.start)
            if place in grown:  # several windows repeat one earlier refusal
                joined = _join(joined, [grown[place][0]])
            grown[place] = joined, max((old.times for old in same), default=0)
        yield from grown.values()


def _repeats(item: NewRefusal, old: Refusal) -> bool:
    """Whether a refusal is of the same table, market and reason as an earlier one, and overlaps."""
    return (
        (item.table, item.market, item.reason) == (old.table, old.market, old.reason)
        and (old.end is None or item.start < old.end)
        and (item.end is None or old.start < item.end)
    )


def _join(item: NewRefusal, others: Iterable[NewRefusal | Refusal]) -> NewRefusal:
    """Return a refusal whose interval reaches over those of others, too."""
    start, end = item.start, item.end
    for other in others:
        start = min(start, other.start)
        end = None if end is None or other.end is None else max(end, other.end)
    return replace(item, start=start, end=end)
