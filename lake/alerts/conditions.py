"""Evaluate rules: find the conditions that open findings and old rows meet. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

import polars as pl

from lake.model.dataset import TIMESTAMP
from lake.model.market import DATASET_MARKET
from lake.model.severity import SEVERITIES, Severity
from lake.model.time import iso
from lake.settings import AlertRule

NEWEST = pl.Schema(
    {
        "dataset": pl.String(),
        "exchange": pl.String(),
        "symbol": pl.String(),
        "known_at": TIMESTAMP,
    }
)
"""When the newest row of a table and market was known: a bar at its end, others at their time."""

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """The rule, table and market of a condition."""

    rule: str
    dataset: str
    exchange: str
    symbol: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A table and market that meet the condition of a rule.

    Attributes
    ----------
    severity
        The worst of the findings; for old rows, that of the rule.
    count
        Number of open findings; 1 for old rows.
    since
        When the first of the findings was opened, or when the newest row was known; the present if
        a rule on the age of rows names a table without rows.
    text
        The condition in one sentence, with table and market.
    """

    subject: Subject
    severity: Severity
    count: int
    since: datetime
    text: str


def find_conditions(
    rules: Iterable[AlertRule], findings: pl.DataFrame, newest: pl.DataFrame, now: datetime
) -> tuple[Condition, ...]:
    """Find the conditions that are met, sorted by subject.

    Parameters
    ----------
    findings
        `exchange`, `symbol`, `dataset`, `check`, `severity`, `message`, `found_at` and `status` of
        the table `findings`; closed findings are ignored.
    newest
        `NEWEST`.
    """
    conditions: list[Condition] = []
    for rule in rules:
        if rule.freshness_seconds is None:
            conditions.extend(_find_defects(rule, findings, now))
        else:
            conditions.extend(_find_old_rows(rule, rule.freshness_seconds, newest, now))
    return tuple(sorted(conditions, key=lambda condition: condition.subject))


def matches(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern with `*` and `?`; case matters."""
    return fnmatchcase(name, pattern)


def format_duration(duration: timedelta) -> str:
    """Format a duration: `45 s`, `12 min`, `3.5 h`, `2 d`."""
    seconds = duration.total_seconds()
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{round(seconds, 1):g} s"


def _find_defects(rule: AlertRule, findings: pl.DataFrame, now: datetime) -> Iterable[Condition]:
    patterns = {name: getattr(rule, name) for name in (*DATASET_MARKET, "check")}
    severities = SEVERITIES[SEVERITIES.index(rule.severity or "info") :]
    rows = findings.filter(pl.col("status") == "open", pl.col("severity").is_in(severities))
    if rule.within_seconds:
        rows = rows.filter(pl.col("found_at") > now - timedelta(seconds=rule.within_seconds))
    # An Enum sorts by the order of its categories: the worst first, and of these the latest.
    worst = [pl.col("severity").cast(pl.Enum(SEVERITIES)), "found_at"]
    groups = (
        _filter_rows(rows, patterns)
        .sort(worst, descending=True, maintain_order=True)
        .group_by(DATASET_MARKET, maintain_order=True)
        .agg(
            pl.col("severity", "message").first(),
            pl.len().cast(pl.Int64).alias("count"),
            pl.col("found_at").min().alias("since"),
            pl.col("check").alias("checks"),
        )
        .filter(pl.col("count") >= rule.min_findings)
    )
    for row in groups.iter_rows(named=True):
        subject = Subject(rule.name, *(row[name] for name in DATASET_MARKET))
        total, since = _count_findings(Counter(row["checks"])), row["since"]
        text = f"{_describe(subject)}: {total} since {iso(since)}; {row['message']}"
        yield Condition(subject, row["severity"], row["count"], since, text)


def _find_old_rows(
    rule: AlertRule, limit_seconds: float, newest: pl.DataFrame, now: datetime
) -> Iterable[Condition]:
    limit = timedelta(seconds=limit_seconds)
    severity = rule.severity or "warning"
    patterns = {name: str(getattr(rule, name)) for name in DATASET_MARKET}
    rows = _filter_rows(newest, patterns)
    if rows.is_empty() and not _is_pattern(rule.dataset):
        subject = Subject(rule.name, *patterns.values())
        yield Condition(subject, severity, 1, now, f"{_describe(subject)}: there are no rows")
    for *market, known_at in rows.filter(pl.col("known_at") < now - limit).rows():
        subject = Subject(rule.name, *market)
        age, maximum = format_duration(now - known_at), format_duration(limit)
        text = f"the newest row is {age} old (of {iso(known_at)}); the limit is {maximum}"
        yield Condition(subject, severity, 1, known_at, f"{_describe(subject)}: {text}")


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?")


def _filter_rows(rows: pl.DataFrame, patterns: Mapping[str, str]) -> pl.DataFrame:
    """Keep the rows whose columns match; each name is matched once, not each row."""
    for column, pattern in patterns.items():
        if pattern != "*":
            names = [name for name in rows[column].unique() if matches(pattern, name)]
            rows = rows.filter(pl.col(column).is_in(names))
    return rows


def _describe(subject: Subject) -> str:
    return f"{subject.dataset} {subject.exchange} {subject.symbol}"


def _count_findings(checks: Counter[str]) -> str:
    total = checks.total()
    kinds = ", ".join(f"{name} {number:,}" for name, number in checks.most_common())
    return f"{total:,} open finding{'s' if total > 1 else ''} ({kinds})"
