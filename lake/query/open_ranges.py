"""What is open in each table and market, in words: what sources refused or no longer serve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

from lake.model.intervals import RangeSet, intersect, subtract
from lake.model.time import TimeRange, iso
from lake.query.unchecked import Place
from lake.query.unfinished import Part, find_unfinished
from lake.store.refusals import Refusal, Refusals
from lake.store.store import Store

_MAX_SHOWN = 3


def describe_open(
    store: Store, covered: Mapping[Place, RangeSet], not_given: Mapping[Place, RangeSet]
) -> dict[Place, str]:
    """Describe by table and market what could not be fetched, with the reason.

    Parameters
    ----------
    covered
        Covered ranges: what was fetched since a refusal is not open any more.
    not_given
        Ranges that a source no longer serves, and that no other one gave.
    """
    texts: dict[Place, list[str]] = defaultdict(list)
    for place, ranges in not_given.items():
        texts[place] += [f"not_given {_format(item)}" for item in ranges]
    refusals: dict[Place, list[Refusal]] = defaultdict(list)
    for refusal in Refusals(store).read():
        place = (refusal.table, (refusal.market.exchange, refusal.market.symbol))
        refusals[place].append(refusal.limit(covered.get(place, ())))
    for place, listed in refusals.items():
        texts[place] += describe_refusals(listed, covered.get(place, ()), store.now())
    starts = _find_starts((*covered.items(), *not_given.items()), refusals)
    for (table, exchange, symbol), item in find_unfinished(store, starts).items():
        texts[table, (exchange, symbol)].append(item.describe())
    return {place: _join(listed) for place, listed in texts.items() if listed}


def _find_starts(
    answered: Iterable[tuple[Place, RangeSet]], refusals: Mapping[Place, Iterable[Refusal]]
) -> dict[Part, datetime]:
    """Find by table and market from when on something was answered or refused."""
    begun = [(place, ranges[0].start) for place, ranges in answered if ranges]
    begun += [(place, refusal.start) for place, listed in refusals.items() for refusal in listed]
    starts: dict[Part, datetime] = {}
    for (table, market), start in begun:
        part = (table, *market)
        starts[part] = min(start, starts.get(part, start))
    return starts


def describe_refusals(refusals: Iterable[Refusal], covered: RangeSet, now: datetime) -> list[str]:
    """Describe what is open of the refusals of a table and market: each time once for a reason."""
    by_reason: dict[str, list[Refusal]] = defaultdict(list)
    for refusal in refusals:
        by_reason[refusal.reason].append(refusal)
    return [
        _describe_range(reason, item, listed, now)
        for reason, listed in by_reason.items()
        for item in subtract((span for r in listed for span in _find_span(r, now)), covered)
    ]


def _describe_range(reason: str, item: TimeRange, refusals: list[Refusal], now: datetime) -> str:
    own = [r for r in refusals if intersect(_find_span(r, now), [item])]
    lasts = item.end >= now and any(refusal.end is None for refusal in own)
    until = "" if lasts else f" to {iso(item.end)}"
    again_at = max(refusal.again_at for refusal in own)
    return f"{reason} {iso(item.start)}{until}, asked again after {iso(again_at)}"


def _find_span(refusal: Refusal, now: datetime) -> RangeSet:
    """Return what was refused up to now; nothing if that lies ahead."""
    end = now if refusal.end is None else refusal.end
    return (TimeRange(refusal.start, end),) if refusal.start < end else ()


def _format(item: TimeRange) -> str:
    return f"{iso(item.start)} to {iso(item.end)}"


def _join(texts: list[str]) -> str:
    more = f"; {len(texts) - _MAX_SHOWN} more" if len(texts) > _MAX_SHOWN else ""
    return "; ".join(texts[:_MAX_SHOWN]) + more
