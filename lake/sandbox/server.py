"""The HTTP server: routes requests to venues, counts request weight, and applies faults."""

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import web

from lake.errors import ConfigError
from lake.sandbox.binance import answer, render_error
from lake.sandbox.exchange import CACHE_BYTES, Clock, Exchange, utc_now
from lake.sandbox.faults import Fault, Faults
from lake.sandbox.market import MarketData
from lake.sandbox.parameters import Refusal
from lake.sandbox.transport import Answer, apply_fault, build_refusal, send
from lake.sandbox.venues import VENUES, Venue
from lake.sandbox.weights import WeightCounter

LOOPBACK = "127.0.0.1"

_LOG_ENTRIES = 100_000  # about 30 MB; the oldest are dropped first
_KINDS_OF_HEADERS = 1000  # clients repeat theirs: equal ones are stored once


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One request to an exchange and its outcome.

    `path` is `/host/path`; `status` is 0 if no answer was sent; `fault` is its kind, or empty;
    `headers` are those of the request, as pairs of name and value.
    """

    time: datetime
    path: str
    query: str
    status: int
    fault: str
    headers: tuple[tuple[str, str], ...] = ()


class Server:
    """The state of a sandbox, and the handler of requests to its exchanges.

    Parameters
    ----------
    data : MarketData
        The markets.
    now : callable
        The clock. Rows at or after it are not served.
    weight_limit : bool
        Whether to refuse clients that use more request weight than Binance allows.
    cache_bytes : int
        Memory for rendered rows.
    """

    def __init__(
        self,
        data: MarketData,
        *,
        now: Clock = utc_now,
        weight_limit: bool = True,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.exchange = Exchange(data, now, cache_bytes)
        self.faults = Faults()
        self.log: deque[LogEntry] = deque(maxlen=_LOG_ENTRIES)
        self._has_weight_limit = weight_limit
        self._counters = {host: WeightCounter(venue.weight_limit) for host, venue in VENUES.items()}
        self._previous: dict[tuple[str, str], Answer] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request to `/<host>/<path>`."""
        host, _, path = request.path.lstrip("/").partition("/")
        venue = VENUES.get(host)
        fault: Fault | None = None
        if venue is None or not path.startswith(venue.prefix.lstrip("/")):
            message = f"Path {request.path}, Method {request.method} is invalid"
            prepared = Answer(404, render_error(-5000, message), self._headers())
        else:
            endpoint = path.removeprefix(venue.prefix.lstrip("/"))
            prepared, fault = self._prepare(request, venue, endpoint)
        kind = fault.kind if fault else ""
        status = 0 if kind in ("reset", "timeout") else prepared.status
        time = self.exchange.now()
        headers = _keep_once(tuple(request.headers.items()))
        self.log.append(LogEntry(time, request.path, request.query_string, status, kind, headers))
        return await send(request, prepared, kind, fault.hang_seconds if fault else 0.0)

    def _prepare(
        self, request: web.Request, venue: Venue, endpoint: str
    ) -> tuple[Answer, Fault | None]:
        """Return the answer to send and the fault to send it with."""
        usage = self._counters[venue.host].count(_count_weight(request, venue, endpoint))
        headers = self._headers() | {"X-MBX-USED-WEIGHT-1M": str(usage.used)}
        if self._has_weight_limit and usage.status:
            return build_refusal(usage.status, usage.retry_after, usage.message, headers), None
        fault = self.faults.pick(request.path_qs)
        correct = self._answer(venue, endpoint, list(request.query.items()), headers)
        page = (request.path, request.query.get("symbol", ""))
        previous = self._previous.get(page, correct)
        if correct.status == HTTPStatus.OK:
            self._previous[page] = correct
        if fault is None:
            return correct, None
        if fault.kind == "misrouted":
            return self._misroute(request, venue, endpoint, headers) or correct, fault
        return (previous if fault.kind == "duplicate" else apply_fault(correct, fault)), fault

    def _answer(
        self,
        venue: Venue,
        endpoint: str,
        pairs: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
    ) -> Answer:
        try:
            body = answer(self.exchange, venue, endpoint, pairs)
        except Refusal as error:
            return Answer(error.status, render_error(error.code, error.message), headers)
        return Answer(200, body, headers)

    def _misroute(
        self, request: web.Request, venue: Venue, endpoint: str, headers: Mapping[str, str]
    ) -> Answer | None:
        """Answer the same request for another market; None if it names none, or there is none."""
        ids = [market.id for market in self.exchange.markets(venue.exchange)]
        symbol = request.query.get("symbol")
        other = next((name for name in ids if name != symbol), None)
        if symbol not in ids or other is None:
            return None
        pairs = [(key, other if key == "symbol" else value) for key, value in request.query.items()]
        return self._answer(venue, endpoint, pairs, headers)

    def _headers(self) -> dict[str, str]:
        return {"Date": formatdate(self.exchange.now_ms() / 1000, usegmt=True)}


@lru_cache(_KINDS_OF_HEADERS)
def _keep_once(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return headers


def _count_weight(request: web.Request, venue: Venue, endpoint: str) -> int:
    limit = request.query.get("limit", "")
    default = 100 if endpoint == "depth" and not venue.futures else 500
    return venue.weight(endpoint, int(limit) if limit.isascii() and limit.isdigit() else default)


@asynccontextmanager
async def listen(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve an application while the context lasts; yield its URL.

    Raises
    ------
    ConfigError
        The host is not loopback, or the port is not available.
    """
    if host not in (LOOPBACK, "localhost"):
        raise ConfigError(
            f"The sandbox serves this machine only; it cannot listen on {host}.",
            f"Use the host {LOOPBACK}.",
        )
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, LOOPBACK, port).start()
        except OSError as error:
            raise ConfigError(
                f"The sandbox cannot listen on {LOOPBACK}:{port}: {error.strerror}.",
                "Choose another port, or 0 for any free port.",
            ) from error
        address = runner.addresses[0]
        yield f"http://{LOOPBACK}:{address[1]}"
    finally:
        await runner.cleanup()
