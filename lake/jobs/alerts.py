"""Alerts of a lake: evaluate rules, notify channels, record what was sent.

A message is recorded after it is sent. A run that is killed between the two sends the message again
in the next run: a duplicate is better than a lost alert.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from lake.alerts.channels import Channel, DeliveryError, NoAnswerError, deliver, require_apprise
from lake.alerts.conditions import NEWEST, find_conditions, matches
from lake.alerts.messages import (
    Address,
    Alert,
    Message,
    apply_results,
    keep_unknown,
    plan_messages,
)
from lake.alerts.state import select_active, to_rows
from lake.errors import ConfigError, LakeError, UnknownNameError
from lake.jobs.job import WriteCounts, record_job
from lake.log import get_logger
from lake.model.dataset import Dataset
from lake.model.words import count
from lake.settings import AlertRule, AlertSettings, Settings
from lake.store.damages import Damages
from lake.store.ledger import Ledger
from lake.store.locks import lock_file
from lake.store.snapshot import Snapshot
from lake.store.store import Origin, Store

_log = get_logger(__name__)

_LOCK = ".alerts.lock"
_FINDING_COLUMNS = (
    "exchange",
    "symbol",
    "dataset",
    "check",
    "severity",
    "message",
    "found_at",
    "status",
)
OUTCOMES = pl.Schema(
    {
        "rule": pl.String(),
        "channel": pl.String(),
        "raised": pl.Int64(),
        "repeated": pl.Int64(),
        "resolved": pl.Int64(),
        "error": pl.String(),
    }
)


@dataclass(frozen=True, slots=True)
class AlertOutcome:
    """A message, and the error of its delivery; None: it was delivered."""

    message: Message
    error: str | None


@dataclass(frozen=True, slots=True)
class AlertReport:
    """Result of a run.

    Attributes
    ----------
    conditions
        Number of conditions that hold.
    outcomes
        One per message.
    held_back
        Number of alerts that wait, because the last message was sent a short time ago.
    busy
        Whether another run held the lock for too long; then nothing was done.
    """

    conditions: int = 0
    outcomes: tuple[AlertOutcome, ...] = ()
    held_back: int = 0
    busy: bool = False

    def __repr__(self) -> str:
        sent = f"{count(len(self.outcomes), 'message')}, {len(self.failed):,} failed"
        return f"<AlertReport: {count(self.conditions, 'condition')}, {sent}>"

    @property
    def failed(self) -> tuple[AlertOutcome, ...]:
        """Messages that were not delivered."""
        return tuple(outcome for outcome in self.outcomes if outcome.error is not None)

    def frame(self) -> pl.DataFrame:
        """Return one row per message: rule, channel, counts of alerts, error."""
        rows = [
            {
                "rule": outcome.message.rule,
                "channel": outcome.message.channel,
                "raised": len(outcome.message.raised),
                "repeated": len(outcome.message.repeated),
                "resolved": len(outcome.message.resolved),
                "error": outcome.error,
            }
            for outcome in self.outcomes
        ]
        return pl.DataFrame(rows, schema=OUTCOMES)


def run_alerts(store: Store, settings: Settings) -> AlertReport:
    """Notify the channels of new and resolved alerts.

    Nothing is written if there are no rules or no changes. A channel that fails raises no error:
    the failure is logged and recorded, and the next run tries again. Runs of one lake wait for each
    other.

    Raises
    ------
    StorageError, DamagedError, CommitConflictError
        The lake cannot be read or written; the next run may repeat delivered messages. If only a
        table with a rule on the age of its rows cannot be read, its alerts stay as they are, all
        others are sent, and the error has the report.
    """
    alerts = settings.alerts
    if not alerts.rules:
        return AlertReport()
    with lock_file(store.root.path / _LOCK, timeout=_estimate_longest_run(alerts)) as lock:
        if not lock.is_held:
            _log.warning("alerts not evaluated: another run is active", lake=str(store.root.path))
            return AlertReport(busy=True)
        return _run(store, alerts)


def try_channels(settings: Settings, channel: str | None = None) -> pl.DataFrame:
    """Send a test message to all channels, or to one.

    Returns
    -------
    DataFrame
        One row per channel: `channel`, `outcome` (`sent` or `failed`), `error`.

    Raises
    ------
    ConfigError
        A channel needs apprise, which is not installed.
    UnknownNameError
        The channel does not exist.
    """
    targets = settings.alerts.targets
    if channel is not None and channel not in targets:
        raise UnknownNameError(
            f"there is no channel {channel!r}",
            f"Channels are {', '.join(targets)}; [alerts.channels] in lake.toml defines them.",
        )
    names = list(targets) if channel is None else [channel]
    channels = [Channel(name, targets[name]) for name in names]
    for target in channels:
        if not target.is_log:
            require_apprise(target)
    timeout_seconds = settings.alerts.timeout_seconds
    with ThreadPoolExecutor(len(channels)) as pool:
        errors = list(
            pool.map(lambda target: _send_test_message(target, timeout_seconds), channels)
        )
    return pl.DataFrame(
        {
            "channel": names,
            "outcome": ["failed" if error else "sent" for error in errors],
            "error": errors,
        },
        schema_overrides={"error": pl.String()},
    )


def list_alerts(store: Store) -> pl.DataFrame:
    """Return the rows of `alerts` in order of time: what was sent to which channel."""
    return store.read(store.catalog.dataset("alerts")).sort("timestamp", maintain_order=True)


def _run(store: Store, alerts: AlertSettings) -> AlertReport:
    now = (
        store.now()
    )  # after taking the lock: another run may have sent messages while this one waited
    dataset = store.catalog.dataset("alerts")
    min_interval = timedelta(seconds=alerts.min_interval_seconds)
    damages = Damages()
    newest = _read_newest_times(store, alerts.rules, damages)
    found = find_conditions(alerts.rules, _read_open_findings(store), newest, now)
    before = select_active(store.read(dataset), now, min_interval)
    conditions = keep_unknown(alerts.rules, found, before, damages.errors)
    plan = plan_messages(
        alerts.rules,
        conditions,
        before,
        now,
        repeat=timedelta(seconds=alerts.repeat_seconds),
        min_interval=min_interval,
    )
    errors = _deliver_messages(plan.messages, alerts)
    _record(store, dataset, before, apply_results(plan, errors, now))
    outcomes = (AlertOutcome(message, errors[message.address]) for message in plan.messages)
    report = AlertReport(len(conditions), tuple(outcomes), plan.held_back)
    damages.raise_if_any(report)
    return report


def _read_open_findings(store: Store) -> pl.DataFrame:
    """Read the columns of open findings that conditions need; context columns may be large."""
    dataset = store.catalog.dataset("findings")
    if not store.exists(dataset.name):
        return dataset.empty().select(_FINDING_COLUMNS)
    rows = store.snapshot(dataset).scan(columns=_FINDING_COLUMNS)
    return rows.filter(pl.col("status") == "open").collect()


def _read_newest_times(store: Store, rules: Sequence[AlertRule], damages: Damages) -> pl.DataFrame:
    """Read when the newest row had happened, for tables with a rule of freshness.

    Times of receipt do not count: a row that comes late is old when it comes.
    """
    patterns = [rule.dataset for rule in rules if rule.freshness_seconds is not None]
    frames = [pl.DataFrame(schema=NEWEST)]
    for name in store.tables():
        if any(matches(pattern, name) for pattern in patterns):
            dataset = store.catalog.dataset(name)
            if dataset.kind == "data":
                with damages.collect(name):
                    frames.append(_read_newest_times_of(dataset, store.snapshot(dataset)))
    return pl.concat(frames)


def _read_newest_times_of(dataset: Dataset, snapshot: Snapshot) -> pl.DataFrame:
    files = snapshot.files().lazy()
    time = "last"
    if snapshot.files()["last"].has_nulls():  # another engine wrote without statistics
        files, time = snapshot.scan_unordered(), dataset.time_column
    known_at = dataset.happened_at(pl.col("known_at"))
    newest = files.group_by("exchange", "symbol").agg(pl.col(time).max().alias("known_at"))
    return newest.select(
        pl.lit(dataset.name).alias("dataset"), "exchange", "symbol", known_at
    ).collect()


def _record(
    store: Store, dataset: Dataset, before: Iterable[Alert], after: Iterable[Alert]
) -> None:
    unchanged = set(before)
    changed = [alert for alert in after if alert not in unchanged]
    if not changed:
        return
    tally = WriteCounts()
    with record_job(Ledger(store), "alert run", {"alerts": len(changed)}, tally) as job:
        written = store.write(dataset, to_rows(changed, dataset), Origin(job.id, "lake"))
        tally.add(dataset.name, written)


def _deliver_messages(
    messages: Sequence[Message], alerts: AlertSettings
) -> dict[Address, str | None]:
    """Send messages, all channels at once; return the error, or None, by address."""
    by_channel: dict[str, list[Message]] = defaultdict(list)
    for message in messages:
        by_channel[message.channel].append(message)
    errors: dict[Address, str | None] = {}
    if by_channel:
        with ThreadPoolExecutor(len(by_channel)) as pool:
            for channel_errors in pool.map(
                lambda batch: _deliver_to_channel(batch, alerts), by_channel.values()
            ):
                errors |= channel_errors
    for (rule, channel), error in errors.items():
        if error is not None:
            _log.error("alert not delivered", rule=rule, channel=channel, reason=error)
    return errors


def _deliver_to_channel(
    messages: Iterable[Message], alerts: AlertSettings
) -> dict[Address, str | None]:
    """Send messages to their channel in turn; the timeout applies to all of them together."""
    errors: dict[Address, str | None] = {}
    silent: str | None = None
    spent = 0.0
    for message in messages:
        if silent is None and spent >= alerts.timeout_seconds:
            silent = f"channel {message.channel!r} had no time left: earlier messages took too long"
        begun = time.monotonic()
        try:
            if silent is None:
                _send(message, alerts, alerts.timeout_seconds - spent)
            errors[message.address] = silent
        except NoAnswerError as error:
            errors[message.address] = silent = error.message
        except DeliveryError as error:
            errors[message.address] = error.message
        except LakeError as error:
            errors[message.address] = str(error).replace("\n", ". ")
        spent += time.monotonic() - begun
    return errors


def _send(message: Message, alerts: AlertSettings, timeout_seconds: float) -> None:
    target = alerts.targets.get(message.channel)
    if target is None:  # settings built in Python are not validated
        raise ConfigError(f"there is no channel {message.channel!r}")
    deliver(
        Channel(message.channel, target),
        message.title,
        message.body,
        message.level,
        timeout_seconds=timeout_seconds,
    )


def _send_test_message(channel: Channel, timeout_seconds: float) -> str | None:
    text = f"This is a test message of `lake alert test` to the channel {channel.name}."
    try:
        deliver(channel, "lake: test", text, "info", timeout_seconds=timeout_seconds)
    except LakeError as error:
        return error.message
    return None


def _estimate_longest_run(alerts: AlertSettings) -> timedelta:
    """Return how long another run may take: to notify its channels, to read and to write."""
    return timedelta(seconds=2 * alerts.timeout_seconds + 10)
