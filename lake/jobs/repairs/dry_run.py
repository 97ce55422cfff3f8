"""What a repair would do, told without asking a source or writing anything."""

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
    """The windows that would be asked for, and the rows that could be made as things are."""
    filling = Filling(store, group)
    absent = filling.find_absent()
    exchange = group.market.exchange
    can_ask = is_served(exchange) and not offline
    asked = [t for t in group.targets if is_due(group, absent, t)] if can_ask else []
    wanted = group.select(asked)
    for window in wanted.windows:
        inside = wanted.in_window(window)
        yield _plan_repair(group, window, "refetch", source_name(exchange), inside)
    lost = [target for target in group.targets if target.kind == "missing"]
    if filling.makes_bars:
        for made in filling.derive(target.span for target in lost):
            yield from _plan_windows(group, made, "derive")
    if interpolate:
        quiet = [target for target in group.targets if target.kind == "no_trade"]
        filled = filling.interpolate(quiet, lost)
        if filled is not None:
            yield from _plan_windows(group, filled, "interpolate")


def _plan_windows(group: Group, made: FilledRows, method: Method) -> Iterator[PlannedRepair]:
    moments = Moments(made.rows[group.dataset.time_column])
    for window in group.windows:
        rows = len(moments.select([window]))
        if rows:
            yield _plan_repair(group, window, method, made.source, group.in_window(window), rows)


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
