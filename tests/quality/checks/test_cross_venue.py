"""Deviations from other venues are found and explained; times of another time zone are found."""

from __future__ import annotations

import math
from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.model.market import Market
from lake.quality.checks import cross_venue, time_shifts
from lake.quality.slice import Reference, Slice
from lake.sandbox.intervals import INTERVALS
from lake.sandbox.synthetic import SyntheticMarkets
from tests.conftest import DAY, MINUTE, T0
from tests.paths import SHARED
from tests.quality.slices import BINANCE, outcome, reference_of, slice_of

DATA = SHARED / "cex"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no recorded data at {DATA}")
CHECKS = {**cross_venue.CHECKS, **time_shifts.CHECKS}
KRAKEN, OKX = Market("kraken", "BTC/USDT"), Market("okx", "BTC/USDT")
OHLC = ("open", "high", "low", "close")
APART = {"threshold_bps": 50.0, "duration": "5m", "times": 20.0, "factor": 1.5}
SHIFT = {"poor": 0.5, "excellent": 0.8}
COUNT = 2 * 1440


@cache
def market(count: int = COUNT, seed: int = 0) -> pl.DataFrame:
    """Bars of the sandbox exchange, which trade in every minute."""
    start_ms = int(T0.timestamp() * 1000)
    exchange = SyntheticMarkets(seed)
    served = exchange.bars(
        exchange.markets[0], INTERVALS["1m"], start_ms, start_ms + count * 60_000
    )
    columns = {name: [float(text) for text in getattr(served, name)] for name in (*OHLC, "volume")}
    times = pl.Series(served.open_ms).cast(pl.Datetime("ms", "UTC")).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"timestamp": times, **columns})


def venue(frame: pl.DataFrame, *, noise_bps: float = 3.0, seed: int = 1) -> pl.DataFrame:
    """The same market on another venue: every price differs by some basis points."""
    random = np.random.default_rng(seed)
    away = 1 + random.normal(0, noise_bps / 1e4, frame.height + 1)
    opens, closes = frame["open"] * away[:-1], frame["close"] * away[1:]
    return frame.with_columns(
        open=opens,
        close=closes,
        high=pl.max_horizontal("high", opens, closes),
        low=pl.min_horizontal("low", opens, closes),
    )


def scaled(frame: pl.DataFrame, first: int, count: int, by: float) -> pl.DataFrame:
    """Some bars with other prices, as a wrong feed gives them."""
    here = pl.int_range(pl.len()).is_between(first, first + count - 1)
    return frame.with_columns(
        pl.when(here).then(pl.col(name) * by).otherwise(name).alias(name) for name in OHLC
    )


def drifting(frame: pl.DataFrame, first: int, count: int, by: float) -> pl.DataFrame:
    """A price that moves away and back minute by minute, as trading does."""
    up = np.zeros(frame.height + 1)
    wave = np.sin(np.linspace(0, np.pi, count + 1)) * by
    up[first : first + count + 1] = wave
    opens, closes = frame["open"] * (1 + up[:-1]), frame["close"] * (1 + up[1:])
    return frame.with_columns(
        open=opens,
        close=closes,
        high=pl.max_horizontal(frame["high"] * (1 + up[:-1]), opens, closes),
        low=pl.min_horizontal("low", opens, closes),
    )


def frozen(frame: pl.DataFrame, first: int, count: int, volume: float | None) -> pl.DataFrame:
    """A price that does not move; `volume` of these bars, None for the original one."""
    here = pl.int_range(pl.len()).is_between(first, first + count - 1)
    last = frame["close"][first - 1]
    still = [pl.when(here).then(last).otherwise(name).alias(name) for name in OHLC]
    amount = pl.col("volume") if volume is None else pl.lit(volume)
    return frame.with_columns(*still, volume=pl.when(here).then(amount).otherwise("volume"))


def beside(own: pl.DataFrame, *others: tuple[Market, pl.DataFrame], **more: Any) -> Slice:
    references = tuple(reference_of("bars_1m", frame, market=at) for at, frame in others)
    return slice_of("bars_1m", own, others=references, **more)


def apart(rows: Slice, **thresholds: Any) -> pl.DataFrame:
    return outcome(CHECKS, "venue_deviation", rows, **{**APART, **thresholds})


def shifts(rows: Slice, **thresholds: Any) -> pl.DataFrame:
    return outcome(CHECKS, "time_shift", rows, **{**SHIFT, **thresholds})


def test_venues_that_agree_raise_no_alarm() -> None:
    others = [(KRAKEN, venue(market(), seed=2)), (OKX, venue(market(), seed=3))]
    assert apart(beside(market(), *others[:1])).is_empty()
    assert apart(beside(market(), *others)).is_empty()
    assert shifts(beside(market(), *others)).is_empty()


