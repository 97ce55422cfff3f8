"""Plan messages from conditions and earlier alerts, and update the alerts after delivery. Pure.

A condition has one `Alert` per channel, from when it is raised until it is resolved. The channel is
notified once that it is raised, again while it lasts, and once that it is resolved. If a message
cannot be sent now, because another was sent just before or because the channel fails, a later run
sends it: nothing is lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from lake.alerts.conditions import Condition, Subject, format_duration
from lake.model.severity import SEVERITIES, Severity
from lake.settings import AlertRule
from lake.text import escape_unseen

_Item = TypeVar("_Item")
_Key = TypeVar("_Key")

MAX_LINES = 20
"""Number of alerts that a section of a message lists; the others are counted."""

Level = Severity | Literal["resolved"]
Address = tuple[str, str]
"""Rule and channel; they have one message per run."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of the table `alerts`: a condition and its notifications through one channel."""

    subject: Subject
    channel: str
    raised_at: datetime
    severity: Severity
    count: int
    text: str
    sent_at: datetime | None = None
    resolved_at: datetime | None = None
    resolved_sent_at: datetime | None = None
    error: str | None = None

    @property
    def address(self) -> Address:
        return self.subject.rule, self.channel

    @property
    def is_raised(self) -> bool:
        return self.resolved_at is None

    @property
    def needs_resolved_message(self) -> bool:
        """Whether the channel has yet to be notified that the alert is resolved."""
        return not self.is_raised and self.resolved_sent_at is None

    @property
    def last_sent_at(self) -> datetime | None:
        return max(filter(None, (self.sent_at, self.resolved_sent_at)), default=None)


