"""A deterministic market made from a seed, with random access in time: trades first, then the rest.

Bars are exactly the aggregates of the trades, the book is built around the last one, and funding
rates come with the price of their time. Nothing depends on what was asked for before.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from lake.sandbox import noise
from lake.sandbox.intervals import HOUR_MS, Interval
from lake.sandbox.market import Bars, Book, Funding, Market, Trades
from lake.sandbox.noise import Ints
from lake.sandbox.tape import Character, Tape, Ticks

LISTED = datetime(2020, 1, 1, tzinfo=UTC)
HALTED = datetime(2022, 5, 13, tzinfo=UTC)

_FUNDING_MS = 8 * HOUR_MS
_CHUNK = 1 << 17  # trades aggregated at once: enough to be vectorised, few enough for the cache


def _ms(time: datetime) -> int:
    return int(time.timestamp()) * 1000


_BTC = Character(40_000.0, busy=(4, 6), quiet=0.0, lots=500.0, gap=60)
_ETH = Character(2_500.0, busy=(4, 6), quiet=0.0, lots=900.0, gap=8)

# In order of importance: without an exchange, a symbol means the first market that has it.
_CATALOGUE = (
    (Market("binance", "BTC", "USDT", 2, 5, "5"), _BTC),
    (Market("binance", "ETH", "USDT", 2, 4, "5"), _ETH),
    (
        Market("binance", "XRP", "ETH", 7, 0, "0.001"),
        Character(3e-4, busy=(1, 3), quiet=0.7, lots=60.0, gap=3),
    ),
    (
        Market("binance", "LUNA", "USDT", 4, 2, "5", trading=False, until_ms=_ms(HALTED)),
        Character(60.0, busy=(1, 4), quiet=0.2, lots=700.0, gap=20),
    ),
    (Market("binanceusdm", "BTC", "USDT", 1, 3, "100", "USDT"), replace(_BTC, lots=20.0, gap=4)),
    (Market("binanceusdm", "ETH", "USDT", 2, 3, "20", "USDT"), replace(_ETH, lots=300.0, gap=3)),
    (Market("binanceus", "BTC", "USDT", 2, 5, "1"), replace(_BTC, busy=(1, 3), quiet=0.4)),
    (Market("binanceus", "ETH", "USDT", 2, 4, "1"), replace(_ETH, busy=(1, 3), quiet=0.5)),
)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Bars as integers, at first one a trade."""

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
    def of(cls, index: Ints, ticks: Ticks) -> "_Sums":
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
        return singles.folded()

    def folded(self) -> "_Sums":
        """One bar an index, from several in order of time."""
        if len(self.index) == 0:
            return self
        starts = np.concatenate(([0], np.flatnonzero(np.diff(self.index)) + 1))
        ends = np.concatenate((starts[1:], [len(self.index)])) - 1
        return _Sums(
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


class Synthetic:
    """Synthetic markets of `binance`, `binanceusdm` and `binanceus`, as a `MarketData`.

    Spot: `BTC/USDT` and `ETH/USDT` with four to six trades in every minute, `XRP/ETH` with none
    in most, and `LUNA/USDT`, which stopped trading at `HALTED`. Perpetuals: `BTC/USDT:USDT` and
    `ETH/USDT:USDT`. Binance US: `BTC/USDT` and `ETH/USDT`, thinner. Every trade is its own
    aggregated trade, with the same id.

    Parameters
    ----------
    seed : int, default 0
        Another seed gives other markets.
    listed : datetime, default 2020-01-01
        Time of the first trades; a whole minute, in UTC.
    """

    def __init__(self, seed: int = 0, *, listed: datetime = LISTED) -> None:
        self._tapes: dict[Market, Tape] = {}
        for market, character in _CATALOGUE:
            placed = replace(market, since_ms=_ms(listed) // 60_000 * 60_000)
            self._tapes[placed] = Tape(placed, character, seed)
        self._seed = seed

    @property
    def markets(self) -> list[Market]:
        """All markets of all exchanges."""
        return list(self._tapes)

    def position_at(self, market: Market, time_ms: int) -> int:
        """Position of the first trade at or after a time."""
        return self._tapes[market].position_at(time_ms)

    def position_of(self, market: Market, trade_id: int) -> int:
        """Position of the first trade with this id or a greater one; ids count from 1."""
        return min(max(trade_id - 1, 0), self.position_at(market, market.until_ms))

    def trades(self, market: Market, start: int, stop: int) -> Trades:
        """The trades at positions `[start, stop)`."""
        ticks = self._tapes[market].ticks(start, stop)
        return Trades(
            ids=list(range(start + 1, stop + 1)),
            times_ms=ticks.times.tolist(),
            prices=noise.decimals(ticks.prices, market.price_places, _price_width(market)),
            amounts=noise.decimals(ticks.amounts, market.amount_places, _amount_width(market)),
            sells=(ticks.sells == 1).tolist(),
        )

    def bars(self, market: Market, interval: Interval, start_ms: int, end_ms: int) -> Bars:
        """Bars of the trades in `[start_ms, end_ms)`."""
        pieces = list(self._pieces(market, interval, start_ms, end_ms))
        if not pieces:
            return Bars([], [], [], [], [], [], [], [], [], [])
        sums = _Sums(
            *(np.concatenate([getattr(p, name) for p in pieces]) for name in _Sums.__slots__)
        ).folded()
        price, amount = market.price_places, market.amount_places
        price_width, amount_width = _price_width(market), _amount_width(market)
        quote_width = max(price + amount, amount_width)
        return Bars(
            [interval.opens(index) for index in sums.index.tolist()],
            noise.decimals(sums.open, price, price_width),
            noise.decimals(sums.high, price, price_width),
            noise.decimals(sums.low, price, price_width),
            noise.decimals(sums.close, price, price_width),
            noise.decimals(sums.volume, amount, amount_width),
            noise.decimals(sums.quote_volume, price + amount, quote_width),
            sums.trades.tolist(),
            noise.decimals(sums.taker_volume, amount, amount_width),
            noise.decimals(sums.taker_quote_volume, price + amount, quote_width),
        )

    def _pieces(
        self, market: Market, interval: Interval, start_ms: int, end_ms: int
    ) -> Iterator[_Sums]:
        tape = self._tapes[market]
        stop = tape.position_at(end_ms)
        for first in range(tape.position_at(start_ms), stop, _CHUNK):
            ticks = tape.ticks(first, min(first + _CHUNK, stop))
            yield _Sums.of(interval.indices(ticks.times), ticks)

    def book(self, market: Market, time_ms: int, levels: int) -> Book:
        """A book whose best bid or ask is the last trade's price; its id is that of the trade."""
        tape = self._tapes[market]
        last = tape.position_at(time_ms) - 1
        if last < 0:
            return Book(time_ms, 0, [], [])
        ticks = tape.ticks(last, last + 1)
        bid = int(ticks.prices[0]) - (0 if ticks.sells[0] else 1)

        def side(name: str, best: int, sign: int) -> list[tuple[str, str]]:
            words = noise.words(noise.key(self._seed, market.id, last, name), np.arange(levels))
            gaps = (1 + words % np.uint64(tape.character.gap)).astype(np.int64)
            prices = best + sign * (np.cumsum(gaps) - gaps[0])
            sizes = 1 + ((words >> np.uint64(44)) % np.uint64(int(tape.character.lots) * 9))
            shown = prices > 0
            return list(
                zip(
                    noise.decimals(prices[shown], market.price_places, _price_width(market)),
                    noise.decimals(
                        sizes[shown].astype(np.int64), market.amount_places, _amount_width(market)
                    ),
                    strict=True,
                )
            )

        return Book(time_ms, last + 1, side("bid", bid, -1), side("ask", bid + 1, 1))

    def funding(self, market: Market, start_ms: int, end_ms: int) -> Funding:
        """Settlements at 00:00, 08:00 and 16:00 UTC, up to 20 ms late, as the venue sends them."""
        first = max(start_ms, market.since_ms + _FUNDING_MS)
        end = min(end_ms, market.until_ms)
        if market.settle is None or first >= end:
            return Funding([], [], [])
        periods = np.arange(first // _FUNDING_MS, -(-end // _FUNDING_MS))
        words = noise.words(noise.key(self._seed, market.symbol, "funding"), periods)
        times = periods * _FUNDING_MS + (words % np.uint64(21)).astype(np.int64)
        # 0.01 % is the usual rate; it goes from -0.005 % to 0.025 %, in units of 1e-8
        rates = ((words >> np.uint64(32)) % np.uint64(30_001)).astype(np.int64) - 5_000
        asked = (times >= start_ms) & (times < end_ms)
        marks = self._tapes[market].prices(times[asked])
        signs = ["-" if rate < 0 else "" for rate in rates[asked].tolist()]
        sizes = noise.decimals(np.abs(rates[asked]), 8, 8)
        return Funding(
            times[asked].tolist(),
            [sign + size for sign, size in zip(signs, sizes, strict=True)],
            noise.decimals(marks, market.price_places, 8),
        )


def _price_width(market: Market) -> int:
    """Binance writes spot prices with eight places, futures' with those of the tick."""
    return market.price_places if market.settle else 8


def _amount_width(market: Market) -> int:
    return market.amount_places if market.settle else 8
