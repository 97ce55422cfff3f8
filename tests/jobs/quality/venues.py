"""Small exchanges on loopback, which the real client asks: HTX with its days."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson

from lake.model.time import to_ms

Answer = Callable[[str, Mapping[str, str]], Any]
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_HTX_SYMBOL = {
    "symbol": "btcusdt", "base-currency": "btc", "quote-currency": "usdt", "bc": "btc",
    "qc": "usdt", "sc": "btcusdt", "state": "online", "te": True, "cd": False, "sp": "main",
    "tpp": 2, "tap": 6, "fp": 8, "ttp": 8, "lr": 5, "price-precision": 2, "amount-precision": 6,
    "symbol-partition": "main", "value-precision": 8, "min-order-amt": 0.0001,
    "max-order-amt": 1000, "min-order-value": 10, "limit-order-min-order-amt": 0.0001,
    "limit-order-max-order-amt": 1000, "api-trading": "enabled",
}  # fmt: skip
_HTX_BARS = {"60min": (HOUR_MS, 0), "1day": (DAY_MS, 16 * HOUR_MS), "1week": (7 * DAY_MS, 0)}


@contextmanager
def serving(answer: Answer, now: datetime) -> Iterator[str]:
    """Serve JSON: `answer(path, query)`; gives the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = orjson.dumps(answer(parts.path, dict(parse_qsl(parts.query))))
            self.send_response_only(200)
            self.send_header("Date", now.strftime("%a, %d %b %Y %H:%M:%S GMT"))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the output of tests clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def htx(now: datetime, missing: frozenset[int] = frozenset()) -> Answer:
    """HTX: days open at 16:00 UTC, weeks on Thursday; days of open times `missing` are not sent."""

    def answer(path: str, query: Mapping[str, str]) -> Any:
        ok = {"status": "ok", "ts": to_ms(now), "ch": "x"}
        if "currencies" in path:
            return {"code": 200, "data": []}
        if "history" not in path:
            return ok | {"data": [_HTX_SYMBOL] if "symbols" in path else []}
        step, offset = _HTX_BARS[query["period"]]
        end = int(query["to"]) * 1000 if "to" in query else to_ms(now)
        start = int(query["from"]) * 1000 if "from" in query else end - 2000 * step
        first = -(-(start - offset) // step) * step + offset
        opens = [t for t in range(first, end + 1, step) if step != DAY_MS or t not in missing]
        return ok | {"data": [_htx_bar(t, step // HOUR_MS) for t in opens][-2000:]}

    return answer


def _htx_bar(opens: int, hours: int) -> dict[str, float]:
    inside = [100 + (opens // HOUR_MS + n) % 9 for n in range(hours + 1)]
    return {
        "id": opens // 1000, "open": inside[0], "close": inside[-1], "high": max(inside) + 1,
        "low": min(inside) - 1, "amount": float(hours), "vol": 100.0 * hours, "count": 10,
    }  # fmt: skip
