"""What a repair would do, told without asking a source or writing anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl

from lake.jobs.repairs.fill import Filled, Filling
from lake.jobs.repairs.plan import Group, Target
from lake.jobs.repairs.report import Method, Planned
from lake.jobs.repairs.run import is_due, windows_of
from lake.model.time import TimeRange
from lake.store.store import Store


def foreseen(store: Store, group: Group) -> Iterator[Planned]:
    """The windows that would be asked for, and the rows that could be made as things are."""
    filling = Filling(store, group)
    asked = [target for target in group.targets if is_due(filling, target)]
    for window in windows_of(group, asked):
        inside = [t for t in asked if window.start <= t.span.start < window.end]
        yield _planned(group, window, "refetch", f"ccxt:{group.market.exchange}", inside)
    if filling.makes_bars:
        for made in filling.derived(t.span for t in group.targets if t.kind == "missing"):
            yield from _by_window(group, made, "derive")
        flat = filling.flat(t.span for t in group.targets if t.kind == "no_trade")
        if flat is not None:
            yield from _by_window(group, flat, "interpolate")


def _by_window(group: Group, made: Filled, method: Method) -> Iterator[Planned]:
    time = pl.col(group.dataset.time_column)
    for window in group.windows:
        rows = made.rows.filter(time.is_between(window.start, window.end, closed="left")).height
        if rows:
            yield _planned(group, window, method, made.source, group.in_window(window), rows)


def _planned(
    group: Group,
    window: TimeRange,
    method: Method,
    source: str,
    targets: Iterable[Target],
    rows: int | None = None,
) -> Planned:
    targets = tuple(targets)
    ids = tuple(target.finding_id for target in targets if target.finding_id)
    why = "; ".join(dict.fromkeys(target.why for target in targets))
    return Planned(group.dataset.name, group.market, window, method, source, ids, why, rows)
