"""The data of the sandbox exchange: markets, columns of rows, and the protocol that serves them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lake.sandbox.intervals import Interval

FOREVER_MS = 1 << 53


@dataclass(frozen=True, slots=True)
class Market:
    """One market of one exchange, with the values that `exchangeInfo` publishes.

    Parameters
    ----------
    exchange : str
        ccxt's id: `binance`, `binanceusdm` or `binanceus`.
    base, quote : str
        Asset codes.
    price_places, amount_places : int
        Decimal places of one tick and one lot: 2 means steps of 0.01.
    min_notional : str
        Smallest order value in units of `quote`, as a decimal.
    settle : str, optional
        The asset of margin and settlement; set for perpetual contracts only.
    since_ms, until_ms : int
        All trades are in `[since_ms, until_ms)`.
    trading : bool, default True
        False is Binance's status `BREAK`: listed with its history, but not trading.
    """

    exchange: str
    base: str
    quote: str
    price_places: int
    amount_places: int
    min_notional: str
    settle: str | None = None
    since_ms: int = 0
    until_ms: int = FOREVER_MS
    trading: bool = True

    @property
    def id(self) -> str:
        """Binance's symbol, such as `BTCUSDT`."""
        return self.base + self.quote

    @property
    def symbol(self) -> str:
        """ccxt's unified symbol, such as `BTC/USDT` or `BTC/USDT:USDT`."""
        return f"{self.base}/{self.quote}" + (f":{self.settle}" if self.settle else "")


@dataclass(frozen=True, slots=True)
class Trades:
    """Trades in order of time and id, as equally long columns; prices and amounts are decimals."""

    ids: list[int]
    times_ms: list[int]
    prices: list[str]
    amounts: list[str]
    sells: list[bool]  # the taker sold; Binance says "the buyer is the maker"


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars in order of time, as equally long columns; prices and volumes are decimals.

    `volume` is in base units, `quote_volume` in quote units; the `taker` columns count only
    trades in which the taker bought.
    """

    open_ms: list[int]
    open: list[str]
    high: list[str]
    low: list[str]
    close: list[str]
    volume: list[str]
    quote_volume: list[str]
    trades: list[int]
    taker_volume: list[str]
    taker_quote_volume: list[str]


@dataclass(frozen=True, slots=True)
class Book:
    """An order book: (price, amount) pairs of decimals, best first."""

    time_ms: int
    update_id: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Funding:
    """Funding settlements in order of time; a mark price may be empty, as in old Binance rows."""

    times_ms: list[int]
    rates: list[str]
    mark_prices: list[str]


class MarketData(Protocol):
    """The source of the sandbox exchange's answers.

    Times are milliseconds since the epoch, ranges half-open. A trade has a *position*: 0 for the
    first trade of the market, then counting up without gaps, even if the ids have gaps. Answers
    do not depend on the clock: the caller requests only rows of the past.
    """

    @property
    def markets(self) -> Sequence[Market]:
        """All markets of all exchanges."""

    def position_at(self, market: Market, time_ms: int) -> int:
        """Return the position of the first trade at or after a time, or the number of trades."""

    def position_of(self, market: Market, trade_id: int) -> int:
        """Return the position of the first trade with this id or a greater one."""

    def trades(self, market: Market, start: int, stop: int) -> Trades:
        """Return the trades at positions `[start, stop)`."""

    def bars(self, market: Market, interval: Interval, start_ms: int, end_ms: int) -> Bars:
        """Return the bars of the trades in `[start_ms, end_ms)`; a bar opens at `start_ms`.

        Bars without trades are omitted. If `end_ms` is inside a bar, that bar holds the trades
        before `end_ms`.
        """

    def book(self, market: Market, time_ms: int, levels: int) -> Book:
        """Return the order book just before a time, with at most `levels` levels a side."""

    def funding(self, market: Market, start_ms: int, end_ms: int) -> Funding:
        """Return the funding settlements in `[start_ms, end_ms)`; empty for spot."""
