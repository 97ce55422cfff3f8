"""A client of one exchange over ccxt: strict about answers, with the errors of `lake`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import ccxt.async_support as ccxt
from pydantic import SecretStr

from lake.errors import RefusalReason, SourceError, SourceRefusedError
from lake.log import get_logger
from lake.model.venues import find_capabilities
from lake.settings import ExchangeSettings, HttpSettings, RetrySettings
from lake.sources.ccxt_strict import PARSER_ERRORS, collect_unreadable, make_strict
from lake.sources.faults import Fault, Retrier, build_refusal
from lake.sources.market_lists import choose_lists, find_lists, select_lists
from lake.sources.names import build_unknown_name_error
from lake.sources.refusals import is_too_long_ago
from lake.sources.session import Session

T = TypeVar("T")

_log = get_logger(__name__)


class Client:
    """A connected exchange.

    Attributes
    ----------
    exchange
        The strict ccxt exchange; `load_markets` has not been called.
    contradictions
        Count of answers that contradicted others, as answers of another market do.
    """

    def __init__(self, exchange: Any, session: Session) -> None:
        self.exchange = exchange
        self.contradictions = 0
        self._session = session
        self._loading = asyncio.Lock()
        self._list_names = find_lists(exchange.options)
        self._loaded: set[str] = set()
        self._failures: dict[str, SourceError] = {}

    @property
    def id(self) -> str:
        return str(self.exchange.id)

    @property
    def requests(self) -> int:
        """Number of requests so far, retries included."""
        return self._session.requests

    @property
    def concurrency(self) -> int:
        """How many requests are sent at once now."""
        return self._session.gate.concurrency

    def now(self) -> datetime:
        """Return the local time."""
        return self._session.now()

    def venue_now(self) -> datetime:
        """Return the earlier of the local time and the venue's time."""
        return self._session.venue_now()

    async def markets(self, symbol: str) -> Mapping[str, Any]:
        """Return ccxt's markets by symbol, with the lists of the venue that can hold one of them.

        Only these are loaded, each once: a host that refuses does not stop the others.

        Raises
        ------
        SourceError, SourceRefusedError, SourceUnavailableError
            As for `call`, also for later calls with symbols of the same list.
        """
        markets, errors = await self._load_lists(choose_lists(symbol, self._list_names))
        if errors and "/" in symbol and symbol not in markets:
            raise errors[0]
        return markets

    async def all_markets(self) -> Mapping[str, Any]:
        """Return ccxt's markets by symbol, from all lists that the venue gives.

        Raises
        ------
        SourceError, SourceRefusedError, SourceUnavailableError
            It gives none of its lists.
        """
        return (await self._load_lists(self._list_names))[0]

    async def _load_lists(
        self, names: Sequence[str]
    ) -> tuple[Mapping[str, Any], list[SourceError]]:
        errors: dict[str, SourceError] = {}
        async with self._loading:
            for name in names:
                try:
                    await self._load(name)
                except SourceError as error:
                    errors[name] = error
            markets: Mapping[str, Any] = self.exchange.markets or {}
        if len(errors) == len(names):
            raise next(iter(errors.values()))
        for name, failure in errors.items():
            _log.warning("markets_not_given", exchange=self.id, list=name, error=str(failure))
        if not markets:
            raise SourceError(f"{self.id} lists no markets", _DRIFT_HINT)
        return markets, list(errors.values())

    async def _load(self, name: str) -> None:
        if name in self._failures:
            raise self._failures[name]
        if name in self._loaded:
            return
        before = list((self.exchange.markets or {}).values())
        options = self.exchange.options
        chosen = select_lists(options, [name])
        everything = {key: options[key] for key in chosen if chosen[key] is not options[key]}
        options.update(chosen)
        try:
            listed: Mapping[str, Any] = await self.call("load_markets", True)  # noqa: FBT003 - ccxt
        except SourceError as error:
            self._failures[name] = error
            raise
        finally:
            options.update(everything)
        if before:
            self.exchange.set_markets([*before, *listed.values()], self.exchange.currencies)
        self._loaded.add(name)

    async def call(
        self,
        method: str,
        *arguments: Any,
        read: Callable[[Any], T] = lambda answer: answer,
        unreadable: list[Any] | None = None,
    ) -> T:
        """Call a method of ccxt's exchange and return the answer.

        Parameters
        ----------
        method
            The name of the method, unified or implicit.
        arguments
            The arguments of the method.
        read
            Parses and checks the answer; if it raises `Fault`, the request is repeated.
        unreadable
            Gets the records of the answer that ccxt cannot parse, before `read` is called; without
            it they are logged.

        Raises
        ------
        SourceRefusedError
            The venue refused the request; its reason says which kind of refusal it is.
        SourceUnavailableError
            No attempt returned a usable answer.
        SourceError
            The format of the answer is unknown.
        """
        request = self._session.remove_secrets(f"{method}({', '.join(map(repr, arguments))})")
        function = getattr(self.exchange, method)

        async def call_once() -> T:
            try:
                with collect_unreadable() as records:
                    answer = await function(*arguments)
                if unreadable is not None:
                    unreadable[:] = records
                elif records:
                    _log.warning("records_unreadable", exchange=self.id, first=repr(records[0]))
                return read(answer)
            except ccxt.OperationFailed as error:
                raise Fault(
                    self._session.remove_secrets(f"{type(error).__name__} {error}")
                ) from error
            except ccxt.BaseError as error:
                raise self._to_error(request, error) from error
            except PARSER_ERRORS as error:
                raise build_format_error(self.id, f"{request}: {error!r}") from error

        return await self._session.retrier.run(request, call_once)

    def _to_error(self, request: str, error: Exception) -> SourceRefusedError:
        words = self._session.remove_secrets(error)
        refusal = build_refusal(self.id, request, words, _find_reason(error, words))
        if isinstance(error, ccxt.AuthenticationError):
            refusal.hint += f" {_describe_use_of_key(self.id)}"
        return refusal

    async def close(self) -> None:
        """Close the connections."""
        await self.exchange.close()