@dataclass(frozen=True, slots=True)
class Message:
    """A message about one rule to one channel. An alert may be both raised and resolved in it."""

    rule: str
    channel: str
    raised: tuple[Alert, ...]
    repeated: tuple[Alert, ...]
    resolved: tuple[Alert, ...]

    @property
    def address(self) -> Address:
        return self.rule, self.channel

    @property
    def level(self) -> Level:
        """The worst severity of the alerts that are still raised."""
        raised = [alert.severity for alert in (*self.raised, *self.repeated) if alert.is_raised]
        return max(raised, key=SEVERITIES.index) if raised else "resolved"

    @property
    def title(self) -> str:
        parts = {"raised": self.raised, "still": self.repeated, "resolved": self.resolved}
        counts = [f"{len(alerts):,} {word}" for word, alerts in parts.items() if alerts]
        return f"lake: {self.rule}: {', '.join(counts)}"

    @property
    def body(self) -> str:
        return "\n".join(
            [
                *_format_section("Raised", self.raised, _format_raised),
                *_format_section("Still", self.repeated, _format_raised),
                *_format_section("Resolved", self.resolved, _format_resolved),
            ]
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The messages of one run.

    Attributes
    ----------
    alerts
        Active alerts and those that are resolved now, before the messages are sent.
    messages
        At most one per rule and channel.
    held_back
        Number of alerts whose message has to wait for the minimum interval.
    """

    alerts: tuple[Alert, ...]
    messages: tuple[Message, ...]
    held_back: int


def keep_unknown(
    rules: Iterable[AlertRule],
    conditions: Iterable[Condition],
    before: Iterable[Alert],
    unknown: Collection[str],
) -> tuple[Condition, ...]:
    """Keep raised alerts about the age of rows in tables that cannot be read, and raise no others.

    Parameters
    ----------
    unknown
        Names of these tables: whether their rows are old is not known.
    """
    on_age = {rule.name for rule in rules if rule.freshness_seconds is not None}

    def is_unknown(subject: Subject) -> bool:
        return subject.rule in on_age and subject.dataset in unknown

    kept = {c.subject: c for c in conditions if not is_unknown(c.subject)}
    for alert in before:
        if alert.is_raised and is_unknown(alert.subject):
            kept[alert.subject] = Condition(
                alert.subject, alert.severity, alert.count, alert.raised_at, alert.text
            )
    return tuple(kept[subject] for subject in sorted(kept))


def plan_messages(
    rules: Iterable[AlertRule],
    conditions: Iterable[Condition],
    before: Iterable[Alert],
    now: datetime,
    *,
    repeat: timedelta,
    min_interval: timedelta,
) -> Plan:
    """Plan the messages for conditions, given the alerts of earlier runs.

    Parameters
    ----------
    before
        The alerts of `lake.alerts.state.select_active`. Alerts of rules and channels that `rules`
        do not name are ignored.
    repeat
        Time after which a raised alert is sent again; zero: never.
    min_interval
        Minimum time between two messages about a rule to a channel.
    """
    by_rule = _group(conditions, lambda condition: condition.subject.rule)
    by_address = _group(before, lambda alert: alert.address)
    alerts: list[Alert] = []
    messages: list[Message] = []
    held_back = 0
    for address in ((rule.name, channel) for rule in rules for channel in rule.channels):
        rule_name, channel = address
        updated = _update_alerts(by_address[address], by_rule[rule_name], channel, now, repeat)
        message = _build_message(address, updated, now, repeat)
        alerts.extend(updated)
        if message is None:
            continue
        if _is_too_soon(by_address[address], now, min_interval):
            held_back += len({*message.raised, *message.repeated, *message.resolved})
        else:
            messages.append(message)
    return Plan(tuple(alerts), tuple(messages), held_back)


def _group(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    groups: dict[_Key, list[_Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def apply_results(
    planned: Plan, failures: Mapping[Address, str | None], now: datetime
) -> tuple[Alert, ...]:
    """Return the alerts of a plan after its messages were sent.

    Parameters
    ----------
    failures
        Why the message to an address was not delivered; None: it was.
    """
    after: dict[Alert, Alert] = {alert: alert for alert in planned.alerts}
    for message in planned.messages:
        error = failures[message.address]
        for alert in (*message.raised, *message.repeated):
            sent = after[alert].sent_at if error else now
            after[alert] = replace(after[alert], sent_at=sent, error=error)
        for alert in message.resolved:
            sent = after[alert].resolved_sent_at if error else now
            after[alert] = replace(after[alert], resolved_sent_at=sent, error=error)
    return tuple(after.values())


def _update_alerts(
    before: Iterable[Alert],
    conditions: Iterable[Condition],
    channel: str,
    now: datetime,
    repeat: timedelta,
) -> list[Alert]:
    """Return the alerts of one rule and channel, with resolved and new ones."""
    current = {condition.subject: condition for condition in conditions}
    raised = {alert.subject for alert in before if alert.is_raised}
    return [
        *(_update_alert(alert, current.get(alert.subject), now, repeat) for alert in before),
        *(_raise(current[subject], channel, now) for subject in current if subject not in raised),
    ]


def _update_alert(
    alert: Alert, condition: Condition | None, now: datetime, repeat: timedelta
) -> Alert:
    """Resolve an alert without a condition; an alert that is sent again describes the present."""
    if condition is None:
        return replace(alert, resolved_at=now) if alert.is_raised else alert
    if not _is_due(alert, now, repeat):
        return alert
    return replace(alert, severity=condition.severity, count=condition.count, text=condition.text)


def _raise(condition: Condition, channel: str, now: datetime) -> Alert:
    return Alert(
        condition.subject, channel, now, condition.severity, condition.count, condition.text
    )


def _is_due(alert: Alert, now: datetime, repeat: timedelta) -> bool:
    if not alert.is_raised or alert.sent_at is None or not repeat:
        return False
    return now - alert.sent_at >= repeat


def _build_message(
    address: Address, alerts: Iterable[Alert], now: datetime, repeat: timedelta
) -> Message | None:
    raised = tuple(alert for alert in alerts if alert.sent_at is None)
    repeated = tuple(alert for alert in alerts if _is_due(alert, now, repeat))
    resolved = tuple(alert for alert in alerts if alert.needs_resolved_message)
    if not (raised or repeated or resolved):
        return None
    return Message(*address, raised, repeated, resolved)


def _is_too_soon(before: Iterable[Alert], now: datetime, min_interval: timedelta) -> bool:
    """Whether a message was sent within the interval; one in the future, after a clock was set
    back, does not count."""
    last = max(filter(None, (alert.last_sent_at for alert in before)), default=None)
    return last is not None and timedelta(0) <= now - last < min_interval


def _format_section(
    title: str, alerts: tuple[Alert, ...], line: Callable[[Alert], str]
) -> list[str]:
    if not alerts:
        return []
    lines = [f"- {line(alert)}" for alert in alerts[:MAX_LINES]]
    more = len(alerts) - len(lines)
    return [f"{title}:", *lines, *([f"and {more:,} more"] if more else [])]


def _format_raised(alert: Alert) -> str:
    return f"[{alert.severity}] {escape_unseen(alert.text)}"


def _format_resolved(alert: Alert) -> str:
    lasted = alert.resolved_at - alert.raised_at if alert.resolved_at else timedelta(0)
    return f"after {format_duration(lasted)}: {escape_unseen(alert.text)}"
