"""Binance's answers as frames, and which pages are accepted."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.model.time import TimeRange, from_ms, to_ms
from lake.model.timeframe import Timeframe
from lake.sources.faults import Fault
from lake.sources.frames import (
    add_closed,
    find_complete_until,
    find_unreadable_columns,
    to_timestamps,
)
from lake.sources.venues.binance_pages import (
    find_jump,
    find_trade_anomaly,
    parse_agg_trades,
    parse_funding,
    parse_klines,
    validate_funding,
    validate_klines,
    validate_trades,
)

START = datetime(2024, 3, 1, tzinfo=UTC)
MINUTE = Timeframe(1, "m")
LATER = START + timedelta(days=365)


def kline(open_time: datetime, close_time: datetime, number: str = "1.5") -> list[Any]:
    opened, closed = to_ms(open_time), to_ms(close_time) - 1
    return [opened, number, "2", "1", "1.7", "10", closed, "15", 3, "4", "6", "0"]


def minutes(*numbers: int) -> list[list[Any]]:
    opens = (START + timedelta(minutes=n) for n in numbers)
    return [kline(time, time + timedelta(minutes=1)) for time in opens]


def hour(rows: list[list[Any]], timeframe: Timeframe = MINUTE) -> pl.DataFrame:
    window = TimeRange(START, START + timedelta(hours=1))
    return validate_klines(parse_klines(rows), timeframe, window, LATER)[0]


def oddity(rows: list[list[Any]], timeframe: Timeframe = MINUTE) -> str | None:
    window = TimeRange(START, START + timedelta(days=1))
    return validate_klines(parse_klines(rows), timeframe, window, LATER)[1]


def trade(trade_id: int, second: float = 0.0, **changes: Any) -> dict[str, Any]:
    time = to_ms(START) + int(second * 1000)
    row = {"a": trade_id, "p": "1.5", "q": "2", "f": trade_id, "l": trade_id, "T": time, "m": True}
    return {**row, "M": True, **changes}


def test_a_kline_keeps_every_column() -> None:
    row = hour(minutes(5)).row(0, named=True)
    assert row == {
        "timestamp": START + timedelta(minutes=5),
        "open": 1.5,
        "high": 2.0,
        "low": 1.0,
        "close": 1.7,
        "volume": 10.0,
        "quote_volume": 15.0,
        "trade_count": 3,
        "taker_buy_volume": 4.0,
        "taker_buy_quote_volume": 6.0,
        "closed": True,
    }


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 10**20), st.integers(0, 18))
def test_decimals_are_read_to_the_nearest_double(number: float, digits: int, places: int) -> None:
    for text in (repr(number), f"{digits}.{'0' * places}1", f"0.{digits}"):
        row = kline(START, START + timedelta(minutes=1), text)
        assert parse_klines([row])["open"][0] == float(text)


@given(st.permutations(range(8)))
def test_a_shuffled_page_is_put_in_order(order: list[int]) -> None:
    assert hour(minutes(*order))["timestamp"].to_list() == [
        START + timedelta(minutes=n) for n in range(8)
    ]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(minutes(-1, 0), id="before the window"),
        pytest.param(minutes(59, 60), id="after the window"),
        pytest.param([kline(START, START + timedelta(hours=1))], id="a longer timeframe"),
        pytest.param(
            [
                kline(START + timedelta(seconds=n), START + timedelta(seconds=n + 1))
                for n in range(9)
            ],
            id="a shorter timeframe",
        ),
        pytest.param([[None, *minutes(0)[0][1:]]], id="no time"),
        pytest.param([minutes(0)[0][:5]], id="too short"),
        pytest.param([minutes(0)[0], minutes(1)[0][:9]], id="of different lengths"),
        pytest.param([["x", *minutes(0)[0][1:]]], id="a word for a time"),
        pytest.param([[to_ms(START), 1.5, *minutes(0)[0][2:]]], id="a number for a decimal"),
        pytest.param({"code": 0}, id="an object"),
        pytest.param("rows", id="a string"),
        pytest.param([None], id="null rows"),
        pytest.param([1, 2], id="number rows"),
        pytest.param(None, id="nothing"),
    ],
)
def test_a_page_that_cannot_be_true_is_a_fault(rows: Any) -> None:
    with pytest.raises(Fault):
        hour(rows)


def test_bars_on_the_grid_are_not_odd() -> None:
    assert oddity([]) is None
    assert oddity(minutes(0, 1, 5)) is None


def test_odd_bars_of_an_outage_are_described() -> None:
    cut = minutes(0, 1, 2)
    cut[1][6] -= 30_000
    assert hour(cut).height == 3
    assert oddity(cut) == ("1 bar not 1m long from 2024-03-01T00:00:00Z to 2024-03-01T00:02:00Z")
    assert str(oddity(cut[1:2])).startswith("1 bar not 1m long")
    off = START + timedelta(seconds=14.789)
    odd = [kline(off + timedelta(minutes=n), off + timedelta(minutes=n + 1)) for n in range(5)]
    assert str(oddity(odd)).startswith("5 bars off the grid of 1m from")
    # the grid begins anew: the last bar off the grid overlaps the first one on it
    assert str(oddity([odd[4], *minutes(5)])).startswith("1 bar off the grid of 1m from")
    assert str(oddity(minutes(3, 4, 4))).startswith("1 bar repeated from")


@pytest.mark.parametrize(
    ("timeframe", "opens", "ends"),
    [
        ("1w", datetime(2024, 2, 26, tzinfo=UTC), datetime(2024, 3, 4, tzinfo=UTC)),
        ("1M", datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("3d", datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 3, tzinfo=UTC)),
    ],
)
def test_weeks_and_months_have_their_own_grid(
    timeframe: str, opens: datetime, ends: datetime
) -> None:
    grid, window = Timeframe.parse(timeframe), TimeRange(opens, LATER)
    bars, odd = validate_klines(parse_klines([kline(opens, ends)]), grid, window, LATER)
    assert bars.height == 1
    assert odd is None
    wrong = kline(opens + timedelta(days=1), ends + timedelta(days=1))
    odd = validate_klines(parse_klines([wrong]), grid, window, LATER)[1]
    assert str(odd).startswith(f"1 bar off the grid of {timeframe}")


def test_numbers_that_cannot_be_read_are_null_and_all_of_them_are_a_changed_format() -> None:
    rows = [kline(START, START + timedelta(minutes=1), "n/a"), *minutes(1)]
    bars = hour(rows)
    assert bars["open"].to_list() == [None, 1.5]
    required = ("timestamp", "open", "close")
    assert find_unreadable_columns(bars, required) is None
    assert find_unreadable_columns(hour(rows[:1]), required) == "open"
    assert find_unreadable_columns(hour([]), required) is None


@given(st.integers(0, 10**7), st.sampled_from(["1m", "3m", "1h", "1d", "1w", "1M"]))
def test_a_bar_is_closed_once_its_end_is_reached(seconds: int, name: str) -> None:
    timeframe, reached = Timeframe.parse(name), START + timedelta(seconds=seconds)
    current = timeframe.floor(reached)
    opens = [timeframe.floor(current - timedelta(seconds=1)), current]
    bars = add_closed(pl.DataFrame({"timestamp": opens}), timeframe, reached)
    assert bars["closed"].to_list() == [True, False]
    assert find_complete_until(bars, timeframe, reached) == current
    assert find_complete_until(bars[:1], timeframe, reached) == current
    assert find_complete_until(bars[:0], timeframe, reached) <= current


def test_trades_keep_ids_and_the_takers_side() -> None:
    rows = [trade(8, 1, m=False), trade(7, 0, f=3, l=5)]
    trades = parse_agg_trades(rows)
    assert trades["trade_id"].to_list() == ["7", "8"]
    assert trades["side"].to_list() == ["sell", "buy"]
    assert trades["first_id"].to_list() == [3, 8]
    assert trades["last_id"].to_list() == [5, 8]
    assert trades["timestamp"].to_list() == [START, START + timedelta(seconds=1)]


@pytest.mark.parametrize(
    "check",
    [
        lambda: parse_agg_trades([{"a": 1}]),
        lambda: parse_agg_trades([trade(1, p=1.5)]),
        lambda: parse_agg_trades({"a": 1}),
        lambda: validate_trades(parse_agg_trades([trade(1)]), from_id=2),
        lambda: validate_trades(
            parse_agg_trades([trade(1, 3600)]), TimeRange(START, START + timedelta(hours=1))
        ),
    ],
)
def test_trades_that_cannot_be_an_answer_are_a_fault(check: Callable[[], Any]) -> None:
    with pytest.raises(Fault):
        check()


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(0, 60))
def test_missing_ids_are_counted(ids: set[int], from_id: int) -> None:
    from_id = min(from_id, *ids)
    trades = validate_trades(parse_agg_trades([trade(n, n) for n in ids]), from_id=from_id)
    missing = set(range(from_id, max(ids))) - ids
    oddity = find_trade_anomaly(trades, from_id)
    assert (oddity is None) == (not missing)
    assert oddity is None or oddity.startswith(f"{len(missing)} ids")


def test_one_id_for_two_trades_is_an_anomaly() -> None:
    trades = parse_agg_trades([trade(1), trade(2, 1), trade(2, 1, p="9"), trade(3, 2)])
    assert find_trade_anomaly(trades, 1) == "1 ids from 1 to 3 are repeated"


@pytest.mark.parametrize(
    ("first", "jump"),
    [
        (trade(11, 10), None),
        (trade(11, 60), None),
        (trade(11, 10, p="1.55"), None),
        (trade(11, 9000), "a jump from 2024-03-01T00:00:09Z to 2024-03-01T02:30:00Z"),
        (trade(11, 5), "a jump from 2024-03-01T00:00:09Z to 2024-03-01T00:00:05Z"),
        (trade(11, 10, p="1.6"), "a jump from 1.5 to 1.6"),
        (trade(11, 10, p="1.4"), "a jump from 1.5 to 1.4"),
        (trade(11, 10, p="n/a"), None),
    ],
)
def test_a_page_that_does_not_continue_the_one_before_it_is_found(
    first: dict[str, Any], jump: str | None
) -> None:
    before = parse_agg_trades([trade(n, n) for n in range(10)])
    assert find_jump(before, parse_agg_trades([first])) == jump


def test_a_quiet_market_does_not_jump() -> None:
    before = parse_agg_trades([trade(n, 600 * n) for n in range(10)])
    assert find_jump(before, parse_agg_trades([trade(10, 600 * 9 + 7000)])) is None


def test_time_that_runs_backward_is_an_anomaly() -> None:
    assert (
        find_trade_anomaly(parse_agg_trades([trade(1, 5), trade(2, 4)]), 1)
        == "times that run backward"
    )


def test_funding_has_a_mark_price_if_the_venue_sends_one() -> None:
    time = to_ms(START)
    rows = [
        {"symbol": "A", "fundingTime": time + 9, "fundingRate": "0.0001", "markPrice": "12.5"},
        {"symbol": "A", "fundingTime": time, "fundingRate": "-0.0002", "markPrice": ""},
        {"symbol": "A", "fundingTime": time + 5, "fundingRate": "0.0003"},
    ]
    rates = parse_funding(rows)
    assert rates["timestamp"].to_list() == [from_ms(time), from_ms(time + 5), from_ms(time + 9)]
    assert rates["funding_rate"].to_list() == [-0.0002, 0.0003, 0.0001]
    assert rates["mark_price"].to_list() == [None, None, 12.5]
    with pytest.raises(Fault):
        validate_funding(rates, TimeRange(START, START + timedelta(milliseconds=9)), "A")
    with pytest.raises(Fault, match="funding rates of A instead of B"):
        validate_funding(rates, TimeRange(START, LATER), "B")
    assert validate_funding(rates, TimeRange(START, LATER), "A").height == 3


def test_recorded_klines_and_trades(sample: Callable[[str], bytes]) -> None:
    bars = parse_klines(orjson.loads(sample("binance/klines_response.json")))
    assert bars.height > 0
    assert (
        find_unreadable_columns(bars, ("timestamp", "open", "high", "low", "close", "volume"))
        is None
    )
    assert bars.select((pl.col("high") >= pl.col("low")).all()).item()


def test_a_bad_value_that_may_be_null_costs_neither_its_bar_nor_the_page() -> None:
    rows = minutes(5, 6, 7)
    rows[0][8], rows[1][7], rows[2][9] = "many", "NaN", "Infinity"
    bars = parse_klines(rows)
    assert bars["trade_count"].to_list() == [None, 3, 3]
    assert bars["quote_volume"].to_list() == [15.0, None, 15.0]
    assert bars["taker_buy_volume"].to_list() == [4.0, 4.0, None]
    trades = parse_agg_trades([trade(1, f=2**70), trade(2, l="x"), trade(3)])
    assert trades["first_id"].to_list() == [None, 2, 3]
    assert trades["last_id"].to_list() == [1, None, 3]


def test_a_mark_price_that_is_no_price_is_null() -> None:
    prices = ["0.00000000", "-1", "NaN", "Infinity", "", None, "12.5"]
    rows = [
        {"symbol": "A", "fundingTime": to_ms(START) + n, "fundingRate": "0.1", "markPrice": price}
        for n, price in enumerate(prices)
    ]
    assert parse_funding(rows)["mark_price"].to_list() == [None] * 6 + [12.5]


@pytest.mark.parametrize("time", [1_709_294_400_000_000_000, -(2**62), 2**63 - 1])
def test_a_time_in_another_unit_does_not_become_one_that_looks_right(time: int) -> None:
    microseconds = to_timestamps([to_ms(START), time, None]).to_physical().to_list()
    assert microseconds[0] == to_ms(START) * 1000
    assert abs(microseconds[1]) > 9 * 10**18
    assert microseconds[2] is None
