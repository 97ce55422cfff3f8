"""Trades of another market among those of a market, one by one and in blocks."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from lake.quality.checks.foreign_trades import CHECKS
from lake.quality.configure import configure
from lake.quality.run import run_checks
from lake.quality.score import score_days
from tests.conftest import DAY, SECOND, T0
from tests.quality.defects import sandbox_trades
from tests.quality.real import needs_data, recorded_trades
from tests.quality.slices import outcome, slice_of

COUNT = 4000


def walk(
    count: int = COUNT, price: float = 60_000.0, *, step: timedelta = 20 * SECOND, seed: int = 1
) -> pl.DataFrame:
    """Trades of a market that walks by ticks of 0.1, with ids that count."""
    random = np.random.default_rng(seed)
    ticks = np.round(price * 10) + np.cumsum(random.integers(-3, 4, count) * (price / 20_000))
    return pl.DataFrame(
        {
            "timestamp": [T0 + n * step for n in range(count)],
            "trade_id": [str(n) for n in range(count)],
            "price": np.round(ticks) / 10,
            "amount": np.ones(count),
        }
    )


def mix(frame: pl.DataFrame, foreign: pl.Expr, factor: float = 0.05) -> pl.DataFrame:
    """Another price in some rows."""
    return frame.with_columns(
        price=pl.when(foreign).then(pl.col("price") * factor).otherwise("price")
    )


def run(frame: pl.DataFrame) -> pl.DataFrame:
    return outcome(CHECKS, "foreign_trades", slice_of("trades", frame))


ROW = pl.int_range(pl.len())


@pytest.mark.parametrize("factor", [0.05, 0.7, 0.9, 1.08, 1.4, 20.0])
@pytest.mark.parametrize("length", [1, 7, 300, 1000])
def test_a_block_at_another_level_is_found(length: int, factor: float) -> None:
    """A level that is at most 30 % away is a warning: that of a thin order book, perhaps."""
    findings = run(mix(walk(), ROW.is_between(500, 499 + length), factor))
    is_warning = length < 5 or factor in (0.9, 1.08)
    assert findings.select("start", "rows", "severity").rows() == [
        (T0 + 500 * 20 * SECOND, length, "warning" if is_warning else None)
    ]


def test_trades_at_the_bid_and_the_ask_of_a_wide_spread_are_no_error() -> None:
    random = np.random.default_rng(4)
    sides = np.where(random.random(600) < 0.7, 100.0, 106.0) + random.integers(-2, 3, 600) * 0.01
    findings = run(walk(600).with_columns(price=pl.Series(sides)))
    assert set(findings["severity"]) <= {"warning"}


def test_a_wick_of_a_thin_order_book_is_no_error() -> None:
    price = 100 + ROW * 7 % 5 * 0.01
    wick = pl.when(ROW.is_between(300, 307)).then(93 - (ROW - 300) * 0.05).otherwise(price)
    findings = run(walk(600).with_columns(price=wick))
    assert findings["severity"].to_list() == ["warning"]
    assert "of a thin order book, or of another market" in findings["message"][0]


@pytest.mark.parametrize("share", [2, 3, 10])
def test_blocks_that_make_up_a_large_share_are_found_and_the_others_are_not(share: int) -> None:
    """Every second page of 100 trades or fewer: the market has the first one and the last."""
    foreign = (ROW // 100 % share == 1) & (ROW < COUNT - 100)
    frame = mix(walk(), foreign)
    findings = run(frame)
    assert findings["rows"].sum() == frame.filter(foreign).height
    assert (findings["measured"] < 10_000).all()


def test_rows_of_another_market_between_others_are_found() -> None:
    random = np.random.default_rng(5)
    chosen = pl.Series(random.random(COUNT) < 0.3)
    frame = walk().with_columns(_foreign=chosen)
    frame = frame.with_columns(
        _foreign=pl.col("_foreign") & ROW.is_between(1, COUNT - 2)
    ).with_columns(
        price=pl.when("_foreign").then(walk(price=3000.0, seed=2)["price"]).otherwise("price")
    )
    findings = run(frame.drop("_foreign"))
    assert findings["rows"].sum() == frame["_foreign"].sum()


def test_a_dense_page_of_another_market_in_a_thin_one_is_found() -> None:
    thin = walk(60, 2.0, step=timedelta(minutes=20))
    page = walk(1000, 60_000.0, step=timedelta(milliseconds=40)).with_columns(
        pl.col("timestamp") + timedelta(hours=10, minutes=1), trade_id=pl.format("x{}", ROW)
    )
    findings = run(pl.concat([thin, page]).sort("timestamp"))
    assert findings.select("rows", "severity").rows() == [(1000, None)]


def test_two_foreign_markets_in_a_row_are_found() -> None:
    frame = mix(mix(walk(), ROW.is_between(500, 599), 0.05), ROW.is_between(600, 699), 3.0)
    assert run(frame)["rows"].to_list() == [100, 100]


def test_a_block_over_midnight_is_reported_for_both_days() -> None:
    frame = mix(walk(8000), ROW.is_between(4300, 4339))
    assert run(frame).select("start", "rows").rows() == [
        (T0 + 4300 * 20 * SECOND, 20),
        (T0 + DAY, 20),
    ]
    for day in (0, 1):
        start = T0 + day * DAY
        near = pl.col("timestamp").is_between(start - DAY / 24, start + DAY + DAY / 24)
        rows = slice_of("trades", frame.filter(near), start=start, end=start + DAY)
        found = outcome(CHECKS, "foreign_trades", rows)
        assert found["rows"].to_list() == [20]


@pytest.mark.parametrize(
    "change",
    [
        pl.col("price"),
        pl.when(ROW >= 2000).then(pl.col("price") * 3).otherwise("price"),  # a level that stays
        pl.col("price") * (1 + 0.3 * ((ROW - 2000).abs() < 500)
                           * (1 - (ROW - 2000).abs() / 500)),  # a pump and dump
        pl.when(ROW % 2 == 0).then(2e-8).otherwise(3e-8),  # two ticks 50 % apart
    ],
)  # fmt: skip
def test_true_prices_raise_no_alarm(change: pl.Expr) -> None:
    assert run(walk().with_columns(price=change)).is_empty()


def test_few_trades_raise_no_alarm() -> None:
    for count in (1, 2, 3):
        assert run(walk(count)).is_empty()


@needs_data
def test_recorded_trades_raise_no_alarm_and_mixed_ones_do() -> None:
    frame = recorded_trades()
    assert run(frame).is_empty()
    mixed = mix(frame, ROW.is_between(6000, 6049), 1.5)
    assert run(mixed)["rows"].to_list() == [50]


def test_clean_trades_of_the_sandbox_raise_no_alarm_and_mixed_ones_lower_the_score() -> None:
    """Every third answer of an hour is that of another market, as a misrouted cache gives it."""
    start = T0
    own, other = (sandbox_trades(market, start, 2) for market in (0, 1))
    assert run(own).is_empty()
    minutes = pl.col("timestamp").dt.epoch("s") // 60
    wrong = (minutes % 60 >= 20) & (minutes % 3 == 1) & (minutes > start.timestamp() // 60 + 60)
    mixed = pl.concat(
        [
            own.filter(~wrong),
            other.filter(wrong).with_columns(trade_id=pl.format("x{}", "trade_id")),
        ]
    ).sort("timestamp")
    rows = slice_of("trades", mixed)
    result = run_checks(rows, configure(rows.dataset))
    found = result.findings.filter(check="foreign_trades")
    assert found["rows"].sum() >= 0.99 * mixed.filter(wrong).height
    assert set(found["severity"]) == {"error"}
    scores = score_days(result.days, result.findings)
    share = mixed.filter(wrong).height / mixed.height
    assert (scores["accuracy"] < 1 - share / 2).all()
