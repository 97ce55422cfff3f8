"""What a run has to ask each exchange for: what is missing, not refused before, and listed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lake.errors import SourceError, SourceRefusedError, UnknownNameError
from lake.jobs.ingest import plan
from lake.jobs.ingest.agenda import PATIENCE, Failed
from lake.jobs.ingest.plan import Task
from lake.jobs.ingest.report import Failure
from lake.jobs.ingest.request import IngestRequest
from lake.jobs.ingest.results import build_gone_error, to_known_failure
from lake.model.intervals import RangeSet, subtract, union
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, TimeRange
from lake.sources.base import FetchRequest, RangeSource, Source, require_ranges
from lake.store.coverage import Coverage
from lake.store.ledger import Ledger
from lake.store.refusals import Refusal, Refusals
from lake.store.store import Store

Connect = Callable[[str], Source]
_Part = tuple[str, Market]


@dataclass
class History:
    """What the lake knows of the markets of a run, read once.

    Attributes
    ----------
    covered
        Covered ranges by table and market.
    not_given
        Ranges that a source no longer serves, by source, table and market.
    refusals
        What sources refused, by table and market.
    """

    covered: Mapping[_Part, RangeSet]
    not_given: Mapping[tuple[str, _Part], RangeSet]
    refusals: Mapping[_Part, Sequence[Refusal]]

    @classmethod
    def read(cls, store: Store, requests: Iterable[IngestRequest]) -> History:
        """Read what is known of the markets of requests, in all tables."""
        markets = {request.market for request in requests}
        selection = Selection(
            tuple(sorted({market.exchange for market in markets})),
            tuple(sorted({market.symbol for market in markets})),
        )
        coverage = Coverage.of(Ledger(store).read_coverage(selection))
        covered: dict[_Part, RangeSet] = {}
        not_given: dict[tuple[str, _Part], RangeSet] = {}
        for key in coverage:
            part = key[0], Market(*key[1:])
            if ranges := coverage.covered(key):
                covered[part] = ranges
            for source, lost in coverage.not_given_by(key).items():
                not_given[source, part] = lost
        return cls(covered, not_given, _read_refusals(store, selection, covered))

    def find_begun(self, request: FetchRequest) -> RangeSet:
        """Return all ranges that were asked for before, whatever came of it."""
        part = request.dataset.name, request.market
        not_given = [r for (_, p), ranges in self.not_given.items() if p == part for r in ranges]
        refused = [
            TimeRange(item.start, item.end or item.start + MICROSECOND)
            for item in self.refusals.get(part, ())
        ]
        return union([*self.covered.get(part, ()), *not_given, *refused])

    def find_end(self, request: FetchRequest) -> datetime | None:
        """Return until when a market is covered in a table; None if it never was."""
        ranges = self.covered.get((request.dataset.name, request.market), ())
        return ranges[-1].end if ranges else None

    def is_known(self, market: Market) -> bool:
        """Whether a market was covered or refused in any table."""
        return any(other == market for _, other in (*self.covered, *self.refusals))


@dataclass
class ExchangePlan:
    """What to ask one exchange for.

    Attributes
    ----------
    name
        Name of the source, or of the exchange where no source serves it.
    source
        None where the exchange cannot be connected.
    failed
        What could not be asked for.
    known
        What was refused in an earlier run, and is not asked again yet.
    """

    name: str
    source: Source | None = None
    tasks: list[Task] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    known: list[Failure] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Count of requests sent so far."""
        return self.source.requests if self.source else 0

    async def close(self) -> None:
        """Close the source."""
        if self.source is not None:
            await self.source.close()

    @property
    def seconds(self) -> float:
        """Market time of all tasks."""
        return sum(task.window.duration.total_seconds() * len(task.requests) for task in self.tasks)


