"""What came of an ingestion: by market and window, what was settled, and what was not and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from lake.errors import DamagedError, SourceError, SourceRefusedError, SourceUnavailableError
from lake.jobs.ingest.agenda import Failed
from lake.jobs.ingest.plan import Task
from lake.jobs.ingest.report import Failure, FailureReason, IngestReport, Unanswered
from lake.model.intervals import RangeSet, subtract, union
from lake.model.time import TimeRange, iso
from lake.sources.base import FetchRequest, Page
from lake.store.refusals import NewRefusal, Refusal

_MAX_SHOWN = 3
_WHOLE_MARKET = ("not_listed", "forbidden")


class Results:
    """Collects what a run gets from its sources.

    Attributes
    ----------
    complete
        Tasks of which all pages came.
    failed
        Windows that were asked for in this run and not given, or not asked after other failures.
    damaged
        By name, the tables that nothing can be stored in, with the error.
    """

    def __init__(self) -> None:
        self.complete: list[Task] = []
        self.failed: list[Failed] = []
        self.damaged: dict[str, DamagedError] = {}
        self._settled: dict[FetchRequest, list[TimeRange]] = defaultdict(list)
        self._not_given: dict[FetchRequest, list[TimeRange]] = defaultdict(list)

    def add_page(self, request: FetchRequest, page: Page) -> None:
        """Add what a page settles."""
        if page.settled is not None:
            self._settled[request].append(page.settled)
        if page.not_given is not None:
            self._not_given[request].append(page.not_given)

    def find_unanswered(self, before: datetime) -> tuple[Unanswered, ...]:
        """Find what complete windows left open in the past; the present is always open."""
        windows: dict[FetchRequest, list[TimeRange]] = defaultdict(list)
        for task in self.complete:
            for request in task.requests:
                windows[request].append(task.window)
        return tuple(self._list_unanswered(windows, before))

    def _list_unanswered(
        self, windows: Mapping[FetchRequest, list[TimeRange]], before: datetime
    ) -> Iterator[Unanswered]:
        for request, asked in windows.items():
            not_given = self._not_given[request]
            open_ranges = subtract(asked, [*self._settled[request], *not_given])
            past = tuple(item for item in open_ranges if item.end < before)
            table = request.dataset.name
            if table in self.damaged:
                continue
            if past:
                yield Unanswered(table, request.market, past)
            if not_given:
                yield Unanswered(table, request.market, union(not_given), "not_given")

    def list_failures(self) -> list[tuple[FetchRequest, SourceError, RangeSet]]:
        """Return what failed by request and kind of failure: the ranges that are open."""
        grouped: dict[tuple[FetchRequest, str], list[Failed]] = defaultdict(list)
        for item in self.failed:
            grouped[item.request, classify(item.error)].append(item)
        failures = []
        for (request, _), items in grouped.items():
            ranges = subtract((item.window for item in items), self._settled[request])
            if ranges:
                failures.append((request, items[-1].error, ranges))
        return failures


def classify(error: SourceError) -> FailureReason:
    """Return the reason of a failure as reports name it."""
    if isinstance(error, SourceRefusedError):
        return error.reason
    return "unavailable" if isinstance(error, SourceUnavailableError) else "unusable"


def build_failures(
    results: Results, requests: Iterable[FetchRequest], gaps: Mapping[FetchRequest, RangeSet]
) -> tuple[Failure, ...]:
    """Return the failures of a run as its report names them.

    Parameters
    ----------
    requests
        What was requested.
    gaps
        What was missing of it; nothing where the table was damaged before the run.
    """
    failures = [
        Failure(request.dataset.name, request.market, ranges, classify(error), error.message)
        for request, error, ranges in results.list_failures()
        if request.dataset.name not in results.damaged
    ]
    for request in dict.fromkeys(requests):
        table = request.dataset.name
        if table in results.damaged:
            message = results.damaged[table].message
            failures.append(
                Failure(table, request.market, gaps.get(request, ()), "damaged", message)
            )
    return tuple(failures)


def build_refusals(
    results: Results, open_ends: Mapping[FetchRequest, datetime]
) -> Iterator[NewRefusal]:
    """Return the refusals to remember.

    Parameters
    ----------
    open_ends
        By request that goes up to the present, where it ends: a refusal that reaches it holds for
        later times, too.
    """
    for request, error, ranges in results.list_failures():
        if not isinstance(error, SourceRefusedError):
            continue
        whole = error.reason in _WHOLE_MARKET
        kept = (TimeRange(ranges[0].start, ranges[-1].end),) if whole else ranges
        for item in kept:
            present = open_ends.get(request)
            reaches = present is not None and item.end >= present
            is_open = whole or (reaches and error.reason != "too_long_ago")
            yield NewRefusal(
                request.dataset.name,
                request.market,
                item.start,
                None if is_open else item.end,
                error.reason,
                error.message,
            )


def to_known_failure(refusal: Refusal, ranges: RangeSet) -> Failure:
    """Return a failure of an earlier run that was not asked again."""
    return Failure(
        refusal.table,
        refusal.market,
        ranges,
        refusal.reason,  # type: ignore[arg-type]
        refusal.message,
        again_at=refusal.again_at,
    )


def build_error(
    report: IngestReport,
    errors: Iterable[SourceError],
    damaged: Iterable[DamagedError] = (),
) -> SourceError | DamagedError:
    """Build the error of a run in which something failed that was asked for; it has the report.

    Damage counts more than what a source did not give: a later run does not mend it.
    """
    damages = list(damaged)
    error = _join_errors([*damages, *errors], is_damaged=bool(damages))
    error.report = report
    return error


def _join_errors(
    listed: Sequence[SourceError | DamagedError], *, is_damaged: bool
) -> SourceError | DamagedError:
    messages = list(dict.fromkeys(error.message for error in listed))
    hints = list(dict.fromkeys(error.hint for error in listed if error.hint))
    more = f"; and {len(messages) - _MAX_SHOWN} more" if len(messages) > _MAX_SHOWN else ""
    message = "; ".join(messages[:_MAX_SHOWN]) + more
    hint = " ".join(hints[:_MAX_SHOWN])
    if is_damaged:
        return DamagedError(message, hint)
    if any(isinstance(error, SourceUnavailableError) for error in listed):
        return SourceUnavailableError(message, hint)
    if len(listed) == 1 and isinstance(listed[0], SourceRefusedError):
        return SourceRefusedError(message, listed[0].hint, reason=listed[0].reason)
    return SourceError(message, hint)


def build_gone_error(request: FetchRequest, covered_until: datetime | None) -> SourceRefusedError:
    """Build the refusal of a market that was listed before and is not any more.

    Parameters
    ----------
    covered_until
        Until when the table that is requested is covered; None if it is not.
    """
    table, market = request.dataset.name, request.market
    until = "not covered" if covered_until is None else f"covered until {iso(covered_until)}"
    return SourceRefusedError(
        f"{table} of {market} is {until}, and the market is no longer listed on {market.exchange}",
        "Its rows stay. It is asked for again after an hour, then a day, then every week.",
        reason="not_listed",
    )
