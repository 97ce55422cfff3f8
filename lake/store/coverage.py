"""Coverage: intervals for which sources have answered, and how they are joined. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from lake.model.intervals import RangeSet, intersect, subtract, union
from lake.model.market import Market
from lake.model.time import DAY, TimeRange

Part = tuple[str, str, str]
"""A table, and exchange and symbol of a market."""
FETCHED, EMPTY = "fetched", "empty"
NOT_GIVEN = "not_given"
"""Status of an interval that a source no longer serves: it answered, but nothing is settled."""
CLAIMED = "write"
"""Source of the coverage of a user's own rows: all that there are in that time, as they say."""
_COLUMNS = ("dataset", "exchange", "symbol", "source", "timestamp", "end", "rows", "status")
_LONG = DAY
"""An `empty` interval this long is shown by itself, next to a `fetched` one."""


def part_of(table: str, market: Market) -> Part:
    """Return the key of a table and market."""
    return table, market.exchange, market.symbol


@dataclass(frozen=True, slots=True)
class CoveredRange:
    """An interval for which a source has answered, and the number of rows in the answer.

    Attributes
    ----------
    status
        How it answered, as in the table `coverage`; None: `fetched` with rows, else `empty`.
    times
        The sorted times of the rows, where they are known.
    """

    range: TimeRange
    rows: int
    status: str | None = None
    times: pl.Series | None = field(default=None, compare=False, repr=False)

    @property
    def kind(self) -> str:
        """The status as it is recorded."""
        return self.status or (FETCHED if self.rows else EMPTY)

    def count_at_most(self, part: TimeRange) -> int:
        """Return how many of the rows may be in a part; where times are known, how many are."""
        if self.times is None:
            return self.rows
        first, last = (
            self.times.search_sorted(time, side="left") for time in (part.start, part.end)
        )
        return last - first

    def cut(self, others: RangeSet) -> list[CoveredRange]:
        """Return what is left of it outside of others; it counts rows only where it is whole."""
        left = subtract([self.range], others)
        if left == (self.range,):
            return [self]
        return [CoveredRange(part, 0, self.kind) for part in left]


class Coverage:
    """The recorded intervals of a lake, by table and market; read once, and looked up often."""

    def __init__(self, intervals: Mapping[Part, Mapping[str, Sequence[CoveredRange]]]) -> None:
        self._intervals = intervals
        self._covered: dict[Part, RangeSet] = {}

    @classmethod
    def of(cls, rows: pl.DataFrame) -> Coverage:
        """Build it from rows of the table `coverage`."""
        intervals: dict[Part, dict[str, list[CoveredRange]]] = {}
        for *part, source, start, end, count, status in rows.select(_COLUMNS).iter_rows():
            table, exchange, symbol = part
            sources = intervals.setdefault((table, exchange, symbol), {})
            interval = CoveredRange(TimeRange(start, end), count, status)
            sources.setdefault(source, []).append(interval)
        return cls(intervals)

    def __iter__(self) -> Iterator[Part]:
        """Iterate over the tables and markets of which some interval is recorded."""
        return iter(self._intervals)

    def of_source(self, part: Part, source: str) -> Sequence[CoveredRange]:
        """Return the intervals that a source has answered."""
        return self._intervals.get(part, {}).get(source, ())

    def covered(self, part: Part) -> RangeSet:
        """Return what any source covers, neighbours joined."""
        if part not in self._covered:
            sources = self._intervals.get(part, {}).values()
            ranges = (i.range for own in sources for i in own if i.kind != NOT_GIVEN)
            self._covered[part] = union(ranges)
        return self._covered[part]

    def not_given(self, part: Part) -> RangeSet:
        """Return what some source no longer serves, and no other has given."""
        return subtract(
            union(r for own in self.not_given_by(part).values() for r in own), self.covered(part)
        )

    def not_given_by(self, part: Part) -> dict[str, RangeSet]:
        """Return what each source no longer serves."""
        lost = {
            source: union(item.range for item in own if item.kind == NOT_GIVEN)
            for source, own in self._intervals.get(part, {}).items()
        }
        return {source: ranges for source, ranges in lost.items() if ranges}


