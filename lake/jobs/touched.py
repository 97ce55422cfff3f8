"""What a job touched, passed on to the check: ranges of tables and markets. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from lake.model.intervals import union
from lake.model.market import Market
from lake.model.time import TimeRange

_CLOSE = timedelta(days=3)


@dataclass(frozen=True, slots=True, order=True)
class Touched:
    """A range of a table and market in which a job wrote rows or recorded an answer."""

    table: str
    market: Market
    range: TimeRange


class TouchedRanges:
    """Collects what a job touches."""

    def __init__(self) -> None:
        self._ranges: dict[tuple[str, Market], list[TimeRange]] = defaultdict(list)

    def add(self, table: str, market: Market, ranges: Iterable[TimeRange]) -> None:
        """Add ranges of a market."""
        self._ranges[table, market].extend(ranges)

    def list(self) -> tuple[Touched, ...]:
        """Return what was touched: by table and market, ranges that do not overlap."""
        return tuple(
            Touched(table, market, item)
            for (table, market), ranges in sorted(self._ranges.items())
            for item in union(ranges)
        )


def join_close(ranges: Iterable[TimeRange]) -> Sequence[TimeRange]:
    """Join ranges that are less than three days apart: a check reads whole days around them."""
    joined: list[TimeRange] = []
    for item in union(ranges):
        if joined and item.start - joined[-1].end <= _CLOSE:
            joined[-1] = TimeRange(joined[-1].start, item.end)
        else:
            joined.append(item)
    return joined
