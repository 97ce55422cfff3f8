"""Checks of bars against themselves, on bars made by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from lake.model.catalog import builtin
from lake.quality.checks import bars, frozen, levels
from tests.quality.slices import collect_findings, slice_of

T0 = datetime(2024, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CHECKS = {**bars.CHECKS, **frozen.CHECKS, **levels.CHECKS}
BARS = builtin().dataset("bars_1m")
THRESHOLDS = {check.name: check.thresholds for check in BARS.checks}


def walk(count: int = 1500, start: datetime = T0, **columns: Any) -> pl.DataFrame:
    """Bars that open where the last one closed, each a little away."""
    random = np.random.default_rng(7)
    closes = 100 * np.exp(np.cumsum(random.choice([-4e-4, -1e-4, 1e-4, 4e-4], count)))
    opens = np.concatenate(([100.0], closes[:-1]))
    frame = pl.DataFrame(
        {
            "timestamp": [start + n * MINUTE for n in range(count)],
            "open": opens,
            "high": np.maximum(opens, closes),
            "low": np.minimum(opens, closes),
            "close": closes,
            "volume": np.ones(count),
        }
    )
    return frame.with_columns(**columns)


def at(first: int, count: int = 1) -> pl.Expr:
    """Whether a row is one of `count` from `first` on."""
    return pl.int_range(pl.len()).is_between(first, first + count - 1)


def put(frame: pl.DataFrame, where: pl.Expr, **columns: Any) -> pl.DataFrame:
    """Other values in some rows."""
    return frame.with_columns(
        pl.when(where).then(value).otherwise(pl.col(name)).alias(name)
        for name, value in columns.items()
    )


def times(frame: pl.DataFrame, where: pl.Expr, factor: float) -> pl.DataFrame:
    """All prices of some rows by a factor."""
    names = ("open", "high", "low", "close")
    return put(frame, where, **{name: pl.col(name) * factor for name in names})


def run(name: str, frame: pl.DataFrame, table: str = "bars_1m") -> pl.DataFrame:
    return collect_findings(CHECKS[name].function(slice_of(table, frame), **THRESHOLDS[name]))


@pytest.mark.parametrize("name", CHECKS)
def test_a_market_that_walks_raises_no_alarm(name: str) -> None:
    assert run(name, walk()).is_empty()


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("count", [1, 2])
def test_few_bars_raise_no_alarm(name: str, count: int) -> None:
    assert run(name, walk(count)).is_empty()


@pytest.mark.parametrize("name", CHECKS)
def test_no_bars_are_no_finding(name: str) -> None:
    frame = walk(3).with_columns(closed=pl.lit(value=False))
    rows = slice_of("bars_1m", frame)
    empty = CHECKS[name].function(replace(rows, frame=rows.frame.clear()), **THRESHOLDS[name])
    assert collect_findings(empty).is_empty()


@pytest.mark.parametrize(
    ("rule", "columns"),
    [
        ("prices_positive", {"open": 0.0, "low": 0.0}),
        ("high_is_highest", {"high": 1.0}),
        ("low_is_lowest", {"low": 500.0, "high": 600.0}),
        ("volume_not_negative", {"volume": -1.0}),
    ],
)
def test_a_stored_row_that_breaks_a_rule_is_named_with_the_rule(
    rule: str, columns: dict[str, float]
) -> None:
    findings = run(
        "broken_rules", put(walk(), at(70, 3), **{k: pl.lit(v) for k, v in columns.items()})
    )
    assert findings["reason"].to_list() == [rule]
    assert findings["rows"].to_list() == [3]
    assert findings["start"].to_list() == [T0 + 70 * MINUTE]
    assert findings["end"].to_list() == [T0 + 73 * MINUTE]


def test_broken_rows_apart_are_findings_apart() -> None:
    frame = put(walk(), at(70) | at(90), high=pl.lit(1.0))
    assert run("broken_rules", frame)["start"].to_list() == [T0 + 70 * MINUTE, T0 + 90 * MINUTE]


def test_rules_of_any_dataset_are_evaluated_again() -> None:
    trades = pl.DataFrame(
        {
            "timestamp": [T0, T0 + MINUTE],
            "trade_id": ["1", "2"],
            "price": [1.0, 1.0],
            "amount": [1.0, 0.0],
        }
    )
    assert run("broken_rules", trades, "trades")["reason"].to_list() == ["amount_positive"]


def test_a_long_silence_of_a_busy_market_is_found() -> None:
    findings = run("zero_volume", put(walk(), at(100, 90), volume=pl.lit(0.0)))
    assert findings.select("rows", "measured").rows() == [(90, 90.0)]
    assert findings["start"].to_list() == [T0 + 100 * MINUTE]


def test_silence_that_is_usual_for_a_market_is_not_reported() -> None:
    silent = pl.int_range(pl.len()) % 100 != 0
    assert run("zero_volume", put(walk(), silent, volume=pl.lit(0.0))).is_empty()


def test_a_frozen_price_is_found_and_cut_at_midnight() -> None:
    same = {name: pl.lit(100.0) for name in ("open", "high", "low", "close")}
    findings = run("stale", put(walk(), at(690, 61), **same))
    assert findings["rows"].to_list() == [29, 31]
    assert findings["start"].to_list()[1] == datetime(2024, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(("name", "least"), [("zero_volume", 60), ("stale", 30)])
def test_a_run_over_midnight_is_as_long_as_it_is(name: str, least: int) -> None:
    """Neither of its days holds enough of it."""
    half = least * 2 // 3
    same = {name: pl.lit(100.0) for name in ("open", "high", "low", "close")}
    frozen = {"zero_volume": {"volume": pl.lit(0.0)}, "stale": same}[name]
    findings = run(name, put(walk(), at(720 - half, 2 * half), **frozen))
    repeats = 2 * half - (name == "stale")  # the first price repeats none
    assert findings["measured"].to_list() == [float(repeats)] * 2
    assert findings["rows"].to_list() == [repeats - half, half]


def test_a_price_without_trades_is_not_frozen() -> None:
    same = {name: pl.lit(100.0) for name in ("open", "high", "low", "close")}
    frame = put(walk(), at(690, 61), volume=pl.lit(0.0), **same)
    assert run("stale", frame).is_empty()
    assert run("repeated", frame).is_empty()


def test_filled_and_open_bars_are_not_checked() -> None:
    same = {name: pl.lit(100.0) for name in ("open", "high", "low", "close")}
    frame = put(walk(), at(100, 60), **same)
    for marks in (
        {"fill": pl.when(at(100, 60)).then(pl.lit("interpolated:flat"))},
        {"closed": ~at(100, 60)},
    ):
        assert run("stale", frame.with_columns(**marks)).is_empty()


def test_days_at_different_levels_are_found_at_midnight_only() -> None:
    later = pl.int_range(pl.len()) >= 720
    findings = run("jumps", times(walk(), later, 1.01))
    assert findings["start"].to_list() == [datetime(2024, 1, 2, tzinfo=UTC)]
    assert findings["measured"][0] == pytest.approx(findings["expected"][0] * 1.01)
    assert run("jumps", times(walk(), pl.int_range(pl.len()) >= 700, 1.01)).is_empty()


def test_a_price_that_moved_while_bars_are_missing_is_no_jump() -> None:
    frame = times(walk(), pl.int_range(pl.len()) >= 720, 1.01)
    assert run("jumps", frame.filter(~at(715, 5))).is_empty()


@pytest.mark.parametrize("factor", [100.0, 0.01, 10.0])
def test_prices_off_by_a_factor_are_found_with_the_factor(factor: float) -> None:
    findings = run("scale", times(walk(), at(100, 25), factor))
    assert findings["rows"].to_list() == [25]
    assert findings["measured"][0] == pytest.approx(factor, rel=0.02)


def test_a_price_that_does_not_return_is_no_mistaken_factor() -> None:
    assert run("scale", times(walk(), pl.int_range(pl.len()) >= 100, 10.0)).is_empty()
