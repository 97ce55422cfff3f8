"""A bar has the volume of its parts: bounds, and proofs that missing parts are empty."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.api import Lake
from lake.model.time import TimeRange
from lake.quality.checks.completeness import CHECKS as COMPLETENESS
from lake.quality.checks.reconciliation import CHECKS as RECONCILIATION
from tests.conftest import write
from tests.quality.checks.test_bars import MINUTE, T0, at, put, walk
from tests.quality.checks.test_reconciliation import coarser
from tests.quality.checks.test_spikes import fine_trades
from tests.quality.defects import sandbox_bars
from tests.quality.lean import lean_bars, lean_days, needs_lean
from tests.quality.slices import outcome, reference_of, slice_of

OCTOBER = date(2016, 10, 8)
WHOLE = datetime(2016, 10, 8, tzinfo=UTC)
DAY = timedelta(days=1)


def reconcile(frame: pl.DataFrame, table: str, **references: Any) -> pl.DataFrame:
    return outcome(RECONCILIATION, "reconciliation", slice_of(table, frame, **references))


def find_gaps(frame: pl.DataFrame, table: str = "bars_1m", **more: Any) -> pl.DataFrame:
    return outcome(COMPLETENESS, "gaps", slice_of(table, frame, **more))


def day_of_lean() -> tuple[pl.DataFrame, pl.DataFrame]:
    """A day, and its 1,400 minutes."""
    minutes = lean_bars("minute", OCTOBER)
    assert minutes.height == 1400
    return lean_days().filter(pl.col("timestamp") == WHOLE), minutes


def find_lean_gaps(day: pl.DataFrame, minutes: pl.DataFrame) -> pl.DataFrame:
    span = TimeRange(WHOLE, WHOLE + DAY)
    return find_gaps(minutes, span=span, coarser=(reference_of("bars_1d", day),))


@needs_lean
def test_equal_volume_proves_that_the_missing_minutes_of_a_day_are_empty() -> None:
    day, minutes = day_of_lean()
    gaps = find_lean_gaps(day, minutes)
    assert (gaps["rows"].sum(), set(gaps["reason"])) == (40, {"no_trade"})
    assert set(gaps["against"]) == {"bars_1d"}
    assert set(gaps["severity"]) == {"info"}
    assert reconcile(day, "bars_1d", finer=(reference_of("bars_1m", minutes),)).is_empty()


@needs_lean
@pytest.mark.parametrize("more", [0.5, 500.0])
def test_volume_that_a_day_does_not_have_is_found_though_minutes_are_missing(more: float) -> None:
    day, minutes = day_of_lean()
    wrong = put(minutes, at(700), volume=pl.col("volume") + more)
    [finding] = reconcile(day, "bars_1d", finer=(reference_of("bars_1m", wrong),)).to_dicts()
    assert (finding["reason"], finding["severity"]) == ("volume", None)
    assert find_lean_gaps(day, wrong)["reason"].unique().to_list() == ["unknown"]


@needs_lean
@pytest.mark.parametrize("more", [0.5, 500.0])
def test_volume_that_is_in_no_minute_is_lost(more: float) -> None:
    day, minutes = day_of_lean()
    gaps = find_lean_gaps(day.with_columns(pl.col("volume") + more), minutes)
    assert (gaps["rows"].sum(), set(gaps["reason"])) == (40, {"lost"})
    assert gaps["message"][0] == f"1 bar is missing: {more} of the volume of bars_1d is in no bar"


@needs_lean
def test_a_day_with_more_volume_than_its_missing_minutes_can_hold_is_a_warning() -> None:
    day, minutes = day_of_lean()
    below = (reference_of("bars_1m", minutes),)
    too_much = day.with_columns(pl.col("volume") + 500)
    [finding] = reconcile(too_much, "bars_1d", finer=below).to_dicts()
    assert (finding["reason"], finding["severity"]) == ("volume", "warning")
    assert reconcile(day.with_columns(pl.col("volume") + 50), "bars_1d", finer=below).is_empty()


@needs_lean
def test_seconds_prove_minutes_and_minutes_days() -> None:
    for day in (date(2016, 10, 7), OCTOBER, date(2016, 10, 9)):
        seconds, minutes = lean_bars("second", day), lean_bars("minute", day)
        assert reconcile(minutes, "bars_1m", finer=(reference_of("bars_1s", seconds),)).is_empty()
        wrong = minutes.with_columns(pl.col("volume") * (1 - 1e-6))
        findings = reconcile(wrong, "bars_1m", finer=(reference_of("bars_1s", seconds),))
        assert findings["rows"].sum() == minutes.height


def hours() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Hours, and their minutes, of which one is missing."""
    minutes = walk(1440)
    return coarser(minutes, "1h"), minutes.filter(~at(130))


