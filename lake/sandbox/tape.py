"""One synthetic market: trades at any position, and the position of any time."""

from dataclasses import dataclass

import numpy as np

from lake.sandbox import noise
from lake.sandbox.intervals import MINUTE_MS
from lake.sandbox.market import Market
from lake.sandbox.noise import Floats, Ints

_WEEK = 7 * 1440  # minutes; the number of trades in each minute repeats every week


@dataclass(frozen=True, slots=True)
class MarketProfile:
    """The parameters of a synthetic market.

    Parameters
    ----------
    price : float
        The price around which the random walk moves, in quote units.
    trades_per_minute : tuple of int
        Fewest and most trades in a minute with trades.
    quiet_share : float
        Share of minutes without trades.
    amount_lots : float
        Scale of the amount of a trade, in lots.
    max_gap_ticks : int
        Most ticks between two adjacent levels of the order book.
    sigma : float, default 0.0004
        Standard deviation of the logarithm of the price over one minute.
    """

    price: float
    trades_per_minute: tuple[int, int]
    quiet_share: float
    amount_lots: float
    max_gap_ticks: int
    sigma: float = 0.0004


@dataclass(frozen=True, slots=True)
class Ticks:
    """Trades as integers: prices in ticks, amounts in lots, so that every sum is exact."""

    times: Ints
    prices: Ints
    amounts: Ints
    sells: Ints  # 1 where the taker sold, else 0


class Tape:
    """The trades of one synthetic market, computed on request.

    The number of trades in each minute repeats every week, so a division and a look-up give the
    position of a minute's first trade. Time, amount and side of a trade are a hash of its position.
    Its price follows the random walk of the pair, which all exchanges share, plus noise of its own.
    """

    def __init__(self, market: Market, profile: MarketProfile, seed: int) -> None:
        self.market = market
        self.profile = profile
        self._key = noise.derive_key(seed, market.exchange, market.symbol)
        self._path = noise.derive_key(seed, market.base, market.quote)
        self._since = market.since_ms // MINUTE_MS
        counts = self._count_trades_by_minute()
        self._trades_before = np.concatenate(([0], np.cumsum(counts)))
        self._trades_per_week = int(self._trades_before[-1])
        self._minutes = np.repeat(np.arange(_WEEK), counts)
        self._counts = counts[self._minutes]
        self._ordinals = np.arange(self._trades_per_week) - self._trades_before[self._minutes]

    def _count_trades_by_minute(self) -> Ints:
        """Return the number of trades in each minute of a week."""
        fewest, most = self.profile.trades_per_minute
        minutes = np.arange(_WEEK)
        counts = fewest + noise.draw_words(self._key + 1, minutes) % np.uint64(most - fewest + 1)
        quiet_share = noise.draw_uniforms(self._key + 2, minutes) < self.profile.quiet_share
        return np.where(quiet_share, 0, counts).astype(np.int64)

    def position_at(self, time_ms: int) -> int:
        """Return the position of the first trade at or after a time."""
        time_ms = min(max(time_ms, self.market.since_ms), self.market.until_ms)
        minute = time_ms // MINUTE_MS - self._since
        weeks, within = divmod(minute, _WEEK)
        first = weeks * self._trades_per_week + int(self._trades_before[within])
        count = int(self._trades_before[within + 1] - self._trades_before[within])
        times = self._trade_times(np.arange(first, first + count))
        return first + int(np.count_nonzero(times < time_ms))

    def _trade_times(self, positions: Ints) -> Ints:
        """Return trade times: the k-th of n trades is in the k-th n-th of its minute."""
        weeks, within = np.divmod(positions, self._trades_per_week)
        draw = (noise.draw_words(self._key, positions) & np.uint64(0xFFFFF)).astype(np.float64)
        share = (self._ordinals[within] + draw / 2.0**20) / self._counts[within]
        minutes = self._since + weeks * _WEEK + self._minutes[within]
        return minutes * MINUTE_MS + (share * MINUTE_MS).astype(np.int64)

    def ticks(self, start: int, stop: int) -> Ticks:
        """Return the trades at positions `[start, stop)`."""
        positions = np.arange(start, stop)
        bits = noise.draw_words(self._key, positions)
        times = self._trade_times(positions)
        sells = ((bits >> np.uint64(20)) & np.uint64(1)).astype(np.int64)
        jitter = ((bits >> np.uint64(21)) & np.uint64(0xFFFF)).astype(np.float64) / 2.0**16 - 0.5
        draw = (bits >> np.uint64(40)).astype(np.float64) / 2.0**24
        # half of the trades are a fraction of the scale, one in twenty is ten times as large
        amounts = 1 + (self.profile.amount_lots * draw * draw / (1.02 - draw)).astype(np.int64)
        prices = self.prices(times, jitter * self.profile.sigma) + (1 - sells)
        return Ticks(times, prices, amounts, sells)

    def prices(self, times: Ints, jitter: Floats | float = 0.0) -> Ints:
        """Return prices in ticks, at least 1, at ascending times; `jitter` shifts the logarithm."""
        if len(times) == 0:
            return np.empty(0, dtype=np.int64)
        minutes, rest = np.divmod(times, MINUTE_MS)
        first = int(minutes[0])
        path = noise.draw_walk(self._path, first, int(minutes[-1]) + 1, self.profile.sigma)
        left = path[minutes - first]
        right = path[minutes - first + 1]
        x = left + (right - left) * (rest / MINUTE_MS) + jitter
        scale = self.profile.price * 10**self.market.price_places
        ticks: Ints = np.rint(noise.approximate_exp(x) * scale).astype(np.int64)
        return np.maximum(ticks, 1)
