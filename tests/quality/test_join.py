"""Joined slices of recorded markets give what each gives alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.model.market import Market
from lake.model.time import TimeRange
from lake.quality.configure import ConfiguredCheck, configure
from lake.quality.join import group_slices
from lake.quality.run import run_all_checks, run_checks
from lake.quality.slice import Slice
from tests.quality.defects import sandbox_bars, sandbox_trades
from tests.quality.false_alarms import SANDBOX_MARKETS, lean_slices
from tests.quality.injection.recordings import needs_recordings
from tests.quality.injection.rows import FILES, WITNESSES, bars_slice, clean_bars
from tests.quality.lean import needs_lean
from tests.quality.real import needs_data
from tests.quality.slices import DAY, midnight, reference_of, slice_of

START = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = 3000
AT = (400, 1500, 2200)
"""Rows of a market that are damaged, each in another way."""


def damaged(frame: pl.DataFrame) -> pl.DataFrame:
    """Bars with a jump of all prices, a wick and a volume far too large; and some missing ones."""
    row = pl.int_range(pl.len())
    prices = ("open", "high", "low", "close")
    return frame.with_columns(
        *(pl.when(row.is_between(AT[0], AT[0] + 4)).then(pl.col(n) * 1.5).otherwise(n).alias(n)
          for n in prices[::3]),
        high=pl.when(row.is_between(AT[0], AT[0] + 4)).then(pl.col("high") * 1.5)
        .when(row == AT[1]).then(pl.col("high") * 1.3).otherwise("high"),
        volume=pl.when(row == AT[2]).then(pl.col("volume") * 1000).otherwise("volume"),
    ).filter(~row.is_between(AT[2] + 100, AT[2] + 130))  # fmt: skip


def days_of(data: Slice) -> list[Slice]:
    """Each day of a slice as a market of its own, with the rows around it that a check gets."""
    days, day = [], data.range.start
    while day < data.range.end:
        bounds = (day - data.dataset.margin, day + DAY + data.dataset.margin)
        near = data.frame.filter(data.time.is_between(*bounds, closed="left")).collect()
        market = Market("binance", f"{day:%Y%m%d}/USDT")
        if near.height:
            others = tuple(
                replace(one, market=Market(one.market.exchange, market.symbol))
                for one in data.others
            )
            end = min(day + DAY, data.range.end)
            days.append(
                replace(
                    data, market=market, range=TimeRange(day, end), frame=near.lazy(), others=others
                )
            )
        day += DAY
    return days


def assert_joining_changes_nothing(slices: Iterable[Slice]) -> None:
    by_table: dict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        by_table[one.dataset.name].append(one)
    joined = 0
    for own in by_table.values():
        checks: Sequence[ConfiguredCheck] = configure(own[0].dataset)
        alone = [run_checks(one, checks) for one in own]
        for result, expected in zip(run_all_checks(own, checks), alone, strict=True):
            assert_frame_equal(result.findings, expected.findings, check_exact=True)
            assert_frame_equal(result.days, expected.days, check_exact=True)
        joined += sum(len(numbers) for numbers, group in group_slices(own, (240,)) if group)
    assert joined > 1


@needs_data
@needs_recordings
@pytest.mark.parametrize("witness", WITNESSES)
def test_days_of_recorded_bars_as_markets(witness: str) -> None:
    assert_joining_changes_nothing(
        day
        for name in FILES
        for day in days_of(bars_slice(name, damaged(clean_bars(name).head(ROWS)), witness))
    )


@needs_lean
def test_published_bars() -> None:
    assert_joining_changes_nothing(
        replace(one, now=datetime(2026, 1, 1, tzinfo=UTC)) for one in lean_slices()
    )


@pytest.mark.parametrize("has_trades", [False, True])
def test_bars_of_the_sandbox(has_trades: bool) -> None:
    slices = []
    for number in SANDBOX_MARKETS:
        market = Market("sandbox", f"COIN{number}/USDT")
        bars = damaged(sandbox_bars(number, START, 2))
        trades = reference_of("trades", sandbox_trades(number, START, 2), market=market)
        more = {"trades": trades} if has_trades else {}
        first = midnight(bars["timestamp"].min())
        slices.append(
            slice_of("bars_1m", bars, market=market, start=first, end=first + timedelta(days=2),
                     **more)
        )  # fmt: skip
    assert_joining_changes_nothing(slices)
