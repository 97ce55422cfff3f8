"""Read findings and scores that checks recorded, and current gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from lake.errors import UnknownNameError, UsageError
from lake.jobs.quality.run import find_gaps, open_inputs
from lake.model.selection import Selection
from lake.model.severity import SEVERITIES
from lake.quality.findings import sort_by_severity
from lake.settings import Settings
from lake.store.chunks import widen_to_days
from lake.store.store import Store


@dataclass(frozen=True, slots=True)
class FindingFilter:
    """Which findings to read; an omitted field matches all.

    Attributes
    ----------
    tables, selection
        Findings of these tables that begin in the selection.
    checks
        Names of checks.
    severity
        Minimum severity.
    status
        `open` or `closed`; None: both.
    """

    tables: tuple[str, ...]
    selection: Selection
    checks: tuple[str, ...] = ()
    severity: str | None = None
    status: str | None = "open"


def read_findings(store: Store, wanted: FindingFilter) -> pl.DataFrame:
    """Return rows of `findings`, worst first."""
    rows = store.read(store.catalog.dataset("findings"), wanted.selection)
    if wanted.tables:
        rows = rows.filter(pl.col("dataset").is_in(wanted.tables))
    if wanted.checks:
        rows = rows.filter(pl.col("check").is_in(list(wanted.checks)))
    if wanted.status is not None:
        rows = rows.filter(pl.col("status") == wanted.status)
    if wanted.severity is not None:
        rows = rows.filter(pl.col("severity").is_in(severities_from(wanted.severity)))
    return sort_by_severity(rows)


def find_finding(store: Store, finding_id: str) -> dict[str, object]:
    """Return a finding by its id, or by a prefix of it.

    Raises
    ------
    UnknownNameError
        No finding matches, or several do.
    """
    rows = store.read(store.catalog.dataset("findings"))
    matches = rows.filter(pl.col("finding_id").str.starts_with(finding_id))
    if matches.height != 1:
        what = "matches several findings" if matches.height else "matches no finding"
        raise UnknownNameError(f"{finding_id!r} {what}", "`lake quality findings` lists ids.")
    return matches.row(0, named=True)


def read_scores(store: Store, tables: Sequence[str], selection: Selection) -> pl.DataFrame:
    """Return rows of `scores`: the quality of each checked market-day of a selection."""
    rows = store.read(store.catalog.dataset("scores"), widen_to_days(selection))
    if tables:
        rows = rows.filter(pl.col("dataset").is_in(tables))
    return rows.sort("dataset", "exchange", "symbol", "timestamp")


def read_gaps(store: Store, settings: Settings, table: str, selection: Selection) -> pl.DataFrame:
    """Return the bars that are now missing in a selection, with reasons (columns `GAPS`)."""
    return find_gaps(open_inputs(store, settings, store.now()), table, selection)


def severities_from(least: str) -> tuple[str, ...]:
    """Return a severity and all worse ones.

    Raises
    ------
    UsageError
        The severity does not exist.
    """
    if least not in SEVERITIES:
        raise UsageError(f"{least!r} is not a severity", f"Severities are {', '.join(SEVERITIES)}.")
    return SEVERITIES[SEVERITIES.index(least) :]
