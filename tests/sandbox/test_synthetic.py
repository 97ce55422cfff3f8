"""The synthetic market: all data agree, and results do not depend on earlier requests."""

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.sandbox import Bars, Market, SyntheticMarkets, Trades
from lake.sandbox.intervals import DAY_MS, HOUR_MS, INTERVALS, MINUTE_MS, Interval
from lake.sandbox.noise import format_decimals

SYNTHETIC = SyntheticMarkets()
MARKETS = {(market.exchange, market.symbol): market for market in SYNTHETIC.markets}
BTC = MARKETS["binance", "BTC/USDT"]
THIN = MARKETS["binance", "XRP/ETH"]
PERPETUAL = MARKETS["binanceusdm", "BTC/USDT:USDT"]
HALTED_AT = MARKETS["binance", "LUNA/USDT"]
SINCE = BTC.since_ms

a_market = st.sampled_from(SYNTHETIC.markets)
a_time = st.integers(SINCE - DAY_MS, SINCE + 3000 * DAY_MS)


def window(data: SyntheticMarkets, market: Market, start_ms: int, end_ms: int) -> Trades:
    """Return the trades of a window of time."""
    first, stop = data.position_at(market, start_ms), data.position_at(market, end_ms)
    return data.trades(market, first, stop)


def join_columns(*parts: Trades | Bars) -> list[list[object]]:
    """Join the columns of several parts."""
    names = parts[0].__slots__
    return [[value for part in parts for value in getattr(part, name)] for name in names]


def aggregate(trades: Trades, interval: Interval) -> list[tuple[object, ...]]:
    """Aggregate trades to bars with exact arithmetic, one trade at a time."""
    rows = zip(
        trades.times_ms,
        map(Decimal, trades.prices),
        map(Decimal, trades.amounts),
        trades.sells,
        strict=True,
    )
    bars: list[tuple[object, ...]] = []
    for opens, group in groupby(rows, key=lambda row: interval.floor(row[0])):
        of_bar = list(group)
        prices = [price for _, price, _, _ in of_bar]
        bars.append(
            (
                opens,
                *(prices[0], max(prices), min(prices), prices[-1]),
                sum(amount for _, _, amount, _ in of_bar),
                sum(price * amount for _, price, amount, _ in of_bar),
                len(of_bar),
                sum(amount for _, _, amount, sell in of_bar if not sell),
                sum(price * amount for _, price, amount, sell in of_bar if not sell),
            )
        )
    return bars


def exact(bars: Bars) -> list[tuple[object, ...]]:
    """Convert bars of texts to exact numbers."""
    columns = [getattr(bars, name) for name in Bars.__slots__]
    return [
        tuple(Decimal(value) if isinstance(value, str) else value for value in row)
        for row in zip(*columns, strict=True)
    ]


def test_the_market_is_the_same_on_every_machine_and_in_every_version() -> None:
    start = 2000 * DAY_MS + SINCE
    trades = window(SYNTHETIC, BTC, start, start + HOUR_MS)
    digest = hashlib.sha256(repr(join_columns(trades)).encode()).hexdigest()
    assert digest == "587799e92843611be6ffbee9703c861fdccf7b4cf88e16c09c32d9335d32da89"


def test_seeds_differ_and_agree_with_themselves() -> None:
    def trades(seed: int) -> list[list[object]]:
        data = SyntheticMarkets(seed)
        return join_columns(data.trades(data.markets[0], 10_000, 10_050))

    assert trades(7) == trades(7)
    assert trades(7) != trades(8)


@given(market=a_market, times=st.tuples(a_time, st.integers(0, DAY_MS), st.integers(0, DAY_MS)))
@settings(max_examples=60, deadline=None)
def test_a_window_of_trades_is_its_parts_together(
    market: Market, times: tuple[int, int, int]
) -> None:
    start, middle, end = times[0], times[0] + times[1], times[0] + times[1] + times[2]
    whole = window(SYNTHETIC, market, start, end)
    parts = [window(SyntheticMarkets(), market, *span) for span in ((middle, end), (start, middle))]
    assert join_columns(whole) == join_columns(*reversed(parts))
    assert all(start <= time < end for time in whole.times_ms)


@given(market=a_market, time_ms=a_time)
@settings(max_examples=60, deadline=None)
def test_positions_and_times_agree(market: Market, time_ms: int) -> None:
    position = SYNTHETIC.position_at(market, time_ms)
    around = SYNTHETIC.trades(market, max(position - 1, 0), position + 1)
    if position > 0:
        assert around.times_ms[0] < time_ms
    if time_ms < market.until_ms:
        assert around.times_ms[-1] >= time_ms
    assert SYNTHETIC.position_of(market, position + 1) == position


@given(market=a_market, position=st.integers(1, 500_000))
@settings(max_examples=60, deadline=None)
def test_a_trade_is_at_its_own_time_and_before_the_next_millisecond(
    market: Market, position: int
) -> None:
    before, at = SYNTHETIC.trades(market, position - 1, position + 1).times_ms
    if before < at:
        assert SYNTHETIC.position_at(market, at) == position
    assert SYNTHETIC.position_at(market, at + 1) > position


@pytest.mark.parametrize("name", INTERVALS)
@given(market=a_market, start=a_time, share=st.floats(0.1, 1))
@settings(max_examples=8, deadline=None)
def test_bars_are_the_aggregates_of_the_trades(
    name: str, market: Market, start: int, share: float
) -> None:
    interval = INTERVALS[name]
    if interval.step == 0 or interval.step > DAY_MS:
        market = THIN  # few enough trades to add them up one at a time
    opens = interval.floor(start)
    bars = 1 if interval.step == 0 or interval.step >= DAY_MS else 5
    end = opens + int((interval.opens(interval.index(opens) + bars) - opens) * share)
    served = SYNTHETIC.bars(market, interval, opens, end)
    assert exact(served) == aggregate(window(SYNTHETIC, market, opens, end), interval)


