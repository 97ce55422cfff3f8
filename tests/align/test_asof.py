"""As-of alignment: values that were known at a time, never values known later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.align.asof import as_of_join, grid
from lake.errors import UsageError
from lake.model.catalog import builtin
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, bars

MICROSECOND = timedelta(microseconds=1)


def at(*seconds: float | None) -> pl.Series:
    values = [None if second is None else T0 + second * SECOND for second in seconds]
    return pl.Series(values=values, dtype=TIME)


def rows(known: pl.Series, value: list[int], symbol: str = "X") -> pl.DataFrame:
    return pl.DataFrame({"exchange": "a", "symbol": symbol, "available_at": known, "value": value})


def times(*seconds: float) -> pl.DataFrame:
    return pl.DataFrame({"time": at(*seconds)})


def test_a_grid_starts_at_the_start_and_stops_before_the_end() -> None:
    found = grid(MINUTE, since=T0, until=T0 + 3 * MINUTE)
    assert found.schema == {"time": TIME}
    assert found["time"].to_list() == [T0, T0 + MINUTE, T0 + 2 * MINUTE]
    assert grid("1m", since=T0, until=T0 + 3 * MINUTE + MICROSECOND).height == 4
    assert grid("1d", since=T0 + SECOND, until=T0 + DAY)["time"].to_list() == [T0 + SECOND]


def test_months_of_a_grid_are_those_of_the_calendar() -> None:
    found = grid("1M", since=T0, until=datetime(2024, 4, 1, tzinfo=UTC))
    assert found["time"].to_list() == [datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3)]


@pytest.mark.parametrize(
    ("start", "end", "every", "message"),
    [
        (T0, T0, MINUTE, "range is empty"),
        (T0.replace(tzinfo=None), T0 + DAY, MINUTE, "is not in UTC"),
        (T0, T0 + DAY, 0 * MINUTE, "every is 0:00:00"),
        (T0, T0 + DAY, -MINUTE, "every is -1 day"),
        (T0, T0 + DAY, "5 minutes", "'5 minutes' is not a timeframe"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(start: Any, end: Any, every: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grid(every, since=start, until=end)


def test_a_row_is_seen_from_the_instant_at_which_it_is_known() -> None:
    known = rows(at(10, 20), [1, 2])
    joined = as_of_join(times(10, 19.999999, 20, 30), known, staleness=None)
    assert joined["value"].to_list() == [1, 1, 2, 2]
    assert joined["age"].to_list() == [0 * SECOND, 9.999999 * SECOND, 0 * SECOND, 10 * SECOND]
    assert joined["age"].dtype == pl.Duration("us")


def test_a_bar_is_seen_at_its_end() -> None:
    dataset = builtin().dataset("bars_1m")
    never = pl.lit(None, TIME).alias("received_at")
    known = bars(2).with_columns(never).with_columns(dataset.availability())
    joined = as_of_join(times(59, 60, 119, 120), known, staleness=None, columns=["timestamp"])
    assert joined["time"].to_list() == at(60, 119, 120).to_list()
    assert joined["timestamp"].to_list() == at(0, 0, 60).to_list()


def test_a_row_that_is_too_old_counts_as_none() -> None:
    known = rows(at(0), [1])
    joined = as_of_join(times(0, 5, 5.000001), known, staleness=5 * SECOND)
    assert joined["value"].to_list() == [1, 1, None]
    assert joined["age"].to_list() == [0 * SECOND, 5 * SECOND, None]
    assert joined["available_at"].to_list() == at(0, 0, None).to_list()
    at_once = as_of_join(times(0, 0.000001), known, staleness=0 * SECOND)
    assert at_once["value"].to_list() == [1, None]


def test_of_rows_known_at_once_the_last_counts() -> None:
    joined = as_of_join(times(1), rows(at(1, 0, 1), [2, 3, 1]), staleness=None)
    assert joined["value"].to_list() == [1]


def test_every_market_has_times_from_when_it_is_known() -> None:
    known = pl.concat([rows(at(5), [2], "Y"), rows(at(0, 5), [0, 1])])
    joined = as_of_join(times(0, 5), known, staleness=None)
    assert joined.select("time", "exchange", "symbol", "value").rows() == [
        (T0, "a", "X", 0),
        (T0 + 5 * SECOND, "a", "X", 1),
        (T0 + 5 * SECOND, "a", "Y", 2),
    ]


def test_requested_markets_have_rows_before_they_are_known() -> None:
    asked = pl.DataFrame({"time": at(0, 0, 5), "exchange": "a", "symbol": ["Y", "X", "Z"], "n": 1})
    joined = as_of_join(asked, rows(at(0), [7]), staleness=None)
    assert joined.select(asked.columns).equals(asked)
    assert joined["value"].to_list() == [None, 7, None]


def test_without_markets_all_rows_are_of_one() -> None:
    known = pl.concat([rows(at(0), [1]), rows(at(1), [2], "Y")])
    joined = as_of_join(times(-1, 0, 1), known, staleness=None, by=())
    assert joined["value"].to_list() == [None, 1, 2]
    assert joined["symbol"].to_list() == [None, "X", "Y"]


def test_a_prefix_lets_joins_go_side_by_side() -> None:
    known = rows(at(0), [1])
    first = as_of_join(times(0), known, staleness=None, columns=["value"], prefix="one_")
    second = as_of_join(first, known.lazy(), staleness=None, columns=["value"], prefix="two_")
    names = ["time", "exchange", "symbol", "one_value", "one_age", "two_value", "two_age"]
    assert second.columns == names
    ages = as_of_join(times(0), known, staleness=None, columns=[])
    assert ages.columns == ["time", "exchange", "symbol", "age"]


def test_times_may_be_called_otherwise() -> None:
    named = times(0).rename({"time": "timestamp"})
    joined = as_of_join(named, rows(at(0), [1]), staleness=None, on="timestamp")
    assert joined["value"].to_list() == [1]


def test_no_rows_and_no_times_return_an_empty_frame() -> None:
    known = rows(at(0), [1])
    assert as_of_join(times(0), known.clear(), staleness=None).height == 0
    assert as_of_join(times(), known, staleness=None).height == 0
    assert as_of_join(times(0), known.clear(), staleness=None, by=())["value"].to_list() == [None]


seconds = st.integers(0, 8)


@given(
    st.lists(st.tuples(seconds, st.sampled_from("XY")), max_size=10),
    st.lists(seconds, max_size=6, unique=True).map(sorted),
    st.none() | st.integers(0, 4),
)
def test_a_join_equals_a_search_through_all_rows(
    facts: list[tuple[int, str]], asked: list[int], limit: int | None
) -> None:
    known = pl.DataFrame(
        {
            "exchange": pl.Series(values=["a"] * len(facts), dtype=pl.String),
            "symbol": pl.Series(values=[symbol for _, symbol in facts], dtype=pl.String),
            "available_at": at(*(second for second, _ in facts)),
            "value": pl.Series(values=range(len(facts)), dtype=pl.Int64),
        }
    )
    staleness = None if limit is None else limit * SECOND
    joined = as_of_join(times(*asked), known, staleness=staleness, columns=["value"])
    expected = []
    for time in asked:
        for symbol in "XY":
            seen = [
                (second, number)
                for number, (second, market) in enumerate(facts)
                if market == symbol and second <= time
            ]
            if seen:
                second, number = max(seen)
                fresh = limit is None or time - second <= limit
                expected.append((T0 + time * SECOND, symbol, number if fresh else None))
    assert joined.select("time", "symbol", "value").rows() == expected


NAIVE_TIMES = pl.DataFrame({"time": at(0).dt.replace_time_zone(None)})
KNOWN = rows(at(0), [1])
REFUSED: dict[str, tuple[pl.DataFrame, pl.DataFrame, dict[str, Any], str]] = {
    "no time": (times(0).rename({"time": "t"}), KNOWN, {}, "times has no column 'time'"),
    "naive times": (NAIVE_TIMES, KNOWN, {}, "times: column 'time' is Datetime"),
    "milliseconds": (
        times(0).cast(pl.Datetime("ms", "UTC")),
        KNOWN,
        {},
        "times: column 'time' is Datetime",
    ),
    "times out of order": (times(1, 0), KNOWN, {}, "times are not in order of 'time'"),
    "a null time": (pl.DataFrame({"time": at(0, None)}), KNOWN, {}, "times: column 'time' is null"),
    "no availability": (
        times(0),
        KNOWN.drop("available_at"),
        {},
        "rows has no column 'available_at'",
    ),
    "a null availability": (
        times(0),
        rows(at(0, None), [1, 2]),
        {},
        "rows: column 'available_at' is null in 1 row",
    ),
    "an unknown column": (times(0), KNOWN, {"columns": ["nope"]}, "rows has no column 'nope'"),
    "an unknown market": (times(0), KNOWN, {"by": ["nope"]}, "rows has no column 'nope'"),
    "half a market": (
        times(0).with_columns(symbol=pl.lit("X")),
        KNOWN,
        {},
        "times has column symbol but not exchange",
    ),
    "negative staleness": (times(0), KNOWN, {"staleness": -SECOND}, "staleness is -1 day"),
    "a name twice": (
        times(0).with_columns(value=1),
        KNOWN,
        {},
        "column 'value' would be duplicated",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_joins_are_refused(case: str) -> None:
    asked, known, choice, message = REFUSED[case]
    with pytest.raises(UsageError) as caught:
        as_of_join(asked, known, **{"staleness": None, **choice})
    assert caught.value.message.startswith(message)
    assert caught.value.hint
