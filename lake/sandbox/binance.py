"""Binance's REST dialect: a request's host, path and parameters to an answer, without transport.

As on Binance, `startTime` and `endTime` are inclusive; without `startTime` the latest rows are
given. Unlike Binance, which sends a bar of volume zero for a quiet minute of most markets, a bar
without trades is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter

import orjson

from lake.sandbox.exchange import Exchange
from lake.sandbox.exchange_info import exchange_info
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

_AFTER_ALL = (1 << 62) + 1
_DEPTH_LIMITS = (5, 10, 20, 50, 100, 500, 1000)


@dataclass(frozen=True, slots=True)
class Question:
    """One request, as the functions of this module want it."""

    exchange: Exchange
    venue: Venue
    parameters: Parameters

    def market(self) -> Market:
        """The market that the mandatory `symbol` names."""
        return self.market_of(self.parameters.symbol())

    def market_of(self, symbol_id: str) -> Market:
        """The market with this id."""
        market = self.exchange.market(self.venue.exchange, symbol_id)
        if market is None:
            raise Refusal(BAD_SYMBOL, "Invalid symbol.")
        return market

    def limit(self, default: int, most: int) -> int:
        """`limit` under the venue's rule for one that is too high."""
        return self.parameters.limit(default, most, lower=not self.venue.futures)

    def times(self) -> tuple[int | None, int | None]:
        """`startTime` and `endTime`, both inclusive."""
        start, end = self.parameters.times()
        if self.venue.futures and start is not None and end is not None and start > end:
            raise Refusal(START_AFTER_END, "Start time is greater than end time.")
        return start, end

    def span(self, limit: int) -> Span:
        """What `startTime`, `endTime` and a limit ask for."""
        start, end = self.times()
        stop = _AFTER_ALL if end is None else end + 1
        return Span(start or 0, stop, limit, latest=start is None)


def ping(_: Question) -> bytes:
    """`ping`: an empty object."""
    return b"{}"


def time(question: Question) -> bytes:
    """`time`: the server's time."""
    return b'{"serverTime":%d}' % question.exchange.now_ms()


def info(question: Question) -> bytes:
    """`exchangeInfo`, of all markets, of one `symbol`, or of a JSON list of `symbols`."""
    parameters, venue = question.parameters, question.venue
    markets = question.exchange.markets(venue.exchange)
    if not venue.futures and parameters.has("symbol", "symbols"):
        if parameters.has("symbol") and parameters.has("symbols"):
            raise Refusal(BAD_COMBINATION, "Combination of optional parameters invalid.")
        markets = [question.market_of(name) for name in _symbols(parameters)]
    return orjson.dumps(exchange_info(venue, markets, question.exchange.now_ms()))


def _symbols(parameters: Parameters) -> list[str]:
    if parameters.has("symbol"):
        return [parameters.symbol()]
    try:
        names = orjson.loads(parameters.required("symbols"))
    except orjson.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refusal(INVALID, "Data sent for parameter 'symbols' is not valid.")
    return names


def klines(question: Question) -> bytes:
    """`klines`: bars of twelve columns."""
    market = question.market()
    interval = INTERVALS.get(question.parameters.required("interval"))
    if interval is None or (question.venue.futures and interval.step == SECOND_MS):
        raise Refusal(BAD_INTERVAL, "Invalid interval.")
    if question.parameters.text("timeZone") not in (None, "0"):
        raise Refusal(INVALID, "Data sent for parameter 'timeZone' is not valid.")
    span = question.span(question.limit(500, question.venue.max_bars))
    return question.exchange.bars(market, interval, span, _kline_rows)


def agg_trades(question: Question) -> bytes:
    """`aggTrades`: from an id, or of at most an hour, or the latest."""
    market, parameters = question.market(), question.parameters
    span = question.span(question.limit(500, 1000))
    start, end = question.times()
    from_id = parameters.integer("fromId")
    if from_id is not None and parameters.has("startTime", "endTime"):
        raise Refusal(BAD_COMBINATION, "Combination of optional parameters invalid.")
    if start is not None and end is not None and end - start > HOUR_MS:
        raise Refusal(LOOKUP_TOO_LONG, "More than 1 hours between startTime and endTime.")
    if from_id is not None:
        positions = _from_id(question, market, from_id, span.limit)
    else:
        data = question.exchange.data
        first, stop = data.position_at(market, span.start), data.position_at(market, span.end)
        positions = Span(first, stop, span.limit, span.latest)
    render = _futures_agg_rows if question.venue.futures else _spot_agg_rows
    return question.exchange.trades(market, positions, render)


def trades(question: Question) -> bytes:
    """`trades`: the latest, one by one."""
    market = question.market()
    latest = Span(0, _AFTER_ALL, question.limit(500, 1000), latest=True)
    render = _futures_trade_rows if question.venue.futures else _spot_trade_rows
    return question.exchange.trades(market, latest, render)


def historical_trades(question: Question) -> bytes:
    """`historicalTrades`: one by one from an id, or the latest."""
    market = question.market()
    most = 500 if question.venue.futures else 1000
    limit = question.limit(min(500, most), most)
    from_id = question.parameters.integer("fromId")
    positions = Span(0, _AFTER_ALL, limit, latest=True)
    if from_id is not None:
        positions = _from_id(question, market, from_id, limit)
    render = _futures_trade_rows if question.venue.futures else _spot_trade_rows
    return question.exchange.trades(market, positions, render)


def _from_id(question: Question, market: Market, from_id: int, limit: int) -> Span:
    return Span(question.exchange.data.position_of(market, from_id), _AFTER_ALL, limit)


