"""Spikes by hand: what is one, who is asked, and what a reference changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from lake.model.catalog import builtin
from lake.model.market import Market
from lake.quality.checks.spikes import CHECKS
from tests.quality.checks.test_bars import MINUTE, T0, at, put, times, walk
from tests.quality.slices import collect_findings, reference_of, slice_of

THRESHOLDS = {c.name: c.thresholds for c in builtin().dataset("bars_1m").checks}["spikes"]
KRAKEN = Market("kraken", "BTC/USD")
PLACE = 700


def run(frame: pl.DataFrame, **references: Any) -> pl.DataFrame:
    rows = slice_of("bars_1m", frame, **references)
    return collect_findings(CHECKS["spikes"].function(rows, **THRESHOLDS))


def spiked(shape: str, factor: float = 1.02) -> pl.DataFrame:
    """Bars in which one of a shape is away by a factor."""
    frame, price = walk(), pl.col
    here = at(PLACE)
    if shape == "whole":
        return times(frame, here, factor)
    if shape in ("open", "close"):
        frame = put(frame, here, **{shape: price(shape) * factor})
        top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
        return put(
            frame, here, high=pl.max_horizontal("high", top), low=pl.min_horizontal("low", bottom)
        )
    return put(frame, here, **{shape: price(shape) * factor})


def fine_trades(frame: pl.DataFrame) -> pl.DataFrame:
    """Four trades a bar: its open, high, low and close."""
    names = ("open", "high", "low", "close")
    parts = [
        frame.select(
            pl.col("timestamp").dt.offset_by(f"{10 * n}s"),
            trade_id=(pl.int_range(pl.len()) * 4 + n).cast(pl.String),
            price=pl.col(name),
            amount=pl.col("volume") / 4,
        )
        for n, name in enumerate(names)
    ]
    return pl.concat(parts).sort("timestamp")


@pytest.mark.parametrize("shape", ["whole", "close", "open"])
@pytest.mark.parametrize("factor", [1.02, 0.98, 100.0])
def test_a_price_that_leaves_and_returns_alone_is_suspect(shape: str, factor: float) -> None:
    findings = run(spiked(shape, factor))
    assert findings.select("start", "reason", "severity", "against").rows() == [
        (T0 + PLACE * MINUTE, "suspect", "warning", None)
    ]
    assert findings["end"].to_list() == [T0 + (PLACE + 1) * MINUTE]
    assert findings["measured"][0] == pytest.approx(findings["expected"][0] * factor, rel=0.002)


@pytest.mark.parametrize("shape", ["high", "low"])
def test_a_wick_without_a_reference_is_suspect_only_where_it_is_absurd(shape: str) -> None:
    factor = {"high": 1.02, "low": 0.98}[shape]
    assert run(spiked(shape, factor)).is_empty()
    assert run(spiked(shape, factor**10))["reason"].to_list() == ["suspect"]


@pytest.mark.parametrize("shape", ["whole", "close", "open", "high"])
def test_trades_that_show_another_price_contradict(shape: str) -> None:
    truth = reference_of("trades", fine_trades(walk()))
    findings = run(spiked(shape), trades=truth)
    assert findings.select("start", "reason", "severity", "against").rows() == [
        (T0 + PLACE * MINUTE, "contradicted", "error", "trades")
    ]
    assert findings["expected"][0] in walk()[PLACE].select("open", "high", "low", "close").row(0)


@pytest.mark.parametrize("shape", ["whole", "close", "open", "high"])
def test_trades_that_show_the_same_price_confirm(shape: str) -> None:
    frame = spiked(shape, 1.5)
    assert run(frame, trades=reference_of("trades", fine_trades(frame))).is_empty()


def test_trades_of_other_hours_are_no_reference() -> None:
    early = fine_trades(walk()).filter(pl.col("timestamp") < T0 + 100 * MINUTE)
    findings = run(spiked("whole"), trades=reference_of("trades", early))
    assert findings["reason"].to_list() == ["suspect"]


@pytest.mark.parametrize("shape", ["whole", "close", "open"])
def test_another_venue_without_the_move_contradicts(shape: str) -> None:
    # A level of its own, and a gap before the spike: only the move counts.
    calm = times(walk(), pl.lit(value=True), 1.003)
    other = reference_of("bars_1m", calm, market=KRAKEN)
    findings = run(spiked(shape), others=(other,))
    assert findings.select("reason", "severity", "against").rows() == [
        ("contradicted", "error", "kraken BTC/USD")
    ]


@pytest.mark.parametrize("shape", ["whole", "close", "open", "high"])
def test_one_of_several_venues_that_saw_the_move_confirms(shape: str) -> None:
    calm = reference_of("bars_1m", walk(), market=KRAKEN)
    moved = reference_of("bars_1m", spiked(shape, 1.015), market=Market("okx", "BTC/USDT"))
    assert run(spiked(shape), others=(calm, moved)).is_empty()


def test_a_price_no_farther_away_than_wicks_go_is_not_suspect_without_a_witness() -> None:
    """As on Coinbase in 2017: orders that empty a thin book make prices of 0.3 % away."""
    often = pl.int_range(pl.len()) % 25 == 0
    wicked = put(spiked("whole", 1.004), often, high=pl.col("high") * 1.004)
    assert run(wicked).is_empty()
    assert run(spiked("whole", 1.004))["reason"].to_list() == ["suspect"]
    calm = reference_of("bars_1m", walk(), market=KRAKEN)
    assert run(wicked, others=(calm,))["reason"].to_list() == ["contradicted"]


def test_messages_name_the_witness() -> None:
    assert "no trades, finer bars or other venues testify" in run(spiked("whole"))["message"][0]
    truth = reference_of("trades", fine_trades(walk()))
    assert "not shown by trades" in run(spiked("whole"), trades=truth)["message"][0]


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_bars_of_a_few_days_are_compared_with_nothing(count: int) -> None:
    days = pl.DataFrame(
        {
            "timestamp": [T0.replace(hour=0) + n * timedelta(days=1) for n in range(count)],
            "open": 100.0,
            "high": 130.0,
            "low": [60.0 + n for n in range(count)],
            "close": 101.0,
            "volume": 1.0,
        }
    )
    rows = slice_of("bars_1d", days)
    assert collect_findings(CHECKS["spikes"].function(rows, **THRESHOLDS)).is_empty()


def test_a_venue_without_a_bar_at_that_time_is_no_reference() -> None:
    silent = reference_of("bars_1m", walk().filter(~at(PLACE)), market=KRAKEN)
    assert run(spiked("whole"), others=(silent,))["reason"].to_list() == ["suspect"]


def test_a_move_within_bars_is_no_spike_however_large() -> None:
    """A market that falls by 5 % within a bar and rises again in the next opens where it closed."""
    frame = walk()
    low = frame["open"][PLACE] * 0.95
    frame = put(frame, at(PLACE), close=pl.lit(low), low=pl.lit(low))
    frame = put(frame, at(PLACE + 1), open=pl.lit(low), low=pl.lit(low))
    assert run(frame).is_empty()


def test_a_new_level_is_no_spike() -> None:
    assert run(times(walk(), pl.int_range(pl.len()) >= PLACE, 1.05)).is_empty()


def test_two_jumps_the_same_way_are_no_spike() -> None:
    climbing = times(walk(), pl.int_range(pl.len()) >= PLACE, 1.02)
    assert run(times(climbing, pl.int_range(pl.len()) > PLACE, 1.02)).is_empty()


def test_a_rise_of_which_a_part_is_lost_at_once_is_no_spike() -> None:
    """As XLM/BTC on 2018-01-15 at 14:10: 12 % up within a bar, then 4 % down between two."""
    top = pl.col("open") * 1.12
    frame = times(walk(), pl.int_range(pl.len()) > PLACE, 1.08)
    assert run(put(frame, at(PLACE), close=top, high=top)).is_empty()


def test_of_two_bars_beside_a_jump_only_the_one_that_explains_it_is_accused() -> None:
    """The bar before a spike moves the other way by half as much, and stays there."""
    frame = times(walk(), pl.int_range(pl.len()) >= PLACE, 0.99)
    low = pl.col("open") * 0.99
    frame = times(put(frame, at(PLACE - 1), close=low, low=low), at(PLACE), 1.02)
    assert run(frame)["start"].to_list() == [T0 + PLACE * MINUTE]


def test_prices_that_go_back_and_forth_between_bid_and_ask_are_no_spikes() -> None:
    """Unchanged in most bars, else a tick of half a percent away, as in a thin market."""
    number = pl.int_range(pl.len())
    side = pl.when((number * 7919) % 5 == 0).then(100.5).otherwise(100.0)
    frame = walk().with_columns(open=side, high=side, low=side, close=side)
    assert run(frame).is_empty()


def test_prices_that_never_move_but_once_are_a_spike_of_the_least_deviation() -> None:
    same = dict.fromkeys(("open", "high", "low", "close"), pl.lit(100.0))
    assert run(times(walk().with_columns(**same), at(PLACE), 1.0004)).is_empty()
    assert run(times(walk().with_columns(**same), at(PLACE), 1.001)).height == 1


def test_missing_bars_around_a_spike_do_not_hide_it() -> None:
    frame = spiked("whole").filter(~at(PLACE - 3, 3) & ~at(PLACE + 1, 5))
    assert run(frame)["start"].to_list() == [T0 + PLACE * MINUTE]


@pytest.mark.parametrize("place", [1, 2, 238, 239, 240, 241, 1497, 1498])
def test_spikes_near_the_ends_and_between_blocks_are_found(place: int) -> None:
    assert run(times(walk(), at(place), 1.02))["start"].to_list() == [T0 + place * MINUTE]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_bars_raise_no_alarm(count: int) -> None:
    assert run(walk(count)).is_empty()


def test_a_price_of_zero_does_not_disturb() -> None:
    zero = {name: pl.lit(0.0) for name in ("open", "high", "low", "close")}
    assert run(put(walk(), at(300), **zero)).height <= 1


def test_filled_bars_are_not_checked() -> None:
    frame = spiked("whole").with_columns(fill=pl.when(at(PLACE)).then(pl.lit("derived:trades")))
    assert run(frame).is_empty()