@given(market=a_market, day=st.integers(0, 2500), cut=st.integers(0, 1440))
@settings(max_examples=40, deadline=None)
def test_a_window_of_bars_is_its_parts_together(market: Market, day: int, cut: int) -> None:
    minute = INTERVALS["1m"]
    start = SINCE + day * DAY_MS
    middle, end = start + cut * MINUTE_MS, start + DAY_MS
    parts = [SYNTHETIC.bars(market, minute, *span) for span in ((start, middle), (middle, end))]
    assert join_columns(SYNTHETIC.bars(market, minute, start, end)) == join_columns(*parts)


def test_liquid_markets_trade_every_minute_and_thin_ones_do_not() -> None:
    week = (SINCE + 700 * DAY_MS, SINCE + 707 * DAY_MS)
    liquid = SYNTHETIC.bars(BTC, INTERVALS["1m"], *week)
    assert len(liquid.open_ms) == 7 * 1440
    assert {4, 5, 6} == set(liquid.trades)
    thin = SYNTHETIC.bars(THIN, INTERVALS["1m"], *week)
    assert 0.2 < len(thin.open_ms) / (7 * 1440) < 0.4


def test_the_first_trade_is_when_the_market_was_listed() -> None:
    data = SyntheticMarkets(listed=datetime(2025, 6, 1, tzinfo=UTC))
    market = data.markets[0]
    first = data.trades(market, 0, 1)
    assert first.ids == [1]
    assert 0 <= first.times_ms[0] - market.since_ms < MINUTE_MS
    assert market.since_ms == 1748736000000


def test_a_halted_market_has_a_history_and_an_end() -> None:
    count = SYNTHETIC.position_at(HALTED_AT, 1 << 52)
    last = SYNTHETIC.trades(HALTED_AT, count - 1, count)
    assert not HALTED_AT.trading
    assert 0 < HALTED_AT.until_ms - last.times_ms[0] < 10 * MINUTE_MS
    assert SYNTHETIC.position_of(HALTED_AT, 1 << 60) == count


def test_prices_move_like_a_market_and_exchanges_agree() -> None:
    span = (SINCE + 1000 * DAY_MS, SINCE + 1030 * DAY_MS)
    closes = np.array(SYNTHETIC.bars(BTC, INTERVALS["1h"], *span).close, dtype=float)
    moves = np.diff(np.log(closes))
    assert 0.001 < moves.std() < 0.01
    perpetual = np.array(SYNTHETIC.bars(PERPETUAL, INTERVALS["1h"], *span).close, dtype=float)
    assert np.abs(perpetual / closes - 1).max() < 0.002


@given(market=a_market, time_ms=st.integers(SINCE + DAY_MS, SINCE + 2000 * DAY_MS))
@settings(max_examples=40, deadline=None)
def test_the_last_trade_is_at_the_top_of_the_book(market: Market, time_ms: int) -> None:
    book = SYNTHETIC.book(market, time_ms, 20)
    last = SYNTHETIC.position_at(market, time_ms) - 1
    trade = SYNTHETIC.trades(market, last, last + 1)
    top = book.bids[0] if trade.sells[0] else book.asks[0]
    bids = [Decimal(price) for price, _ in book.bids]
    asks = [Decimal(price) for price, _ in book.asks]
    assert top[0] == trade.prices[0]
    assert bids[0] < asks[0]
    assert bids == sorted(set(bids), reverse=True)
    assert asks == sorted(set(asks))
    assert len(bids) == len(asks) == 20
    assert all(Decimal(amount) > 0 for _, amount in book.bids + book.asks)


@given(start=a_time, first=st.integers(0, 90 * DAY_MS), second=st.integers(0, 90 * DAY_MS))
@settings(max_examples=40, deadline=None)
def test_funding_is_settled_every_eight_hours_near_the_price(
    start: int, first: int, second: int
) -> None:
    middle, end = start + first, start + first + second
    whole = SYNTHETIC.funding(PERPETUAL, start, end)
    parts = [SYNTHETIC.funding(PERPETUAL, *span) for span in ((start, middle), (middle, end))]
    assert whole.times_ms == parts[0].times_ms + parts[1].times_ms
    assert whole.mark_prices == parts[0].mark_prices + parts[1].mark_prices
    assert whole.rates == parts[0].rates + parts[1].rates
    assert all(time % (8 * HOUR_MS) <= 20 for time in whole.times_ms)
    assert set(np.diff(np.array(whole.times_ms) // (8 * HOUR_MS))) <= {1}
    if whole.times_ms:
        last = SYNTHETIC.position_at(PERPETUAL, whole.times_ms[0]) - 1
        price = float(SYNTHETIC.trades(PERPETUAL, last, last + 1).prices[0])
        assert float(whole.mark_prices[0]) == pytest.approx(price, rel=0.01)
    assert SYNTHETIC.funding(BTC, start, end).times_ms == []


@given(values=st.lists(st.integers(0, 10**15)), places=st.integers(0, 8), pad=st.integers(0, 8))
def test_decimals_are_exact(values: list[int], places: int, pad: int) -> None:
    texts = format_decimals(np.array(values, dtype=np.int64), places, places + pad)
    assert [Decimal(text) for text in texts] == [Decimal(v).scaleb(-places) for v in values]
    assert all(len(text.partition(".")[2]) == places + pad for text in texts)
