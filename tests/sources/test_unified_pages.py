"""Answers of unknown venues: derived ids, overlap, progress, starts."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.model.time import from_ms, to_ms
from lake.model.timeframe import Timeframe
from lake.sources.frames import derive_ids
from lake.sources.venues.unified_pages import (
    RangeQuery,
    WindowPosition,
    filter_new_rows,
    filter_range,
    is_stuck,
    parse_bars,
    parse_funding,
    parse_trades,
)

START = datetime(2024, 3, 1, tzinfo=UTC)

TRADES = RangeQuery(
    family="trades",
    method="fetch_trades",
    arguments=("BTC/USDT",),
    read=parse_trades,
    key="trade_id",
    limit=None,
    lookback=timedelta(minutes=1),
    hop=timedelta(hours=1),
    settle=timedelta(seconds=10),
)


def trade(second: float, price: float = 1.0, trade_id: str | None = None) -> dict[str, Any]:
    time = to_ms(START) + int(second * 1000)
    return {"id": trade_id, "timestamp": time, "side": "buy", "price": price, "amount": 2.0}


def ids(frame: pl.DataFrame) -> list[str]:
    return frame["trade_id"].to_list()


# few seconds and prices, so that equal trades are common
Tape = st.lists(st.tuples(st.integers(0, 6), st.sampled_from([1.0, 2.0])), max_size=40)


@given(Tape, st.integers(0, 40), st.integers(0, 40))
def test_overlapping_pages_merge_to_the_multiset_maximum(
    tape: list[tuple[int, float]], cut: int, back: int
) -> None:
    tape = sorted(tape, key=lambda row: row[0])
    # the first page ends anywhere; the second starts at the time of the first page's end
    first = tape[:cut]
    since = first[-1][0] if first else 0
    second = [row for row in tape if row[0] >= max(0, since - back % 3)]
    pages = [parse_trades([trade(*row) for row in page]) for page in (first, second)]
    merged = {name for page in pages for name in ids(page)}
    expected = parse_trades([trade(*row) for row in tape])
    assert len(set(ids(expected))) == len(tape)
    assert merged == set(ids(expected))


@given(Tape)
def test_equal_trades_differ_by_their_ordinal_alone(tape: list[tuple[int, float]]) -> None:
    frame = parse_trades([trade(*row) for row in tape])
    groups = Counter(name.rpartition(":")[0] for name in ids(frame))
    assert sum(groups.values()) == len(tape)
    assert {f"{group}:{n}" for group, count in groups.items() for n in range(count)} == set(
        ids(frame)
    )


def test_derived_ids_contain_their_parts() -> None:
    ids = derive_ids([5, 5, None, 5], ["buy", None, "buy", "buy"], [0.1, 1e-8, 1.0, 0.1], [2.0] * 4)
    assert ids == ["5:buy:0.1:2.0:0", "5::1e-08:2.0:0", None, "5:buy:0.1:2.0:1"]


def test_an_id_is_the_venues_text() -> None:
    names = ["007", "131799727412345678901234", "a905d5c3-1ed0"]
    frame = parse_trades([trade(n, trade_id=name) for n, name in enumerate(names)])
    assert ids(frame) == names


def test_garbage_becomes_null_and_stays() -> None:
    rows = [trade(0, trade_id="1"), {"id": "2", "timestamp": None, "price": "x", "side": "up"}]
    frame = parse_trades(rows)
    assert frame.height == 2
    bad = frame.filter(pl.col("trade_id") == "2").row(0, named=True)
    assert {bad[name] for name in ("timestamp", "price", "amount", "side")} == {None}
    assert filter_range(frame, START, START + timedelta(seconds=9)).height == 2
    bars = parse_bars([[to_ms(START), None, 2, True, "3", 4.5, 99]])
    assert bars.row(0) == (START, None, 2.0, None, None, 4.5)
    rates = parse_funding([{"timestamp": to_ms(START), "fundingRate": None}])
    assert rates.row(0) == (START, None)


def test_trades_that_differ_under_one_id_are_all_kept() -> None:
    same, other = trade(1, 1.0, "7"), trade(1, 2.0, "7")
    answer = parse_trades([same, same, other, trade(2, trade_id="8")])
    assert ids(filter_new_rows(answer, parse_trades([]), "trade_id")) == ["7", "7", "8"]
    assert ids(filter_new_rows(answer, parse_trades([same]), "trade_id")) == ["7", "8"]


@given(st.lists(st.integers(0, 9), max_size=20), st.lists(st.integers(0, 9), max_size=5))
def test_new_rows_have_no_duplicates(rows: list[int], overlap_ids: list[int]) -> None:
    answer = parse_trades([trade(n, trade_id=str(n)) for n in sorted(rows)])
    overlap = parse_trades([trade(n, trade_id=str(n)) for n in overlap_ids])
    fresh = filter_new_rows(answer, overlap, "trade_id")
    assert ids(fresh) == [str(n) for n in sorted(set(rows) - set(overlap_ids))]


def cursor(at: float, overlap: list[dict[str, Any]] | None = None) -> WindowPosition:
    start = START + timedelta(seconds=at)
    if overlap:
        return WindowPosition(start, start, parse_trades(overlap))
    return WindowPosition(start, start - TRADES.lookback, parse_trades([]))


@pytest.mark.parametrize(
    ("where", "seconds", "anomaly"),
    [
        (cursor(100), [], "nothing new"),
        # still before the window, but later than requested
        (cursor(100), [45, 99], None),
        (cursor(100), [99, 120], None),
        # nothing proves that the answer is complete before its first trade
        (cursor(100), [120, 130], "starts later"),
        (cursor(100), [100, 130], "starts later"),
        (cursor(100), [0, 39], "nothing new"),
        (cursor(10, [trade(10, trade_id="10")]), [10], "nothing new"),
        (cursor(10, [trade(10, trade_id="10")]), [10, 11], None),
        (cursor(10, [trade(10, trade_id="10")]), [9, 11], None),
        (cursor(10, [trade(10, trade_id="10")]), [11], "starts later"),
    ],
)
def test_anomalies_of_an_answer(
    where: WindowPosition, seconds: list[int], anomaly: str | None
) -> None:
    answer = parse_trades([trade(n, trade_id=str(n)) for n in seconds])
    assert where.find_anomaly(TRADES, answer) == anomaly


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_full_page_of_one_moment_is_stuck(rows: int, page: int) -> None:
    answer = parse_trades([trade(0, trade_id=str(n)) for n in range(rows)])
    assert is_stuck(answer, START, page) == (rows >= page)
    later = parse_trades([trade(0), trade(1)] * rows)
    assert not is_stuck(later, START, page)
    assert not is_stuck(answer, from_ms(0), page)


BARS = RangeQuery(
    family="bars",
    method="fetch_ohlcv",
    arguments=("BTC/USDT", "1m"),
    read=parse_bars,
    key="timestamp",
    limit=300,
    lookback=timedelta(minutes=30),
    hop=timedelta(minutes=299),
    settle=timedelta(seconds=5),
    timeframe=Timeframe(1, "m"),
)


def bars_from(minute: int, count: int) -> Any:
    first = to_ms(START + timedelta(minutes=minute))
    return parse_bars([[first + n * 60_000, 1.0, 1.0, 1.0, 1.0, 1.0] for n in range(count)])


def test_a_page_that_starts_late_is_asked_for_in_its_own_size() -> None:
    narrower = BARS.narrow(START, bars_from(200, 100))
    assert narrower is not None
    assert (narrower.limit, narrower.hop) == (100, timedelta(minutes=99))
    halved = narrower.narrow(START, bars_from(200, 100))
    assert halved is not None
    assert halved.limit == 50
    assert BARS.narrow(START, bars_from(0, 100)) is None


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_smaller_ranges_of_trades_end(first_ms: int, more_ms: int) -> None:
    query: RangeQuery | None = TRADES
    answer = parse_trades([trade(first_ms / 1000), trade((first_ms + more_ms) / 1000)])
    spans: list[timedelta] = []
    while query is not None and len(spans) < 100:
        query = query.narrow(START, answer)
        if query is not None and query.span is not None:
            spans.append(query.span)
    assert len(spans) <= 2
    assert all(timedelta(0) < span <= timedelta(milliseconds=first_ms + 1) for span in spans)
