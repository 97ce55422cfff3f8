"""Binance's REST API without transport: turns host, path and parameters into an answer.

As on Binance, `startTime` and `endTime` are inclusive, and a request without `startTime` gets the
latest rows. Binance sends a bar of volume zero for a quiet minute of most markets; the sandbox
omits bars without trades.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter

import orjson

from lake.sandbox.exchange import Exchange
from lake.sandbox.exchange_info import build_exchange_info
from lake.sandbox.intervals import HOUR_MS, INTERVALS, SECOND_MS, Interval
from lake.sandbox.market import Bars, Funding, Market, Trades
from lake.sandbox.pages import Span
from lake.sandbox.parameters import (
    BAD_COMBINATION,
    BAD_DEPTH_LIMIT,
    BAD_INTERVAL,
    BAD_SYMBOL,
    INVALID,
    LOOKUP_TOO_LONG,
    START_AFTER_END,
    Parameters,
    Refusal,
)
from lake.sandbox.venues import Venue

_NO_END = (1 << 62) + 1
_DEPTH_LIMITS = (5, 10, 20, 50, 100, 500, 1000)


@dataclass(frozen=True, slots=True)
class MarketRequest:
    """One request to one host, with its parameters."""

    exchange: Exchange
    venue: Venue
    parameters: Parameters

    def market(self) -> Market:
        """Return the market that the mandatory `symbol` names."""
        return self.find_market(self.parameters.symbol())

    def find_market(self, symbol_id: str) -> Market:
        """Return the market with this id; refuse an unknown id as Binance does."""
        market = self.exchange.market(self.venue.exchange, symbol_id)
        if market is None:
            raise Refusal(BAD_SYMBOL, "Invalid symbol.")
        return market

    def limit(self, default: int, max_limit: int) -> int:
        """Return `limit`; lower or refuse one that is too high, as the venue does."""
        return self.parameters.limit(default, max_limit, lower=not self.venue.futures)

    def times(self) -> tuple[int | None, int | None]:
        """Return `startTime` and `endTime` in milliseconds, both inclusive."""
        start, end = self.parameters.times()
        if self.venue.futures and start is not None and end is not None and start > end:
            raise Refusal(START_AFTER_END, "Start time is greater than end time.")
        return start, end

    def span(self, limit: int) -> Span:
        """Return the rows that `startTime`, `endTime` and a limit select."""
        start, end = self.times()
        stop = _NO_END if end is None else end + 1
        return Span(start or 0, stop, limit, latest=start is None)


def _answer_ping(_: MarketRequest) -> bytes:
    """Answer `ping` with an empty object."""
    return b"{}"


def _answer_time(request: MarketRequest) -> bytes:
    """Answer `time` with the server's time."""
    return b'{"serverTime":%d}' % request.exchange.now_ms()


def _answer_exchange_info(request: MarketRequest) -> bytes:
    """Answer `exchangeInfo` for all markets, one `symbol`, or a JSON list of `symbols`."""
    parameters, venue = request.parameters, request.venue
    markets = request.exchange.markets(venue.exchange)
    if not venue.futures and parameters.has("symbol", "symbols"):
        if parameters.has("symbol") and parameters.has("symbols"):
            raise Refusal(BAD_COMBINATION, "Combination of optional parameters invalid.")
        markets = [request.find_market(name) for name in _read_symbols(parameters)]
    return orjson.dumps(build_exchange_info(venue, markets, request.exchange.now_ms()))


def _read_symbols(parameters: Parameters) -> list[str]:
    if parameters.has("symbol"):
        return [parameters.symbol()]
    try:
        names = orjson.loads(parameters.require("symbols"))
    except orjson.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refusal(INVALID, "Data sent for parameter 'symbols' is not valid.")
    return names


def _answer_klines(request: MarketRequest) -> bytes:
    """Answer `klines` with bars of twelve columns."""
    market = request.market()
    interval = INTERVALS.get(request.parameters.require("interval"))
    if interval is None or (request.venue.futures and interval.step == SECOND_MS):
        raise Refusal(BAD_INTERVAL, "Invalid interval.")
    if request.parameters.text("timeZone") not in (None, "0"):
        raise Refusal(INVALID, "Data sent for parameter 'timeZone' is not valid.")
    span = request.span(request.limit(500, request.venue.max_bars))
    return request.exchange.bars(market, interval, span, _render_klines)


