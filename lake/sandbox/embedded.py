"""Runs a sandbox: in a background thread of this process, or in the foreground until stopped."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from threading import Thread
from types import TracebackType
from typing import Self, TypeVar

from lake.sandbox.control import build_application
from lake.sandbox.exchange import CACHE_BYTES, Clock, Revision, utc_now
from lake.sandbox.faults import Fault, FaultPlan, RandomFaults
from lake.sandbox.market import MarketData
from lake.sandbox.server import LOOPBACK, LogEntry, Server, listen
from lake.sandbox.synthetic import SyntheticMarkets

T = TypeVar("T")


class Sandbox:
    """An exchange on this machine that runs as long as the `with` block.

    Any Binance client can use it once its base URLs `https://<host>` are replaced by
    `<sandbox.url>/<host>`; see `redirect`.

    Parameters
    ----------
    data : MarketData, optional
        The markets; `SyntheticMarkets()` by default.
    now : callable, optional
        The clock, real time by default. Rows at or after it are not served.
    host, port : str, int
        Address to listen on; port 0 takes any free port.
    weight_limit : bool, default True
        Whether to refuse clients that use more request weight than Binance allows.
    cache_bytes : int
        Memory for rendered rows.

    Raises
    ------
    ConfigError
        On entering the context: the port is in use, or the host is not loopback.
    """

    def __init__(
        self,
        data: MarketData | None = None,
        *,
        now: Clock = utc_now,
        host: str = LOOPBACK,
        port: int = 0,
        weight_limit: bool = True,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._server = Server(
            data or SyntheticMarkets(), now=now, weight_limit=weight_limit, cache_bytes=cache_bytes
        )
        self._address = (host, port)
        self.url = ""

    @property
    def port(self) -> int:
        """The port on which the sandbox listens."""
        return int(self.url.rpartition(":")[2])

    def __enter__(self) -> Self:
        ready: Future[str] = Future()
        self._thread = Thread(target=self._run, args=(ready,), name="lake-sandbox", daemon=True)
        self._thread.start()
        self.url = ready.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, ready: "Future[str]") -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:  # raised in the thread that waits for the URL
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, ready: "Future[str]") -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with listen(build_application(self._server), *self._address) as url:
            ready.set_result(url)
            await self._stop.wait()

    def _run_in_server(self, act: Callable[[], T]) -> T:
        """Run a function in the server's thread, the only one that touches the server's state."""

        async def run() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def fail(self, *faults: Fault) -> None:
        """Append faults to the script; each applies to the next requests that match it."""
        for fault in faults:
            self._run_in_server(partial(self._server.faults.add, fault))

    def fail_at_random(self, faults: RandomFaults) -> None:
        """Apply faults to a random share of all requests; replace all earlier faults."""
        self._run_in_server(lambda: self._server.faults.set(FaultPlan(random=faults)))

    def go_down(self) -> None:
        """Answer every request with 503 until `recover` is called."""
        self._run_in_server(lambda: self._server.faults.set(FaultPlan(down=True)))

    def recover(self) -> None:
        """Remove all faults."""
        self._run_in_server(lambda: self._server.faults.set(FaultPlan()))

    def revise(
        self,
        symbol: str,
        interval: str,
        timestamp: datetime,
        *,
        exchange: str | None = None,
        **changes: str | int,
    ) -> None:
        """Change a bar from now on, as a venue does when it corrects its data.

        Parameters
        ----------
        symbol, interval, timestamp
            ccxt's unified symbol, Binance's interval, and when the bar opens.
        exchange : str, optional
            ccxt's id; without it, the first exchange that has the symbol.
        **changes
            New values of columns of `Bars`: decimals as they are to be served.

        Raises
        ------
        UsageError
            The market, interval, bar or column does not exist.
        """
        revision = Revision(symbol, interval, timestamp, changes, exchange)
        self._run_in_server(lambda: self._server.exchange.revise(revision))

    @property
    def log(self) -> Sequence[LogEntry]:
        """The last 100,000 requests to the exchanges, oldest first."""
        return self._run_in_server(lambda: list(self._server.log))

    def clear_log(self) -> None:
        """Delete all entries of the log."""
        self._run_in_server(self._server.log.clear)


def serve(
    data: MarketData,
    *,
    host: str = LOOPBACK,
    port: int = 0,
    now: Clock = utc_now,
    weight_limit: bool = True,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve a sandbox in the main thread until SIGINT or SIGTERM.

    Parameters
    ----------
    data : MarketData
        The markets.
    host, port, now, weight_limit
        As for `Sandbox`.
    on_ready : callable
        Called with the URL as soon as the sandbox answers requests.

    Raises
    ------
    ConfigError
        The port is in use, or the host is not loopback.
    """

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        server = Server(data, now=now, weight_limit=weight_limit)
        async with listen(build_application(server), host, port) as url:
            on_ready(url)
            await stop.wait()

    asyncio.run(run())


def redirect(urls: object, base: str) -> object:
    """Return ccxt's `urls["api"]` with every `https://<host>/…` replaced by `<base>/<host>/…`.

    Examples
    --------
    >>> exchange.urls["api"] = redirect(exchange.urls["api"], sandbox.url)
    """
    if isinstance(urls, dict):
        return {name: redirect(url, base) for name, url in urls.items()}
    if isinstance(urls, str) and urls.startswith("https://"):
        return f"{base}/{urls.removeprefix('https://')}"
    return urls