def describe_interval(part: Part, item: CoveredRange) -> dict[str, Any]:
    """Describe an interval as columns of the table `coverage`."""
    table, exchange, symbol = part
    return {
        "exchange": exchange,
        "symbol": symbol,
        "dataset": table,
        "timestamp": item.range.start,
        "end": item.range.end,
        "status": item.kind,
        "rows": item.rows,
    }


def is_covered() -> pl.Expr:
    """Whether a row of `coverage` covers its interval: what was not given does not."""
    return pl.col("status") != NOT_GIVEN


def add_answers(
    stored: Iterable[CoveredRange], answers: Iterable[CoveredRange], elsewhere: RangeSet = ()
) -> list[CoveredRange]:
    """Add answers to the stored intervals of one table, market and source.

    Neighbours of one status are joined, and so are a `fetched` interval and an `empty` one that is
    short, or overlaps it: how windows are cut must not show. What was not given before and is now
    is covered; what is not given now stays covered if it was. Never is time covered that neither a
    stored interval nor an answer covers, nor are more rows counted than the table holds.

    Parameters
    ----------
    elsewhere
        What other sources cover: it is covered, although this source does not give it.

    Returns
    -------
    list
        All intervals, sorted; those of one status do not overlap.
    """
    items = sorted(stored, key=_start)
    for answer in sorted(answers, key=_start):
        if answer.kind == NOT_GIVEN:
            covered = [item.range for item in items if item.kind != NOT_GIVEN]
            parts = answer.cut((*covered, *elsewhere))
        else:
            parts = [answer]
        for part in parts:
            items = _add(items, part)
    return items


def _start(item: CoveredRange) -> TimeRange:
    return item.range


def _add(items: Sequence[CoveredRange], answer: CoveredRange) -> list[CoveredRange]:
    joined = [item for item in items if _is_joined(item, answer)]
    others = [item for item in items if item not in joined]
    # The newest answer wins over one of another status.
    rest = [part for item in others for part in item.cut((answer.range,))]
    return sorted([*rest, _join(joined, answer)], key=_start)


def _is_joined(item: CoveredRange, answer: CoveredRange) -> bool:
    if item.range.start > answer.range.end or answer.range.start > item.range.end:
        return False
    if item.kind == answer.kind:
        return True
    if {item.kind, answer.kind} != {FETCHED, EMPTY}:
        return False
    empty = item if item.kind == EMPTY else answer
    overlaps = bool(intersect([item.range], [answer.range]))
    return overlaps or empty.range.duration < _LONG


def _join(items: Iterable[CoveredRange], answer: CoveredRange) -> CoveredRange:
    """Join an answer to intervals that it touches; of rows in both only those of the answer count.

    If a source answers as before, the sum is exact. If it gave fewer rows for part of an interval
    than it did before, the sum is too large by none: these rows are stored.
    """
    start, end = answer.range.start, answer.range.end
    rows, kind = answer.rows, answer.kind
    for item in items:
        both = intersect([item.range], [answer.range])
        if both == (item.range,):
            continue  # asked again as a whole
        repeated = min(item.rows, answer.count_at_most(both[0])) if both else 0
        rows += item.rows - repeated
        kind = FETCHED if FETCHED in (kind, item.kind) else kind
        start, end = min(start, item.range.start), max(end, item.range.end)
    return CoveredRange(TimeRange(start, end), rows, kind)


def find_changed(
    before: Sequence[CoveredRange], after: Sequence[CoveredRange]
) -> tuple[list[CoveredRange], list[CoveredRange]]:
    """Return the intervals to be stored, and those whose start no other one has any more."""
    known, starts = set(map(_plain, before)), {item.range.start for item in after}
    changed = [item for item in map(_plain, after) if item not in known]
    return changed, [item for item in before if item.range.start not in starts]


def _plain(item: CoveredRange) -> CoveredRange:
    return replace(item, status=item.kind, times=None)
