"""Bars and trades that count amounts in other units, and trades of one moment without an order."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from lake.model.market import Market
from lake.model.units import Units
from lake.quality.checks.reconciliation import CHECKS
from lake.quality.checks.spikes import CHECKS as SPIKES
from tests.quality.checks.test_bars import MINUTE, T0, at, put, walk
from tests.quality.checks.test_spikes import fine_trades
from tests.quality.slices import outcome, reference_of, slice_of

LINEAR = Units("contracts", "base", 0.01)
INVERSE = Units("contracts", "base", 100.0, inverse=True)
PERPETUAL = Market("okx", "BTC/USDT:USDT")


def run(frame: pl.DataFrame, trades: pl.DataFrame, units: Units | None) -> pl.DataFrame:
    below = reference_of("trades", trades, market=PERPETUAL)
    rows = slice_of("bars_1m", frame, market=PERPETUAL, trades=below, units=units)
    return outcome(CHECKS, "reconciliation", rows)


def in_base(trades: pl.DataFrame, base: pl.Expr, quote: pl.Expr) -> pl.DataFrame:
    """Bars with the volumes of trades that count contracts."""
    sums = trades.group_by(pl.col("timestamp").dt.truncate("1m")).agg(
        volume=base.sum(), quote_volume=quote.sum()
    )
    return walk().drop("volume").join(sums, on="timestamp").sort("timestamp")


TRADES = fine_trades(walk()).with_columns(amount=pl.lit(10.0))
AMOUNT, PRICE = pl.col("amount"), pl.col("price")
BARS = {
    LINEAR: in_base(TRADES, AMOUNT * 0.01, AMOUNT * 0.01 * PRICE),
    INVERSE: in_base(TRADES, AMOUNT * 100 / PRICE, AMOUNT * 100),
}


@pytest.mark.parametrize("units", BARS)
def test_contracts_are_converted_before_volumes_are_compared(units: Units) -> None:
    bars = BARS[units]
    assert run(bars, TRADES, units).is_empty()
    for name in ("volume", "quote_volume"):
        wrong = put(bars, at(9), **{name: pl.col(name) * 1.01})
        assert run(wrong, TRADES, units)["reason"].to_list() == [name]


def test_volumes_of_an_unknown_unit_are_left_out_and_prices_are_not() -> None:
    bars = BARS[LINEAR]
    for units in (None, Units("contracts", None, 0.01)):
        assert run(bars, TRADES, units).is_empty()
        wrong = put(bars, at(9), close=pl.col("close") * 1.01)
        assert run(wrong, TRADES, units)["reason"].to_list() == ["close"]


def test_volumes_of_an_unknown_unit_are_compared_if_most_of_a_day_agree() -> None:
    wrong = put(walk(), at(9), volume=pl.lit(0.5))
    findings = run(wrong, fine_trades(walk()), None)
    assert findings["reason"].to_list() == ["volume"]


def sweeps(trade_id: pl.Expr) -> pl.DataFrame:
    """Trades of which three of one moment, and of three prices, begin and end each minute."""
    bars, parts = walk(240), []
    middle = (pl.col("high") + pl.col("low")) / 2
    for n, (second, price) in enumerate(
        [(1, "open"), (1, "high"), (1, "low"), (30, None), (59, "low"), (59, "high"), (59, "close")]
    ):
        parts.append(
            bars.select(
                pl.col("timestamp").dt.offset_by(f"{second}s"),
                price=middle if price is None else pl.col(price),
                amount=pl.col("volume") / 7,
                _number=pl.int_range(pl.len()) * 7 + n,
            )
        )
    return pl.concat(parts).sort("timestamp", "_number").with_columns(trade_id=trade_id)


NUMBERED = sweeps(pl.col("_number").cast(pl.String))
RANDOM = sweeps(pl.format("{}-uuid", pl.col("_number").hash(7)))
NOT_IN_TIME = sweeps((pl.col("_number").hash(7) // 2**32).cast(pl.String))


@pytest.mark.parametrize("trades", [RANDOM, NOT_IN_TIME])
def test_first_and_last_prices_without_a_known_order_are_not_compared(trades: pl.DataFrame) -> None:
    rows: dict[str, Any] = {"trades": reference_of("trades", trades)}
    moved = put(walk(240), at(9), open=pl.col("high"), close=pl.col("low"))
    assert outcome(CHECKS, "reconciliation", slice_of("bars_1m", moved, **rows)).is_empty()
    assert outcome(SPIKES, "spikes", slice_of("bars_1m", walk(240), **rows)).is_empty()
    wrong = put(walk(240), at(9), high=pl.col("high") * 1.001)
    findings = outcome(CHECKS, "reconciliation", slice_of("bars_1m", wrong, **rows))
    assert findings.select("start", "reason").rows() == [(T0 + 9 * MINUTE, "high")]


def test_numbers_tell_the_order_of_one_moment() -> None:
    rows: dict[str, Any] = {"trades": reference_of("trades", NUMBERED)}
    assert outcome(CHECKS, "reconciliation", slice_of("bars_1m", walk(240), **rows)).is_empty()
    wrong = put(walk(240), at(9), close=pl.col("open"), open=pl.col("close"))
    findings = outcome(CHECKS, "reconciliation", slice_of("bars_1m", wrong, **rows))
    assert findings.height == 1
    assert findings["reason"][0] in ("open", "close", "open,close")
