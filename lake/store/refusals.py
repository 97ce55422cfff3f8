"""Refusals: what a source refused to give, why, and when it is asked again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.intervals import RangeSet, intersect
from lake.model.market import Market, StoredMarket
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, TimeRange
from lake.store.reader import EVERYTHING
from lake.store.store import Origin, Store

_FIRST_PAUSE, _PAUSE = timedelta(days=1), timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An interval of a table and market that a source refused.

    Attributes
    ----------
    start, end
        The interval; no end: all later times, too.
    times
        Number of runs in which it was refused.
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
    again_at: datetime

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
                row["again_at"],
            )
            for row in rows.iter_rows(named=True)
        ]

    def record(self, refusals: Sequence[NewRefusal], origin: Origin) -> None:
        """Record refusals; each pause before the next request is longer than the first."""
        if not refusals:
            return
        now = self._store.now()
        before = self._count(refusals, origin.source)
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
                "times": before.get(_identify(item), 0) + 1,
                "job_id": origin.job_id,
                "refused_at": now,
                "again_at": now + (_PAUSE if _identify(item) in before else _FIRST_PAUSE),
            }
            for item in refusals
        ]
        types = dict.fromkeys(("timestamp", "end", "refused_at", "again_at"), TIMESTAMP)
        self._store.write(self._dataset, pl.DataFrame(rows, schema_overrides=types), origin)

    def _count(
        self, refusals: Iterable[NewRefusal], source: str
    ) -> dict[tuple[str, str, str, datetime], int]:
        """Return how often each of these was refused before."""
        items = list(refusals)
        selection = Selection(
            tuple(dict.fromkeys(item.market.exchange for item in items)),
            tuple(dict.fromkeys(item.market.symbol for item in items)),
            min(item.start for item in items),
            max(item.start for item in items) + MICROSECOND,
        )
        return {
            (old.table, old.market.exchange, old.market.symbol, old.start): old.times
            for old in self.read(selection)
            if old.source == source
        }


def _identify(item: NewRefusal) -> tuple[str, str, str, datetime]:
    return item.table, item.market.exchange, item.market.symbol, item.start