def depth(question: Question) -> bytes:
    """`depth`: the book; spot takes any limit up to 5000, futures only some."""
    market = question.market()
    if question.venue.futures:
        limit = question.parameters.integer("limit") or 500
        if limit not in _DEPTH_LIMITS:
            raise Refusal(BAD_DEPTH_LIMIT, f"{limit} is not valid depth limit.")
    else:
        limit = question.limit(100, 5000)
    book = question.exchange.book(market, limit)
    answer: dict[str, object] = {"lastUpdateId": book.update_id}
    if question.venue.futures:
        answer |= {"E": book.time_ms, "T": book.time_ms}
    return orjson.dumps(answer | {"bids": book.bids, "asks": book.asks})


def funding_rate(question: Question) -> bytes:
    """`fundingRate`: settlements of one market or of all, the latest if no time is given."""
    exchange, span = question.exchange, question.span(question.limit(100, 1000))
    if question.parameters.has("symbol"):
        return exchange.funding(question.market(), span, _funding_rows)
    rows = [
        row
        for market in exchange.markets(question.venue.exchange)
        for row in orjson.loads(exchange.funding(market, span, _funding_rows))
    ]
    rows.sort(key=itemgetter("fundingTime"))
    return orjson.dumps(rows[-span.limit :] if span.latest else rows[: span.limit])


def _kline_rows(interval: Interval, bars: Bars) -> list[bytes]:
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


def _agg_rows(rows: Trades, form: str) -> list[bytes]:
    makers = ["true" if sell else "false" for sell in rows.sells]
    columns = zip(
        rows.ids, rows.prices, rows.amounts, rows.ids, rows.ids, rows.times_ms, makers, strict=True
    )
    return [(form % row).encode() for row in columns]


def _spot_agg_rows(rows: Trades) -> list[bytes]:
    form = '{"a":%d,"p":"%s","q":"%s","f":%d,"l":%d,"T":%d,"m":%s,"M":true}'
    return _agg_rows(rows, form)


def _futures_agg_rows(rows: Trades) -> list[bytes]:
    return _agg_rows(rows, '{"a":%d,"p":"%s","q":"%s","f":%d,"l":%d,"T":%d,"m":%s}')


def _trade_rows(rows: Trades, form: str) -> list[bytes]:
    makers = ["true" if sell else "false" for sell in rows.sells]
    costs = [
        format(Decimal(price) * Decimal(amount), "f")
        for price, amount in zip(rows.prices, rows.amounts, strict=True)
    ]
    columns = zip(rows.ids, rows.prices, rows.amounts, costs, rows.times_ms, makers, strict=True)
    return [(form % row).encode() for row in columns]


def _spot_trade_rows(rows: Trades) -> list[bytes]:
    form = (
        '{"id":%d,"price":"%s","qty":"%s","quoteQty":"%s","time":%d,'
        '"isBuyerMaker":%s,"isBestMatch":true}'
    )
    return _trade_rows(rows, form)


def _futures_trade_rows(rows: Trades) -> list[bytes]:
    form = '{"id":%d,"price":"%s","qty":"%s","quoteQty":"%s","time":%d,"isBuyerMaker":%s}'
    return _trade_rows(rows, form)


def _funding_rows(market: Market, funding: Funding) -> list[bytes]:
    columns = zip(funding.times_ms, funding.rates, funding.mark_prices, strict=True)
    form = '{"symbol":"%s","fundingTime":%d,"fundingRate":"%s","markPrice":"%s"}'
    return [(form % (market.id, *row)).encode() for row in columns]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    answer: Callable[[Question], bytes]
    parameters: tuple[str, ...]


_TIMES = ("startTime", "endTime", "limit")
_ENDPOINTS: Mapping[str, _Endpoint] = {
    "ping": _Endpoint(ping, ()),
    "time": _Endpoint(time, ()),
    "exchangeInfo": _Endpoint(info, ("symbol", "symbols")),
    "klines": _Endpoint(klines, ("symbol", "interval", "timeZone", *_TIMES)),
    "aggTrades": _Endpoint(agg_trades, ("symbol", "fromId", *_TIMES)),
    "trades": _Endpoint(trades, ("symbol", "limit")),
    "historicalTrades": _Endpoint(historical_trades, ("symbol", "limit", "fromId")),
    "depth": _Endpoint(depth, ("symbol", "limit")),
    "fundingRate": _Endpoint(funding_rate, ("symbol", *_TIMES)),
}


def answer(
    exchange: Exchange, venue: Venue, endpoint: str, pairs: Sequence[tuple[str, str]]
) -> bytes:
    """The JSON body that a venue answers with.

    Parameters
    ----------
    exchange : Exchange
        Where the data come from.
    venue : Venue
        Who is asked.
    endpoint : str
        The path after the venue's prefix, such as `klines`.
    pairs : sequence of (str, str)
        The parameters as they came.

    Raises
    ------
    Refusal
        Binance would answer with an error.
    """
    known = _ENDPOINTS.get(endpoint)
    if known is None or (endpoint == "fundingRate" and not venue.futures):
        raise Refusal(-5000, f"Path {venue.prefix}{endpoint}, Method GET is invalid", status=404)
    parameters = Parameters(pairs, known.parameters, strict=not venue.futures)
    return known.answer(Question(exchange, venue, parameters))


def error_body(code: int, message: str) -> bytes:
    """Binance's JSON for an error."""
    return orjson.dumps({"code": code, "msg": message})
