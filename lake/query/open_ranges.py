"""What is open in each table and market, in words: what sources refused or no longer serve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from lake.model.intervals import RangeSet, subtract
from lake.model.time import TimeRange, iso
from lake.query.unchecked import find_unchecked
from lake.query.unfinished import find_unfinished
from lake.store.refusals import Refusal, Refusals
from lake.store.store import Store

Place = tuple[str, tuple[str, str]]
"""A table, and exchange and symbol of a market."""
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
    for refusal in Refusals(store).read():
        place = (refusal.table, (refusal.market.exchange, refusal.market.symbol))
        text = _describe_refusal(refusal, covered.get(place, ()), store.now())
        if text:
            texts[place].append(text)
    known = {(table, *market) for table, market in (*covered, *texts)}
    for (table, exchange, symbol), item in find_unfinished(store, known).items():
        texts[table, (exchange, symbol)].append(item.describe())
    return {place: _join(listed) for place, listed in texts.items() if listed}


def find_unchecked_since(store: Store) -> dict[Place, datetime]:
    """Return by table and market since when rows or answers are not checked."""
    since: dict[Place, datetime] = {}
    for item in find_unchecked(store):
        place = (item.table, (item.market.exchange, item.market.symbol))
        since[place] = min(since.get(place, item.since), item.since)
    return since


def _describe_refusal(refusal: Refusal, covered: RangeSet, now: datetime) -> str:
    """Describe what is still open of a refusal; empty if nothing is."""
    end = refusal.end or max(now, refusal.start)
    if refusal.start >= end or not subtract([TimeRange(refusal.start, end)], covered):
        return ""
    until = "" if refusal.end is None else f" to {iso(refusal.end)}"
    when = f"asked again after {iso(refusal.again_at)}"
    return f"{refusal.reason} {iso(refusal.start)}{until}, {when}"


def _format(item: TimeRange) -> str:
    return f"{iso(item.start)} to {iso(item.end)}"


def _join(texts: list[str]) -> str:
    more = f"; {len(texts) - _MAX_SHOWN} more" if len(texts) > _MAX_SHOWN else ""
    return "; ".join(texts[:_MAX_SHOWN]) + more
