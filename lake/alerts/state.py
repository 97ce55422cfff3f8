"""Convert alerts to rows of the table `alerts`, and back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lake.alerts.conditions import Subject
from lake.alerts.messages import Alert
from lake.model.dataset import Dataset


def select_active(rows: pl.DataFrame, now: datetime, min_interval: timedelta) -> tuple[Alert, ...]:
    """Select the alerts that are raised, not sent yet, or sent within the interval.

    Parameters
    ----------
    rows
        Rows of the table `alerts`.
    """
    recent = pl.max_horizontal("sent_at", "resolved_sent_at") > now - min_interval
    active = (
        pl.col("resolved_at").is_null()
        | pl.col("resolved_sent_at").is_null()
        | recent.fill_null(value=False)
    )
    return tuple(_from_row(row) for row in rows.filter(active).iter_rows(named=True))


def to_rows(alerts: Iterable[Alert], dataset: Dataset) -> pl.DataFrame:
    """Convert alerts to rows of the dataset `alerts`, without `date`."""
    schema = pl.Schema({k: v for k, v in dataset.polars_schema.items() if k != "date"})
    return pl.DataFrame([_to_row(alert) for alert in alerts], schema=schema)


def _from_row(row: dict[str, Any]) -> Alert:
    return Alert(
        Subject(row["rule"], row["dataset"], row["exchange"], row["symbol"]),
        row["channel"],
        row["timestamp"],
        row["severity"],
        row["count"],
        row["message"],
        row["sent_at"],
        row["resolved_at"],
        row["resolved_sent_at"],
        row["error"],
    )


def _to_row(alert: Alert) -> dict[str, Any]:
    return {
        "exchange": alert.subject.exchange,
        "symbol": alert.subject.symbol,
        "dataset": alert.subject.dataset,
        "timestamp": alert.raised_at,
        "rule": alert.subject.rule,
        "channel": alert.channel,
        "status": "raised" if alert.is_raised else "resolved",
        "severity": alert.severity,
        "count": alert.count,
        "message": alert.text,
        "sent_at": alert.sent_at,
        "resolved_at": alert.resolved_at,
        "resolved_sent_at": alert.resolved_sent_at,
        "error": alert.error,
    }
