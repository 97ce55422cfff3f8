"""Prices of pools that differ from those of an exchange are found and explained.

Real data: see `../shared/data/ORIGIN.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.market import Market
from lake.quality.checks.dex import CHECKS
from lake.quality.slice import Slice
from tests.conftest import MINUTE, SECOND, T0
from tests.quality.checks.onchain import POOL, declared, needs_data, v2_swaps, v3_day
from tests.quality.slices import outcome, reference_of, slice_of

BINANCE = Market("binance", "WETH/USDC")


@pytest.fixture(scope="module")
def swaps() -> Dataset:
    return declared("user_swaps")


def bars_of(swaps: pl.DataFrame, by: float = 1.0) -> pl.DataFrame:
    """Bars of an exchange where the price is that of the pool."""
    price = pl.col("pool_price_after") * by
    return (
        swaps.sort("timestamp")
        .group_by_dynamic("timestamp", every="1m")
        .agg(
            open=price.first(),
            high=price.max(),
            low=price.min(),
            close=price.last(),
            volume=pl.lit(1.0),
        )
    )


def beside(dataset: Dataset, frame: pl.DataFrame, bars: pl.DataFrame) -> Slice:
    return slice_of(
        dataset, frame, market=POOL, others=(reference_of("bars_1m", bars, market=BINANCE),)
    )


@needs_data
def test_a_real_pool_beside_an_exchange_of_its_prices_raises_no_alarm(swaps: Dataset) -> None:
    rows = beside(swaps, v3_day(), bars_of(v3_day()))
    assert outcome(CHECKS, "dex_price", rows).is_empty()


@needs_data
@settings(max_examples=15)
@given(hour=st.integers(0, 22), up=st.booleans())
def test_prices_of_a_pool_that_part_from_an_exchange_are_found(
    swaps: Dataset, hour: int, up: bool
) -> None:
    start, end = v3_day()["timestamp"].dt.truncate("1d")[0], timedelta(hours=hour, minutes=30)
    away = pl.col("timestamp").is_between(start + timedelta(hours=hour), start + end)
    by = 1.03 if up else 0.97
    price = pl.when(away).then(pl.col("pool_price_after") * by).otherwise("pool_price_after")
    frame = v3_day().with_columns(pool_price_after=price)
    findings = outcome(CHECKS, "dex_price", beside(swaps, frame, bars_of(v3_day())))
    assert findings["rows"].sum() == frame.filter(away).height
    assert set(findings["reason"]) == {"arbitrage"}
    assert set(findings["against"]) == {"binance WETH/USDC"}
    assert findings["measured"].max() == pytest.approx(300, rel=0.2)


def quoted(minute_prices: Sequence[float | None]) -> pl.DataFrame:
    """A swap in the middle of each minute."""
    count = len(minute_prices)
    swaps = v2_swaps(count).with_columns(pool_price_after=pl.Series(minute_prices))
    times = [T0 + n * MINUTE + 30 * SECOND for n in range(count)]
    return swaps.with_columns(timestamp=pl.Series(times, dtype=TIMESTAMP))


def test_a_block_may_be_a_bar_late(swaps: Dataset) -> None:
    steps = [2000.0 * 1.02**n for n in range(30)]
    late = quoted([steps[max(0, n - 1)] for n in range(30)])
    rows = beside(swaps, late, bars_of(quoted(steps)))
    assert outcome(CHECKS, "dex_price", rows).is_empty()
    later = quoted([steps[max(0, n - 2)] for n in range(30)])
    rows = beside(swaps, later, bars_of(quoted(steps)))
    assert outcome(CHECKS, "dex_price", rows)["rows"].to_list() == [28]


def test_a_price_that_is_no_number_is_not_apart(swaps: Dataset) -> None:
    for value in (float("nan"), None):
        prices = [value if 10 <= n < 20 else 2000.0 for n in range(30)]
        rows = beside(swaps, quoted(prices), bars_of(quoted([2000.0] * 30)))
        assert outcome(CHECKS, "dex_price", rows).is_empty()


def test_a_price_apart_counts_only_when_it_lasts(swaps: Dataset) -> None:
    for minutes, count in [(5, 0), (6, 1)]:
        prices = [2100.0 if 10 <= n < 10 + minutes else 2000.0 for n in range(30)]
        rows = beside(swaps, quoted(prices), bars_of(quoted([2000.0] * 30)))
        assert outcome(CHECKS, "dex_price", rows).height == count


@needs_data
@pytest.mark.parametrize("kind", ["factor", "inverse"])
def test_wrong_decimals_and_mixed_up_tokens_are_bad_data(swaps: Dataset, kind: str) -> None:
    price = pl.col("pool_price_after")
    frame = v3_day().with_columns(pool_price_after=price * 1e12 if kind == "factor" else 1 / price)
    findings = outcome(CHECKS, "dex_price", beside(swaps, frame, bars_of(v3_day())))
    assert findings["reason"].to_list() == ["bad_data"]
    assert findings["rows"].to_list() == [6046]
    assert kind in findings["message"][0]
