"""Many markets are checked in one plan, which does not change findings and scores of any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.jobs.quality.groups import cut_groups
from lake.jobs.quality.slices import CheckInputs
from lake.model.catalog import builtin
from lake.model.selection import Selection
from lake.model.timeframe import Timeframe
from lake.quality.configure import configure
from lake.quality.join import group_slices
from lake.quality.run import CheckResult, run_all_checks, run_checks
from lake.quality.slice import Slice
from tests.conftest import DAY, T0
from tests.jobs.quality.test_chunks import (
    Damage,
    damaged,
    damages,
    inputs_of,
    merged,
    on_kraken,
    ticks,
    walk,
)

EVERYTHING = Selection()
COINS = ("ADA/USDT", "BTC/USDT", "ETH/USDT")
MINUTES, COUNT = Timeframe(1, "m"), 2 * 1440
WINDOWS = (240,)


def assert_joining_changes_nothing(inputs: CheckInputs, table: str) -> list[int]:
    """Markets in groups give what each gives alone; returns the sizes of joined groups."""
    checks = configure(builtin().dataset(table))
    alone = [(one, run_checks(one, checks)) for one in inputs.cut_slices(table, EVERYTHING)]
    groups = list(cut_groups(inputs, table, EVERYTHING))
    at_once = [
        (one, result)
        for group in groups
        for one, result in zip(group, run_all_checks(group, checks), strict=True)
    ]
    assert_same(alone, at_once)
    return [
        len(numbers)
        for group in groups
        for numbers, joined in group_slices(group, WINDOWS)
        if joined is not None
    ]


def assert_same(
    alone: list[tuple[Slice, CheckResult]], at_once: list[tuple[Slice, CheckResult]]
) -> None:
    for (one, own), (other, result) in zip(alone, at_once, strict=True):
        assert (one.market, one.range) == (other.market, other.range)
        assert_frame_equal(result.findings, own.findings, check_exact=True)
        assert_frame_equal(result.days, own.days, check_exact=True)


def of_coins(tables: Mapping[str, Mapping[str, pl.DataFrame]]) -> dict[str, pl.DataFrame]:
    """One frame a table, of the frames of its markets."""
    return {
        name: pl.concat(
            frame.with_columns(exchange=pl.lit("binance"), symbol=pl.lit(coin))
            if "exchange" not in frame.columns
            else frame.with_columns(symbol=pl.lit(coin))
            for coin, frame in frames.items()
        )
        for name, frames in tables.items()
        if frames
    }


@settings(max_examples=4)
@given(st.integers(0, 99), st.data())
def test_minutes_of_many_markets_are_checked_as_those_of_each(
    seed: int, data: st.DataObject
) -> None:
    bars: dict[str, pl.DataFrame] = {}
    trades: dict[str, pl.DataFrame] = {}
    for number, coin in enumerate(COINS):
        clean = walk(np.random.default_rng(seed + number), MINUTES, COUNT)
        first = data.draw(st.sampled_from([0, 0, 1, 7, 100]))
        clean = clean.with_columns(pl.col("timestamp") + first * DAY)
        rows = damaged(clean, data.draw(_damages(COUNT, 1440)))
        elsewhere = data.draw(st.booleans())
        bars[coin] = pl.concat([rows, on_kraken(clean)]) if elsewhere else rows
        if data.draw(st.booleans()):
            lost = data.draw(_damages(4 * COUNT, 4 * 1440, "gone", "thin"))
            trades[coin] = damaged(_number_on(ticks(clean, MINUTES), number), lost)
    inputs = inputs_of(of_coins({"bars_1m": bars, "trades": trades}))
    omits = data.draw(st.booleans())
    assert_joining_changes_nothing(replace(inputs, omits_empty_bars=lambda _: omits), "bars_1m")


def _number_on(trades: pl.DataFrame, market: int) -> pl.DataFrame:
    """Number the trades of a market on from those of the market before it."""
    number = pl.col("trade_id").cast(pl.Int64) + market * 4 * COUNT
    return trades.with_columns(trade_id=number.cast(pl.String))


def _damages(height: int, a_day: int, *only: str) -> st.SearchStrategy[list[Damage]]:
    return st.one_of(st.just([]), damages(height, a_day, *only))


LONGER = {"1h": ("15m", 480, 24), "1d": ("1h", 60, 1)}


@settings(max_examples=4)
@given(st.sampled_from(sorted(LONGER)), st.integers(0, 99), st.data())
def test_longer_bars_of_many_markets_are_checked_as_those_of_each(
    name: str, seed: int, data: st.DataObject
) -> None:
    below, count, a_day = LONGER[name]
    coarse, fine = Timeframe.parse(name), Timeframe.parse(below)
    bars: dict[str, pl.DataFrame] = {}
    finer: dict[str, pl.DataFrame] = {}
    for number, coin in enumerate(COINS):
        parts = walk(
            np.random.default_rng(seed + number), fine, count * coarse.seconds // fine.seconds
        )
        bars[coin] = damaged(merged(parts, coarse), data.draw(_damages(count, a_day)))
        if data.draw(st.booleans()):
            finer[coin] = damaged(parts, data.draw(_damages(parts.height, a_day)))
    inputs = inputs_of(of_coins({f"bars_{name}": bars, f"bars_{below}": finer}))
    assert_joining_changes_nothing(inputs, f"bars_{name}")


def _markets(count: int, days: int) -> dict[str, pl.DataFrame]:
    return {
        f"COIN{number}/USDT": walk(np.random.default_rng(number), MINUTES, days * 1440)
        for number in range(count)
    }


def test_markets_of_the_same_days_are_read_and_checked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collects: list[int] = []
    frames = {
        name: of_coins({"bars_1m": markets})
        for name, markets in (("few", _markets(5, 1)), ("many", _markets(40, 1)))
    }
    assert assert_joining_changes_nothing(inputs_of(frames["many"]), "bars_1m") == [40]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            collects.append(1)
            return function(*args, **options)

        return run

    def count(name: str) -> int:
        collects.clear()
        checks = configure(builtin().dataset("bars_1m"))
        with monkeypatch.context() as patch:
            patch.setattr(pl.LazyFrame, "collect", counted(pl.LazyFrame.collect))
            patch.setattr(pl, "collect_all", counted(pl.collect_all))
            for group in cut_groups(inputs_of(frames[name]), "bars_1m", EVERYTHING):
                run_all_checks(group, checks)
        return len(collects)

    few, many = count("few"), count("many")
    assert (many - few) / 35 <= 3, f"{few} collects of 5 markets, {many} of 40"


def test_large_markets_are_checked_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lake.jobs.quality.groups._GROUP_ROWS", 3000)
    inputs = inputs_of(of_coins({"bars_1m": _markets(4, 1)}))
    assert [len(group) for group in cut_groups(inputs, "bars_1m", EVERYTHING)] == [2, 2]
    assert assert_joining_changes_nothing(inputs, "bars_1m") == [2, 2]


def test_bars_ahead_of_the_clock_are_found_in_a_group() -> None:
    ahead = _markets(3, 1)
    inputs = inputs_of(of_coins({"bars_1m": ahead}))
    early = replace(inputs, now=T0 + timedelta(hours=20))
    assert_joining_changes_nothing(early, "bars_1m")
    found = [
        set(result.findings["check"])
        for group in cut_groups(early, "bars_1m", EVERYTHING)
        for result in run_all_checks(group, configure(builtin().dataset("bars_1m")))
    ]
    assert all("implausible_time" in names for names in found)