def test_nothing_is_found_without_another_venue() -> None:
    assert apart(slice_of("bars_1m", market())).is_empty()
    assert shifts(slice_of("bars_1m", market())).is_empty()


@settings(max_examples=25)
@given(
    first=st.integers(1, COUNT - 100),
    count=st.integers(7, 60),
    by=st.sampled_from([0.97, 0.985, 1.015, 1.04]),
    own=st.booleans(),
)
def test_prices_that_jump_away_and_back_alone_are_bad_data(
    first: int, count: int, by: float, own: bool
) -> None:
    good, wrong = venue(market()), scaled(market(), first, count, by)
    pair = (wrong, good) if own else (good, wrong)
    findings = apart(beside(pair[0], (KRAKEN, pair[1])))
    assert findings["rows"].sum() == count
    assert set(findings["reason"]) == {"bad_data"}
    assert set(findings["severity"]) == {None if own else "info"}
    name = str(BINANCE if own else KRAKEN)
    assert all(f"{name} jumped" in message for message in findings["message"])
    assert set(findings["against"]) == {"kraken BTC/USDT"}


@settings(max_examples=25)
@given(first=st.integers(1, COUNT - 100), count=st.integers(30, 90), up=st.booleans())
def test_prices_that_part_by_trading_and_meet_again_are_arbitrage(
    first: int, count: int, up: bool
) -> None:
    away = drifting(market(), first, count, 0.02 if up else -0.02)
    findings = apart(beside(away, (KRAKEN, venue(market()))))
    assert set(findings["reason"]) == {"arbitrage"}
    assert set(findings["severity"]) == {"info"}
    assert 150 < findings["measured"].max() < 250  # type: ignore[operator]
    assert set(findings["expected"]) == {50.0}


@settings(max_examples=25)
@given(first=st.integers(1, COUNT - 400), volume=st.sampled_from([None, 0.0]))
def test_a_price_that_stands_still_is_bad_data(first: int, volume: float | None) -> None:
    moving = drifting(market(), first, 300, 0.03)
    still = frozen(market(), first, 300, volume)
    findings = apart(beside(still, (KRAKEN, moving)))
    assert set(findings["reason"]) == {"bad_data"}
    assert all("binance BTC/USDT did not move" in message for message in findings["message"])
    # Without trades a price may stay the same: the severity is lower.
    assert set(findings["severity"]) == {None if volume is None else "warning"}
    theirs = apart(beside(moving, (KRAKEN, still)))
    assert all("kraken BTC/USDT did not move" in message for message in theirs["message"])


@pytest.mark.parametrize("by", [0.1, 10.0, 1e8])
def test_prices_off_by_a_factor_are_bad_data_for_as_long_as_it_lasts(by: float) -> None:
    findings = apart(beside(scaled(market(), 0, COUNT, by), (KRAKEN, venue(market()))))
    assert findings["reason"].to_list() == ["bad_data", "bad_data"]
    assert findings["start"].to_list() == [T0, T0 + DAY]
    assert findings["rows"].to_list() == [1440, 1440]
    assert "one of the two is wrong by a factor of" in findings["message"][0]


def test_the_median_of_three_venues_names_the_one_that_is_off() -> None:
    right, wrong = venue(market(), seed=4), scaled(market(), 0, COUNT, 1.7)
    findings = apart(beside(wrong, (KRAKEN, venue(market())), (OKX, right)))
    assert all(
        "binance BTC/USDT is wrong by a factor" in message for message in findings["message"]
    )
    assert set(findings["against"]) == {"kraken BTC/USDT", "okx BTC/USDT"}
    findings = apart(beside(right, (KRAKEN, wrong), (OKX, venue(market()))))
    assert set(findings["against"]) == {"kraken BTC/USDT"}
    assert all("kraken BTC/USDT is wrong by a factor" in message for message in findings["message"])
    assert set(findings["severity"]) == {"info"}


def test_a_premium_that_stays_is_no_proof_of_bad_data() -> None:
    findings = apart(beside(scaled(market(), 0, COUNT, 1.01), (KRAKEN, venue(market()))))
    assert set(findings["reason"]) == {"arbitrage"}


def test_two_prices_that_both_stand_still_prove_nothing() -> None:
    still = frozen(market(), 1, COUNT - 1, 0.0)
    findings = apart(beside(scaled(still, 0, COUNT, 1.01), (KRAKEN, still)))
    assert set(findings["reason"]) == {"arbitrage"}
    assert "neither venue shows signs of an error" in findings["message"][0]


