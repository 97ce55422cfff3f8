"""A plan of repairs for the user to read: no source is asked, nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lake.jobs.repairs.fill import FilledRows, Filling
from lake.jobs.repairs.plan import Group, Target
from lake.jobs.repairs.report import Method, PlannedRepair
from lake.jobs.repairs.spans import Moments
from lake.jobs.repairs.state import is_due
from lake.model.time import TimeRange
from lake.sources.registry import is_served, source_name
from lake.store.store import Store


def preview(
    store: Store, group: Group, *, offline: bool, interpolate: bool
) -> Iterator[PlannedRepair]:
    """Plan the windows to fetch again, and the rows that can be filled in as things are."""
    filling = Filling(store, group)
    if not offline:
        yield from _plan_refetch(group, filling)
    lost = group.of_kind("missing")
    if filling.makes_bars:
        for filled in filling.derive(target.span for target in lost):
            yield from _plan_rows(group, filled, "derive")
    if interpolate:
        yield from _plan_rows(
            group, filling.interpolate(group.of_kind("no_trade"), lost), "interpolate"
        )


def _plan_refetch(group: Group, filling: Filling) -> Iterator[PlannedRepair]:
    exchange = group.market.exchange
    if not is_served(exchange):
        return
    absent = filling.find_absent()
    due = group.select([target for target in group.targets if is_due(group, absent, target)])
    for window in due.windows:
        yield _plan_repair(group, window, "refetch", source_name(exchange), due.in_window(window))


def _plan_rows(group: Group, filled: FilledRows | None, method: Method) -> Iterator[PlannedRepair]:
    if filled is None:
        return
    moments = Moments(filled.rows[group.dataset.time_column])
    for window in group.windows:
        count = len(moments.select([window]))
        if count:
            targets = group.in_window(window)
            yield _plan_repair(group, window, method, filled.source, targets, count)


def _plan_repair(
    group: Group,
    window: TimeRange,
    method: Method,
    source: str,
    targets: Iterable[Target],
    rows: int | None = None,
) -> PlannedRepair:
    targets = tuple(targets)
    ids = tuple(target.finding_id for target in targets if target.finding_id)
    why = "; ".join(dict.fromkeys(target.why for target in targets))
    return PlannedRepair(group.dataset.name, group.market, window, method, source, ids, why, rows)
