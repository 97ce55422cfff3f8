"""Severities are the same, in the same order, wherever a user names one."""

from __future__ import annotations

from typing import get_args

import polars as pl

from lake.cli import quality
from lake.model.severity import SEVERITIES, severity_rank
from lake.settings import AlertRule


def test_settings_and_commands_name_the_severities() -> None:
    severity, _ = get_args(AlertRule.model_fields["severity"].annotation)
    assert get_args(severity) == SEVERITIES
    assert tuple(item.value for item in quality.Severity) == SEVERITIES


def test_the_worst_severity_has_the_highest_rank() -> None:
    rows = pl.DataFrame({"severity": ["critical", "info", "error", "warning"]})
    assert tuple(rows.sort(severity_rank())["severity"]) == SEVERITIES
