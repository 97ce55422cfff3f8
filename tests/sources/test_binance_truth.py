"""Binance's own odd history: off the grid, cut short, pruned, before the listing, misrouted."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from lake.errors import SourceUnavailableError
from lake.model.time import TimeRange, from_ms
from tests.sources.listed_binance import (
    ListedBinance,
    make_kline,
    make_klines,
    make_trade,
    make_trades,
)
from tests.sources.markets import DAY, HOUR, MINUTE, SECOND

NOW = datetime(2018, 3, 1, tzinfo=UTC)
T0 = datetime(2018, 2, 10, tzinfo=UTC)


@pytest.fixture
def fetched(serving: Any, connect: Any, fetch: Any) -> Callable[..., Any]:
    """Fetch a window, or several, from a `ListedBinance`."""

    def run(venue: ListedBinance, dataset: str, *windows: tuple[datetime, datetime]) -> Any:
        async def run() -> Any:
            async with (
                serving(venue.answer) as url,
                connect("binance", url, now=lambda: venue.now) as source,
            ):
                got = [await fetch(source, dataset, "BTC/USDT", *window) for window in windows]
                return got if len(got) > 1 else got[0]

        return asyncio.run(run())

    return run


def test_bars_off_the_grid_are_data_and_do_not_stop_what_follows(
    fetched: Any, log_lines: list[str]
) -> None:
    # after its outage Binance began at 09:28:14.789 and kept to that for 20 hours
    start, off = datetime(2018, 2, 9, 8, tzinfo=UTC), datetime(2018, 2, 9, 9, 28, 14, 789000, UTC)
    anew, end = datetime(2018, 2, 10, 5, 29, tzinfo=UTC), datetime(2018, 2, 10, 9, tzinfo=UTC)
    rows = [
        *make_klines(start, start + HOUR, MINUTE),
        *make_klines(off, anew, MINUTE),
        *make_klines(anew, end, MINUTE),
    ]
    venue = ListedBinance(NOW, {"BTCUSDT 1m": rows})
    got = fetched(venue, "bars_1m", (start, end))
    assert got.frame["timestamp"].to_list() == [from_ms(row[0]) for row in rows]
    assert got.settled == (TimeRange(start, end),)
    assert len(venue.data_requests) < 12
    assert any("bars_inconsistent" in line and "off the grid" in line for line in log_lines)


@pytest.mark.parametrize("hours", [(3, 4, 1), (3, 5, 1), (2, 8, 5)])
def test_a_bar_that_was_cut_short_is_a_bar_also_alone(
    fetched: Any, hours: tuple[int, int, int]
) -> None:
    day = datetime(2018, 1, 4, tzinfo=UTC)
    rows = make_klines(day - 5 * HOUR, day + 3 * HOUR, HOUR)
    rows.append(make_kline(day + 3 * HOUR, timedelta(seconds=14.839)))
    rows.extend(make_klines(day + 5 * HOUR, day + 10 * HOUR, HOUR))
    venue = ListedBinance(NOW, {"BTCUSDT 1h": rows})
    first, last, count = hours
    got = fetched(venue, "bars_1h", (day + first * HOUR, day + last * HOUR))
    assert got.frame.height == count
    assert got.settled == (TimeRange(day + first * HOUR, day + last * HOUR),)


def test_bars_of_another_timeframe_stay_unusable(fetched: Any) -> None:
    venue = ListedBinance(NOW, {"BTCUSDT 1m": make_klines(T0, T0 + HOUR, SECOND)})
    with pytest.raises(SourceUnavailableError, match="bars of another timeframe than 1m"):
        fetched(venue, "bars_1m", (T0, T0 + HOUR))


def test_one_bad_record_is_refused_and_the_others_are_rows(fetched: Any) -> None:
    bars = make_klines(T0, T0 + HOUR, MINUTE)
    bars[7] = bars[7][:5]
    got = fetched(ListedBinance(NOW, {"BTCUSDT 1m": bars}), "bars_1m", (T0, T0 + HOUR))
    assert got.frame.height == 59
    assert got.settled == (TimeRange(T0, T0 + HOUR),)
    assert [(one.reason, one.raw[:1]) for one in got.refused] == [("unreadable", "[")]


def test_one_id_of_two_trades_is_passed_on(fetched: Any) -> None:
    rows = make_trades(1000, T0, 100, SECOND)
    rows.insert(50, {**rows[50], "p": "101.0", "f": 5000})
    got = fetched(ListedBinance(NOW, trades={"BTCUSDT": rows}), "trades", (T0, T0 + HOUR))
    assert got.frame.height == 101
    assert got.settled == (TimeRange(T0, T0 + HOUR),)


@pytest.mark.parametrize("days", [1, 5, 60])
def test_trades_before_the_first_one_cost_a_few_requests(fetched: Any, days: int) -> None:
    venue = ListedBinance(NOW, trades={"BTCUSDT": make_trades(0, T0 + HOUR, 3600, SECOND)})
    start = T0 - days * DAY
    windows = [(start + n * 6 * HOUR, start + (n + 1) * 6 * HOUR) for n in range(4 * days)]
    *before, last = fetched(venue, "trades", *windows, (T0, T0 + 3 * HOUR))
    assert all(
        got.frame.is_empty() and got.settled == (TimeRange(*window),)
        for got, window in zip(before, windows, strict=True)
    )
    assert last.frame.height == 3600
    assert last.settled == (TimeRange(T0, T0 + 3 * HOUR),)
    assert last.not_given == ()
    assert len(venue.data_requests) < 15


def test_trades_that_the_venue_dropped_are_not_given(fetched: Any) -> None:
    rows = make_trades(437_921_759, T0 + 6 * HOUR, 7200, SECOND)
    venue = ListedBinance(NOW, trades={"BTCUSDT": rows})
    old, part = fetched(venue, "trades", (T0 - DAY, T0), (T0, T0 + 7 * HOUR))
    assert old.settled == ()
    assert old.not_given == (TimeRange(T0 - DAY, T0),)
    assert part.not_given == (TimeRange(T0, T0 + 6 * HOUR),)
    assert part.settled == (TimeRange(T0 + 6 * HOUR, T0 + 7 * HOUR),)
    assert part.frame.height == 3600
    assert len(venue.data_requests) < 15


def test_daily_bars_prove_what_lies_before_the_listing(fetched: Any) -> None:
    rows = make_trades(437_921_759, T0 + 6 * HOUR, 10, SECOND)
    days = make_klines(T0 - 3 * DAY, T0 + 9 * DAY, DAY)
    venue = ListedBinance(NOW, {"BTCUSDT 1d": days}, {"BTCUSDT": rows})
    got = fetched(venue, "trades", (T0 - 10 * DAY, T0 + 7 * HOUR))
    assert got.not_given == (TimeRange(T0 - 3 * DAY, T0 + 6 * HOUR),)
    assert got.settled == (
        TimeRange(T0 - 10 * DAY, T0 - 3 * DAY),
        TimeRange(T0 + 6 * HOUR, T0 + 7 * HOUR),
    )


def test_short_bars_that_the_venue_dropped_are_not_given(fetched: Any) -> None:
    minutes = make_klines(T0 + 6 * HOUR, T0 + 9 * HOUR, MINUTE)
    days = make_klines(T0 - 3 * DAY, T0 + 9 * DAY, DAY)
    venue = ListedBinance(NOW, {"BTCUSDT 1d": days, "BTCUSDT 1m": minutes})
    old, part = fetched(venue, "bars_1m", (T0 - 9 * DAY, T0 - 2 * DAY), (T0, T0 + 7 * HOUR))
    assert old.settled == (TimeRange(T0 - 9 * DAY, T0 - 3 * DAY),)
    assert old.not_given == (TimeRange(T0 - 3 * DAY, T0 - 2 * DAY),)
    assert part.not_given == (TimeRange(T0, T0 + 6 * HOUR),)
    assert part.settled == (TimeRange(T0 + 6 * HOUR, T0 + 7 * HOUR),)


@pytest.mark.parametrize("dataset", ["bars_1m", "trades"])
def test_a_quiet_time_between_rows_is_empty(fetched: Any, dataset: str) -> None:
    bars = [make_kline(T0 - 30 * DAY, MINUTE), *make_klines(T0, T0 + HOUR, MINUTE)]
    rows = [make_trade(500, T0 - 30 * DAY), make_trade(501, T0)]
    days = make_klines(T0 - 30 * DAY, T0, DAY)
    venue = ListedBinance(NOW, {"BTCUSDT 1m": bars, "BTCUSDT 1d": days}, {"BTCUSDT": rows})
    got = fetched(venue, dataset, (T0 - 2 * DAY, T0 + HOUR))
    assert got.settled == (TimeRange(T0 - 2 * DAY, T0 + HOUR),)
    assert got.not_given == ()


@pytest.mark.parametrize("rate", [0.1, 0.3])
@pytest.mark.parametrize("seed", range(12))
def test_answers_of_another_market_lose_and_mix_nothing(
    fetched: Any, rate: float, seed: int
) -> None:
    # both markets trade every second, and both have trades of the same ids
    start = T0 - 4 * HOUR
    mine = make_trades(50_000, start, 5 * 3600, SECOND)
    others = make_trades(45_000, start, 5 * 3600 + 5_000, SECOND, "3.5")
    dice = random.Random(f"{seed} {rate}")
    venue = ListedBinance(
        NOW,
        trades={"BTCUSDT": mine, "OTHER": others},
        misroute=lambda symbol, _: "OTHER" if dice.random() < rate else symbol,
    )
    window = (start + HOUR, start + 4 * HOUR)
    try:
        got = fetched(venue, "trades", window)
    except SourceUnavailableError:
        return  # told, and nothing stored
    assert set(got.frame["price"]) == {100.0}
    assert got.frame["trade_id"].unique().len() == 3 * 3600
    assert got.settled == (TimeRange(*window),)


def _misroute_once(number: int, symbol: str, at: int) -> str:
    return "OTHER" if at == number else symbol


def test_one_misrouted_answer_changes_nothing(fetched: Any) -> None:
    start = T0 - 4 * HOUR
    mine = make_trades(50_000, start, 5 * 3600, SECOND)
    others = make_trades(45_000, start, 5 * 3600 + 5_000, SECOND, "3.5")
    plain = ListedBinance(NOW, trades={"BTCUSDT": mine, "OTHER": others})
    window = (start + HOUR, start + 2 * HOUR)
    expected = fetched(plain, "trades", window).frame
    for number in range(1, len(plain.asked) + 1):
        venue = ListedBinance(
            NOW,
            trades=plain.trades,
            misroute=partial(_misroute_once, number),
        )
        got = fetched(venue, "trades", window)
        assert got.frame["trade_id"].to_list() == expected["trade_id"].to_list()
        assert got.settled == (TimeRange(*window),)


def test_a_market_that_truly_jumps_is_fetched(fetched: Any) -> None:
    # halted for two days, and back at half the price
    rows = make_trades(100, T0 - 3 * DAY, 2500, SECOND)
    rows += make_trades(2600, T0, 1500, SECOND, "50")
    venue = ListedBinance(NOW, trades={"BTCUSDT": rows})
    got = fetched(venue, "trades", (T0 - 3 * DAY, T0 + HOUR))
    assert got.frame.height == 4000
    assert got.settled == (TimeRange(T0 - 3 * DAY, T0 + HOUR),)
    assert len(venue.data_requests) < 15


def test_the_newest_minutes_of_a_quiet_market_cost_no_search(fetched: Any) -> None:
    rows = make_trades(437_921_759, NOW - 5 * HOUR, 10, SECOND)
    venue = ListedBinance(NOW, trades={"BTCUSDT": rows})
    got = fetched(venue, "trades", (NOW - HOUR, NOW - MINUTE))
    assert got.settled == (TimeRange(NOW - HOUR, NOW - MINUTE),)
    assert len(venue.data_requests) == 2


def test_one_misrouted_page_of_bars_changes_nothing(fetched: Any) -> None:
    start, end = T0 - 3 * DAY, T0
    mine, others = make_klines(start, end, MINUTE), make_klines(start, end, MINUTE, "1.9")
    venue = ListedBinance(NOW, {"BTCUSDT 1m": mine, "OTHER 1m": others})
    expected = fetched(venue, "bars_1m", (start, end)).frame
    for number in range(1, len(venue.asked) + 1):
        misrouted = ListedBinance(NOW, venue.klines, misroute=partial(_misroute_once, number))
        got = fetched(misrouted, "bars_1m", (start, end))
        assert got.frame["close"].to_list() == expected["close"].to_list()
        assert got.settled == (TimeRange(start, end),)
        assert len(misrouted.data_requests) < 15


def test_prices_that_truly_jump_between_pages_are_fetched(fetched: Any) -> None:
    start, jump = T0 - 3 * DAY, T0 - 3 * DAY + 1000 * MINUTE
    rows = [*make_klines(start, jump, MINUTE), *make_klines(jump, T0, MINUTE, "1.9")]
    venue = ListedBinance(NOW, {"BTCUSDT 1m": rows})
    got = fetched(venue, "bars_1m", (start, T0))
    assert got.frame.height == 3 * 1440
    assert got.settled == (TimeRange(start, T0),)
    assert len(venue.data_requests) == 5 + 1
