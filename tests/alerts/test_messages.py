"""Messages over random histories of conditions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import given

from lake.alerts.conditions import Condition, Subject
from lake.alerts.messages import Alert, apply_results, plan_messages
from lake.alerts.state import select_active, to_rows
from lake.model.catalog import Catalog, builtin_files
from lake.model.severity import SEVERITIES
from lake.settings import AlertRule
from tests.conftest import T0

RULES = (
    AlertRule(name="a", channels=("chat", "mail"), severity="info"),
    AlertRule(name="b", channels=("chat",), severity="info"),
)
SUBJECTS = [Subject(rule.name, "trades", "binance", symbol) for rule in RULES for symbol in "XYZ"]
ALERTS = Catalog(builtin_files()).dataset("alerts")
INTERVAL = timedelta(seconds=60)

# By step: seconds since the last, what holds, which channels fail.
Steps = list[tuple[int, frozenset[Subject], frozenset[str]]]
_conditions = st.frozensets(st.sampled_from(SUBJECTS))
_seconds = st.integers(1, 90)


def steps(failing: st.SearchStrategy[frozenset[str]]) -> st.SearchStrategy[Steps]:
    return st.lists(st.tuples(_seconds, _conditions, failing), max_size=25)


@dataclass
class History:
    """Runs one after the other, with the record kept as rows, as in the table."""

    now: datetime = T0
    rows: dict[tuple[object, ...], Alert] = field(default_factory=dict)
    begun: Counter[tuple[Subject, str]] = field(default_factory=Counter)
    ended: Counter[tuple[Subject, str]] = field(default_factory=Counter)
    raised: Counter[tuple[Subject, str]] = field(default_factory=Counter)
    resolved: Counter[tuple[Subject, str]] = field(default_factory=Counter)
    sent: dict[tuple[str, str], list[datetime]] = field(default_factory=dict)
    holding: frozenset[Subject] = frozenset()

    def run(self, seconds: int, holding: frozenset[Subject], failing: frozenset[str]) -> None:
        self.now += timedelta(seconds=seconds)
        self._count(holding)
        held = [
            Condition(subject, SEVERITIES[1], 1, self.now, subject.symbol)
            for subject in sorted(holding)
        ]
        frame = to_rows(self.rows.values(), ALERTS)
        before = select_active(frame, self.now, INTERVAL)
        planned = plan_messages(
            RULES, held, before, self.now, repeat=timedelta(0), min_interval=INTERVAL
        )
        failures = {
            message.address: "no" if message.channel in failing else None
            for message in planned.messages
        }
        for message in planned.messages:
            if message.channel not in failing:
                self.sent.setdefault(message.address, []).append(self.now)
                self.raised.update((alert.subject, alert.channel) for alert in message.raised)
                self.resolved.update((alert.subject, alert.channel) for alert in message.resolved)
        for alert in apply_results(planned, failures, self.now):
            self.rows[alert.subject, alert.channel, alert.raised_at] = alert

    def _count(self, holding: frozenset[Subject]) -> None:
        channels = {rule.name: rule.channels for rule in RULES}
        for subject in holding - self.holding:
            self.begun.update((subject, channel) for channel in channels[subject.rule])
        for subject in self.holding - holding:
            self.ended.update((subject, channel) for channel in channels[subject.rule])
        self.holding = holding

    def finish(self) -> None:
        """A last run in which channels work, long enough after the others."""
        self.run(60, self.holding, frozenset())


@given(steps(st.just(frozenset())))
def test_each_period_is_sent_once_when_it_begins_and_once_when_it_ends(history: Steps) -> None:
    it = History()
    for step in history:
        it.run(*step)
    it.finish()
    assert it.raised == it.begun
    assert it.resolved == it.ended
    for times in it.sent.values():
        assert all(b - a >= INTERVAL for a, b in pairwise(times))


@given(steps(st.frozensets(st.sampled_from(["chat", "mail"]))))
def test_messages_that_channels_did_not_accept_are_sent_when_they_work(history: Steps) -> None:
    it = History()
    for step in history:
        it.run(*step)
    it.finish()
    assert it.raised == it.begun
    assert it.resolved == it.ended
    assert all(alert.error is None for alert in it.rows.values() if alert.is_raised)


@given(steps(st.just(frozenset())))
def test_rows_hold_all_that_the_next_run_needs(history: Steps) -> None:
    it = History()
    for step in history:
        it.run(*step)
    rows = to_rows(it.rows.values(), ALERTS)
    alerts = select_active(rows, it.now, timedelta(days=1_000))
    assert set(alerts) == set(it.rows.values())
    assert rows.filter(status="raised").height == sum(alert.is_raised for alert in alerts)


def test_a_clock_that_was_set_back_holds_nothing_back() -> None:
    subject = SUBJECTS[0]
    told_tomorrow = T0 + timedelta(days=1)
    before = Alert(subject, "chat", T0, "error", 1, "text", sent_at=told_tomorrow)
    planned = plan_messages(RULES, [], [before], T0, repeat=timedelta(0), min_interval=INTERVAL)
    assert [message.title for message in planned.messages] == ["lake: a: 1 resolved"]
