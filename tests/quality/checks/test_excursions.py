"""Prices that jump to another level for some bars, with and without a witness."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from lake.model.market import Market
from lake.quality.checks import excursions, levels
from tests.quality.checks.test_bars import MINUTE, T0, at, put, times, walk
from tests.quality.checks.test_spikes import fine_trades
from tests.quality.slices import outcome, reference_of, slice_of

CHECKS = {**excursions.CHECKS, **levels.CHECKS}
KRAKEN, OKX = Market("kraken", "BTC/USD"), Market("okx", "BTC/USDT")
PLACE = 300


def run(frame: pl.DataFrame, name: str = "excursions", **references: Any) -> pl.DataFrame:
    return outcome(CHECKS, name, slice_of("bars_1m", frame, **references))


@pytest.mark.parametrize("count", [2, 3, 10, 60])
@pytest.mark.parametrize("factor", [1.05, 0.5, 2.0])
def test_bars_at_another_level_are_suspect_alone(count: int, factor: float) -> None:
    findings = run(times(walk(), at(PLACE, count), factor))
    assert findings.select("start", "end", "rows", "reason", "severity").rows() == [
        (T0 + PLACE * MINUTE, T0 + (PLACE + count) * MINUTE, count, "suspect", "warning")
    ]
    assert findings["measured"][0] == pytest.approx(findings["expected"][0] * factor, rel=0.01)
    assert "no trades, finer bars or other venues testify" in findings["message"][0]


def test_a_witness_decides() -> None:
    wrong = times(walk(), at(PLACE, 3), 1.05)
    calm = reference_of("bars_1m", times(walk(), at(0, 1500), 1.003), market=KRAKEN)
    moved = reference_of("bars_1m", times(walk(), at(PLACE, 3), 1.04), market=OKX)
    findings = run(wrong, others=(calm,))
    assert findings.select("reason", "severity", "against").rows() == [
        ("contradicted", None, "kraken BTC/USD")
    ]
    assert "not shown by kraken BTC/USD" in findings["message"][0]
    assert run(wrong, others=(calm, moved)).is_empty()
    trades = reference_of("trades", fine_trades(wrong))
    assert run(wrong, others=(calm,), trades=trades).is_empty()
    trades = reference_of("trades", fine_trades(walk()))
    assert run(wrong, others=(moved,), trades=trades)["against"].to_list() == ["trades"]


def test_smaller_jumps_count_with_a_witness_only() -> None:
    small = times(walk(), at(PLACE, 3), 1.005)
    assert run(small).is_empty()
    calm = reference_of("bars_1m", walk(), market=KRAKEN)
    assert run(small, others=(calm,))["reason"].to_list() == ["contradicted"]


def test_a_new_level_a_single_bar_and_a_move_by_trading_are_no_excursions() -> None:
    assert run(times(walk(), at(PLACE, 1500), 1.05)).is_empty()
    assert run(times(walk(), at(PLACE), 1.05)).is_empty()
    assert run(times(walk(), at(PLACE, 61), 1.05)).is_empty()
    away = times(walk(), at(PLACE, 5), 1.05)
    edges = at(PLACE) | at(PLACE + 5)
    last = pl.col("close").shift(1)
    traded = put(away, edges, open=last)
    traded = put(traded, edges, high=pl.max_horizontal("open", "high"))
    traded = put(traded, edges, low=pl.min_horizontal("open", "low"))
    assert run(traded).is_empty()


def test_a_jump_over_missing_bars_must_be_larger() -> None:
    frame = times(walk(), at(PLACE, 3), 1.02)
    assert run(frame).height == 1
    assert run(frame.filter(~at(PLACE - 100, 100))).is_empty()


def test_an_excursion_over_midnight_is_found_on_both_days() -> None:
    findings = run(times(walk(), at(715, 10), 1.05))
    assert findings.select("start", "rows").rows() == [
        (T0 + 715 * MINUTE, 5),
        (datetime(2024, 1, 2, tzinfo=UTC), 5),
    ]


def test_two_excursions_in_a_row_are_two() -> None:
    frame = times(times(walk(), at(PLACE, 3), 1.05), at(PLACE + 8, 4), 1.05)
    assert run(frame)["rows"].to_list() == [3, 4]


@pytest.mark.parametrize("count", [3, 4, 10])
def test_few_bars_prove_nothing(count: int) -> None:
    assert run(times(walk(count), at(1, 2), 1.5)).is_empty()


@pytest.mark.parametrize(("name", "wrong"), [
    ("jumps", times(walk(), at(720, 1500), 1.05)),
    ("scale", times(walk(), at(PLACE, 25), 100.0)),
])  # fmt: skip
def test_a_jump_at_midnight_and_a_factor_that_a_witness_shows_are_real(
    name: str, wrong: pl.DataFrame
) -> None:
    calm = reference_of("bars_1m", walk(), market=KRAKEN)
    moved = reference_of("bars_1m", wrong, market=OKX)
    assert run(wrong, name).height == 1
    findings = run(wrong, name, others=(calm,))
    assert findings.height == 1
    assert "not shown by kraken BTC/USD" in findings["message"][0]
    assert run(wrong, name, others=(calm, moved)).is_empty()
    trades = reference_of("trades", fine_trades(wrong))
    assert run(wrong, name, others=(calm,), trades=trades).is_empty()
