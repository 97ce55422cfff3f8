"""ccxt's REST client with strict checks: an incomplete or failed answer is a `Fault`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import ccxt
import orjson

from lake.errors import RefusalReason
from lake.sources.bounded import UnboundedAnswerError, create_session
from lake.sources.faults import (
    Fault,
    Trouble,
    parse_retry_after,
)
from lake.sources.refusals import (
    FORBIDDEN_STATUSES,
    GONE_STATUSES,
    extract_words,
    is_too_fast,
)
from lake.sources.session import Session
from lake.sources.venues.rate_limits import Limit, build_limit, find_limit

_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19
_REPEATABLE = frozenset({408, 418, 425, 429})
_TOO_FAST = frozenset({418, 429})
# what ccxt's parsers raise for a structure that they do not know
PARSER_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_RECORD_ERRORS = (*PARSER_ERRORS, ccxt.ExchangeError)

_unreadable: ContextVar[list[Any]] = ContextVar("unreadable")
_toll: ContextVar[tuple[Limit | None, float]] = ContextVar("toll", default=(None, 0.0))
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


def parse_json(text: str) -> Any:
    """Parse JSON; integers of any size stay exact.

    orjson converts integers beyond 64 bits to floats, which would change trade ids.

    Raises
    ------
    ValueError
        The text is not JSON, or is truncated.
    """
    if _LONG in text.encode().translate(_ZEROS):
        return json.loads(text, parse_constant=_no_constant)
    return orjson.loads(text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


@contextmanager
def collect_unreadable() -> Iterator[list[Any]]:
    """Collect the records that ccxt cannot parse in the requests of this task."""
    records: list[Any] = []
    token = _unreadable.set(records)
    try:
        yield records
    finally:
        _unreadable.reset(token)


def make_strict(base: type[Any], session: Session) -> type[Any]:
    """Create a subclass of an asynchronous ccxt exchange that repeats requests until they succeed.

    A request succeeds if its answer is a complete JSON body that does not report a temporary
    failure. Permanent refusals remain ccxt's errors. After the last attempt, the subclass raises
    `SourceUnavailableError`.
    """
    return type(base.__name__, (_Strict, base), {"lake_session": session})


if TYPE_CHECKING:

    class _Rest:
        """What is used and overridden of ccxt's asynchronous exchange; ccxt has no types."""

        session: Any
        tcp_connector: Any
        aiohttp_trust_env: bool

        def open(self, lazy: bool) -> None: ...  # noqa: FBT001 - ccxt

        id: str
        enableRateLimit: bool  # noqa: N815 - ccxt
        rateLimit: float  # noqa: N815 - ccxt
        rollingWindowSize: float  # noqa: N815 - ccxt

        def calculate_rate_limiter_cost(self, *request: Any) -> float: ...

        async def fetch2(
            self, path: Any, api: Any, method: str, params: Any, config: Any
        ) -> Any: ...

        async def fetch(self, url: str, method: str, headers: Any, body: Any) -> Any: ...

        def handle_errors(self, *answer: Any) -> Any: ...

        def handle_http_status_code(self, *answer: Any) -> None: ...

        def to_array(self, rows: Any) -> list[Any]: ...

        def parse_ohlcvs(self, rows: Any, *arguments: Any, **named: Any) -> Any: ...

        def parse_trades(self, rows: Any, *arguments: Any, **named: Any) -> Any: ...

        def parse_funding_rate_histories(self, rows: Any, *arguments: Any, **named: Any) -> Any: ...

        def parse_markets(self, rows: Any, *arguments: Any, **named: Any) -> Any: ...

else:
    _Rest = object


