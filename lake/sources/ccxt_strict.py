"""ccxt's REST client without its silences: what is not a whole, true answer is a `Fault`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import ccxt
import orjson

from lake.sources.faults import (
    Fault,
    Retrier,
    parse_http_date,
    parse_retry_after,
    remove_secrets,
)

_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19
_REPEATABLE = frozenset({408, 418, 425, 429})
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


class Session:
    """What all requests to one venue share: retries, its clock, how many they are.

    Parameters
    ----------
    retrier
        Repeats requests.
    now
        The local clock, in UTC.
    concurrency
        How many requests may be under way at once.
    secrets
        Texts that must not appear in a message.
    """

    def __init__(
        self,
        retrier: Retrier,
        now: Callable[[], datetime],
        concurrency: int,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self.retrier = retrier
        self.now = now
        self.requests = 0
        self.slots = asyncio.Semaphore(concurrency)
        self._secrets = secrets
        self._ahead = timedelta(0)

    def update_clock(self, headers: Mapping[str, str]) -> None:
        """Compare clocks by the `Date` of an answer."""
        date = parse_http_date(headers, "date")
        if date is not None:
            self._ahead = max(timedelta(0), self.now() - date)

    def venue_now(self) -> datetime:
        """The earlier of the local time and the venue's, as of its last answer.

        A fast local clock would else mark a time as settled that the venue has not reached.
        `Date` counts whole seconds, so that this is up to a second behind.
        """
        return self.now() - self._ahead

    def remove_secrets(self, text: object) -> str:
        return remove_secrets(str(text), self._secrets)


def parse_json(text: str) -> Any:
    """JSON in which integers of any size stay exact.

    orjson turns integers beyond 64 bits into floats, and trade ids with them into others.

    Raises
    ------
    ValueError
        The text is not JSON, or not whole.
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


def make_strict(base: type[Any], session: Session) -> type[Any]:
    """A subclass of an asynchronous ccxt exchange that repeats every request until it is good.

    Good is a whole JSON body that the venue does not mean as a passing failure. Definite refusals
    stay ccxt's errors; when the retries run out it raises `SourceUnavailableError`.
    """
    return type(base.__name__, (_Strict, base), {"lake_session": session})


if TYPE_CHECKING:

    class _Rest:
        """The parts of ccxt's asynchronous exchange that are overridden; ccxt has no types."""

        async def fetch2(
            self, path: Any, api: Any, method: str, params: Any, config: Any
        ) -> Any: ...

        async def fetch(self, url: str, method: str, headers: Any, body: Any) -> Any: ...

        def handle_errors(self, *answer: Any) -> Any: ...

        def handle_http_status_code(self, *answer: Any) -> None: ...

        def to_array(self, rows: Any) -> list[Any]: ...

else:
    _Rest = object


class _Strict(_Rest):
    """Put before ccxt's class; see `strict`."""

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
        return await self.lake_session.retrier.run(
            request, lambda: fetch2(path, api, method, params or {}, config or {})
        )

    async def fetch(
        self, url: str, method: str = "GET", headers: Any = None, body: Any = None
    ) -> Any:
        async with self.lake_session.slots:
            await self.lake_session.retrier.wait_until_open()
            self.lake_session.requests += 1
            try:
                return await super().fetch(url, method, headers, body)
            except ccxt.OperationFailed as error:
                cause = f" ({error.__cause__!r})" if error.__cause__ is not None else ""
                raise Fault(
                    self.lake_session.remove_secrets(f"{type(error).__name__} {error}{cause}")
                ) from error
            except ccxt.ExchangeError as error:
                # ccxt's class for a transfer that was cut is that of a definite refusal
                if isinstance(error.__cause__, aiohttp.ClientError):
                    raise Fault(
                        self.lake_session.remove_secrets(f"cut off: {error.__cause__!r}")
                    ) from error
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
        self.lake_session.update_clock(headers)
        if code >= _SERVER_ERROR or code in _REPEATABLE:
            wait = parse_retry_after(headers, self.lake_session.now())
            raise Fault(self.lake_session.remove_secrets(f"HTTP {code} {reason} {body}"), wait)
        if response is None and not _is_json(body):
            kind = f"HTTP {code}, a body of {len(body)} characters that is not whole JSON"
            raise Fault(
                self.lake_session.remove_secrets(f"{kind}: {body[:80]!r}"),
                parse_retry_after(headers, self.lake_session.now()),
            )
        return super().handle_errors(code, reason, url, method, headers, body, response, *request)

    def handle_http_status_code(
        self, code: int, reason: str, url: str, method: str, body: str
    ) -> None:
        # what is left here was said in JSON, and ccxt would call a 400 "not available"
        if _CLIENT_ERROR <= code < _SERVER_ERROR:
            raise ccxt.BadRequest(f"HTTP {code} {reason} {body}")
        super().handle_http_status_code(code, reason, url, method, body)

    def filter_by_since_limit(self, array: Any, *_: Any, **__: Any) -> Any:
        # ccxt would drop rows without a time, and those beyond a limit, silently
        return self.to_array(array or [])

    def filter_by_value_since_limit(
        self, array: Any, field: Any, value: Any = None, *_: Any, **__: Any
    ) -> Any:
        rows = self.to_array(array or [])
        return [row for row in rows if value is None or row.get(field) in (value, None)]

    @staticmethod
    def sort_by_2(array: Any, *by: Any) -> Any:
        # ccxt cannot order rows if one of them has no time: one bad row would spoil the page
        try:
            return ccxt.Exchange.sort_by_2(array, *by)
        except TypeError:
            return list(array)
