"""Times as users type them, ranges, timeframes and markets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.errors import UnknownNameError, UsageError
from lake.model.market import Market, StoredMarket
from lake.model.selection import Selection
from lake.model.time import TimeRange, from_ms, iso, parse_time, to_ms, to_ms_ceiling
from lake.model.timeframe import Timeframe
from tests.conftest import DAY, NAIVE, T0
from tests.model.everything import times

NOW = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)
timeframes = st.builds(Timeframe, st.integers(1, 60), st.sampled_from("smhdwM"))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T12:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T12:00+02:00", datetime(2026, 1, 1, 10, tzinfo=UTC)),
        (" now ", NOW),
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("12h", NOW - timedelta(hours=12)),
        ("7d", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(weeks=2)),
    ],
)
def test_a_time_can_be_typed_in_several_ways(text: str, time: datetime) -> None:
    assert parse_time(text, NOW) == time


@pytest.mark.parametrize(
    "text", ["", "yesterday", "7", "7M", "2026-13-01", "0001-01-01T00:00+10:00", "999999w"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        parse_time(text, NOW)


@given(times)
def test_a_time_survives_its_text(time: datetime) -> None:
    assert parse_time(iso(time), NOW) == time


@given(times)
def test_milliseconds_round_down_and_up(time: datetime) -> None:
    assert from_ms(to_ms(time)) <= time <= from_ms(to_ms_ceiling(time))
    assert to_ms_ceiling(time) - to_ms(time) == (1 if time.microsecond % 1000 else 0)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (T0, T0, "empty or reversed"),
        (T0 + DAY, T0, "empty or reversed"),
        (NAIVE, T0 + DAY, "not in UTC"),
        (T0.astimezone(timezone(timedelta(hours=1))), T0 + DAY, "not in UTC"),
    ],
)
def test_a_range_is_in_utc_and_not_empty(start: datetime, end: datetime, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TimeRange(start, end)


@given(timeframes, times)
def test_a_time_is_in_the_bar_that_floor_names(timeframe: Timeframe, time: datetime) -> None:
    floor = timeframe.floor(time)
    assert floor <= time < timeframe.after(floor)
    assert timeframe.floor(floor) == floor
    assert timeframe.ceiling(floor) == floor
    assert time <= timeframe.ceiling(time) <= timeframe.after(floor)


@given(timeframes, times)
def test_no_bar_is_longer_than_the_longest(timeframe: Timeframe, time: datetime) -> None:
    opens = timeframe.floor(time)
    length = timeframe.after(opens) - opens
    assert timedelta(seconds=timeframe.seconds) <= length <= timeframe.longest


@given(timeframes)
def test_a_timeframe_survives_its_name_and_its_table(timeframe: Timeframe) -> None:
    assert Timeframe.parse(str(timeframe)) == timeframe
    assert Timeframe.of_table_suffix(timeframe.table_suffix) == timeframe


def test_weeks_start_on_monday_and_months_on_the_first() -> None:
    time = datetime(2024, 2, 29, 13, tzinfo=UTC)
    assert Timeframe.parse("1w").floor(time) == datetime(2024, 2, 26, tzinfo=UTC)
    assert Timeframe.parse("1M").floor(time) == datetime(2024, 2, 1, tzinfo=UTC)
    assert Timeframe.parse("3M").floor(time) == datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("name", ["", "m", "0m", "1", "1x", "1.5h", "-1m", "1 m"])
def test_what_is_no_timeframe_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not a timeframe"):
        Timeframe.parse(name)


@pytest.mark.parametrize(
    ("exchange", "symbol"),
    [
        ("Binance", "BTC/USDT"),
        ("", "BTC/USDT"),
        ("a/b", "x"),
        ("binance", " "),
        ("binance", "a\nb"),
    ],
)
def test_what_is_no_market_is_refused(exchange: str, symbol: str) -> None:
    with pytest.raises(UsageError):
        Market(exchange, symbol)


def test_a_selection_within_another_is_what_they_have_in_common() -> None:
    outer = Selection(("a", "b"), ("X", "Y"), T0, T0 + 4 * DAY)
    inner = Selection(("b", "c"), (), T0 - DAY, T0 + 2 * DAY)
    assert inner.within(outer) == Selection(("b",), ("X", "Y"), T0, T0 + 2 * DAY)


@pytest.mark.parametrize(
    "inner",
    [
        Selection(exchanges=("c",)),
        Selection(symbols=("Z",)),
        Selection(start=T0 + DAY),
        Selection(end=T0),
    ],
)
def test_a_selection_outside_another_is_an_error(inner: Selection) -> None:
    with pytest.raises(UnknownNameError):
        inner.within(Selection(("a",), ("X",), T0, T0 + DAY))


def test_a_market_equals_the_same_market_of_stored_rows() -> None:
    market, stored = Market("binance", "BTC/USDT"), StoredMarket("binance", "BTC/USDT")
    assert market == stored
    assert {market: 1}[stored] == 1
    assert sorted([StoredMarket("okx", "A"), market]) == [market, StoredMarket("okx", "A")]
    assert market != StoredMarket("binance", "ETH/USDT")
    assert market != "binance BTC/USDT"