class _Strict(_Rest):
    """Precedes ccxt's class in the MRO; see `make_strict`."""

    lake_session: Session
    on_json_response = staticmethod(parse_json)

    async def fetch2(
        self,
        path: Any,
        api: Any = "public",
        method: str = "GET",
        params: Any = None,
        config: Any = None,
    ) -> Any:
        fetch2 = super().fetch2
        request = self.lake_session.remove_secrets(f"{method} {path} {dict(params or {})}")
        token = _toll.set(self._find_toll(path, api, method, params or {}, config or {}))
        try:
            return await self.lake_session.retrier.run(
                request, lambda: fetch2(path, api, method, params or {}, config or {})
            )
        finally:
            _toll.reset(token)

    async def throttle(self, cost: Any = None) -> None:
        """Wait for nothing: `fetch` paces requests at the moment when they are sent."""

    def _find_toll(self, path: Any, api: Any, *request: Any) -> tuple[Limit | None, float]:
        """Return the limit that a request uses, and how much of it."""
        if not self.enableRateLimit:
            return None, 0.0
        name = api if isinstance(api, str) else str(api[0])
        limit = find_limit(self.id, name, str(path))
        if limit is None:
            limit = build_limit(self.rateLimit, self.rollingWindowSize)
        method, params, config = request
        cost = self.calculate_rate_limiter_cost(api, method, path, params, config)
        return limit, limit.weigh(str(path), float(cost))

    def open(self, lazy: bool = False) -> None:  # noqa: FBT001, FBT002 - ccxt
        before = self.session
        super().open(lazy)
        if self.session is not None and self.session is not before:
            self.session.detach()  # from its connections, which the bounded session takes over
            self.session = create_session(
                self.tcp_connector, self.lake_session.max_bytes, trust_env=self.aiohttp_trust_env
            )

    async def fetch(
        self, url: str, method: str = "GET", headers: Any = None, body: Any = None
    ) -> Any:
        limit, weight = _toll.get()
        gate = self.lake_session.gate
        try:
            async with gate.pass_through(limit, weight):
                self.lake_session.requests += 1
                return await self._send(super().fetch, url, method, headers, body)
        except Fault as fault:
            if fault.trouble is not None:
                gate.note_trouble(fault.trouble, limit)
            raise

    async def _send(self, send: Callable[..., Any], url: str, method: str, *request: Any) -> Any:
        try:
            return await send(url, method, *request)
        except ccxt.OperationFailed as error:
            cause = f" ({error.__cause__!r})" if error.__cause__ is not None else ""
            words = f"{type(error).__name__} {error}{cause}"
            raise self._fault(words, trouble="overloaded") from error
        except ccxt.ExchangeError as error:
            # ccxt raises the class of a permanent refusal for an interrupted transfer, too
            if isinstance(error.__cause__, UnboundedAnswerError):
                raise self._fault(f"{method} {url}: {error.__cause__}") from error
            if isinstance(error.__cause__, aiohttp.ClientError):
                raise self._fault(f"transfer interrupted: {error.__cause__!r}") from error
            raise

    def handle_errors(
        self,
        code: int,
        reason: str,
        url: str,
        method: str,
        headers: Mapping[str, str],
        body: str,
        response: Any,
        *request: Any,
    ) -> Any:
        self._require_fresh(code, url, headers)
        self._check_status(code, reason, headers, body, response)
        try:
            return super().handle_errors(
                code, reason, url, method, headers, body, response, *request
            )
        except (ccxt.RateLimitExceeded, ccxt.DDoSProtection) as error:
            wait = self.lake_session.find_pause(headers, body)
            words = f"{type(error).__name__} {error}"
            raise self._fault(words, wait, trouble="too_fast") from error
        except (ccxt.ExchangeNotAvailable, *PARSER_ERRORS) as error:
            if code not in FORBIDDEN_STATUSES:
                raise
            raise ccxt.PermissionDenied(f"HTTP {code} {reason} {body}") from error

    def _require_fresh(self, code: int, url: str, headers: Mapping[str, str]) -> None:
        behind = self.lake_session.update_clock(urlsplit(url).netloc, headers)
        if behind is not None:
            raise self._fault(f"HTTP {code}, an answer that is {behind} old")

    def _check_status(
        self, code: int, reason: str, headers: Mapping[str, str], body: str, response: Any
    ) -> None:
        """Raise a fault for an answer that is not the venue's own, or that may pass."""
        if code in FORBIDDEN_STATUSES:
            self._check_refusal(f"HTTP {code} {reason}", headers, body, response)
        elif code >= _SERVER_ERROR or code in _REPEATABLE:
            words = f"HTTP {code} {reason} {extract_words(body)}"
            if code in _TOO_FAST:
                wait = self.lake_session.find_pause(headers, words)
                raise self._fault(words, wait, trouble="too_fast")
            raise self._fault(words, self._find_retry_after(headers), trouble="overloaded")
        elif code in GONE_STATUSES and response is None:
            # a proxy or a host that is not the venue's: a venue says in JSON what it does not have
            page = f"HTTP {code} {reason}, a page and no answer of the venue"
            wait = self._find_retry_after(headers)
            raise self._fault(f"{page}: {extract_words(body)}", wait, None if wait else "refused")
        elif response is None and not _is_json(body):
            kind = f"HTTP {code}, a body of {len(body)} characters that is not complete JSON"
            raise self._fault(f"{kind}: {body[:80]!r}", self._find_retry_after(headers))

    def _find_retry_after(self, headers: Mapping[str, str]) -> float | None:
        return parse_retry_after(headers, self.lake_session.now())

    def _check_refusal(
        self, status: str, headers: Mapping[str, str], body: str, response: Any
    ) -> None:
        """Raise a fault for a refusal that may pass; return if the venue's own words are final."""
        words = f"{status} {extract_words(body)}"
        wait = self.lake_session.find_pause(headers, words)
        if wait is not None or is_too_fast(words):
            raise self._fault(words, wait, trouble="too_fast")
        if response is None:
            raise self._fault(words, refusal="forbidden")

    def _fault(
        self,
        words: str,
        wait: float | None = None,
        refusal: RefusalReason | None = None,
        trouble: Trouble | None = None,
    ) -> Fault:
        return Fault(self.lake_session.remove_secrets(words), wait, refusal, trouble)

    def handle_http_status_code(
        self, code: int, reason: str, url: str, method: str, body: str
    ) -> None:
        # the body is JSON here, and ccxt would report a 400 or a 451 as "not available"
        if code in FORBIDDEN_STATUSES:
            raise ccxt.PermissionDenied(f"HTTP {code} {reason} {body}")
        if _CLIENT_ERROR <= code < _SERVER_ERROR:
            raise ccxt.BadRequest(f"HTTP {code} {reason} {body}")
        super().handle_http_status_code(code, reason, url, method, body)

    def filter_by_since_limit(self, array: Any, *_: Any, **__: Any) -> Any:
        # ccxt would silently drop rows without a time and rows beyond a limit
        return self.to_array(array or [])

    def filter_by_value_since_limit(
        self, array: Any, field: Any, value: Any = None, *_: Any, **__: Any
    ) -> Any:
        rows = self.to_array(array or [])
        kept = [row for row in rows if value is None or row.get(field) in (value, None)]
        others = {row.get(field) for row in rows}
        if not kept and len(others) == 1:
            # an answer to another request; without its rows it would look like a quiet market
            raise self._fault(f"rows of {others.pop()} instead of {value}")
        return kept

    def parse_ohlcvs(self, rows: Any, *arguments: Any, **named: Any) -> Any:
        return self._parse_each(super().parse_ohlcvs, rows, arguments, named)

    def parse_trades(self, rows: Any, *arguments: Any, **named: Any) -> Any:
        return self._parse_each(super().parse_trades, rows, arguments, named)

    def parse_funding_rate_histories(self, rows: Any, *arguments: Any, **named: Any) -> Any:
        return self._parse_each(super().parse_funding_rate_histories, rows, arguments, named)

    def parse_markets(self, rows: Any, *arguments: Any, **named: Any) -> Any:
        return self._parse_each(super().parse_markets, rows, arguments, named)

    def _parse_each(
        self,
        parse: Callable[..., Any],
        rows: Any,
        arguments: tuple[Any, ...],
        named: Mapping[str, Any],
    ) -> Any:
        """Parse rows; if that fails, parse those that can be parsed, and set the others aside."""
        try:
            return parse(rows, *arguments, **named)
        except _RECORD_ERRORS:
            good, bad = [], []
            for row in self.to_array(rows):
                try:
                    parse([row], *arguments, **named)
                except _RECORD_ERRORS:
                    bad.append(row)
                else:
                    good.append(row)
            if not good:
                raise
            _unreadable.get([]).extend(bad)
            return parse(good, *arguments, **named)

    @staticmethod
    def sort_by_2(array: Any, *by: Any) -> Any:
        # ccxt cannot sort rows if one has no time: one bad row would make the page unusable
        try:
            return ccxt.Exchange.sort_by_2(array, *by)
        except TypeError:
            return list(array)
