"""Wicks that no other venue shows, and neighbouring bars that are swapped."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from lake.model.market import Market
from lake.quality.checks.other_venues import CHECKS
from tests.quality.checks.test_bars import MINUTE, T0, at, put, times, walk
from tests.quality.checks.test_spikes import fine_trades
from tests.quality.slices import outcome, reference_of, slice_of

PRICES = ("open", "high", "low", "close")
PLACE = 301
KRAKEN, OKX = Market("kraken", "BTC/USD"), Market("okx", "BTC/USDT")


def venue(seed: int, market: Market = KRAKEN, frame: pl.DataFrame | None = None) -> Any:
    """The same bars at a premium, with noise of two basis points."""
    bars = walk() if frame is None else frame
    random = np.random.default_rng(seed)
    away = {name: pl.Series(random.normal(1.003, 2e-4, bars.height)) for name in PRICES}
    noisy = bars.with_columns(pl.col(name) * away[name] for name in PRICES)
    ends = noisy.with_columns(high=pl.max_horizontal(PRICES), low=pl.min_horizontal(PRICES))
    return reference_of("bars_1m", ends, market=market)


def run(name: str, frame: pl.DataFrame, **references: Any) -> pl.DataFrame:
    return outcome(CHECKS, name, slice_of("bars_1m", frame, **references))


def swap(frame: pl.DataFrame, first: int) -> pl.DataFrame:
    order = list(range(frame.height))
    order[first : first + 2] = [first + 1, first]
    return frame.select(pl.all().exclude("timestamp"))[order].with_columns(frame["timestamp"])


@pytest.mark.parametrize("name", CHECKS)
def test_venues_that_agree_raise_no_alarm(name: str) -> None:
    assert run(name, walk()).is_empty()
    assert run(name, walk(), others=(venue(1), venue(2, OKX))).is_empty()


@pytest.mark.parametrize(("end", "factor"), [("high", 1.01), ("low", 0.99)])
def test_a_wick_that_no_venue_shows_is_a_warning(end: str, factor: float) -> None:
    wrong = put(walk(), at(PLACE), **{end: pl.col(end) * factor})
    findings = run("wicks", wrong, others=(venue(1), venue(2, OKX)))
    assert findings.select("start", "severity").rows() == [(T0 + PLACE * MINUTE, "warning")]
    assert findings["measured"][0] == pytest.approx(100, abs=8)
    assert "The " + end in findings["message"][0]
    assert run("wicks", wrong, others=(venue(1), venue(2, OKX, wrong))).is_empty()
    trades = reference_of("trades", fine_trades(wrong))
    assert run("wicks", wrong, others=(venue(1),), trades=trades).is_empty()


def test_wicks_that_usually_differ_are_no_alarm() -> None:
    often = pl.int_range(pl.len()) % 2 == 0
    wild = put(walk(), often, high=pl.col("high") * 1.004)
    wrong = put(wild, at(PLACE), high=pl.col("high") * 1.01)
    assert run("wicks", wrong, others=(venue(1),)).is_empty()


def test_neighbours_in_each_others_place_are_swapped() -> None:
    apart = times(walk(), pl.int_range(pl.len()) > PLACE, 1.002)
    wrong = swap(apart, PLACE)
    findings = run("swapped", wrong, others=(venue(1, frame=apart),))
    assert findings.select("start", "end", "rows", "against").rows() == [
        (T0 + PLACE * MINUTE, T0 + (PLACE + 2) * MINUTE, 2, "kraken BTC/USD")
    ]
    assert run("swapped", apart, others=(venue(1, frame=apart),)).is_empty()
    assert run("swapped", wrong, others=(venue(1, frame=wrong),)).is_empty()


def test_a_spike_on_one_venue_is_no_swap() -> None:
    for first, count in ((PLACE, 1), (PLACE, 2), (PLACE, 3)):
        wrong = times(walk(), at(first, count), 1.01)
        assert run("swapped", wrong, others=(venue(1),)).is_empty()


def test_most_venues_must_agree_that_bars_are_swapped() -> None:
    apart = times(walk(), pl.int_range(pl.len()) > PLACE, 1.002)
    wrong = swap(apart, PLACE)
    right, odd = venue(1, frame=apart), venue(2, OKX, wrong)
    assert run("swapped", wrong, others=(right, odd)).is_empty()


def test_the_larger_one_of_two_mirrored_moves_is_the_swap() -> None:
    """Prices go up and then down by the same: seen from the bar before, a swap is mirrored, too."""
    bars = put(walk(), pl.int_range(pl.len()) >= PLACE - 1, **dict.fromkeys(PRICES, 100.0))
    apart = times(times(bars, at(PLACE), 1.002), at(PLACE + 1), 1 / 1.002)
    findings = run("swapped", swap(apart, PLACE), others=(venue(1, frame=apart),))
    assert findings["start"].to_list() == [T0 + PLACE * MINUTE]
