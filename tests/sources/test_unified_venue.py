"""Any ccxt exchange: a venue that returns less than requested is reported."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake.errors import SourceError
from lake.model.intervals import subtract
from lake.model.time import TimeRange, from_ms, to_ms
from lake.sandbox import Market
from lake.sandbox.exchange_info import build_exchange_info
from lake.sandbox.venues import VENUES
from tests.sources.markets import DAY, HOUR, MINUTE, SECOND


@dataclass
class Venue:
    """Binance with custom behaviour: `trades` and `klines` compute rows from a `startTime`.

    `startTime` is None if the latest rows are requested. `bars` are those of intervals, instead of
    `klines`.
    """

    now: datetime
    trades: Callable[[int | None], list[Any]] = lambda _: []
    klines: Callable[[int | None], list[Any]] = lambda _: []
    bars: dict[str, list[Any]] = field(default_factory=dict)
    ranged: Callable[[int, int], list[Any]] | None = None
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path.rpartition("/")[2]
        host = request.path.split("/")[1]
        self.asked.append(path)
        if path == "exchangeInfo":
            markets = [Market("binance", "BTC", "USDT", 2, 5, "5")] if "api.b" in host else []
            body: Any = build_exchange_info(VENUES["api.binance.com"], markets, to_ms(self.now))
        else:
            since = request.query.get("startTime")
            rows = self.trades if path == "aggTrades" else self.klines
            body = rows(None if since is None else int(since))
            if self.ranged is not None and since is not None and path == "aggTrades":
                body = self.ranged(int(since), int(request.query["endTime"]))
            if request.query.get("interval") in self.bars:
                body = [
                    bar for bar in self.bars[request.query["interval"]] if bar[0] >= int(since or 0)
                ]
        return web.Response(body=orjson.dumps(body), content_type="application/json")


@pytest.fixture
def from_venue(serving: Any, connect: Any, fetch: Any, now: datetime) -> Callable[..., Any]:
    """Fetch from a `Venue` through the unified methods."""

    def run(venue: Venue, dataset: str, start: datetime, end: datetime) -> Any:
        async def run() -> Any:
            async with (
                serving(venue.answer) as url,
                connect("binance", url, unified=True, now=lambda: now) as source,
            ):
                return await fetch(source, dataset, "BTC/USDT", start, end)

        return asyncio.run(run())

    return run


def agg(time: datetime, number: int | None = None, price: str = "1.5") -> dict[str, Any]:
    row = {"p": price, "q": "2", "f": 1, "l": 1, "T": to_ms(time), "m": False, "M": True}
    return row if number is None else {"a": number, **row}


def kline(time: datetime) -> list[Any]:
    return [to_ms(time), "1", "2", "1", "1.5", "9", to_ms(time) + 59_999, "9", 1, "1", "1", "0"]


def test_latest_bars_are_no_past(from_venue: Any, now: datetime, log_lines: list[str]) -> None:
    current = now.replace(second=0)
    bars = [kline(current - n * MINUTE) for n in range(720)][::-1]
    venue = Venue(now, klines=lambda _: bars)
    got = from_venue(venue, "bars_1m", now - 3 * DAY, now)
    assert got.frame.height == 720
    assert got.settled == (TimeRange(current - 719 * MINUTE, current),)
    (line,) = [line for line in log_lines if "history_incomplete" in line]
    assert "first=2024-03-01T00:01:00Z" in line


def test_a_window_before_the_latest_bars_is_not_covered(from_venue: Any, now: datetime) -> None:
    bars = [kline(now.replace(second=0) - n * MINUTE) for n in range(720)][::-1]
    venue = Venue(now, klines=lambda _: bars)
    got = from_venue(venue, "bars_1m", now - 3 * DAY, now - 2 * DAY)
    assert got.frame.is_empty()
    assert got.settled == ()


def test_latest_trades_are_no_past_even_on_a_dead_market(from_venue: Any, now: datetime) -> None:
    # the last trade was hours ago: judged by the clock alone, these would not be the latest rows
    rows = [agg(now - 5 * HOUR + n * SECOND, n) for n in range(100)]
    got = from_venue(Venue(now, trades=lambda _: rows), "trades", now - DAY, now)
    assert got.frame.height == 100
    first = now - 5 * HOUR + timedelta(milliseconds=1)
    assert got.settled == (TimeRange(first, now - 10 * SECOND),)


def test_a_market_that_trades_meanwhile_proves_nothing(from_venue: Any, now: datetime) -> None:
    # each answer has newer trades than the one before: none of them proves the past
    asked = 0

    def trades(_: int | None) -> list[Any]:
        nonlocal asked
        asked += 1
        last = now - HOUR + asked * SECOND
        return [agg(last - n * SECOND / 10, 10_000 + asked * 10 - n) for n in range(100)][::-1]

    got = from_venue(Venue(now, trades=trades), "trades", now - DAY, now - HOUR + 20 * SECOND)
    assert got.settled[0].start >= now - HOUR - 10 * SECOND


def test_latest_trades_that_reach_back_to_the_window_cover_it(
    from_venue: Any, now: datetime
) -> None:
    rows = [agg(now - HOUR + n * SECOND, n) for n in range(3000)]
    start = now - 50 * MINUTE - timedelta(milliseconds=500)
    got = from_venue(Venue(now, trades=lambda _: rows), "trades", start, now)
    assert got.frame["trade_id"].to_list() == [str(n) for n in range(600, 3000)]
    assert got.settled == (TimeRange(start, now - 10 * SECOND),)


TIMES = (40 * HOUR, 29 * HOUR, 1 * HOUR)


def of_the_hour(now: datetime, since: int | None) -> list[Any]:
    """Trades of the hour after `since`, like Binance."""
    rows = [(to_ms(now - back), agg(now - back, n)) for n, back in enumerate(TIMES)]
    return [row for at, row in rows if since is None or since <= at <= since + 3_600_000]


@pytest.mark.parametrize(
    ("first_day", "given_from"),
    [(40 * HOUR, 2 * DAY), (None, 40 * HOUR), (9 * DAY, 40 * HOUR)],
)
def test_time_before_the_first_trade_is_empty_if_daily_bars_prove_it(
    from_venue: Any, now: datetime, first_day: timedelta | None, given_from: timedelta
) -> None:
    # the venue honours `since`: between trades the market was quiet
    bars = {}
    if first_day is not None:
        first = (now - first_day).replace(minute=0, second=0)
        bars = {
            "1M": [kline(first.replace(day=1, hour=0))],
            "1d": [kline(first.replace(hour=0) + n * DAY) for n in range(3)],
            "1h": [kline(first + n * HOUR) for n in range(3)],
        }
    venue = Venue(now, lambda since: of_the_hour(now, since), bars=bars)
    got = from_venue(venue, "trades", now - 2 * DAY, now)
    assert got.frame["timestamp"].to_list() == [now - back for back in TIMES]
    assert got.settled == (TimeRange(now - given_from, now - 10 * SECOND),)
    lost = subtract([TimeRange(now - 2 * DAY, now)], [TimeRange(now - given_from, now)])
    assert got.not_given == lost


def test_the_newest_hours_of_a_quiet_market_cost_no_search(from_venue: Any, now: datetime) -> None:
    def fetch_again() -> Venue:
        venue = Venue(now, lambda since: of_the_hour(now, since))
        got = from_venue(venue, "trades", now - 20 * HOUR, now)
        assert got.settled == (TimeRange(now - 20 * HOUR, now - 10 * SECOND),)
        return venue

    assert "klines" not in fetch_again().asked


def manners(kind: str, rows: list[Any], page: int) -> Callable[[int | None], list[Any]]:
    """Venues' interpretations of `since`: rows from it on, rows of the hour after it (the first, or
    the last that fit on a page), or always the latest rows."""

    def trades(since: int | None) -> list[Any]:
        if since is None or kind == "latest":
            return rows[-page:]
        if kind == "since":
            return [row for row in rows if row["T"] >= since][:page]
        hour = [row for row in rows if since <= row["T"] <= since + 3_600_000]
        return hour[-page:] if kind == "last of the hour" else hour[:page]

    return trades


@pytest.mark.parametrize("kind", ["since", "first of the hour", "last of the hour", "latest"])
@given(
    gaps=st.lists(st.sampled_from([0, 1, 1, 7, 900, 7_000_000]), min_size=1, max_size=120),
    page=st.integers(12, 40),
    window=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_settled_ranges_are_complete(
    from_venue: Any,
    now: datetime,
    kind: str,
    gaps: list[int],
    page: int,
    window: tuple[float, float],
) -> None:
    # some trades share a millisecond, some are hours apart, the last one was an hour ago
    offsets = list(accumulate(gaps))
    times = [now - HOUR - timedelta(milliseconds=offsets[-1] - offset) for offset in offsets]
    venue = Venue(now, manners(kind, [agg(t, n) for n, t in enumerate(times)], page))
    first, long = times[0] - HOUR, now - times[0] + HOUR
    start, end = sorted(first + long * share for share in window)
    end = max(end, start + MINUTE)
    got = from_venue(venue, "trades", start, end)
    have = set(got.frame["trade_id"]) if got.frame.height else set()
    assert have <= {str(n) for n, time in enumerate(times) if start <= time < end}
    for covered in got.settled:
        assert {
            str(n) for n, time in enumerate(times) if covered.start <= time < covered.end
        } <= have
    if kind in ("since", "first of the hour") and start > times[0]:
        assert len(got.frame) == len([t for t in times if start <= t < end])


@pytest.mark.parametrize("page", [12, 40, 500])
def test_the_last_rows_of_a_range_are_asked_for_in_smaller_ranges(
    from_venue: Any, now: datetime, page: int
) -> None:
    times = [now - 3 * HOUR + n * SECOND / 3 for n in range(5000)]
    rows = [agg(time, n) for n, time in enumerate(times)]

    def ranged(start: int, end: int) -> list[Any]:
        return [row for row in rows if start <= row["T"] <= end][-page:]

    venue = Venue(now, lambda _: rows[-page:], ranged=ranged)
    start, end = now - 170 * MINUTE, now - 165 * MINUTE
    got = from_venue(venue, "trades", start, end)
    expected = [str(n) for n, time in enumerate(times) if start <= time < end]
    assert got.frame["trade_id"].to_list() == expected
    assert got.settled == (TimeRange(start, end),)
    assert len(venue.asked) < 60 + 8 * 900 / page


@pytest.mark.parametrize("page", [12, 50, 500])
@pytest.mark.parametrize("kind", ["since", "first of the hour", "last of the hour"])
def test_a_busy_market_is_complete_or_reported(
    from_venue: Any, now: datetime, page: int, kind: str
) -> None:
    # many pages per minute
    times = [now - 3 * HOUR + n * SECOND / 3 for n in range(5000)]
    venue = Venue(now, manners(kind, [agg(time, n) for n, time in enumerate(times)], page))
    start, end = now - 170 * MINUTE, now - 165 * MINUTE
    got = from_venue(venue, "trades", start, end)
    if kind == "last of the hour":
        assert sum((covered.duration for covered in got.settled), 0 * DAY) < end - start
    else:
        expected = [str(n) for n, time in enumerate(times) if start <= time < end]
        assert got.frame["trade_id"].to_list() == expected
        assert got.settled == (TimeRange(start, end),)


@pytest.mark.parametrize("page", [7, 10, 1000])
def test_trades_without_ids_are_all_kept_without_duplicates(
    from_venue: Any, now: datetime, page: int
) -> None:
    # groups of up to five equal trades in one millisecond
    start = now - HOUR
    times = [start + (n // 5) * SECOND for n in range(500)]
    rows = [agg(time, price=str(1 + n % 5 // 3)) for n, time in enumerate(times)]

    def trades(since: int | None) -> list[Any]:
        if since is None:
            return rows[-page:]
        return [row for row in rows if row["T"] >= since][:page]

    got = from_venue(Venue(now, trades=trades), "trades", start, now - MINUTE)
    assert got.frame.height == 500
    assert got.frame["trade_id"].n_unique() == 500
    assert got.frame["timestamp"].to_list() == times
    assert got.settled[-1].end == now - MINUTE


def test_a_full_page_of_one_moment_costs_that_moment_only(
    from_venue: Any, now: datetime, log_lines: list[str]
) -> None:
    moment = now - HOUR
    rows = [agg(moment, n) for n in range(600)]
    after = moment + timedelta(milliseconds=1)
    rows += [agg(after + n * SECOND, 600 + n) for n in range(1799)]

    def trades(since: int | None) -> list[Any]:
        if since is None:
            return rows[-500:]
        return [row for row in rows if row["T"] >= since][:500]

    got = from_venue(Venue(now, trades=trades), "trades", now - 2 * HOUR, now)
    assert got.frame.height == 500 + 1799
    lost = subtract([TimeRange(moment, now - MINUTE)], got.settled)
    assert lost == (TimeRange(moment, moment + timedelta(milliseconds=1)),)
    (line,) = [line for line in log_lines if "moment_incomplete" in line]
    assert "time=2024-03-01T11:00:30Z" in line


@pytest.mark.parametrize("dataset", ["bars_1m", "trades"])
def test_a_format_that_changed_is_refused(from_venue: Any, now: datetime, dataset: str) -> None:
    rows = [{"id": n, "price_": "1", "amount_": "2", "time_": 5} for n in range(20)]
    bars = [{"open_": "1", "close_": 2}] * 20
    venue = Venue(now, trades=lambda _: rows, klines=lambda _: bars)
    with pytest.raises(SourceError, match="in an unknown format") as caught:
        from_venue(venue, dataset, now - DAY, now)
    assert "ccxt" in caught.value.hint


def test_single_rows_of_garbage_stay_to_be_refused_later(from_venue: Any, now: datetime) -> None:
    rows: list[Any] = [agg(now - HOUR + n * SECOND, n) for n in range(20)]
    rows[3] |= {"p": None}
    rows[5] |= {"T": None}
    got = from_venue(Venue(now, trades=lambda _: rows), "trades", now - 2 * HOUR, now)
    assert got.frame.height == 20
    assert got.frame["price"].null_count() == 1
    assert got.frame["timestamp"].null_count() == 1


def test_a_record_that_cannot_be_read_does_not_cost_the_others(
    from_venue: Any, now: datetime
) -> None:
    rows: list[Any] = [agg(now - HOUR + n * SECOND, n) for n in range(20)]
    rows[3] = None
    got = from_venue(Venue(now, trades=lambda _: rows), "trades", now - 2 * HOUR, now)
    assert got.frame["trade_id"].to_list() == [str(n) for n in range(20) if n != 3]
    assert [(record.reason, record.raw) for record in got.refused] == [("unreadable", "null")]


def test_a_venue_without_any_row_covers_nothing(
    from_venue: Any, now: datetime, log_lines: list[str]
) -> None:
    # an answer in which ccxt no longer finds rows looks like an empty one
    got = from_venue(Venue(now), "trades", now - DAY, now)
    assert got.frame.is_empty()
    assert got.settled == ()
    assert any("no_rows" in line for line in log_lines)


def test_one_id_of_different_trades_is_passed_on(from_venue: Any, now: datetime) -> None:
    rows = [agg(now - HOUR, 1, "1.5"), agg(now - HOUR, 1, "1.6"), agg(now - HOUR + SECOND, 2)]
    got = from_venue(Venue(now, trades=lambda _: rows), "trades", now - 2 * HOUR, now)
    assert got.frame["price"].to_list() == [1.5, 1.6, 1.5]


def test_bars_off_the_grid_are_kept(from_venue: Any, now: datetime) -> None:
    bars = [kline(now - n * MINUTE - 17 * SECOND) for n in range(90)][::-1]

    def klines(since: int | None) -> list[Any]:
        return bars[-10:] if since is None else [bar for bar in bars if bar[0] >= since][:50]

    got = from_venue(Venue(now, klines=klines), "bars_1m", now - HOUR, now)
    assert got.frame["timestamp"][0] == now - 59 * MINUTE - 17 * SECOND
    assert got.frame["closed"].to_list() == [True] * 59 + [False]
    assert got.settled == (TimeRange(now - HOUR, from_ms(bars[-1][0])),)
