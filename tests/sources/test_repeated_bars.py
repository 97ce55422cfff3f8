"""Venues that send two bars for one time: a page has both, in their order, also at its border."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.model.catalog import builtin
from lake.model.time import TimeRange, from_ms, to_ms
from lake.model.timeframe import Timeframe
from lake.sources.base import FetchRequest
from lake.sources.venues.binance_pages import parse_funding as parse_funding_of_binance
from lake.sources.venues.binance_pages import parse_klines, validate_klines
from lake.sources.venues.unified_pages import (
    filter_new_rows,
    has_shorter_bars,
    parse_bars,
    parse_funding,
)
from tests.sources.markets import HOUR, MINUTE
from tests.sources.okx_like import OkxLike

NOW = datetime(2024, 2, 10, 12, 0, 30, tzinfo=UTC)
START = datetime(2024, 2, 9, tzinfo=UTC)


class Doubling(OkxLike):
    """Sends each seventh bar twice: with the volume 1, and then with 2."""

    def _find_rows(self, query: dict[str, str]) -> list[Any]:
        rows = []
        for row in super()._find_rows(query):
            rows.append(row)
            if is_doubled(from_ms(int(row[0]))):
                rows.append([*row[:5], "2", "2", *row[7:]])
        return rows


def is_doubled(time: datetime) -> bool:
    return (time - START) // MINUTE % 7 == 3


@pytest.mark.parametrize("most", [300, 100, 13, 8])
def test_all_bars_come_and_the_last_of_a_time_last(serving: Any, connect: Any, most: int) -> None:
    venue = Doubling(NOW, START - 24 * HOUR, most=most)
    window = TimeRange(START, START + 3 * HOUR)

    async def fetch() -> list[pl.DataFrame]:
        async with (
            serving(venue.answer) as url,
            connect("okx", url, now=lambda: venue.now) as source,
        ):
            request = FetchRequest(builtin().dataset("bars_1m"), await source.market("BTC/USDT"))
            return [page.frame async for _, page in source.fetch([request], window)]

    bars = pl.concat(frame for frame in asyncio.run(fetch()) if frame.height)
    last = bars.group_by("timestamp", maintain_order=True).agg("volume")
    assert last["timestamp"].sort().to_list() == [START + n * MINUTE for n in range(180)]
    for time, volumes in last.rows():
        assert volumes == ([1.0, 2.0] if is_doubled(time) else [1.0])


def row(minute: int, volume: float) -> list[float]:
    return [to_ms(START + minute * MINUTE), 100.0, 101.0, 99.0, 100.5, volume]


def volumes(bars: pl.DataFrame) -> list[tuple[int, float]]:
    minutes = [(time - START) // MINUTE for time in bars["timestamp"]]
    return list(zip(minutes, bars["volume"], strict=True))


@pytest.mark.parametrize(
    ("answer", "overlap", "new"),
    [
        ([(0, 1), (1, 1)], [(0, 1)], [(1, 1)]),
        ([(0, 1), (0, 2), (1, 1)], [(0, 1)], [(0, 1), (0, 2), (1, 1)]),  # both: they conflict
        ([(0, 2), (1, 1)], [(0, 1)], [(0, 2), (1, 1)]),  # a revision
        ([(0, 1), (0, 2), (1, 1)], [(0, 1), (0, 2)], [(1, 1)]),  # reported already
        ([(1, 1), (1, 2), (1, 1), (1, 2)], [], [(1, 1), (1, 2)]),
        ([(1, 1), (1, 2), (1, 1)], [], [(1, 2), (1, 1)]),
    ],
)
def test_repeated_bars_go_and_differing_ones_stay(
    answer: list[tuple[int, float]], overlap: list[tuple[int, float]], new: Any
) -> None:
    rows, before = (parse_bars([row(*item) for item in items]) for items in (answer, overlap))
    assert volumes(filter_new_rows(rows, before, "timestamp")) == new


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=12))
def test_rows_of_one_time_keep_their_order(rows: list[tuple[int, int]]) -> None:
    in_order = [(minute, float(volume)) for minute, volume in sorted(rows, key=lambda r: r[0])]
    assert volumes(parse_bars([row(*item) for item in rows])) == in_order
    klines = [
        [to_ms(START + n * MINUTE), "1", "1", "1", "1", str(v),
         to_ms(START + (n + 1) * MINUTE) - 1, "1", 1, "1", "1", "0"]
        for n, v in rows
    ]  # fmt: skip
    bars = parse_klines(klines)
    if rows:
        bars, _ = validate_klines(bars, Timeframe.parse("1m"), TimeRange(START, NOW), NOW)
    assert volumes(bars) == in_order
    events = [{"timestamp": to_ms(START + n * MINUTE), "fundingRate": v} for n, v in rows]
    rates = [(n, v) for n, v in volumes(parse_funding(events).rename({"funding_rate": "volume"}))]
    assert rates == in_order
    own = [{"symbol": "X", "fundingTime": e["timestamp"], "fundingRate": str(e["fundingRate"])}
           for e in events]  # fmt: skip
    if rows:
        parsed = parse_funding_of_binance(own).rename({"funding_rate": "volume"})
        assert volumes(parsed) == in_order


def test_bars_that_all_come_twice_are_not_shorter() -> None:
    bars = parse_bars([row(minute, 1.0) for minute in range(10) for _ in range(2)])
    assert not has_shorter_bars(bars, Timeframe.parse("1m"))
    assert has_shorter_bars(bars, Timeframe.parse("5m"))
