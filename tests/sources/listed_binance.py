"""Binance's REST API over lists of rows, so that a test says exactly what it serves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from aiohttp import web

from lake.model.time import to_ms
from lake.sandbox import Market
from lake.sandbox.exchange_info import build_exchange_info
from lake.sandbox.venues import VENUES

Rows = list[Any]


@dataclass
class ListedBinance:
    """Answers `exchangeInfo`, `klines` and `aggTrades`.

    Parameters
    ----------
    klines
        Rows by symbol and interval: `BTCUSDT 1m`.
    trades
        Rows by symbol, sorted by id.
    misroute
        Returns the symbol whose rows a request gets instead, from the symbol and the number of
        the request.
    """

    now: datetime
    klines: dict[str, Rows] = field(default_factory=dict)
    trades: dict[str, Rows] = field(default_factory=dict)
    misroute: Callable[[str, int], str] = lambda symbol, _: symbol
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def data_requests(self) -> list[dict[str, str]]:
        return [query for path, query in self.asked if path != "exchangeInfo"]

    async def answer(self, request: web.Request) -> web.Response:
        _, host, *_, path = request.path.split("/")
        query = dict(request.query)
        self.asked.append((path, query))
        body: Any
        if path == "exchangeInfo":
            spot = "api.b" in host
            markets = [Market("binance", "BTC", "USDT", 2, 5, "5")] if spot else []
            body = build_exchange_info(VENUES["api.binance.com"], markets, to_ms(self.now))
        else:
            symbol = self.misroute(query["symbol"], len(self.asked))
            body = self._find_rows(path, symbol, query)
        if body is None:
            error = b'{"code": -1120, "msg": "Invalid interval."}'
            return web.Response(body=error, status=400, content_type="application/json")
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    def _find_rows(self, path: str, symbol: str, query: dict[str, str]) -> Rows | None:
        if path == "klines":
            rows = self.klines.get(f"{symbol} {query['interval']}")
            return None if rows is None else _cut(rows, query, lambda row: row[0])
        rows = self.trades.get(symbol, [])
        if "fromId" in query:
            rows = [row for row in rows if row["a"] >= int(query["fromId"])]
            return rows[: int(query["limit"])]
        return _cut(rows, query, lambda row: row["T"])


def _cut(rows: Rows, query: dict[str, str], time_of: Callable[[Any], int]) -> Rows:
    start, end = int(query["startTime"]), int(query["endTime"])
    return [row for row in rows if start <= time_of(row) <= end][: int(query["limit"])]


def make_kline(time: datetime, length: timedelta, price: str = "1.5") -> list[Any]:
    opened = to_ms(time)
    closed = opened + to_ms(time + length) - to_ms(time) - 1
    return [opened, price, "2", "1", price, "9", closed, "9", 1, "1", "1", "0"]


def make_klines(start: datetime, end: datetime, step: timedelta, price: str = "1.5") -> Rows:
    count = -((start - end) // step)
    return [make_kline(start + n * step, step, price) for n in range(count)]


def make_trade(number: int, time: datetime, price: str = "100") -> dict[str, Any]:
    row = {"a": number, "p": price, "q": "1", "f": number, "l": number}
    return {**row, "T": to_ms(time), "m": False, "M": True}


def make_trades(
    first: int, start: datetime, count: int, step: timedelta, price: str = "100"
) -> Rows:
    return [make_trade(first + n, start + n * step, price) for n in range(count)]