def _answer_agg_trades(request: MarketRequest) -> bytes:
    """Answer `aggTrades` from an id, for at most one hour, or with the latest trades."""
    market, parameters = request.market(), request.parameters
    span = request.span(request.limit(500, 1000))
    start, end = request.times()
    from_id = parameters.integer("fromId")
    if from_id is not None and parameters.has("startTime", "endTime"):
        raise Refusal(BAD_COMBINATION, "Combination of optional parameters invalid.")
    if start is not None and end is not None and end - start > HOUR_MS:
        raise Refusal(LOOKUP_TOO_LONG, "More than 1 hours between startTime and endTime.")
    if from_id is not None:
        positions = _span_from_id(request, market, from_id, span.limit)
    else:
        data = request.exchange.data
        first, stop = data.position_at(market, span.start), data.position_at(market, span.end)
        positions = Span(first, stop, span.limit, span.latest)
    render = _render_futures_agg_trades if request.venue.futures else _render_spot_agg_trades
    return request.exchange.trades(market, positions, render)


def _answer_trades(request: MarketRequest) -> bytes:
    """Answer `trades` with the latest trades."""
    market = request.market()
    latest = Span(0, _NO_END, request.limit(500, 1000), latest=True)
    render = _render_futures_trades if request.venue.futures else _render_spot_trades
    return request.exchange.trades(market, latest, render)


def _answer_historical_trades(request: MarketRequest) -> bytes:
    """Answer `historicalTrades` with trades from an id, or with the latest trades."""
    market = request.market()
    max_limit = 500 if request.venue.futures else 1000
    limit = request.limit(min(500, max_limit), max_limit)
    from_id = request.parameters.integer("fromId")
    positions = Span(0, _NO_END, limit, latest=True)
    if from_id is not None:
        positions = _span_from_id(request, market, from_id, limit)
    render = _render_futures_trades if request.venue.futures else _render_spot_trades
    return request.exchange.trades(market, positions, render)


def _span_from_id(request: MarketRequest, market: Market, from_id: int, limit: int) -> Span:
    return Span(request.exchange.data.position_of(market, from_id), _NO_END, limit)


def _answer_depth(request: MarketRequest) -> bytes:
    """Answer `depth` with the order book.

    Spot accepts any limit up to 5000, futures only those in `_DEPTH_LIMITS`.
    """
    market = request.market()
    if request.venue.futures:
        limit = request.parameters.integer("limit") or 500
        if limit not in _DEPTH_LIMITS:
            raise Refusal(BAD_DEPTH_LIMIT, f"{limit} is not valid depth limit.")
    else:
        limit = request.limit(100, 5000)
    book = request.exchange.book(market, limit)
    answer: dict[str, object] = {"lastUpdateId": book.update_id}
    if request.venue.futures:
        answer |= {"E": book.time_ms, "T": book.time_ms}
    return orjson.dumps(answer | {"bids": book.bids, "asks": book.asks})


def _answer_funding_rate(request: MarketRequest) -> bytes:
    """Answer `fundingRate` with settlements of one market or of all markets.

    Without a time, the latest settlements are returned.
    """
    exchange, span = request.exchange, request.span(request.limit(100, 1000))
    if request.parameters.has("symbol"):
        return exchange.funding(request.market(), span, _render_funding)
    rows = [
        row
        for market in exchange.markets(request.venue.exchange)
        for row in orjson.loads(exchange.funding(market, span, _render_funding))
    ]
    rows.sort(key=itemgetter("fundingTime"))
    return orjson.dumps(rows[-span.limit :] if span.latest else rows[: span.limit])


def _render_klines(interval: Interval, bars: Bars) -> list[bytes]:
    closes = [interval.opens(interval.index(opens) + 1) - 1 for opens in bars.open_ms]
    columns = zip(
        bars.open_ms,
        bars.open,
        bars.high,
        bars.low,
        bars.close,
        bars.volume,
        closes,
        bars.quote_volume,
        bars.trades,
        bars.taker_volume,
        bars.taker_quote_volume,
        strict=True,
    )
    form = '[%d,"%s","%s","%s","%s","%s",%d,"%s",%d,"%s","%s","0"]'
    return [(form % row).encode() for row in columns]