def test_a_crash_that_was_traded_through_is_arbitrage() -> None:
    whole = scaled(market(), 500, 10, 0.95)
    edges = pl.int_range(pl.len()).is_in([500, 510])
    last = pl.col("close").shift(1)
    traded = whole.with_columns(open=pl.when(edges).then(last).otherwise("open")).with_columns(
        high=pl.max_horizontal(*OHLC), low=pl.min_horizontal(*OHLC)
    )
    assert apart(beside(traded, (KRAKEN, venue(market()))))["reason"].to_list() == ["arbitrage"]
    assert apart(beside(whole, (KRAKEN, venue(market()))))["reason"].to_list() == ["bad_data"]


def test_a_deviation_counts_only_when_it_lasts_or_is_enormous() -> None:
    rows = beside(scaled(market(), 500, 5, 1.007), (KRAKEN, venue(market())))
    assert apart(rows).is_empty()
    assert apart(rows, duration="4m")["rows"].to_list() == [5]
    for count in (2, 3, 5):
        rows = beside(scaled(market(), 500, count, 1.02), (KRAKEN, venue(market())))
        assert apart(rows).select("rows", "reason").rows() == [(count, "bad_data")]


def test_a_short_deviation_by_trading_is_not_reported() -> None:
    away = drifting(market(), 500, 4, 0.02)
    assert apart(beside(away, (KRAKEN, venue(market())))).is_empty()


def test_a_deviation_over_midnight_has_one_reason_on_both_days() -> None:
    findings = apart(beside(scaled(market(), 1437, 8, 1.02), (KRAKEN, venue(market()))))
    assert findings.select("start", "end", "rows", "reason").rows() == [
        (T0 + 1437 * MINUTE, T0 + DAY, 3, "bad_data"),
        (T0 + DAY, T0 + DAY + 5 * MINUTE, 5, "bad_data"),
    ]


def test_filled_and_open_bars_are_no_reference() -> None:
    wrong = scaled(market(), 500, 20, 1.02)
    filled = wrong.with_columns(fill=pl.lit("flat"))
    unfinished = wrong.with_columns(closed=pl.lit(value=False))
    for frame in (filled, unfinished):
        assert apart(beside(frame, (KRAKEN, market()))).is_empty()
        assert apart(beside(market(), (KRAKEN, frame))).is_empty()


Closes = list[tuple[int, float, float]]


def parted(closes: Closes, threshold_bps: float, minutes: int) -> list[tuple[int, int, int]]:
    """Runs of (minute, close, other close) that part for so long: first and last minute, bars."""
    findings: list[list[int]] = []
    side, last = 0, 0
    for minute, own, other in closes:
        away = (own / other - 1) * 1e4
        now = 0 if abs(away) <= threshold_bps else (1 if away > 0 else -1)
        if now and now == side and minute - last <= max(1, minutes):
            findings[-1].append(minute)
        elif now:
            findings.append([minute])
        side, last = now, minute
    long = [run for run in findings if run[-1] - run[0] >= minutes]
    return [(run[0], run[-1], len(run)) for run in long]


@settings(max_examples=150)
@given(
    stretches=st.lists(
        st.tuples(st.sampled_from([0, 0, 60, -60, 400]), st.integers(1, 12), st.integers(0, 8)),
        min_size=1,
        max_size=12,
    ),
    minutes=st.sampled_from([1, 3, 5, 15]),
)
def test_runs_are_those_of_plain_python(
    stretches: list[tuple[int, int, int]], minutes: int
) -> None:
    closes: Closes = []
    minute = 0
    for away_bps, count, missing in stretches:
        for _ in range(count):
            closes.append((minute, 100.0 * (1 + away_bps / 1e4), 100.0))
            minute += 1
        minute += missing
    frames = [
        pl.DataFrame({"timestamp": [T0 + m * MINUTE for m, *_ in closes], "close": prices})
        .with_columns(pl.col("close").alias(name) for name in OHLC)
        .with_columns(volume=1.0)
        for prices in ([own for _, own, _ in closes], [other for *_, other in closes])
    ]
    findings = apart(beside(frames[0], (KRAKEN, frames[1])), duration=f"{minutes}m", times=1e9)
    wanted = [
        (T0 + first * MINUTE, T0 + (last + 1) * MINUTE, rows)
        for first, last, rows in parted(closes, 50.0, minutes)
    ]
    assert findings.select("start", "end", "rows").rows() == wanted


def test_closes_that_are_no_numbers_are_no_deviation() -> None:
    here = pl.int_range(pl.len()).is_between(500, 540)
    for value in (math.nan, None):
        wrong = market().with_columns(close=pl.when(here).then(pl.lit(value)).otherwise("close"))
        assert apart(beside(wrong, (KRAKEN, venue(market())))).is_empty()
        assert apart(beside(market(), (KRAKEN, wrong), (OKX, venue(market())))).is_empty()


