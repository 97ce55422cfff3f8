"""Rows of one's own: what they cover is recorded, and nothing of them changes on the way."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import SchemaError, UsageError
from lake.model.catalog import builtin
from lake.model.exact_casts import cast_exactly
from tests.conftest import DAY, MINUTE, T0, bars, trades
from tests.quality.lean import lean_bars, needs_lean

BARS = builtin().dataset("bars_1m")


def _coverage(lake: Lake) -> list[tuple[object, ...]]:
    rows = lake.scan("coverage").collect().sort("symbol", "timestamp")
    return rows.select("symbol", "timestamp", "end", "status", "rows", "source").rows()


def test_what_rows_cover_is_recorded_for_each_of_their_markets(lake: Lake) -> None:
    both = pl.concat([bars(3), bars(2, symbol="ETH/USDT", volume=[1.0, -1.0])])
    until = T0 + 10 * MINUTE
    written = lake.write("bars_1m", both, source="a file", covers=(T0, until))
    assert (written.inserted, written.rejected) == (4, 1)
    assert _coverage(lake) == [
        ("BTC/USDT", T0, until, "fetched", 3, "write"),
        ("ETH/USDT", T0, until, "fetched", 1, "write"),
    ]
    assert lake.status()["rows_missing"].to_list() == [0, 0]
    lake.write("bars_1m", both, covers=(T0, until))
    assert len(_coverage(lake)) == 2


def test_what_only_a_user_covers_is_no_market_to_go_on_with(lake: Lake) -> None:
    lake.write("bars_1m", bars(3), covers=(T0, T0 + 3 * MINUTE))
    with pytest.raises(UsageError, match="nothing is covered yet"):
        lake.ingest()


def test_without_covers_nothing_is_covered(lake: Lake) -> None:
    lake.write("bars_1m", bars(3))
    assert lake.coverage().is_empty()


def test_a_missing_bar_of_a_covered_venue_that_omits_empty_bars_is_no_loss(lake: Lake) -> None:
    rows = bars(10, exchange="coinbase")
    holed = rows.filter(pl.int_range(pl.len()) != 4)
    lake.write("bars_1m", holed)
    lake.quality.check()
    assert lake.quality.findings().filter(status="open")["reason"].to_list() == ["unknown"]
    lake.write("bars_1m", holed, covers=(T0, T0 + 10 * MINUTE))
    lake.quality.check()
    assert lake.quality.findings().filter(status="open").is_empty()


def test_the_future_is_not_covered_and_an_open_bar_is_not(lake: Lake) -> None:
    now = lake._context.now()
    with pytest.raises(UsageError, match="ends in the future"):
        lake.write("trades", trades(3), covers=(T0, now + DAY))
    opens = now.replace(second=0, microsecond=0)
    rows = bars(2, timestamp=[opens - MINUTE, opens]).drop("closed")
    lake.write("bars_1m", rows, covers=(T0, now))
    assert lake.scan("bars_1m").collect()["closed"].to_list() == [True, False]
    assert [row[1:3] for row in _coverage(lake)] == [(T0, opens)]


SPANS = {"1m": MINUTE, "15m": 15 * MINUTE, "1h": 60 * MINUTE, "1d": DAY, "1w": 7 * DAY}
MONDAY = datetime(2024, 3, 4, tzinfo=UTC)


@pytest.mark.parametrize("timeframe", SPANS)
@pytest.mark.parametrize("has_column", [True, False])
def test_a_bar_that_was_open_when_the_range_ended_is_not_covered_though_it_was_dropped(
    lake: Lake, timeframe: str, has_column: bool
) -> None:
    step = SPANS[timeframe]
    closed = bars(3, timestamp=[MONDAY + number * step for number in range(3)])
    rows = closed if has_column else closed.drop("closed")
    opens = MONDAY + 3 * step
    lake.write("bars", rows, timeframe=timeframe, covers=(MONDAY, opens + step / 2))
    assert [row[1:3] for row in _coverage(lake)] == [(MONDAY, opens)]


def test_the_open_day_of_a_venue_whose_days_begin_elsewhere_is_not_covered(lake: Lake) -> None:
    first = MONDAY - DAY / 3  # days of HTX begin at 16:00 UTC
    days = bars(3, timestamp=[first + number * DAY for number in range(3)], exchange="htx")
    lake.write("bars_1d", days, covers=(first, MONDAY + 3 * DAY - DAY / 6))
    assert [row[1:3] for row in _coverage(lake)] == [(first, first + 3 * DAY)]


def test_other_rows_are_covered_to_the_end(lake: Lake) -> None:
    until = T0 + MINUTE / 2
    lake.write("trades", trades(3), covers=(T0, until))
    assert [row[1:3] for row in _coverage(lake)] == [(T0, until)]


def test_a_frame_without_rows_covers_nothing_and_is_refused(lake: Lake) -> None:
    with pytest.raises(UsageError, match="names no market"):
        lake.write("bars_1m", bars(3).clear(), covers=(T0, T0 + DAY))
    assert lake.jobs().is_empty()
    assert lake.write("bars_1m", bars(3).clear()).inserted == 0


def test_bars_of_the_past_are_closed_and_their_columns_are_cast_where_they_stay_exact(
    lake: Lake,
) -> None:
    exact = bars(3, volume=[1.0, 2.0, 3.0])
    given = exact.drop("closed").with_columns(
        pl.col("timestamp").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC"),
        pl.col("volume").cast(pl.Int32),
        pl.col("exchange").cast(pl.Categorical),
    )
    assert lake.write("bars_1m", given).inserted == 3
    assert lake.write("bars_1m", exact).unchanged == 3
    berlin = exact.with_columns(pl.col("timestamp").dt.convert_time_zone("Europe/Berlin"))
    assert lake.write("bars_1m", berlin).unchanged == 3


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("volume", pl.Series([2**53 + 1], dtype=pl.Int64), "9007199254740993 is not exactly"),
        ("trade_count", pl.Series([1.5], dtype=pl.Float64), "1.5 is not exactly"),
        ("trade_count", pl.Series([2**64 - 1], dtype=pl.UInt64), "is not exactly"),
        ("timestamp", pl.Series([1]).cast(pl.Datetime("ns", "UTC")), "is not exactly"),
        ("timestamp", pl.Series([T0]).dt.replace_time_zone(None), "not Datetime"),
        ("volume", pl.Series(["1.0"]), "is String"),
    ],
)
def test_a_value_that_would_change_is_refused(
    lake: Lake, column: str, values: pl.Series, words: str
) -> None:
    rows = bars(1).with_columns(values.alias(column))
    with pytest.raises(SchemaError, match=words):
        lake.write("bars_1m", rows)
    assert lake.tables().is_empty() or "bars_1m" not in lake.tables()["table"]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_integers_are_cast_exactly_or_refused(values: list[int]) -> None:
    frame = pl.DataFrame({"volume": pl.Series(values, dtype=pl.Int64)})
    is_exact = all(int(float(value)) == value and float(value) < 2**63 for value in values)
    if is_exact:
        assert cast_exactly(BARS, frame)["volume"].to_list() == [float(value) for value in values]
    else:
        with pytest.raises(SchemaError, match="is not exactly"):
            cast_exactly(BARS, frame)


@needs_lean
def test_covered_minutes_of_lean_have_no_unknown_gap(lake: Lake) -> None:
    day = datetime(2016, 10, 8, tzinfo=UTC)
    market = {"exchange": pl.lit("coinbase"), "symbol": pl.lit("BTC/USD")}
    rows = lean_bars("minute", date(2016, 10, 8)).with_columns(**market)
    lake.write("bars_1m", rows)
    lake.quality.check()
    assert _count_errors(lake) == 36
    lake.write("bars_1m", rows, covers=(day, day + DAY))
    lake.quality.check()
    assert _count_errors(lake) == 0
    assert_frame_equal(
        lake.scan("bars_1m").select("timestamp", "volume").collect(),
        rows.select("timestamp", "volume"),
    )


def _count_errors(lake: Lake) -> int:
    return lake.quality.findings().filter(status="open", severity="error").height
