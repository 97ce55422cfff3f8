"""Bars that repeat the bar before, and a price that stands still while another venue moves."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from lake.model.market import Market
from lake.quality.checks.frozen import CHECKS
from tests.quality.checks.test_bars import MINUTE, T0, at, put, walk
from tests.quality.checks.test_spikes import fine_trades
from tests.quality.slices import outcome, reference_of, slice_of

KRAKEN = Market("kraken", "BTC/USD")
PRICES = ("open", "high", "low", "close")
PLACE = 300


def bars() -> pl.DataFrame:
    """Bars whose volumes all differ, and of which none has one price."""
    frame = walk().with_columns(volume=1 + pl.int_range(pl.len()) / 1000)
    return frame.with_columns(pl.col("high") * 1.0001, pl.col("low") / 1.0001)


def repeat(frame: pl.DataFrame, count: int, names: tuple[str, ...]) -> pl.DataFrame:
    """Some bars with the values of the bar before them."""
    before = frame.row(PLACE - 1, named=True)
    return put(frame, at(PLACE, count), **{name: pl.lit(before[name]) for name in names})


def stand_still(frame: pl.DataFrame, count: int) -> pl.DataFrame:
    price = pl.lit(frame["close"][PLACE - 1])
    return put(frame, at(PLACE, count), **dict.fromkeys(PRICES, price))


def run(name: str, frame: pl.DataFrame, **references: Any) -> pl.DataFrame:
    return outcome(CHECKS, name, slice_of("bars_1m", frame, **references))


@pytest.mark.parametrize(("count", "severity"), [(1, "warning"), (2, None), (15, None)])
def test_a_bar_that_comes_again_whole_is_reported(count: int, severity: str | None) -> None:
    findings = run("repeated", repeat(bars(), count, (*PRICES, "volume")))
    assert findings.select("start", "end", "rows", "severity").rows() == [
        (T0 + PLACE * MINUTE, T0 + (PLACE + count) * MINUTE, count, severity)
    ]


def test_a_bar_with_another_volume_or_count_is_no_repeat() -> None:
    assert run("repeated", repeat(bars(), 15, PRICES)).is_empty()
    counts = repeat(bars(), 15, (*PRICES, "volume")).with_columns(
        trade_count=pl.int_range(pl.len())
    )
    assert run("repeated", counts).is_empty()


@pytest.mark.parametrize(("unusual", "reported"), [(7.77, 1), (0.01, 0)])
def test_one_price_that_comes_again_is_suspect_if_its_volume_is_rare(
    unusual: float, reported: int
) -> None:
    """In a market that often trades the least amount, and often keeps its price."""
    still = pl.int_range(pl.len()) % 6 == 0
    last = pl.col("close").shift(1).fill_null(100.0)
    frame = put(bars(), still, volume=pl.lit(0.01), **dict.fromkeys(PRICES, last))
    flat = dict.fromkeys(PRICES, pl.lit(100.0))
    again = put(frame, at(PLACE + 1, 2), volume=pl.lit(unusual), **flat)
    assert run("repeated", again).height == reported


def test_orders_cut_into_equal_parts_are_no_repeats() -> None:
    """As on Coinbase in 2016, second by second: some equal bars, many times a day."""
    frame = bars()
    for place in range(100, 1400, 60):
        flat = dict.fromkeys(PRICES, pl.lit(100.0))
        frame = put(frame, at(place, 3), volume=pl.lit(float(place)), **flat)
    assert run("repeated", frame).is_empty()


def test_a_repeat_that_trades_show_is_real() -> None:
    frame = repeat(bars(), 5, (*PRICES, "volume"))
    assert run("repeated", frame, trades=reference_of("trades", fine_trades(frame))).is_empty()
    truth = reference_of("trades", fine_trades(bars()))
    assert run("repeated", frame, trades=truth)["rows"].to_list() == [5]


def test_a_price_that_stands_still_is_wrong_only_if_another_venue_moves() -> None:
    frame = stand_still(bars(), 15)
    assert run("stale", frame).is_empty()
    moving = reference_of("bars_1m", bars(), market=KRAKEN)
    findings = run("stale", frame, others=(moving,))
    assert findings.select("start", "rows", "severity", "against").rows() == [
        (T0 + PLACE * MINUTE, 15, None, "kraken BTC/USD")
    ]
    assert "kraken BTC/USD moved meanwhile" in findings["message"][0]
    still = reference_of("bars_1m", frame, market=KRAKEN)
    assert run("stale", frame, others=(still,)).is_empty()
    assert run("stale", frame, others=(still, moving)).is_empty()


def test_a_long_standstill_is_suspect_alone_and_real_if_another_venue_agrees() -> None:
    frame = stand_still(bars(), 45)
    findings = run("stale", frame)
    assert findings.select("rows", "reason", "severity").rows() == [(45, "suspect", "warning")]
    still = reference_of("bars_1m", frame, market=KRAKEN)
    assert run("stale", frame, others=(still,)).is_empty()


def test_a_market_that_keeps_its_price_often_may_stand_still_longer() -> None:
    often = pl.int_range(pl.len()) % 3 != 0
    frame = put(bars(), often, **dict.fromkeys(PRICES, pl.col("close").shift(1).fill_null(100.0)))
    frame = put(frame, often, **dict.fromkeys(PRICES, pl.lit(100.0)))
    moving = reference_of("bars_1m", bars(), market=KRAKEN)
    assert run("stale", stand_still(frame, 15), others=(moving,)).is_empty()