def _render_agg_trades(rows: Trades, form: str) -> list[bytes]:
    makers = ["true" if sell else "false" for sell in rows.sells]
    columns = zip(
        rows.ids, rows.prices, rows.amounts, rows.ids, rows.ids, rows.times_ms, makers, strict=True
    )
    return [(form % row).encode() for row in columns]


def _render_spot_agg_trades(rows: Trades) -> list[bytes]:
    form = '{"a":%d,"p":"%s","q":"%s","f":%d,"l":%d,"T":%d,"m":%s,"M":true}'
    return _render_agg_trades(rows, form)


def _render_futures_agg_trades(rows: Trades) -> list[bytes]:
    return _render_agg_trades(rows, '{"a":%d,"p":"%s","q":"%s","f":%d,"l":%d,"T":%d,"m":%s}')


def _render_trades(rows: Trades, form: str) -> list[bytes]:
    makers = ["true" if sell else "false" for sell in rows.sells]
    costs = [
        format(Decimal(price) * Decimal(amount), "f")
        for price, amount in zip(rows.prices, rows.amounts, strict=True)
    ]
    columns = zip(rows.ids, rows.prices, rows.amounts, costs, rows.times_ms, makers, strict=True)
    return [(form % row).encode() for row in columns]


def _render_spot_trades(rows: Trades) -> list[bytes]:
    form = (
        '{"id":%d,"price":"%s","qty":"%s","quoteQty":"%s","time":%d,'
        '"isBuyerMaker":%s,"isBestMatch":true}'
    )
    return _render_trades(rows, form)


def _render_futures_trades(rows: Trades) -> list[bytes]:
    form = '{"id":%d,"price":"%s","qty":"%s","quoteQty":"%s","time":%d,"isBuyerMaker":%s}'
    return _render_trades(rows, form)


def _render_funding(market: Market, funding: Funding) -> list[bytes]:
    columns = zip(funding.times_ms, funding.rates, funding.mark_prices, strict=True)
    form = '{"symbol":"%s","fundingTime":%d,"fundingRate":"%s","markPrice":"%s"}'
    return [(form % (market.id, *row)).encode() for row in columns]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    answer: Callable[[MarketRequest], bytes]
    parameters: tuple[str, ...]


_TIMES = ("startTime", "endTime", "limit")
_ENDPOINTS: Mapping[str, _Endpoint] = {
    "ping": _Endpoint(_answer_ping, ()),
    "time": _Endpoint(_answer_time, ()),
    "exchangeInfo": _Endpoint(_answer_exchange_info, ("symbol", "symbols")),
    "klines": _Endpoint(_answer_klines, ("symbol", "interval", "timeZone", *_TIMES)),
    "aggTrades": _Endpoint(_answer_agg_trades, ("symbol", "fromId", *_TIMES)),
    "trades": _Endpoint(_answer_trades, ("symbol", "limit")),
    "historicalTrades": _Endpoint(_answer_historical_trades, ("symbol", "limit", "fromId")),
    "depth": _Endpoint(_answer_depth, ("symbol", "limit")),
    "fundingRate": _Endpoint(_answer_funding_rate, ("symbol", *_TIMES)),
}


def answer(
    exchange: Exchange, venue: Venue, endpoint: str, pairs: Sequence[tuple[str, str]]
) -> bytes:
    """Return the JSON body with which a venue answers a request.

    Parameters
    ----------
    exchange : Exchange
        Where the data come from.
    venue : Venue
        The venue that answers.
    endpoint : str
        The path after the venue's prefix, such as `klines`.
    pairs : sequence of (str, str)
        The parameters in the order of the query string.

    Raises
    ------
    Refusal
        Binance would answer this request with an error.
    """
    handler = _ENDPOINTS.get(endpoint)
    if handler is None or (endpoint == "fundingRate" and not venue.futures):
        raise Refusal(-5000, f"Path {venue.prefix}{endpoint}, Method GET is invalid", status=404)
    parameters = Parameters(pairs, handler.parameters, strict=not venue.futures)
    return handler.answer(MarketRequest(exchange, venue, parameters))


def render_error(code: int, message: str) -> bytes:
    """Return the JSON body of a Binance error."""
    return orjson.dumps({"code": code, "msg": message})
