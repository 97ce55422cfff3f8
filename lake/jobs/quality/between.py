"""Widen what was touched by the days between it and what is checked: they became a hole.

Days beyond the first and last row of a market are not missing. New rows on their far side make them
so, though nothing was written there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain

from lake.model.intervals import RangeSet, union
from lake.model.selection import Selection
from lake.model.time import FIRST_TIME, MICROSECOND, TimeRange
from lake.store.chunks import to_day_number, to_midnight
from lake.store.store import Store

Place = tuple[str, str, str]
"""A table and a market: its exchange and symbol."""


def join_to_checked(
    store: Store, touched: Mapping[Place, Iterable[TimeRange]]
) -> dict[Place, RangeSet]:
    """Widen the ranges of each place to the next day with a score on both sides.

    Such a day is included, because its rows may end before its end. Ranges whose own first and last
    days have scores stay: what is between them and other days is checked.
    """
    ranges = {place: union(items) for place, items in touched.items()}
    days = {place: set(chain(*map(_find_days, items))) for place, items in ranges.items()}
    if not days:
        return {}
    bounds = set().union(*days.values())
    near = _read_days(store, ranges, to_midnight(min(bounds)), to_midnight(max(bounds) + 1))
    open_places = [place for place, ends in days.items() if not ends <= near[place]]
    checked = _read_days(store, open_places) if open_places else {}
    return {
        place: widen_to_next(items, checked[place]) if place in open_places else items
        for place, items in ranges.items()
    }


def widen_to_next(ranges: Iterable[TimeRange], checked: Collection[int]) -> RangeSet:
    """Widen ranges to the next day on both sides that is checked, or in which another one is. Pure.

    Parameters
    ----------
    checked
        Numbers of days.
    """
    items = union(ranges)
    possible = [item for item in items if item.end > FIRST_TIME]
    days = sorted({*checked, *chain(*map(_find_days, possible))})
    others = [item for item in items if item.end <= FIRST_TIME]
    return union([*others, *(_widen(item, days, checked) for item in possible)])


def _widen(item: TimeRange, days: Sequence[int], checked: Collection[int]) -> TimeRange:
    (first, last), start, end = _find_days(item), item.start, item.end
    before, after = bisect_left(days, first) - 1, bisect_right(days, last)
    if first not in checked and before >= 0:
        start = to_midnight(days[before])
    if last not in checked and after < len(days):
        end = to_midnight(days[after] + 1)
    return TimeRange(start, end)


def _find_days(item: TimeRange) -> tuple[int, int]:
    """Return the numbers of the first and last day of a range."""
    return to_day_number(item.start), to_day_number(item.end - MICROSECOND)


def _read_days(
    store: Store,
    places: Iterable[Place],
    start: datetime | None = None,
    end: datetime | None = None,
) -> dict[Place, set[int]]:
    """Read which days of some places have scores."""
    exchanges, symbols = (tuple({place[number] for place in places}) for number in (1, 2))
    rows = store.read(store.catalog.dataset("scores"), Selection(exchanges, symbols, start, end))
    days: dict[Place, set[int]] = defaultdict(set)
    for *place, time in rows.select("dataset", "exchange", "symbol", "timestamp").iter_rows():
        days[place[0], place[1], place[2]].add(to_day_number(time))
    return days
