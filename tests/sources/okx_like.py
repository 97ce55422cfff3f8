"""OKX's REST API for one market, with the habits that a test chooses."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from aiohttp import web

from lake.model.time import from_ms, to_ms

MINUTE_MS = 60_000
_STEPS = {"1m": 1, "1H": 60, "1Dutc": 1440, "1Wutc": 10_080, "1Mutc": 43_200}
_SPOT = {
    "alias": "", "baseCcy": "BTC", "category": "1", "ctMult": "", "ctType": "", "ctVal": "",
    "ctValCcy": "", "expTime": "", "instFamily": "", "instId": "BTC-USDT", "instType": "SPOT",
    "lever": "10", "listTime": "1548133413000", "lotSz": "0.00000001", "maxLmtSz": "9999999999",
    "minSz": "0.00001", "optType": "", "quoteCcy": "USDT", "settleCcy": "", "state": "live",
    "stk": "", "tickSz": "0.1", "uly": "",
}  # fmt: skip
TOO_LONG_AGO = "Candlestick too long ago. Maximum 10000 points recently are allowed"


@dataclass
class OkxLike:
    """Answers `instruments` and `candles`: newest first, the newest of the requested range.

    Parameters
    ----------
    listed
        The time of the first bar.
    most
        Bars of an answer: ccxt believes in 300.
    oldest
        Returns the time before which bars are refused; None for no limit.
    has_bar
        Whether there is a bar of a minute.
    longest
        The most time that one answer spans, from the start of the requested range on.
    """

    now: datetime
    listed: datetime
    most: int = 300
    oldest: Callable[[], datetime] | None = None
    has_bar: Callable[[datetime], bool] = lambda _: True
    longest: timedelta | None = None
    asked: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        body: Any = {"code": "0", "msg": "", "data": []}
        if "instruments" in request.path:
            body["data"] = [_SPOT] if query.get("instType") == "SPOT" else []
        elif "candles" in request.path:
            self.asked.append(query)
            if self._is_refused(query):
                body = {"code": "51000", "msg": TOO_LONG_AGO, "data": []}
            else:
                body["data"] = self._find_rows(query)
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    def _is_refused(self, query: dict[str, str]) -> bool:
        return (
            self.oldest is not None
            and "before" in query
            and int(query["before"]) + 1 < to_ms(self.oldest())
        )

    def _find_rows(self, query: dict[str, str]) -> list[Any]:
        step = _STEPS[query["bar"]] * MINUTE_MS
        end = min(to_ms(self.now), int(query.get("after", 1 << 60)))
        start = max(to_ms(self.listed) // step * step, int(query.get("before", -1)) + 1)
        start = max(start, end - 100_000 * step)
        if self.longest is not None and "before" in query:
            end = min(end, int(query["before"]) + self.longest // timedelta(milliseconds=1))
        times = range(-(-start // step) * step, end, step)
        kept = [t for t in times if step > MINUTE_MS or self.has_bar(from_ms(t))]
        count = min(self.most, int(query.get("limit", 100)))
        return [[str(t), "100", "101", "99", "100.5", "1", "1", "100", "1"] for t in kept][::-1][
            :count
        ]