@pytest.mark.parametrize(
    ("name", "factor", "found"),
    [("high", 0.999, True), ("high", 1.001, False), ("low", 1.001, True), ("low", 0.999, False)],
)
def test_highs_and_lows_of_finer_bars_stay_inside(name: str, factor: float, found: bool) -> None:
    frame, minutes = hours()
    wrong = put(frame, at(2), **{name: pl.col(name) * factor})
    findings = reconcile(wrong, "bars_1h", finer=(reference_of("bars_1m", minutes),))
    assert findings["reason"].to_list() == ([name] if found else [])


def test_a_bar_with_the_volume_of_its_stored_parts_is_compared_in_all_columns() -> None:
    frame, minutes = hours()
    same = put(frame, at(2), volume=pl.col("volume") - 1)  # the missing minute was empty
    below = (reference_of("bars_1m", minutes),)
    assert reconcile(same, "bars_1h", finer=below).is_empty()
    wrong = put(same, at(2), close=pl.col("close") * 1.001)
    assert reconcile(wrong, "bars_1h", finer=below)["reason"].to_list() == ["close"]


def test_trades_of_which_some_are_missing_are_a_bound() -> None:
    trades = fine_trades(walk()).filter(~at(403))
    below = reference_of("trades", trades)
    assert reconcile(walk(), "bars_1m", trades=below).is_empty()
    wrong = put(walk(), at(100), volume=pl.lit(0.5), high=pl.col("low"))
    findings = reconcile(wrong, "bars_1m", trades=below)
    assert findings.select("start", "reason").rows() == [(T0 + 100 * MINUTE, "high,volume")]


def test_a_trade_count_that_differs_is_no_proof() -> None:
    counts = pl.lit(4, dtype=pl.Int64)
    frame = coarser(walk(120), "1h").with_columns(trade_count=pl.lit(240, dtype=pl.Int64))
    frame = put(frame, at(1), volume=pl.col("volume") - 1)
    minutes = walk(120).with_columns(trade_count=counts).filter(~at(70))
    above = (reference_of("bars_1h", frame),)
    assert find_gaps(minutes, coarser=above)["reason"].to_list() == ["unknown"]
    proof = (reference_of("bars_1h", put(frame, at(1), trade_count=pl.lit(236, dtype=pl.Int64))),)
    assert find_gaps(minutes, coarser=proof)["reason"].to_list() == ["no_trade"]


def test_the_longer_bar_that_proves_most_counts_and_a_missing_one_nothing() -> None:
    frame, minutes = hours()
    fives = coarser(walk(1440), "5m")
    missing = (reference_of("bars_5m", fives.filter(~at(26))),)
    assert find_gaps(minutes, coarser=missing)["reason"].to_list() == ["unknown"]
    empty = put(frame, at(2), volume=pl.col("volume") - 1)
    both = (reference_of("bars_5m", fives), reference_of("bars_1h", empty))
    assert find_gaps(minutes, coarser=both)["against"].to_list() == ["bars_1h"]


@given(st.lists(st.integers(0, 10**9), min_size=60, max_size=60), st.sets(st.integers(1, 58)))
def test_minutes_are_empty_exactly_where_no_lot_is_missing(lots: list[int], gone: set[int]) -> None:
    """Volumes are multiples of 1e-8, as venues count; sums of doubles must not blur one."""
    minutes = walk(60).with_columns(volume=pl.Series([lot / 1e8 for lot in lots]))
    hour = coarser(minutes, "1h").with_columns(volume=pl.lit(sum(lots) / 1e8))
    kept = minutes.filter(~pl.int_range(pl.len()).is_in(sorted(gone)))
    gaps = find_gaps(kept, coarser=(reference_of("bars_1h", hour),))
    expected = "lost" if any(lots[n] for n in gone) else "no_trade"
    assert set(gaps["reason"]) <= {expected}
    assert gaps["rows"].sum() == len(gone)


