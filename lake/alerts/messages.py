"""What is said: conditions against what was told before give messages, and what is told then. Pure.

A condition has one `Alert` a channel, from when it held until it held no more. It is told once that
it holds, again where it lasts, and once that it does not any more. What cannot be told now, because
a message has just been sent or because the channel fails, stays to be told: nothing is lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from lake.alerts.conditions import Condition, Subject, format_duration
from lake.model.severity import SEVERITIES, Severity
from lake.settings import AlertRule

MAX_LINES = 20
"""So many conditions are listed of a kind; of the others a message tells the number."""

Level = Severity | Literal["resolved"]
Address = tuple[str, str]
"""Rule and channel: messages are grouped by them."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of the table `alerts`: a condition, and what one channel was told of it."""

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
    def last_sent_at(self) -> datetime | None:
        return max(filter(None, (self.sent_at, self.resolved_sent_at)), default=None)


@dataclass(frozen=True, slots=True)
class Message:
    """What one channel is told of one rule; an alert may have been raised and resolved since."""

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
        """The worst of what holds."""
        holding = [alert.severity for alert in (*self.raised, *self.repeated) if alert.is_raised]
        return max(holding, key=SEVERITIES.index) if holding else "resolved"

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
    """What is to be said now.

    Attributes
    ----------
    alerts
        What holds or is still to be told, and what ends now; nothing of it told yet.
    messages
        At most one a rule and channel.
    held_back
        Alerts of which something is to be told, but not now.
    """

    alerts: tuple[Alert, ...]
    messages: tuple[Message, ...]
    held_back: int


def plan_messages(
    rules: Iterable[AlertRule],
    held: Iterable[Condition],
    before: Iterable[Alert],
    now: datetime,
    *,
    repeat: timedelta,
    min_interval: timedelta,
) -> Plan:
    """What is to be said, of these conditions and after what was told before.

    Parameters
    ----------
    before
        Alerts that held, that are not told yet, or that were told within the interval. Those of
        other rules and channels than the rules name are left alone.
    repeat
        After this time an alert is told again; zero: never.
    min_interval
        Between two messages of a rule to a channel.
    """
    by_rule: dict[str, list[Condition]] = defaultdict(list)
    for condition in held:
        by_rule[condition.subject.rule].append(condition)
    by_address: dict[Address, list[Alert]] = defaultdict(list)
    for alert in before:
        by_address[alert.address].append(alert)
    alerts: list[Alert] = []
    messages: list[Message] = []
    held_back = 0
    for address in ((rule.name, channel) for rule in rules for channel in rule.channels):
        mine = _update_alerts(by_address[address], by_rule[address[0]], address[1], now, repeat)
        message = _build_message(address, mine, now, repeat)
        alerts.extend(mine)
        if message is None:
            continue
        if _is_too_soon(by_address[address], now, min_interval):
            held_back += len({*message.raised, *message.repeated, *message.resolved})
        else:
            messages.append(message)
    return Plan(tuple(alerts), tuple(messages), held_back)


def apply_results(
    planned: Plan, failures: Mapping[Address, str | None], now: datetime
) -> tuple[Alert, ...]:
    """The alerts of a plan after its messages were sent: by address, why that failed, or None."""
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
    held: Iterable[Condition],
    channel: str,
    now: datetime,
    repeat: timedelta,
) -> list[Alert]:
    """The alerts of one rule and channel now: what ends is resolved, what begins is added."""
    holding = {condition.subject: condition for condition in held}
    after = []
    for alert in before:
        condition = holding.get(alert.subject)
        if alert.is_raised and condition is None:
            after.append(replace(alert, resolved_at=now))
        elif condition is not None and _is_due(alert, now, repeat):
            after.append(_refresh(alert, condition))
        else:
            after.append(alert)
    known = {alert.subject for alert in before if alert.is_raised}
    new = [one for one in holding.values() if one.subject not in known]
    return [
        *after,
        *(Alert(one.subject, channel, now, one.severity, one.count, one.text) for one in new),
    ]


def _refresh(alert: Alert, one: Condition) -> Alert:
    """What is told again says how things are now."""
    return replace(alert, severity=one.severity, count=one.count, text=one.text)


def _is_due(alert: Alert, now: datetime, repeat: timedelta) -> bool:
    if not alert.is_raised or alert.sent_at is None or not repeat:
        return False
    return now - alert.sent_at >= repeat


def _build_message(
    address: Address, alerts: Iterable[Alert], now: datetime, repeat: timedelta
) -> Message | None:
    raised = tuple(alert for alert in alerts if alert.sent_at is None)
    repeated = tuple(alert for alert in alerts if _is_due(alert, now, repeat))
    untold = (alert for alert in alerts if not alert.is_raised and alert.resolved_sent_at is None)
    message = Message(*address, raised, repeated, tuple(untold))
    return message if message.raised or message.repeated or message.resolved else None


def _is_too_soon(before: Iterable[Alert], now: datetime, min_interval: timedelta) -> bool:
    """Whether a message was sent just now. One from the future, by a clock set back, is none."""
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
    return f"[{alert.severity}] {alert.text}"


def _format_resolved(alert: Alert) -> str:
    lasted = alert.resolved_at - alert.raised_at if alert.resolved_at else timedelta(0)
    return f"after {format_duration(lasted)}: {alert.text}"
