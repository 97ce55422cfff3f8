"""Deterministic markets computed from a seed, with random access in time.

Bars are exact aggregates of the trades, the book is built around the last trade, and a funding
rate comes with the price of its time. Results do not depend on earlier requests.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from lake.sandbox import noise
from lake.sandbox.intervals import HOUR_MS, Interval
from lake.sandbox.market import Bars, Book, Funding, Market, Trades
from lake.sandbox.noise import Ints
from lake.sandbox.tape import MarketProfile, Tape, Ticks

LISTED_AT = datetime(2020, 1, 1, tzinfo=UTC)
HALTED_AT = datetime(2022, 5, 13, tzinfo=UTC)

_FUNDING_MS = 8 * HOUR_MS
_CHUNK = 1 << 17  # trades per aggregation: enough to vectorise, few enough for the CPU cache


def _to_ms(time: datetime) -> int:
    return int(time.timestamp()) * 1000


_BTC = MarketProfile(
    40_000.0, trades_per_minute=(4, 6), quiet_share=0.0, amount_lots=500.0, max_gap_ticks=60
)
_ETH = MarketProfile(
    2_500.0, trades_per_minute=(4, 6), quiet_share=0.0, amount_lots=900.0, max_gap_ticks=8
)

# In order of importance: a symbol without an exchange means the first market that has it.
_CATALOGUE = (
    (Market("binance", "BTC", "USDT", 2, 5, "5"), _BTC),
    (Market("binance", "ETH", "USDT", 2, 4, "5"), _ETH),
    (
        Market("binance", "XRP", "ETH", 7, 0, "0.001"),
        MarketProfile(
            3e-4, trades_per_minute=(1, 3), quiet_share=0.7, amount_lots=60.0, max_gap_ticks=3
        ),
    ),
    (
        Market("binance", "LUNA", "USDT", 4, 2, "5", trading=False, until_ms=_to_ms(HALTED_AT)),
        MarketProfile(
            60.0, trades_per_minute=(1, 4), quiet_share=0.2, amount_lots=700.0, max_gap_ticks=20
        ),
    ),
    (
        Market("binanceusdm", "BTC", "USDT", 1, 3, "100", "USDT"),
        replace(_BTC, amount_lots=20.0, max_gap_ticks=4),
    ),
    (
        Market("binanceusdm", "ETH", "USDT", 2, 3, "20", "USDT"),
        replace(_ETH, amount_lots=300.0, max_gap_ticks=3),
    ),
    (
        Market("binanceus", "BTC", "USDT", 2, 5, "1"),
        replace(_BTC, trades_per_minute=(1, 3), quiet_share=0.4),
    ),
    (
        Market("binanceus", "ETH", "USDT", 2, 4, "1"),
        replace(_ETH, trades_per_minute=(1, 3), quiet_share=0.5),
    ),
)


@dataclass(frozen=True, slots=True)
class _BarSums:
    """Bars as integers; initially one bar per trade."""

    index: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    quote_volume: Ints
    trades: Ints
    taker_volume: Ints
    taker_quote_volume: Ints

    @classmethod
    def from_ticks(cls, index: Ints, ticks: Ticks) -> "_BarSums":
        prices, amounts, buys = ticks.prices, ticks.amounts, 1 - ticks.sells
        quote = prices * amounts
        singles = cls(
            index=index,
            open=prices,
            high=prices,
            low=prices,
            close=prices,
            volume=amounts,
            quote_volume=quote,
            trades=np.ones_like(prices),
            taker_volume=amounts * buys,
            taker_quote_volume=quote * buys,
        )
        return singles.merge_by_index()

    def merge_by_index(self) -> "_BarSums":
        """Merge the bars of each index, which are in order of time, into one."""
        if len(self.index) == 0:
            return self
        starts = np.concatenate(([0], np.flatnonzero(np.diff(self.index)) + 1))
        ends = np.concatenate((starts[1:], [len(self.index)])) - 1
        return _BarSums(
            self.index[starts],
            self.open[starts],
            np.maximum.reduceat(self.high, starts),
            np.minimum.reduceat(self.low, starts),
            self.close[ends],
            np.add.reduceat(self.volume, starts),
            np.add.reduceat(self.quote_volume, starts),
            np.add.reduceat(self.trades, starts),
            np.add.reduceat(self.taker_volume, starts),
            np.add.reduceat(self.taker_quote_volume, starts),
        )


class SyntheticMarkets:
    """Synthetic markets of `binance`, `binanceusdm` and `binanceus`; implements `MarketData`.

    Spot: `BTC/USDT` and `ETH/USDT` with four to six trades in every minute, `XRP/ETH` without
    trades in most minutes, and `LUNA/USDT`, which stopped trading at `HALTED_AT`. Perpetuals:
    `BTC/USDT:USDT` and `ETH/USDT:USDT`. Binance US: `BTC/USDT` and `ETH/USDT` with fewer trades.
    Every trade is its own aggregated trade, with the same id.

    Parameters
    ----------
    seed : int, default 0
        Different seeds produce different prices and trades.
    listed : datetime, default 2020-01-01
        Time of the first trades, a whole minute in UTC.
    """

    def __init__(self, seed: int = 0, *, listed: datetime = LISTED_AT) -> None:
        self._tapes: dict[Market, Tape] = {}
        for market, profile in _CATALOGUE:
            listed_market = replace(market, since_ms=_to_ms(listed) // 60_000 * 60_000)
            self._tapes[listed_market] = Tape(listed_market, profile, seed)
        self._seed = seed

    @property
    def markets(self) -> list[Market]:
        """All markets of all exchanges."""
        return list(self._tapes)

    def position_at(self, market: Market, time_ms: int) -> int:
        """Return the position of the first trade at or after a time."""
        return self._tapes[market].position_at(time_ms)

    def position_of(self, market: Market, trade_id: int) -> int:
        """Return the position of the first trade with this id or a greater one; ids start at 1."""
        return min(max(trade_id - 1, 0), self.position_at(market, market.until_ms))

    def trades(self, market: Market, start: int, stop: int) -> Trades:
        """Return the trades at positions `[start, stop)`."""
        ticks = self._tapes[market].ticks(start, stop)
        return Trades(
            ids=list(range(start + 1, stop + 1)),
            times_ms=ticks.times.tolist(),
            prices=noise.format_decimals(ticks.prices, market.price_places, _price_width(market)),
            amounts=noise.format_decimals(
                ticks.amounts, market.amount_places, _amount_width(market)
            ),
            sells=(ticks.sells == 1).tolist(),
        )

    def bars(self, market: Market, interval: Interval, start_ms: int, end_ms: int) -> Bars:
        """Return the bars of the trades in `[start_ms, end_ms)`."""
        pieces = list(self._aggregate_chunks(market, interval, start_ms, end_ms))
        if not pieces:
            return Bars([], [], [], [], [], [], [], [], [], [])
        sums = _BarSums(
            *(np.concatenate([getattr(p, name) for p in pieces]) for name in _BarSums.__slots__)
        ).merge_by_index()
        price, amount = market.price_places, market.amount_places
        price_width, amount_width = _price_width(market), _amount_width(market)
        quote_width = max(price + amount, amount_width)
        return Bars(
            [interval.opens(index) for index in sums.index.tolist()],
            noise.format_decimals(sums.open, price, price_width),
            noise.format_decimals(sums.high, price, price_width),
            noise.format_decimals(sums.low, price, price_width),
            noise.format_decimals(sums.close, price, price_width),
            noise.format_decimals(sums.volume, amount, amount_width),
            noise.format_decimals(sums.quote_volume, price + amount, quote_width),
            sums.trades.tolist(),
            noise.format_decimals(sums.taker_volume, amount, amount_width),
            noise.format_decimals(sums.taker_quote_volume, price + amount, quote_width),
        )

    def _aggregate_chunks(
        self, market: Market, interval: Interval, start_ms: int, end_ms: int
    ) -> Iterator[_BarSums]:
        tape = self._tapes[market]
        stop = tape.position_at(end_ms)
        for first in range(tape.position_at(start_ms), stop, _CHUNK):
            ticks = tape.ticks(first, min(first + _CHUNK, stop))
            yield _BarSums.from_ticks(interval.indices(ticks.times), ticks)

    def book(self, market: Market, time_ms: int, levels: int) -> Book:
        """Return a book whose best bid or ask is the last trade's price; its id is the trade's."""
        tape = self._tapes[market]
        last = tape.position_at(time_ms) - 1
        if last < 0:
            return Book(time_ms, 0, [], [])
        ticks = tape.ticks(last, last + 1)
        bid = int(ticks.prices[0]) - (0 if ticks.sells[0] else 1)

        def build_side(name: str, best: int, sign: int) -> list[tuple[str, str]]:
            words = noise.draw_words(
                noise.derive_key(self._seed, market.id, last, name), np.arange(levels)
            )
            gaps = (1 + words % np.uint64(tape.profile.max_gap_ticks)).astype(np.int64)
            prices = best + sign * (np.cumsum(gaps) - gaps[0])
            sizes = 1 + ((words >> np.uint64(44)) % np.uint64(int(tape.profile.amount_lots) * 9))
            is_positive = prices > 0
            return list(
                zip(
                    noise.format_decimals(
                        prices[is_positive], market.price_places, _price_width(market)
                    ),
                    noise.format_decimals(
                        sizes[is_positive].astype(np.int64),
                        market.amount_places,
                        _amount_width(market),
                    ),
                    strict=True,
                )
            )

        return Book(time_ms, last + 1, build_side("bid", bid, -1), build_side("ask", bid + 1, 1))

    def funding(self, market: Market, start_ms: int, end_ms: int) -> Funding:
        """Return settlements at 00:00, 08:00 and 16:00 UTC, up to 20 ms late, as on Binance."""
        first = max(start_ms, market.since_ms + _FUNDING_MS)
        end = min(end_ms, market.until_ms)
        if market.settle is None or first >= end:
            return Funding([], [], [])
        periods = np.arange(first // _FUNDING_MS, -(-end // _FUNDING_MS))
        words = noise.draw_words(noise.derive_key(self._seed, market.symbol, "funding"), periods)
        times = periods * _FUNDING_MS + (words % np.uint64(21)).astype(np.int64)
        # 0.01 % is the usual rate; rates range from -0.005 % to 0.025 %, in units of 1e-8
        rates = ((words >> np.uint64(32)) % np.uint64(30_001)).astype(np.int64) - 5_000
        in_range = (times >= start_ms) & (times < end_ms)
        marks = self._tapes[market].prices(times[in_range])
        signs = ["-" if rate < 0 else "" for rate in rates[in_range].tolist()]
        sizes = noise.format_decimals(np.abs(rates[in_range]), 8, 8)
        return Funding(
            times[in_range].tolist(),
            [sign + size for sign, size in zip(signs, sizes, strict=True)],
            noise.format_decimals(marks, market.price_places, 8),
        )


def _price_width(market: Market) -> int:
    """Return the decimal places of a price: eight on Binance spot, those of the tick on futures."""
    return market.price_places if market.settle else 8


def _amount_width(market: Market) -> int:
    return market.amount_places if market.settle else 8
