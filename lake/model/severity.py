"""How bad a finding is: four severities, and their order."""

from __future__ import annotations

from typing import Literal, get_args

import polars as pl

Severity = Literal["info", "warning", "error", "critical"]
"""Severity of a finding, and minimum severity of what a check, a rule or a command counts."""

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From the mildest to the worst."""


def severity_rank(severity: str = "severity") -> pl.Expr:
    """Return the place of each severity in `SEVERITIES` (Int8), for sorting.

    Parameters
    ----------
    severity
        Name of the column that holds severities.

    Raises
    ------
    polars.exceptions.InvalidOperationError
        When the expression is evaluated: the column holds a value that is not a severity.
    """
    ranks = {name: number for number, name in enumerate(SEVERITIES)}
    return pl.col(severity).replace_strict(ranks, return_dtype=pl.Int8)
