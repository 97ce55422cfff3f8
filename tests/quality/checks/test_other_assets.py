"""Two coins with one ticker are told from one coin with wrong prices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lake.api import Lake
from lake.model.market import Market
from lake.quality.checks.cross_venue import CHECKS
from lake.quality.checks.other_assets import split_assets
from lake.quality.slice import Slice
from tests.conftest import DAY, T0, bars, write
from tests.quality.slices import outcome, reference_of, slice_of

BINANCE, BYBIT = Market("binance", "NEIRO/USDT"), Market("bybit", "NEIRO/USDT")
COUNT = 1440


def walk(price: float, seed: int, like: float = 0.0, count: int = COUNT) -> list[float]:
    """Prices of a walk; `like`: correlation with the walk of seed 0."""
    shared, own = (np.random.default_rng(n).normal(0, 1e-3, count) for n in (0, seed))
    steps = like * shared + np.sqrt(1 - like**2) * own
    return list(price * np.exp(np.cumsum(steps)))


def bars_of(market: Market, closes: list[float]) -> pl.DataFrame:
    return bars(
        len(closes),
        exchange=market.exchange,
        symbol=market.symbol,
        open=closes,
        high=[close * 1.001 for close in closes],
        low=[close * 0.999 for close in closes],
        close=closes,
        volume=[1e6] * len(closes),
    )


def beside(own: list[float], other: list[float]) -> Slice:
    reference = reference_of("bars_1m", bars_of(BYBIT, other), market=BYBIT)
    return slice_of("bars_1m", bars_of(BINANCE, own), others=(reference,))


@pytest.mark.parametrize("like", [0.0, 0.5])
def test_another_level_and_other_moves_are_another_asset(like: float) -> None:
    """Coins move with the market, so that some of their returns are alike."""
    rows = beside(walk(0.00027, 0, 1.0), walk(0.0297, 5, like))
    same, strangers = split_assets(rows)
    assert not same
    [finding] = outcome(
        CHECKS, "venue_deviation", replace(rows, others=same, strangers=strangers)
    ).to_dicts()
    assert (finding["reason"], finding["severity"]) == ("another_asset", "info")
    assert (finding["start"], finding["end"], finding["rows"]) == (T0, T0 + DAY, COUNT)
    assert finding["against"] == "bybit NEIRO/USDT"


@pytest.mark.parametrize(
    "other",
    [
        [price * 1000 for price in walk(1.0, 0, 1.0)],  # wrong by a factor
        [*walk(1.0, 5)[:720], *(price * 3 for price in walk(1.0, 5)[720:])],  # for half of the day
        [50.0] * COUNT,  # it stands still
        walk(1.02, 5),  # a level of its own, but near
        walk(100.0, 5)[:300],  # too few to say
    ],
)
def test_wrong_prices_are_not_taken_for_another_asset(other: list[float]) -> None:
    same, strangers = split_assets(beside(walk(1.0, 0, 1.0), other))
    assert (len(same), len(strangers)) == (1, 0)


def test_two_coins_with_one_ticker_are_one_information_and_cost_nothing(lake: Lake) -> None:
    own = walk(0.00027, 1)
    own[700] *= 1.1  # a move that the other coin cannot confirm
    for market, closes in ((BINANCE, own), (BYBIT, walk(0.0297, 2))):
        write(lake, "bars_1m", bars_of(market, closes))
    report = lake.quality.check()
    told = report.findings.filter(check="venue_deviation")
    assert told.select("exchange", "severity", "reason").rows() == [
        ("binance", "info", "another_asset")
    ]
    assert report.scores["consistency"] == 1.0
    spikes = report.findings.filter(check="spikes")
    assert set(spikes["reason"]) <= {"suspect"}
    assert report.findings.filter(pl.col("severity") == "error").is_empty()


def test_a_venue_that_differs_from_two_that_agree_is_a_warning(lake: Lake) -> None:
    """Prices of the others, twice as high and an hour late, look like those of another asset."""
    closes = walk(1.0, 0, 1.0)
    late = [2.0] * 60 + [close * 2 for close in closes[:-60]]
    okx = Market("okx", "NEIRO/USDT")
    for market, own in ((BINANCE, closes), (BYBIT, late), (okx, closes)):
        write(lake, "bars_1m", bars_of(market, own))
    findings = lake.quality.check().findings.filter(check="venue_deviation")
    told = findings.filter(pl.col("severity") != "info").to_dicts()
    assert [(row["exchange"], row["severity"], row["reason"]) for row in told] == [
        ("bybit", "warning", "another_asset")
    ]
    assert "or prices are wrong here: other venues agree" in told[0]["message"]
