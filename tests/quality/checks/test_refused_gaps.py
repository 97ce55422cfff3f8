"""A missing bar whose row was rejected names that as its reason, and lowers the score once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from lake.api import Lake
from lake.model.time import TimeRange
from lake.quality.checks.completeness import CHECKS as COMPLETENESS
from lake.quality.checks.quarantined import CHECKS
from lake.quality.configure import configure
from lake.quality.run import run_checks
from lake.quality.score import score_days
from lake.quality.slice import Slice
from tests.conftest import DAY, MINUTE, T0, TIME, bars, trades, write
from tests.quality.slices import outcome, reference_of, slice_of


def rejected(*times: datetime, reason: str = "open is null") -> pl.DataFrame:
    return pl.DataFrame(
        {"timestamp": times, "reason": [reason] * len(times)}, schema_overrides={"timestamp": TIME}
    )


def holed(*times: datetime, **more: Any) -> Slice:
    """An hour of bars of which three are missing; rows of some times were rejected."""
    frame = bars(60).filter(~pl.int_range(pl.len()).is_in([10, 11, 30]))
    return slice_of("bars_1m", frame, quarantine=rejected(*times), **more)


def test_a_missing_bar_whose_row_was_rejected_says_so() -> None:
    gone = T0 + 10 * MINUTE
    gaps = outcome(COMPLETENESS, "gaps", holed(gone))
    assert gaps.select("start", "rows", "reason", "severity").rows() == [
        (gone, 1, "refused", None),
        (gone + MINUTE, 1, "unknown", None),
        (T0 + 30 * MINUTE, 1, "unknown", None),
    ]
    assert gaps["message"][0] == "1 bar is missing: the venue's rows were rejected"
    [finding] = outcome(CHECKS, "refused", holed(gone)).to_dicts()
    assert finding["severity"] == "info"
    assert finding["message"] == "1 row was rejected: open is null; the bar counts as missing"


@pytest.mark.parametrize("check", ["accuracy", "completeness"])
def test_it_costs_once(check: str) -> None:
    rows = holed(T0 + 10 * MINUTE, T0 + 11 * MINUTE)
    result = run_checks(rows, configure(rows.dataset))
    [score] = score_days(result.days, result.findings).to_dicts()
    assert score[check] == {"accuracy": 1.0, "completeness": 57 / 60}[check]
    assert (score["lost"], score["unknown"]) == (2, 1)


def test_rejected_rows_that_explain_no_missing_bar_are_errors() -> None:
    beside = outcome(CHECKS, "refused", holed(T0 + 20 * MINUTE + timedelta(seconds=7)))
    assert beside.select("rows", "severity").rows() == [(1, None)]
    ticks = slice_of("trades", trades(3), quarantine=rejected(T0 + MINUTE))
    assert outcome(CHECKS, "refused", ticks).select("rows", "severity").rows() == [(1, None)]


def test_trades_decide_before_a_rejected_row_does() -> None:
    gone = T0 + 10 * MINUTE
    quiet = reference_of("trades", trades(1), coverage=(TimeRange(T0, T0 + DAY),))
    rows = holed(gone, trades=quiet)
    assert set(outcome(COMPLETENESS, "gaps", rows)["reason"]) == {"no_trade"}
    assert outcome(CHECKS, "refused", rows)["severity"].to_list() == [None]


def test_a_row_that_the_store_rejects_explains_its_gap(lake: Lake) -> None:
    place = pl.int_range(pl.len())
    bad = pl.when(place == 10).then(-1.0).otherwise("low")
    write(lake, "bars_1m", bars(60).with_columns(low=bad))
    findings = lake.quality.check().findings
    assert findings.select("check", "reason", "severity").sort("check").rows() == [
        ("gaps", "refused", "error"),
        ("refused", "prices_positive", "info"),
    ]
    assert lake.quality.scores()["score"].to_list() == [59 / 60]
