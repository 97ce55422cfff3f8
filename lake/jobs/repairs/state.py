"""How far the repair of one group is: the outcome of each step, folded into the next state. Pure.

A step reads a state and returns an `Outcome`; it changes neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import polars as pl

from lake.errors import SourceUnavailableError
from lake.jobs.repairs.plan import Group, Target
from lake.jobs.repairs.records import RecordedRepairs
from lake.jobs.repairs.refetch import Answer
from lake.jobs.repairs.report import AppliedRepair, FailedRepair
from lake.jobs.repairs.spans import Moments
from lake.model.dataset import TIMESTAMP


@dataclass(frozen=True)
class Outcome:
    """What one step did.

    Attributes
    ----------
    recorded
        What it changed; empty where it had nothing to do.
    marked
        Findings that a source confirmed.
    failed
        Targets that stay open, with the reason.
    answers
        What sources gave.
    refusals
        Why a source cannot give what is missing.
    down
        Errors of sources that are down.
    """

    recorded: tuple[RecordedRepairs, ...] = ()
    marked: tuple[AppliedRepair, ...] = ()
    failed: tuple[FailedRepair, ...] = ()
    answers: tuple[Answer, ...] = ()
    refusals: tuple[str, ...] = ()
    down: tuple[SourceUnavailableError, ...] = ()


NOTHING = Outcome()


@dataclass(frozen=True)
class GroupState:
    """The state of a group between two steps.

    Attributes
    ----------
    due
        Targets to ask a source for.
    absent
        Open times of missing bars.
    changed
        Times of all changed rows.
    applied, marked, failed, answers, refusals, down
        The outcomes of the steps so far.
    """

    group: Group
    due: frozenset[Target]
    absent: Moments
    changed: Moments
    applied: tuple[AppliedRepair, ...] = ()
    marked: tuple[AppliedRepair, ...] = ()
    failed: tuple[FailedRepair, ...] = ()
    answers: tuple[Answer, ...] = ()
    refusals: tuple[str, ...] = ()
    down: tuple[SourceUnavailableError, ...] = ()

    @classmethod
    def begin(cls, group: Group, absent: Moments, *, offline: bool) -> GroupState:
        """Return the state before the first step; `offline`: ask no source."""
        due = () if offline else (t for t in group.targets if is_due(group, absent, t))
        return cls(group, frozenset(due), absent, Moments(pl.Series(dtype=TIMESTAMP)))

    def fold(self, outcome: Outcome, absent: Moments) -> GroupState:
        """Return the state after a step; `absent`: open times of bars that are missing then."""
        times = [item.times.rename("") for item in outcome.recorded]
        return replace(
            self,
            absent=absent,
            changed=Moments(pl.concat([self.changed.times, *times])) if times else self.changed,
            applied=(*self.applied, *_repairs(outcome.recorded)),
            marked=(*self.marked, *outcome.marked),
            failed=(*self.failed, *outcome.failed),
            answers=(*self.answers, *outcome.answers),
            refusals=(*self.refusals, *outcome.refusals),
            down=(*self.down, *outcome.down),
        )

    @property
    def unavailable(self) -> SourceUnavailableError | None:
        """The error because of which the group waits: a source is down, and a target is open.

        Rows that are derived in the meantime would never be fetched.
        """
        waits = bool(self.down) and any(self.is_open(target) for target in self.due)
        return self.down[0] if waits else None

    def is_open(self, target: Target) -> bool:
        """Whether a target is not repaired yet; a reference is only fetched, and never open."""
        if target.kind == "reference":
            return False
        if target.kind == "no_trade" or _is_missing_bar(self.group, target):
            return self.absent.has_within(target.span)
        return not self.changed.has_within(target.span)

    def open_targets(self) -> list[Target]:
        """Return the targets that are not repaired yet."""
        return [target for target in self.group.targets if self.is_open(target)]

    def answer_for(self, target: Target) -> Answer | None:
        """Return the last answer that settles all of a target that was due, if there is one."""
        if target not in self.due:
            return None
        return next((answer for answer in self.answers[::-1] if answer.settles(target)), None)


def is_due(group: Group, absent: Moments, target: Target) -> bool:
    """Whether to ask a source for a target.

    Parameters
    ----------
    absent
        Open times of bars that are missing.
    """
    if not target.ask or target.kind == "no_trade":
        return False
    return not _is_missing_bar(group, target) or absent.has_within(target.span)


def _is_missing_bar(group: Group, target: Target) -> bool:
    return target.kind == "missing" and group.dataset.timeframe is not None


def _repairs(recorded: Iterable[RecordedRepairs]) -> list[AppliedRepair]:
    return [repair for item in recorded for repair in item.repairs]