@settings(max_examples=30)
@given(half_hours=st.integers(-28, 28).filter(bool), seed=st.integers(0, 3))
def test_a_clock_of_another_zone_is_found_with_its_shift(half_hours: int, seed: int) -> None:
    # Three days, of which the middle one is checked, as with the margins of a long range.
    true = market(3 * 1440, seed)
    shift = half_hours * timedelta(minutes=30)
    wrong = true.with_columns(pl.col("timestamp") + shift)
    rows = beside(wrong, (KRAKEN, venue(true)), start=T0 + DAY, end=T0 + 2 * DAY)
    findings = shifts(rows)
    sign, minutes = "-" if half_hours < 0 else "+", abs(half_hours) * 30
    reason = f"{sign}{minutes // 60}h" + ("30m" if minutes % 60 else "")
    assert findings.select("start", "end", "reason", "against").rows() == [
        (T0 + DAY, T0 + 2 * DAY, reason, "kraken BTC/USDT")
    ]
    assert findings["measured"][0] < 0.5
    assert findings["expected"][0] > 0.8


@pytest.mark.parametrize("seed", range(6))
def test_strangers_have_no_shift(seed: int) -> None:
    rows = beside(market(3 * 1440, 0), (KRAKEN, market(3 * 1440, seed + 10)))
    assert shifts(rows).is_empty()


def test_a_spike_on_each_side_is_no_shift() -> None:
    frame, two = scaled(market(), 209, 1, 3.0), scaled(venue(market(seed=9)), 509, 1, 3.0)
    assert shifts(beside(frame, (KRAKEN, two))).is_empty()


def test_the_markets_own_trades_prove_a_shift() -> None:
    times = market()["timestamp"] + timedelta(seconds=59)
    frame = pl.DataFrame({"timestamp": times, "price": market()["close"], "amount": 1.0})
    trades = reference_of("trades", frame.with_columns(trade_id=pl.int_range(pl.len()).cast(str)))
    wrong = market().with_columns(pl.col("timestamp") + timedelta(hours=2))
    findings = shifts(slice_of("bars_1m", wrong, trades=trades))
    assert set(findings["reason"]) == {"+2h"}
    assert set(findings["against"]) == {"trades"}
    assert shifts(slice_of("bars_1m", market(), trades=trades)).is_empty()


def test_bars_of_an_hour_are_compared_by_the_hour_and_those_of_a_day_not_at_all() -> None:
    hours = (
        market(6 * 1440)
        .group_by_dynamic("timestamp", every="1h")
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
    )
    wrong = hours.with_columns(pl.col("timestamp") - timedelta(hours=5))
    reference = Reference(*_of("bars_1h", venue(hours)))
    findings = shifts(slice_of("bars_1h", wrong, others=(reference,)))
    assert set(findings["reason"]) == {"-5h"}
    assert findings.height >= 5
    daily = slice_of("bars_1d", hours[::24], others=(Reference(*_of("bars_1d", hours[::24])),))
    assert shifts(daily).is_empty()


def _of(table: str, frame: pl.DataFrame) -> Any:
    reference = reference_of(table, frame, market=KRAKEN)
    return reference.dataset, reference.market, reference.frame


@needs_data
@pytest.mark.parametrize("name", ["binance_ETH-BTC_5m", "binance_ADA-BTC_5m", "ftx_BTC-PERP_1m"])
def test_real_bars_beside_nearly_the_same_raise_no_alarm(name: str) -> None:
    table = "bars_" + name.rpartition("_")[2]
    frame = pl.read_parquet(DATA / "bars" / f"{name}.parquet")
    other = reference_of(table, venue(frame, noise_bps=5), market=KRAKEN)
    rows = slice_of(table, frame, others=(other,))
    assert apart(rows).is_empty()
    assert shifts(rows).is_empty()


@needs_data
def test_different_real_assets_are_strangers_and_shifted_ones_are_not() -> None:
    frames = {
        name: pl.read_parquet(DATA / "bars" / f"binance_{name}-BTC_5m.parquet")
        for name in ("ETH", "ADA", "XLM", "TRX")
    }
    for name, frame in frames.items():
        others = tuple(
            reference_of("bars_5m", other, market=Market("binance", f"{stranger}/BTC"))
            for stranger, other in frames.items()
            if stranger != name
        )
        assert shifts(slice_of("bars_5m", frame, others=others)).is_empty()
        local = frame.with_columns(pl.col("timestamp") + timedelta(hours=8))
        same = reference_of("bars_5m", venue(frame, noise_bps=5), market=KRAKEN)
        findings = shifts(slice_of("bars_5m", local, others=(same,)))
        assert set(findings["reason"]) == {"+8h"}
        assert findings.height >= 19
