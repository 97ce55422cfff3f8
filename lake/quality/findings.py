"""Convert findings to rows of the table `findings`, with ids and in order of severity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import polars as pl

from lake.model.market import MARKET_COLUMNS, Market
from lake.model.severity import severity_rank

_IDENTITY = (*MARKET_COLUMNS, "dataset", "timestamp", "check", "against", "reason")


def as_rows(table: str, market: Market, findings: pl.DataFrame) -> pl.DataFrame:
    """Return the findings of a market with the columns of the table `findings`, and their ids.

    Parameters
    ----------
    findings
        `lake.quality.run.FINDINGS`.
    """
    rows = findings.rename({"start": "timestamp"}).with_columns(
        pl.col("against", "reason").replace("", None),
        exchange=pl.lit(market.exchange),
        symbol=pl.lit(market.symbol),
        dataset=pl.lit(table),
    )
    ids = [finding_id(row) for row in rows.select(_IDENTITY).iter_rows(named=True)]
    named = rows.with_columns(finding_id=pl.Series(ids, dtype=pl.String))
    return named.unique("finding_id", keep="first", maintain_order=True)


def finding_id(row: Mapping[str, object]) -> str:
    """Return the id of a finding. The same defect always has the same id."""
    text = json.dumps([str(row[name]) for name in _IDENTITY], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sort_by_severity(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort findings by severity, the worst first, then by time."""
    return rows.sort(severity_rank(), "timestamp", "finding_id", descending=[True, False, False])
