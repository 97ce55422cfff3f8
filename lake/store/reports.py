"""Log what became of written rows that are not stored as they came."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lake.log import get_logger
from lake.model.dataset import Dataset
from lake.model.market import MARKET_COLUMNS
from lake.model.time import iso
from lake.store.bounds import ClearedTimes

_log = get_logger(__name__)


def report_cleared(dataset: Dataset, cleared: Sequence[ClearedTimes]) -> int:
    """Log times that became null; return their number."""
    for item in cleared:
        _log.warning(
            "times out of range are stored as null: a lake holds times from 1970 to 2199",
            table=dataset.name,
            column=item.column,
            rows=item.rows,
            first=f"{item.exchange} {item.symbol}",
            microseconds=item.microseconds,
        )
    return sum(item.rows for item in cleared)


def report_conflicts(dataset: Dataset, conflicting: pl.DataFrame, source: str, job_id: str) -> None:
    """Log how many rows of each market contradict stored ones, or others of their answer."""
    contradicted = "stored rows" if dataset.rows == "immutable" else "later rows of one answer"
    for (exchange, symbol), rows in conflicting.group_by(MARKET_COLUMNS, maintain_order=True):
        _log.warning(
            f"rows contradict {contradicted}: the table quarantine has both",
            table=dataset.name,
            exchange=exchange,
            symbol=symbol,
            rows=rows.height,
            first=iso(rows.select(pl.col(dataset.time_column).min()).item()),
            source=source,
            job=job_id,
        )
