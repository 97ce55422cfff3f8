"""The exchange behind the REST API: markets, a clock that hides the future, pages, revisions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from lake.errors import UnknownNameError, UsageError
from lake.sandbox.intervals import HOUR_MS, INTERVALS, Interval
from lake.sandbox.market import Bars, Book, Funding, Market, MarketData, Trades
from lake.sandbox.pages import Pages, Rows, Span

CACHE_BYTES = 256 << 20

Clock = Callable[[], datetime]
RenderTrades = Callable[[Trades], list[bytes]]
RenderBars = Callable[[Interval, Bars], list[bytes]]
RenderFunding = Callable[[Market, Funding], list[bytes]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = frozenset(Bars.__slots__) - {"open_ms"}

# Blocks of trades are numbered by position, those of settlements by time, both like bars.
_TRADE_BLOCKS = Interval("trades", 1, 4096)
_FUNDING_BLOCKS = Interval("funding", 8 * HOUR_MS, 128)


def utc_now() -> datetime:
    """Return the real time in UTC: the default clock of a sandbox."""
    return datetime.now(UTC)


def to_milliseconds(time: datetime) -> int:
    """Convert a time to milliseconds since the epoch, rounded down; a naive time is UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Revision:
    """A later correction of one bar by the venue.

    Parameters
    ----------
    symbol : str
        ccxt's unified symbol.
    interval : str
        As in Binance's parameter, such as `1m`.
    timestamp : datetime
        Opening time of the bar.
    changes : mapping
        New values of columns of `Bars`: decimals as they are to be served, `trades` an integer.
    exchange : str, optional
        ccxt's id; without it, the first exchange that has the symbol.
    """

    symbol: str
    interval: str
    timestamp: datetime
    changes: Mapping[str, str | int]
    exchange: str | None = None


class Exchange:
    """Serves the rows of a `MarketData` up to the present, in pages.

    Parameters
    ----------
    data : MarketData
        The markets.
    now : callable
        The clock. Rows at or after it are not served.
    cache_bytes : int
        Memory for rendered rows.
    """

    def __init__(self, data: MarketData, now: Clock, cache_bytes: int = CACHE_BYTES) -> None:
        self.data = data
        self.now = now
        self._markets = {(m.exchange, m.id): m for m in data.markets}
        self._pages = Pages(cache_bytes)
        self._revisions: dict[tuple[Market, Interval], dict[int, dict[str, str | int]]] = {}

    def now_ms(self) -> int:
        """Return the present in milliseconds since the epoch."""
        return to_milliseconds(self.now())

    def markets(self, exchange: str) -> list[Market]:
        """Return the markets of one exchange."""
        return [market for market in self.data.markets if market.exchange == exchange]

    def market(self, exchange: str, symbol_id: str) -> Market | None:
        """Return the market of an exchange with this id, or None."""
        return self._markets.get((exchange, symbol_id))

    def count_trades(self, market: Market) -> int:
        """Return the number of trades before the present."""
        return self.data.position_at(market, self.now_ms())

    def trades(self, market: Market, span: Span, render: RenderTrades) -> bytes:
        """Return a JSON list of the trades at the positions in `span`."""

        def load(start: int, stop: int) -> Rows:
            stop = min(stop, self.data.position_at(market, market.until_ms))
            return Rows.join(
                list(range(start, stop)), render(self.data.trades(market, start, stop))
            )

        past = span.clip(0, self.count_trades(market))
        return _json_list(
            self._pages.build_page((market, render), _TRADE_BLOCKS, load, past).pieces
        )

    def bars(self, market: Market, interval: Interval, span: Span, render: RenderBars) -> bytes:
        """Return a JSON list of the bars that open in `span`; the last bar may still be open."""

        def load(start: int, end: int) -> Rows:
            bars = self._bars(market, interval, start, end)
            return Rows.join(bars.open_ms, render(interval, bars))

        now_ms = self.now_ms()
        present = interval.floor(now_ms)

        def render_open_bar() -> list[bytes]:
            if not span.start <= present < span.end:
                return []
            return render(interval, self._bars(market, interval, present, now_ms))

        closed = span.clip(interval.floor(market.since_ms), min(present, market.until_ms))
        key = (market, interval)
        if span.latest:
            last = render_open_bar()
            rest = replace(closed, limit=span.limit - len(last))
            return _json_list([*self._pages.build_page(key, interval, load, rest).pieces, *last])
        page = self._pages.build_page(key, interval, load, closed)
        return _json_list(
            page.pieces if page.count == span.limit else page.pieces + render_open_bar()
        )

    def funding(self, market: Market, span: Span, render: RenderFunding) -> bytes:
        """Return a JSON list of the funding settlements in `span`."""

        def load(start: int, end: int) -> Rows:
            funding = self.data.funding(market, start, end)
            return Rows.join(funding.times_ms, render(market, funding))

        past = span.clip(market.since_ms, min(self.now_ms(), market.until_ms))
        return _json_list(
            self._pages.build_page((market, render), _FUNDING_BLOCKS, load, past).pieces
        )

    def book(self, market: Market, levels: int) -> Book:
        """Return the present order book."""
        return self.data.book(market, self.now_ms(), levels)

    def revise(self, revision: Revision) -> None:
        """Change a bar from now on, as a venue does when it corrects its data.

        Only this bar changes; trades and bars of other intervals stay as they are.

        Raises
        ------
        UsageError
            The market, interval, bar or column does not exist.
        """
        market = self._find_market(revision.symbol, revision.exchange)
        interval = INTERVALS.get(revision.interval)
        if interval is None:
            raise UsageError(
                f"Unknown interval {revision.interval!r}.",
                f"Use one of {', '.join(INTERVALS)}.",
            )
        unknown = revision.changes.keys() - _COLUMNS
        if unknown:
            raise UsageError(
                f"Unknown columns of a bar: {', '.join(sorted(unknown))}.",
                f"Use {', '.join(sorted(_COLUMNS))}.",
            )
        opens = to_milliseconds(revision.timestamp)
        end = interval.opens(interval.index(opens) + 1)
        if opens != interval.floor(opens) or not self._bars(market, interval, opens, end).open_ms:
            raise UsageError(
                f"{market.symbol} has no {interval.name} bar that opens at {revision.timestamp}.",
                "Use the opening time of a bar that the sandbox serves.",
            )
        revised = self._revisions.setdefault((market, interval), {})
        revised[opens] = revised.get(opens, {}) | dict(revision.changes)
        self._pages.forget((market, interval), interval.block(opens))

    def _find_market(self, symbol: str, exchange: str | None) -> Market:
        for market in self.data.markets:
            if market.symbol == symbol and exchange in (None, market.exchange):
                return market
        symbols = ", ".join(sorted({m.symbol for m in self.data.markets}))
        where = exchange or "the sandbox"
        raise UnknownNameError(f"Unknown market {symbol} on {where}.", f"Use one of {symbols}.")

    def _bars(self, market: Market, interval: Interval, start_ms: int, end_ms: int) -> Bars:
        """Return bars of a market with revisions applied."""
        bars = self.data.bars(market, interval, start_ms, end_ms)
        for opens, changes in self._revisions.get((market, interval), {}).items():
            if opens in bars.open_ms:
                row = bars.open_ms.index(opens)
                for column, value in changes.items():
                    getattr(bars, column)[row] = value
        return bars


def _json_list(pieces: list[bytes]) -> bytes:
    return b"[" + b",".join(pieces) + b"]"