class Surveyor:
    """Makes the plan of each exchange.

    Parameters
    ----------
    again
        Requests that ask also for what the source refused, or did not give, before.
    """

    def __init__(
        self,
        history: History,
        connect: Connect,
        now: datetime,
        *,
        again: Collection[FetchRequest],
    ) -> None:
        self._history = history
        self._connect = connect
        self._now = now
        self._again = again

    def open(self, gaps: Mapping[FetchRequest, RangeSet], plans: dict[str, ExchangePlan]) -> None:
        """Connect the exchanges of gaps; one of covered markets that nobody serves is a failure.

        Parameters
        ----------
        plans
            Gets the plan of each exchange, so that its source is closed whatever comes.

        Raises
        ------
        UnknownNameError
            No source serves an exchange of which nothing is covered.
        """
        for exchange in dict.fromkeys(request.market.exchange for request in gaps):
            own_plan = plans[exchange] = ExchangePlan(exchange)
            own = {r: missing for r, missing in gaps.items() if r.market.exchange == exchange}
            try:
                own_plan.source = self._connect(exchange)
                own_plan.name = own_plan.source.name
            except UnknownNameError as error:
                for request, missing in own.items():
                    self._require_known(request, error)
                    left = self._leave_out(request, missing, own_plan)
                    self._fail(own_plan, request, left, _to_refusal(error))

    async def plan(
        self, gaps: Mapping[FetchRequest, RangeSet], plans: Mapping[str, ExchangePlan]
    ) -> None:
        """Plan the tasks of each exchange.

        Raises
        ------
        UnknownNameError
            A source does not have a market or dataset that was never covered.
        """
        planning = [
            self._plan_exchange(
                {r: missing for r, missing in gaps.items() if r.market.exchange == exchange},
                require_ranges(own.source),
                own,
            )
            for exchange, own in plans.items()
            if own.source is not None
        ]
        for outcome in await asyncio.gather(*planning, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _plan_exchange(
        self, gaps: Mapping[FetchRequest, RangeSet], source: RangeSource, own: ExchangePlan
    ) -> None:
        asked: dict[FetchRequest, RangeSet] = {}
        down: list[SourceError] = []
        for request, missing in gaps.items():
            left = self._leave_out(request, missing, own)
            if not left:
                continue
            if len(down) >= PATIENCE:
                self._fail(own, request, left, down[-1])
                continue
            error = await self._find_obstacle(request, source)
            if error is None:
                asked[request] = left
            else:
                self._fail(own, request, left, error)
            is_down = error is not None and not isinstance(error, SourceRefusedError)
            down = [*down, error] if is_down and error is not None else []
        own.tasks = plan.plan_tasks(asked, source.window, source.batch_size)

    def _leave_out(self, request: FetchRequest, missing: RangeSet, own: ExchangePlan) -> RangeSet:
        """Return what is missing without what the source refused or did not give before."""
        if request in self._again:
            return missing
        part = request.dataset.name, request.market
        left = subtract(missing, self._history.not_given.get((own.name, part), ()))
        for refusal in self._history.refusals.get(part, ()):
            refused = refusal.within(left) if refusal.source == own.name else ()
            if refused and refusal.again_at > self._now:
                own.known.append(to_known_failure(refusal, refused))
                left = subtract(left, refused)
        return left

    async def _find_obstacle(
        self, request: FetchRequest, source: RangeSource
    ) -> SourceError | None:
        """Return why a source cannot be asked for a market; None where it can."""
        market = request.market
        try:
            await source.market(market.symbol)
        except SourceError as error:
            return error
        except UnknownNameError as error:
            self._require_known(request, error)
            return build_gone_error(request, self._history.find_end(request))
        try:
            await source.require(request.dataset, market)
        except SourceError as error:
            return error
        except UnknownNameError as error:
            part = request.dataset.name, market
            if part not in self._history.covered and part not in self._history.refusals:
                raise
            return _to_refusal(error)
        return None

    def _require_known(self, request: FetchRequest, error: UnknownNameError) -> None:
        """Refuse a market that was never covered nor refused: it is an error of the user."""
        if not self._history.is_known(request.market):
            raise error

    def _fail(
        self, own: ExchangePlan, request: FetchRequest, ranges: RangeSet, error: SourceError
    ) -> None:
        own.failed.extend(Failed(request, item, error) for item in ranges)


def _read_refusals(
    store: Store, selection: Selection, covered: Mapping[_Part, RangeSet]
) -> dict[_Part, list[Refusal]]:
    """Read refusals by table and market, each up to where later times were fetched."""
    refusals: dict[_Part, list[Refusal]] = defaultdict(list)
    for refusal in Refusals(store).read(selection):
        part = refusal.table, Market(refusal.market.exchange, refusal.market.symbol)
        refusals[part].append(refusal.limit(covered.get(part, ())))
    return refusals


def _to_refusal(error: UnknownNameError) -> SourceRefusedError:
    return SourceRefusedError(error.message, error.hint, reason="refused")
