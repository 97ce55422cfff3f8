"""Plan what to repair because of findings: by table and market, with the reason. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import polars as pl

from lake.errors import UnknownNameError
from lake.jobs.repairs.report import FailedRepair
from lake.model.dataset import Dataset
from lake.model.grid import Grid
from lake.model.market import Market
from lake.model.time import TimeRange

Kind = Literal["missing", "suspect", "reference", "no_trade"]


@dataclass(frozen=True, slots=True)
class Target:
    """A finding, as far as a repair needs it.

    Attributes
    ----------
    finding_id
        Empty where the target is no finding.
    kind
        `missing`: rows that should exist. `suspect`: rows that may be wrong. `reference`: rows
        that a check compared the suspect ones with, and that may be wrong themselves. `no_trade`:
        nothing is missing, but a flat bar may be filled in.
    span
        Interval of the finding, widened to whole bars or by a margin.
    ask
        Whether to ask a source; false where it was asked before.
    is_given
        False where the source no longer serves that time.
    """

    finding_id: str
    kind: Kind
    span: TimeRange
    why: str
    measured: float | None = None
    ask: bool = True
    is_given: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """The targets in the table of one market, and windows that hold all of them."""

    dataset: Dataset
    market: Market
    targets: tuple[Target, ...]
    windows: tuple[TimeRange, ...]

    @classmethod
    def of(cls, dataset: Dataset, market: Market, targets: Collection[Target]) -> Group:
        """Build the group of targets; spans that are close to each other share a window."""
        windows: list[TimeRange] = []
        for span in sorted(target.span for target in targets):
            if windows and span.start - windows[-1].end <= dataset.repair.join_within:
                end = max(windows[-1].end, span.end)
                windows[-1] = TimeRange(windows[-1].start, end)
            else:
                windows.append(span)
        ordered = tuple(sorted(targets, key=lambda target: (target.span, target.finding_id)))
        return cls(dataset, market, ordered, tuple(windows))

    def select(self, targets: Collection[Target]) -> Group:
        """Return the group of some of its targets, with windows that hold these."""
        return Group.of(self.dataset, self.market, targets)

    def of_kind(self, kind: Kind) -> list[Target]:
        """Return the targets of a kind."""
        return [target for target in self.targets if target.kind == kind]

    def in_window(self, window: TimeRange) -> tuple[Target, ...]:
        """Return the targets of a window."""
        start, end = (
            bisect_left(self.targets, time, key=lambda target: target.span.start)
            for time in (window.start, window.end)
        )
        return self.targets[start:end]


@dataclass(frozen=True, slots=True)
class Attempts:
    """Earlier repairs, by ID of the finding.

    Attributes
    ----------
    marked
        Findings that a source confirmed.
    repaired
        Findings that were repaired, and when last.
    """

    marked: frozenset[str]
    repaired: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class Plan:
    """Groups to repair, in this order; what cannot be repaired; IDs of findings to skip."""

    groups: tuple[Group, ...]
    failed: tuple[FailedRepair, ...]
    skipped: tuple[str, ...]


class Planner:
    """Makes plans.

    Parameters
    ----------
    dataset
        Returns the dataset of a table, or raises `UnknownNameError`.
    attempts
        Earlier repairs; ignored if `again`.
    interpolate
        Whether to fill in intervals without trades.
    grid
        Returns the grid of a market's bars; by default that of the timeframe.
    """

    def __init__(
        self,
        dataset: Callable[[str], Dataset],
        attempts: Attempts,
        *,
        again: bool,
        interpolate: bool,
        grid: Callable[[Dataset, Market], Grid | None] | None = None,
    ) -> None:
        self._dataset = dataset
        self._learned_grid = grid
        self._grids: dict[tuple[str, Market], Grid | None] = {}
        self._attempts = attempts
        self._again = again
        self._interpolate = interpolate
        self._targets: dict[tuple[str, Market], list[Target]] = defaultdict(list)
        self._failed: list[FailedRepair] = []
        self._skipped: list[str] = []

    def plan(self, findings: pl.DataFrame, no_trade: pl.DataFrame | None = None) -> Plan:
        """Plan repairs for findings, and for intervals in which no trade happened.

        Parameters
        ----------
        findings
            Rows of the table `findings`, with at least the columns `dataset`, `exchange`, `symbol`,
            `timestamp`, `end`, `check`, `against`, `finding_id`, `dimension`, `reason`,
            `measured`, `message` and `found_at`.
        no_trade
            Intervals with the columns `dataset`, `exchange`, `symbol`, `start`, `end`, `reason`.
        """
        for finding in findings.iter_rows(named=True):
            if self._is_settled(finding):
                self._skipped.append(finding["finding_id"])
            else:
                self._add_finding(finding)
        if no_trade is not None and self._interpolate:
            for gap in no_trade.filter(pl.col("reason") == "no_trade").iter_rows(named=True):
                span = TimeRange(gap["start"], gap["end"])
                self._add(gap, gap["dataset"], Target("", "no_trade", span, _NO_TRADE, ask=False))
        groups = [
            Group.of(self._dataset(table), market, targets)
            for (table, market), targets in self._targets.items()
        ]
        return Plan(
            tuple(sorted(groups, key=_sort_key)),
            tuple(self._failed),
            tuple(self._skipped),
        )

    def _is_settled(self, finding: Mapping[str, Any]) -> bool:
        repaired = self._attempts.repaired.get(finding["finding_id"])
        return not self._again and repaired is not None and repaired >= finding["found_at"]

    def _add_finding(self, finding: Mapping[str, Any]) -> None:
        kind, failure = _assess(finding, interpolate=self._interpolate)
        if failure:
            self._fail(finding, failure)
            return
        finding_id, why = finding["finding_id"], f"{finding['check']}: {finding['message']}"
        is_given = finding["reason"] != "not_given"
        is_new = is_given and finding_id not in self._attempts.marked
        ask = kind != "no_trade" and (self._again or is_new)
        span = TimeRange(finding["timestamp"], finding["end"])
        target = Target(finding_id, kind, span, why, finding["measured"], ask, is_given)
        try:
            self._add(finding, finding["dataset"], target)
        except UnknownNameError as error:
            self._fail(finding, error.message)
            return
        if ask and finding["dimension"] == "consistency":
            self._add_reference(finding, Target(finding_id, "reference", span, why))

    def _add_reference(self, finding: Mapping[str, Any], target: Target) -> None:
        """Add the rows that disagree with the suspect ones: those may be the wrong ones."""
        try:
            self._add(finding, finding["against"] or "", target)
        except UnknownNameError:
            return  # the reference is another market, or none: no table of this market

    def _add(self, finding: Mapping[str, Any], table: str, target: Target) -> None:
        dataset = self._dataset(table)
        market = Market(finding["exchange"], finding["symbol"])
        if target.kind == "no_trade" and dataset.timeframe is None:
            raise UnknownNameError(f"{table} has no bars that could be filled in")
        rounded = _round_out(dataset, target.span, self._find_grid(dataset, market))
        self._targets[dataset.name, market].append(replace(target, span=rounded))

    def _find_grid(self, dataset: Dataset, market: Market) -> Grid | None:
        """Return the grid of a market's bars; None if the rows are not bars."""
        if dataset.timeframe is None:
            return None
        key = (dataset.name, market)
        if key not in self._grids:
            learned = self._learned_grid(dataset, market) if self._learned_grid else None
            self._grids[key] = learned or Grid(dataset.timeframe)
        return self._grids[key]

    def _fail(self, finding: Mapping[str, Any], reason: str) -> None:
        self._failed.append(
            FailedRepair(
                finding["dataset"],
                Market(finding["exchange"], finding["symbol"]),
                TimeRange(finding["timestamp"], finding["end"]),
                (finding["finding_id"],),
                reason,
            )
        )


