"""Any ccxt exchange: smaller pages than believed, refused pasts, bad records, other markets."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lake.errors import SourceRefusedError, SourceUnavailableError
from lake.model.catalog import builtin
from lake.model.intervals import union
from lake.model.time import TimeRange
from lake.sources.base import FetchRequest, Page
from tests.sources.markets import DAY, HOUR, MINUTE
from tests.sources.okx_like import TOO_LONG_AGO, OkxLike

NOW = datetime(2024, 2, 10, 12, 0, 30, tzinfo=UTC)
LISTED = datetime(2023, 1, 1, tzinfo=UTC)


@pytest.fixture
def fetched(serving: Any, connect: Any) -> Callable[..., list[Page]]:
    """Fetch windows of bars; what is raised is returned last."""

    def run(venue: OkxLike, *windows: tuple[datetime, datetime]) -> list[Any]:
        async def run() -> list[Any]:
            got: list[Any] = []
            async with (
                serving(venue.answer) as url,
                connect("okx", url, now=lambda: venue.now) as source,
            ):
                request = FetchRequest(
                    builtin().dataset("bars_1m"), await source.market("BTC/USDT")
                )
                for window in windows:
                    try:
                        async for _, page in source.fetch([request], TimeRange(*window)):
                            got.append(page)
                    except SourceRefusedError as error:
                        got.append(error)
            return got

        return asyncio.run(run())

    return run


def settled(pages: list[Any]) -> tuple[TimeRange, ...]:
    return union(page.settled for page in pages if isinstance(page, Page) and page.settled)


def times(pages: list[Any]) -> list[datetime]:
    return [
        time
        for page in pages
        if isinstance(page, Page) and page.frame.height
        for time in page.frame["timestamp"]
    ]


def minutes(start: datetime, end: datetime) -> list[datetime]:
    return [start + n * MINUTE for n in range((end - start) // MINUTE)]


@pytest.mark.parametrize("most", [300, 100, 77, 13])
@pytest.mark.parametrize("back", [20 * DAY, 6 * HOUR])
def test_pages_that_are_smaller_than_believed_lose_nothing(
    fetched: Any, most: int, back: timedelta
) -> None:
    venue = OkxLike(NOW, LISTED, most=most)
    start = NOW.replace(second=0) - back
    end = start + 5 * HOUR
    got = fetched(venue, (start, end))
    assert times(got) == minutes(start, end)
    assert settled(got) == (TimeRange(start, end),)
    assert len(venue.asked) < 12 + 1.2 * 300 / most


def test_the_size_of_a_page_is_learned_once(fetched: Any) -> None:
    venue = OkxLike(NOW, LISTED, most=100)
    start = NOW.replace(second=0) - 20 * DAY
    windows = [(start + n * 5 * HOUR, start + (n + 1) * 5 * HOUR) for n in range(8)]
    got = fetched(venue, *windows)
    assert times(got) == minutes(start, start + 40 * HOUR)
    assert len(venue.asked) < 8 * 5


@pytest.mark.parametrize("most", [300, 100])
def test_gaps_of_a_venue_that_omits_empty_bars_are_settled(fetched: Any, most: int) -> None:
    start = NOW.replace(second=0) - 20 * DAY
    quiet = TimeRange(start + HOUR, start + 9 * HOUR)
    venue = OkxLike(
        NOW, LISTED, most=most, has_bar=lambda time: not quiet.start <= time < quiet.end
    )
    got = fetched(venue, (start, start + 12 * HOUR), (start + 3 * HOUR, start + 12 * HOUR))
    assert settled(got) == (TimeRange(start, start + 12 * HOUR),)
    assert all(page.not_given is None for page in got)


def test_a_gap_is_not_passed_faster_than_pages_reach(fetched: Any) -> None:
    # ccxt believes that an answer spans 300 minutes; it spans 100
    start = NOW.replace(second=0) - 20 * DAY
    quiet = TimeRange(start + HOUR, start + 4 * HOUR)
    venue = OkxLike(
        NOW,
        LISTED,
        most=100,
        longest=100 * MINUTE,
        has_bar=lambda time: not quiet.start <= time < quiet.end,
    )
    got = fetched(venue, (start, start + 12 * HOUR))
    expected = [time for time in minutes(start, start + 12 * HOUR) if venue.has_bar(time)]
    assert times(got) == expected
    assert settled(got) == (TimeRange(start, start + 12 * HOUR),)


def test_time_before_the_listing_costs_a_few_requests(fetched: Any) -> None:
    venue = OkxLike(NOW, LISTED)
    start = LISTED - 70 * DAY
    windows = [(start + n * 7 * DAY, start + (n + 1) * 7 * DAY) for n in range(10)]
    got = fetched(venue, *windows, (LISTED - HOUR, LISTED + HOUR))
    assert settled(got) == (TimeRange(start, LISTED + HOUR),)
    assert times(got) == minutes(LISTED, LISTED + HOUR)
    assert len(venue.asked) < 40


def old_bars_refused(venue: OkxLike) -> datetime:
    return venue.now - 10_000 * MINUTE


def make_forgetful() -> OkxLike:
    venue = OkxLike(NOW, LISTED)
    venue.oldest = lambda: old_bars_refused(venue)
    return venue


def test_what_is_too_long_ago_is_refused_and_the_rest_is_fetched(fetched: Any) -> None:
    venue = make_forgetful()
    start = NOW - 30 * DAY
    windows = [(start + n * 7 * DAY, min(NOW, start + (n + 1) * 7 * DAY)) for n in range(5)]
    got = fetched(venue, *windows)
    errors = [one for one in got if isinstance(one, SourceRefusedError)]
    assert {error.reason for error in errors} == {"too_long_ago"}
    assert len(errors) == 4
    assert all(TOO_LONG_AGO in error.message for error in errors)
    first = times(got)[0]
    assert first - old_bars_refused(venue) <= 4 * MINUTE
    assert times(got) == minutes(first, NOW.replace(second=0) + MINUTE)
    assert settled(got)[0].start == first
    # found by halving, once, and not asked for again
    refused = [query for query in venue.asked if venue._is_refused(query)]
    assert len(refused) < 25


def test_a_look_back_that_is_too_long_ago_costs_no_row(fetched: Any) -> None:
    venue = make_forgetful()
    start = old_bars_refused(venue).replace(second=0) + 10 * MINUTE
    got = fetched(venue, (start, start + 5 * HOUR))
    assert times(got) == minutes(start, start + 5 * HOUR)
    assert settled(got) == (TimeRange(start, start + 5 * HOUR),)


def test_rows_of_another_market_are_no_quiet_market(
    serving: Any, connect: Any, fetch: Any, now: datetime
) -> None:
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        if "instruments" in request.path:
            return await OkxLike(now, LISTED).answer(request)
        row = {"instId": "ETH-USDT", "tradeId": "1", "px": "5", "sz": "1", "side": "buy"}
        body = {"code": "0", "msg": "", "data": [{**row, "ts": "1700000000000"}]}
        return web.json_response(body)

    async def run() -> None:
        async with serving(handle) as url, connect("okx", url) as source:
            await fetch(source, "trades", "BTC/USDT", now - DAY, now)

    with pytest.raises(SourceUnavailableError, match="rows of ETH/USDT instead of BTC/USDT"):
        asyncio.run(run())