@pytest.mark.parametrize("market", [2, 6, 7])
def test_empty_minutes_of_the_sandbox_are_proved_by_its_hours(market: int) -> None:
    """These markets trade in some minutes only."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    minutes, longer = (sandbox_bars(market, start, 6, name) for name in ("1m", "1h"))
    gaps = find_gaps(minutes, coarser=(reference_of("bars_1h", longer),))
    assert gaps["rows"].sum() > 500
    assert set(gaps["reason"]) == {"no_trade"}
    assert reconcile(longer, "bars_1h", finer=(reference_of("bars_1m", minutes),)).is_empty()
    wrong = put(longer, at(30), volume=pl.col("volume") * (1 - 1e-6))
    findings = reconcile(wrong, "bars_1h", finer=(reference_of("bars_1m", minutes),))
    assert findings["start"].to_list() == [longer["timestamp"][30]]


@needs_lean
def test_a_lake_tells_which_bar_proves_a_gap(lake: Lake) -> None:
    day, minutes = day_of_lean()
    names = {"exchange": pl.lit("gone"), "symbol": pl.lit("BTC/USD"), "closed": pl.lit(value=True)}
    for table, frame in (("bars_1m", minutes), ("bars_1d", day)):
        write(lake, table, frame.with_columns(**names))
    assert lake.quality.check().findings.filter(severity="error").is_empty()
    assert set(lake.quality.scores()["completeness"]) == {1.0}
    gaps = lake.quality.gaps("bars_1m")
    assert gaps["slots"].sum() == 40
    assert set(gaps.select("reason", "proof").rows()) == {("no_trade", "conservation")}


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_a_price_that_no_stored_bar_has_is_no_proof_of_an_empty_one(name: str) -> None:
    frame, minutes = hours()
    same = put(frame, at(2), volume=pl.col("volume") - 1)  # as if the missing minute was empty
    factor = 0.9 if name == "low" else 1.1
    wrong = put(same, at(2), **{name: pl.col(name) * factor})
    reasons = [
        find_gaps(minutes, coarser=(reference_of("bars_1h", longer),))["reason"].to_list()
        for longer in (same, wrong)
    ]
    assert reasons == [["no_trade"], ["unknown"]]


@pytest.mark.parametrize(
    ("counts", "is_flat", "reason"),
    [(None, False, "unknown"), (4, False, "no_trade"), (None, True, "no_trade")],
)
def test_volumes_of_0_prove_nothing_by_themselves(
    counts: int | None, is_flat: bool, reason: str
) -> None:
    """An index has prices and no volume; an hour with one price, or with counts, is a proof."""
    count = pl.lit(counts, dtype=pl.Int64)
    price = {name: pl.lit(100.0) for name in ("open", "high", "low", "close")} if is_flat else {}
    minutes = walk(120).with_columns(volume=pl.lit(0.0), trade_count=count, **price)
    kept = minutes.filter(~at(70))
    total = pl.lit(None if counts is None else 59 * counts, dtype=pl.Int64)
    hour = coarser(minutes, "1h").with_columns(trade_count=total)
    assert find_gaps(kept, coarser=(reference_of("bars_1h", hour),))["reason"].to_list() == [reason]


@pytest.mark.parametrize(("more", "reason"), [(0.0, "no_trade"), (0.5, "unknown")])
def test_a_small_volume_beside_large_ones_is_seen(more: float, reason: str) -> None:
    minutes = walk(120).with_columns(volume=1e13 + pl.int_range(pl.len()))
    kept = minutes.filter(~at(70))
    hour = put(coarser(minutes, "1h"), at(1), volume=pl.col("volume") - (1e13 + 70) + more)
    gaps = find_gaps(kept, coarser=(reference_of("bars_1h", hour),))
    assert gaps["reason"].to_list() == [reason]