_NO_TRADE = "no trade happened"


def _assess(finding: Mapping[str, Any], *, interpolate: bool) -> tuple[Kind, str]:
    """Return the kind of a finding's target, and why it cannot be repaired, or an empty text."""
    if finding["reason"] == "venue_outage":
        return "missing", "the venue was down: nobody has data of that time"
    if finding["reason"] == "no_trade":
        failure = "nothing is missing: no trade happened; --interpolate fills in flat bars"
        return "no_trade", "" if interpolate else failure
    if finding["dimension"] == "timeliness":
        return "suspect", "rows that came late stay late: no row is wrong"
    return ("missing" if finding["dimension"] == "completeness" else "suspect"), ""


def _round_out(dataset: Dataset, span: TimeRange, grid: Grid | None) -> TimeRange:
    margin = dataset.repair.margin
    start, end = span.start - margin, span.end + margin
    if grid is not None:
        start, end = grid.floor(start), grid.ceiling(end)
    return TimeRange(start, end)


def _sort_key(group: Group) -> tuple[bool, int, str, Market]:
    """Sort what others are derived from before them: trades, then bars, the finest first."""
    timeframe = group.dataset.timeframe
    return (
        timeframe is not None,
        timeframe.seconds if timeframe else 0,
        group.dataset.name,
        group.market,
    )
