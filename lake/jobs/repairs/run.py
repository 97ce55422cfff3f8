"""One run of repairs, group by group, step by step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lake.jobs.job import WriteCounts
from lake.jobs.repairs import steps
from lake.jobs.repairs.connections import Connections
from lake.jobs.repairs.fill import Filling
from lake.jobs.repairs.plan import Group
from lake.jobs.repairs.state import GroupState, Outcome
from lake.jobs.repairs.steps import Bench, Options
from lake.settings import Settings
from lake.store.ledger import Job
from lake.store.store import Store

_ASKING: tuple[Callable[[Bench, GroupState], Awaitable[Outcome]], ...] = (
    steps.ask,
    steps.ask_fallback,
)
_FILLING: tuple[Callable[[Bench, GroupState], Outcome], ...] = (
    steps.drop_superseded,
    steps.derive,
    steps.interpolate,
    steps.mark,
)


class Run:
    """Repairs groups.

    Attributes
    ----------
    counts
        Counts of the written rows, by table.
    """

    def __init__(
        self, store: Store, settings: Settings, connections: Connections, options: Options
    ) -> None:
        self.counts = WriteCounts()
        self._store = store
        self._settings = settings
        self._connections = connections
        self._options = options

    async def repair(self, job: Job, group: Group) -> GroupState:
        """Repair a group as far as possible, and return its last state.

        If that is `unavailable`, a source is down: what is open is left for a later run.
        """
        filling = Filling(self._store, group)
        bench = Bench(
            self._store,
            self._settings,
            self._connections,
            filling,
            self.counts,
            job.id,
            self._options,
        )
        state = GroupState.begin(group, filling.find_absent(), offline=self._options.offline)
        for ask in _ASKING:
            state = _fold(state, await ask(bench, state), filling)
        if state.unavailable is None:
            for step in _FILLING:
                state = _fold(state, step(bench, state), filling)
        return state


def _fold(state: GroupState, outcome: Outcome, filling: Filling) -> GroupState:
    absent = filling.find_absent() if outcome.recorded else state.absent
    return state.fold(outcome, absent)
