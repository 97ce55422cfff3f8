"""Reads of quality: findings and scores that checks have recorded, and gaps as they are now."""

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
    """Which findings to read; what is not given lets all through.

    Attributes
    ----------
    tables, selection
        Of these tables; that begin in the selection.
    checks
        Of these checks.
    severity
        Of this severity, or worse.
    status
        `open` or `closed`.
    """

    tables: tuple[str, ...]
    selection: Selection
    checks: tuple[str, ...] = ()
    severity: str | None = None
    status: str | None = "open"


def read_findings(store: Store, wanted: FindingFilter) -> pl.DataFrame:
    """Rows of `findings`, worst first."""
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
    """One finding by its id, or by the beginning of it.

    Raises
    ------
    UnknownNameError
        There is none, or there are several.
    """
    rows = store.read(store.catalog.dataset("findings"))
    matches = rows.filter(pl.col("finding_id").str.starts_with(finding_id))
    if matches.height != 1:
        what = "means several findings" if matches.height else "is no finding"
        raise UnknownNameError(f"{finding_id!r} {what}", "`lake quality findings` lists ids.")
    return matches.row(0, named=True)


def read_scores(store: Store, tables: Sequence[str], selection: Selection) -> pl.DataFrame:
    """Rows of `scores`: the quality of each market-day of a selection that was checked."""
    rows = store.read(store.catalog.dataset("scores"), widen_to_days(selection))
    if tables:
        rows = rows.filter(pl.col("dataset").is_in(tables))
    return rows.sort("dataset", "exchange", "symbol", "timestamp")


def read_gaps(store: Store, settings: Settings, table: str, selection: Selection) -> pl.DataFrame:
    """Missing bars that open in a selection, and why, as it is now: see `missing`."""
    return find_gaps(open_inputs(store, settings, store.now()), table, selection)


def severities_from(least: str) -> tuple[str, ...]:
    """A severity and the worse ones.

    Raises
    ------
    UsageError
        It is none.
    """
    if least not in SEVERITIES:
        raise UsageError(f"{least!r} is no severity", f"There are {', '.join(SEVERITIES)}.")
    return SEVERITIES[SEVERITIES.index(least) :]