def _find_reason(error: Exception, words: str) -> RefusalReason:
    if isinstance(error, ccxt.BadSymbol):
        return "not_listed"
    if isinstance(error, (ccxt.AuthenticationError, ccxt.RestrictedLocation)):
        return "forbidden"
    return "too_long_ago" if is_too_long_ago(words) else "refused"


_DRIFT_HINT = "Its format may have changed: try a newer ccxt (pip install -U ccxt)."


def build_format_error(venue: str, what: str) -> SourceError:
    """Build the error for an answer with an unknown format."""
    return SourceError(f"{venue} answered in an unknown format: {what}", _DRIFT_HINT)


def connect(
    exchange_id: str,
    *,
    now: Callable[[], datetime],
    http: HttpSettings,
    retry: RetrySettings,
    settings: ExchangeSettings,
) -> Client:
    """Create a client of an exchange of ccxt, without sending a request.

    Parameters
    ----------
    exchange_id
        The id of the exchange in ccxt: `binance`, `kraken`.
    now
        The local clock, in UTC.
    http, retry
        Settings of requests and retries.
    settings
        A URL that replaces the venue's own hosts (`https://host/path` becomes
        `url/host/path`), and credentials. These are sent only to a venue that asks for them for
        public data (`Capabilities.needs_key`).

    Raises
    ------
    UnknownNameError
        ccxt has no such exchange; the hint lists the closest names.
    """
    if exchange_id not in ccxt.exchanges:
        raise build_unknown_name_error(
            "unknown exchange", exchange_id, dict.fromkeys(ccxt.exchanges, ())
        )
    keys = {"apiKey": settings.api_key, "secret": settings.secret, "password": settings.password}
    configured = {name: key.get_secret_value() for name, key in keys.items() if _is_set(key)}  # type: ignore[union-attr]
    credentials = configured if find_capabilities(exchange_id).needs_key else {}
    secrets = [*configured.values(), *(settings.url.list_secrets() if settings.url else ())]
    session = Session(
        Retrier(exchange_id, retry), now, http.concurrency, tuple(secrets), http.max_answer_bytes
    )
    timeout_ms = int(http.timeout_seconds * 1000)
    options = {**credentials, "enableRateLimit": http.rate_limit, "timeout": timeout_ms}
    exchange = make_strict(getattr(ccxt, exchange_id), session)(options)
    if settings.url is not None:
        _redirect(exchange, settings.url.get_secret_value().rstrip("/"))
    return Client(exchange, session)


def _redirect(exchange: Any, base: str) -> None:
    exchange.urls = {**exchange.urls, "api": redirect_urls(exchange.urls["api"], base)}
    # ccxt waits for the shutdown of TLS, which plain HTTP does not have
    exchange.timeout_on_exit = 0 if base.startswith("http://") else 250


def redirect_urls(urls: Any, base: str) -> Any:
    """Return ccxt's `urls["api"]` with each `https://host/path` replaced by `base/host/path`."""
    if isinstance(urls, dict):
        return {name: redirect_urls(url, base) for name, url in urls.items()}
    if isinstance(urls, list):
        return [redirect_urls(url, base) for url in urls]
    return re.sub(r"^https?://", f"{base}/", urls) if isinstance(urls, str) else urls


def _describe_use_of_key(exchange_id: str) -> str:
    if find_capabilities(exchange_id).needs_key:
        return f"Check exchanges.{exchange_id}.api_key and secret in the settings."
    return "Public data are asked without a key: api_key and secret are not sent."


def _is_set(key: SecretStr | None) -> bool:
    return key is not None and bool(key.get_secret_value())
