"""A market that gets no more rows: its tail is settled once, and not asked for again."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest
from aiohttp import web

from lake.model.intervals import RangeSet, subtract, union
from lake.model.time import TimeRange, to_ms
from lake.model.timeframe import Timeframe
from tests.sources.test_unified_venue import Venue

BARS, PAGE = 60, 50


@dataclass
class Ended(Venue):
    """Binance with bars up to some time; `is_mute`: it answers nothing without a `startTime`."""

    opens: Sequence[datetime] = ()
    seconds: int = 60
    is_mute: bool = False

    async def answer(self, request: web.Request) -> web.Response:
        if not request.path.endswith("klines"):
            return await super().answer(request)
        self.asked.append("klines")
        query, rows = request.query, [_kline(time, self.seconds) for time in self.opens]
        limit = min(int(query.get("limit", PAGE)), PAGE)
        since, end = (query.get(name) for name in ("startTime", "endTime"))
        if end is not None:
            rows = [row for row in rows if row[0] <= int(end)]
        if since is None:
            rows = [] if self.is_mute else rows[-limit:]
        else:
            rows = [row for row in rows if row[0] >= int(since)][:limit]
        return web.Response(body=orjson.dumps(rows), content_type="application/json")


def _kline(time: datetime, seconds: int) -> list[Any]:
    end = to_ms(time) + 1000 * seconds - 1
    return [to_ms(time), "1", "2", "1", "1.5", "9", end, "9", 1, "1", "1", "0"]


def _fetch(
    venue: Ended, window: TimeRange, serving: Any, connect: Any, fetch: Any, **options: Any
) -> Any:
    async def run() -> Any:
        async with (
            serving(venue.answer) as url,
            connect("binance", url, now=lambda: venue.now, **options) as source,
        ):
            table = f"bars_{_timeframe_of(venue).table_suffix}"
            return await fetch(source, table, "BTC/USDT", window.start, window.end)

    return asyncio.run(run())


def _timeframe_of(venue: Ended) -> Timeframe:
    """The timeframe of a venue's bars."""
    frames = map(Timeframe.parse, ("1m", "1h", "1d", "1w"))
    return next(frame for frame in frames if frame.seconds == venue.seconds)


@pytest.mark.parametrize("unified", [True, False], ids=["unified", "binance"])
@pytest.mark.parametrize("name", ["1m", "1h", "1d", "1w"])
def test_once_its_range_has_ended_a_market_without_new_bars_is_asked_no_more(
    name: str, unified: bool, serving: Any, connect: Any, fetch: Any, now: datetime
) -> None:
    timeframe = Timeframe.parse(name)
    until = timeframe.floor(now)
    opens = [timeframe.after(until, -n) for n in range(BARS, 3, -1)]
    venue = Ended(now, opens=opens, seconds=timeframe.seconds)
    asked = TimeRange(opens[0], until)
    covered: RangeSet = ()
    requests = []
    for _ in range(3):
        venue.asked.clear()
        for window in subtract([asked], covered):
            got = _fetch(venue, window, serving, connect, fetch, unified=unified)
            covered = union([*covered, *got.settled])
        requests.append(venue.asked.count("klines"))
    assert covered == (asked,)
    assert requests[0] > 0
    assert requests[1:] == [0, 0]


def test_a_last_bar_is_known_to_its_end_even_if_nothing_proves_that_none_follows(
    serving: Any, connect: Any, fetch: Any, now: datetime
) -> None:
    hour = timedelta(hours=1)
    until = Timeframe(1, "h").floor(now)
    opens = [until - n * hour for n in range(10, 5, -1)]
    venue = Ended(now, opens=opens, seconds=3600, is_mute=True)
    got = _fetch(venue, TimeRange(opens[0], until), serving, connect, fetch, unified=True)
    assert got.settled == (TimeRange(opens[0], opens[-1] + hour),)
