"""One exchange over ccxt: connected, strict about answers, its errors turned into the lake's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import ccxt.async_support as ccxt
from pydantic import SecretStr

from lake.errors import SourceError, UnknownNameError
from lake.settings import ExchangeSettings, HttpSettings, RetrySettings
from lake.sources.ccxt_strict import Session, make_strict
from lake.sources.faults import Fault, Retrier
from lake.sources.names import build_unknown_name_error

T = TypeVar("T")

_PARSER_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Client:
    """A connected exchange.

    Attributes
    ----------
    exchange
        The strict ccxt exchange; `load_markets` has not been called.
    """

    def __init__(self, exchange: Any, session: Session) -> None:
        self.exchange = exchange
        self._session = session
        self._loading = asyncio.Lock()

    @property
    def id(self) -> str:
        return str(self.exchange.id)

    @property
    def requests(self) -> int:
        """Answers asked for so far, repeats included."""
        return self._session.requests

    def now(self) -> datetime:
        """The local time."""
        return self._session.now()

    def venue_now(self) -> datetime:
        """The earlier of the local time and the venue's."""
        return self._session.venue_now()

    async def markets(self) -> Mapping[str, Any]:
        """ccxt's markets by symbol, asked for once.

        Raises
        ------
        SourceError, SourceUnavailableError
            As for `call`.
        """
        async with self._loading:
            if not self.exchange.markets:
                markets: Mapping[str, Any] = await self.call("load_markets")
                if not markets:
                    raise SourceError(f"{self.id} lists no market", _DRIFT_HINT)
            return self.exchange.markets  # type: ignore[no-any-return]

    async def call(
        self, method: str, *arguments: Any, read: Callable[[Any], T] = lambda answer: answer
    ) -> T:
        """The answer of a method of ccxt's exchange.

        Parameters
        ----------
        method
            Its name, unified or implicit.
        arguments
            What it is called with.
        read
            Reads and checks the answer; where it raises `Fault`, the venue is asked again.

        Raises
        ------
        SourceUnavailableError
            No usable answer until the retries ran out.
        UnknownNameError
            The venue does not know the market, or cannot do this.
        SourceError
            It refused for good, or its answer cannot be read.
        """
        request = self._session.remove_secrets(f"{method}{arguments}")
        function = getattr(self.exchange, method)

        async def call_once() -> T:
            try:
                return read(await function(*arguments))
            except ccxt.OperationFailed as error:
                raise Fault(
                    self._session.remove_secrets(f"{type(error).__name__} {error}")
                ) from error
            except ccxt.BaseError as error:
                raise self._to_error(request, error) from error
            except _PARSER_ERRORS as error:
                raise build_format_error(self.id, f"{request}: {error!r}") from error

        return await self._session.retrier.run(request, call_once)

    def _to_error(self, request: str, error: Exception) -> SourceError | UnknownNameError:
        message = f"{self.id} refused {request}: {self._session.remove_secrets(error)}"
        if isinstance(error, ccxt.BadSymbol):
            return UnknownNameError(message, "The venue may have delisted the market.")
        if isinstance(error, ccxt.NotSupported):
            return UnknownNameError(message, "The venue cannot do this.")
        if isinstance(error, ccxt.AuthenticationError):
            hint = f"Check exchanges.{self.id}.api_key and secret in the settings."
            return SourceError(message, hint)
        return SourceError(message, "The request is wrong, or the venue does not serve it here.")

    async def close(self) -> None:
        """Close the connections."""
        await self.exchange.close()


_DRIFT_HINT = "Its format may have changed: a newer ccxt may read it (pip install -U ccxt)."


def build_format_error(venue: str, what: str) -> SourceError:
    """The error for an answer whose format is not the known one."""
    return SourceError(f"{venue} answered in a format that cannot be read: {what}", _DRIFT_HINT)


def connect(
    exchange_id: str,
    *,
    now: Callable[[], datetime],
    http: HttpSettings,
    retry: RetrySettings,
    settings: ExchangeSettings,
) -> Client:
    """An exchange of ccxt's; asks nothing yet.

    Parameters
    ----------
    exchange_id
        As ccxt spells it: `binance`, `kraken`.
    now
        The local clock, in UTC.
    http, retry
        How to ask.
    settings
        Another URL than the venue's own hosts (`https://host/path` becomes `url/host/path`), and
        credentials.

    Raises
    ------
    UnknownNameError
        ccxt has no such exchange: names the closest.
    """
    if exchange_id not in ccxt.exchanges:
        raise build_unknown_name_error(
            "there is no exchange", exchange_id, dict.fromkeys(ccxt.exchanges, ())
        )
    keys = {"apiKey": settings.api_key, "secret": settings.secret, "password": settings.password}
    credentials = {name: key.get_secret_value() for name, key in keys.items() if _is_set(key)}  # type: ignore[union-attr]
    session = Session(
        Retrier(exchange_id, retry), now, http.concurrency, tuple(credentials.values())
    )
    timeout_ms = int(http.timeout_seconds * 1000)
    options = {**credentials, "enableRateLimit": http.rate_limit, "timeout": timeout_ms}
    exchange = make_strict(getattr(ccxt, exchange_id), session)(options)
    if settings.url is not None:
        _redirect(exchange, settings.url.rstrip("/"))
    return Client(exchange, session)


def _redirect(exchange: Any, base: str) -> None:
    exchange.urls = {**exchange.urls, "api": redirect_urls(exchange.urls["api"], base)}
    # ccxt waits for TLS to say goodbye; plain HTTP has nothing to say
    exchange.timeout_on_exit = 0 if base.startswith("http://") else 250


def redirect_urls(urls: Any, base: str) -> Any:
    """ccxt's `urls["api"]` with each `https://host/path` turned into `base/host/path`."""
    if isinstance(urls, dict):
        return {name: redirect_urls(url, base) for name, url in urls.items()}
    if isinstance(urls, list):
        return [redirect_urls(url, base) for url in urls]
    return re.sub(r"^https?://", f"{base}/", urls) if isinstance(urls, str) else urls


def _is_set(key: SecretStr | None) -> bool:
    return key is not None and bool(key.get_secret_value())
