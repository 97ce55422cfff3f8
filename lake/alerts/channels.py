"""Channels: how a message gets to people. A log line by ourselves, everything else by apprise.

URLs of channels hold secrets: host, path and query of `slack://`, for one, are tokens. Therefore no
text of apprise or of the libraries under it is shown; reasons are our own words.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from lake.alerts.messages import Level
from lake.errors import ConfigError, SourceUnavailableError
from lake.log import get_logger, is_written
from lake.settings import LOG

if TYPE_CHECKING:
    from apprise import NotifyBase

_Result = TypeVar("_Result")
_log = get_logger(__name__)
_capture = threading.local()

TIMEOUT_SECONDS = 10.0
_HINT = "`lake alert test` sends a test message; what is untold is sent by the next run."
_KINDS: dict[Level, str] = {
    "info": "info",
    "warning": "warning",
    "error": "failure",
    "critical": "failure",
    "resolved": "success",
}
_STATUS = re.compile(r"error=(\d{3})\b")
_TIMED_OUT = "no answer in time"
# What apprise and the libraries under it say, and what we say for it.
_REASONS = {
    "timed out": _TIMED_OUT,
    "Connection refused": "the connection was refused",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not valid",
    "Failed to resolve": "its host is not known",
    "Name or service not known": "its host is not known",
    "Temporary failure in name resolution": "its host is not known",
    "SMTPAuthenticationError": "it refused the user name or the password",
    "onnection error": "the connection could not be made, or broke off",
}


class DeliveryError(SourceUnavailableError):
    """A channel did not take a message: says which, and why, but nothing of its URL."""

    code = "delivery"


class NoAnswerError(DeliveryError):
    """A channel did not answer in time: another message to it would wait as long."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A name, and where its messages go: `log`, or a URL."""

    name: str
    target: SecretStr

    @property
    def is_log(self) -> bool:
        return self.target.get_secret_value() == LOG


def deliver(
    channel: Channel,
    title: str,
    body: str,
    level: Level,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Send a message, and wait until it is taken. Never longer than the timeout.

    What answers too late may have taken the message all the same: it comes again.

    Raises
    ------
    DeliveryError
        It was not taken.
    ConfigError
        apprise is not installed, or does not know such a URL.
    """
    if channel.is_log:
        _write_line(channel, title, body, level)
        return
    service = _open_service(channel)
    service.socket_connect_timeout = service.socket_read_timeout = timeout_seconds
    try:
        accepted, said = _run_with_timeout(
            timeout_seconds, lambda: _capture_logs(lambda: _send(service, title, body, level))
        )
    except TimeoutError:
        raise _build_error(channel, _TIMED_OUT) from None
    except Exception as error:  # noqa: BLE001 - whatever one of a hundred plugins may raise
        raise _build_error(channel, f"{type(error).__name__} in apprise") from None
    if not accepted:
        raise _build_error(channel, _explain(said))


def require_apprise(channel: Channel) -> ModuleType:
    """The package apprise, which a channel needs.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    try:
        import apprise
    except ImportError:
        raise ConfigError(
            f"channel {channel.name!r} needs apprise, which is not installed",
            "Install the extra `alerts`: pip install 'marketlake[alerts]'",
        ) from None
    return apprise


def _write_line(channel: Channel, title: str, body: str, level: Level) -> None:
    line = {"critical": logging.CRITICAL, "error": logging.ERROR}.get(level, logging.WARNING)
    if not logging.getLogger(__name__).isEnabledFor(line):
        raise DeliveryError(
            f"channel {channel.name!r} took no message: the level of [log] leaves it out",
            'Set level = "warning" under [log] in lake.toml.',
        )
    if not is_written(__name__, line):
        raise DeliveryError(
            f"channel {channel.name!r} took no message: logging is not configured",
            "Give the logger `lake` a handler, as by `logging.basicConfig()`.",
        )
    _log.log(line, "alert", title=title, severity=level, message=body)


def _open_service(channel: Channel) -> NotifyBase:
    """What sends to a channel."""
    require_apprise(channel)
    from apprise import OverflowMode

    url = channel.target.get_secret_value()
    service = _capture_logs(lambda: _instantiate(url) or _instantiate(_to_apprise_url(url)))[0]
    if service is None:
        raise ConfigError(
            f"channel {channel.name!r}: apprise knows no such URL",
            "Its documentation lists the forms: json://HOST/PATH, slack://…, mailto://…",
        )
    if "redirect=" not in url:
        # Whoever is redirected asks again without the message, and takes that for success.
        service.redirects = False
    if "overflow=" not in url:
        # A service that refuses what is too long would refuse it in every run.
        service.overflow_mode = OverflowMode.TRUNCATE
    return service


def _instantiate(url: str) -> NotifyBase | None:
    from apprise import Apprise, AppriseAsset, NotifyBase

    asset = AppriseAsset(app_id="lake", app_desc="market data lakehouse", async_mode=False)
    service = Apprise.instantiate(url, asset=asset)
    return service if isinstance(service, NotifyBase) else None


def _to_apprise_url(url: str) -> str:
    """A plain `http(s)://` URL in apprise's form: JSON is posted to it as it is, query and all."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        return url
    query = [(f"-{name}", value) for name, value in parse_qsl(parts.query, keep_blank_values=True)]
    scheme = "jsons" if parts.scheme == "https" else "json"
    return urlunsplit((scheme, parts.netloc, parts.path, urlencode(query, quote_via=quote), ""))


def _send(service: NotifyBase, title: str, body: str, level: Level) -> bool:
    from apprise import NotifyFormat, NotifyType

    # Not by `Apprise.notify`: it sends in threads of its own, which an exit would wait for.
    kind = NotifyType(_KINDS[level])
    return service.notify(body=body, title=title, notify_type=kind, body_format=NotifyFormat.TEXT)


def _build_error(channel: Channel, reason: str) -> DeliveryError:
    kind = NoAnswerError if reason == _TIMED_OUT else DeliveryError
    return kind(f"channel {channel.name!r} took no message: {reason}", _HINT)


def _explain(said: str) -> str:
    """Why apprise failed, in words that cannot hold anything of a URL."""
    if status := _STATUS.search(said):
        number = int(status[1])
        known = number in set(HTTPStatus)
        return f"HTTP status {number}" + (f" ({HTTPStatus(number).phrase})" if known else "")
    found = (reason for words, reason in _REASONS.items() if words in said)
    return next(found, "apprise does not say why")


def _run_with_timeout(seconds: float, work: Callable[[], _Result]) -> _Result:
    """The result of work that may hang. The thread then stays behind; no exit waits for it.

    Raises
    ------
    TimeoutError
        It took longer.
    """
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="alert").start()
    return future.result(seconds)


class _CaptureFilter(logging.Filter):
    """Takes what is logged in a thread that listens, and lets everything else pass."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._parent = logger.parent or logger
        self._level = logger.level

    def filter(self, record: logging.LogRecord) -> bool:
        lines: list[str] | None = getattr(_capture, "lines", None)
        if lines is None:
            return record.levelno >= (self._level or self._parent.getEffectiveLevel())
        lines.append(record.getMessage())
        return False


@cache
def _install_filters() -> None:
    """Set up once: apprise tells the cause of a failure at the level `debug` only."""
    for name in ("apprise", "urllib3.connectionpool"):
        logger = logging.getLogger(name)
        logger.addFilter(_CaptureFilter(logger))
        logger.setLevel(logging.DEBUG)


def _capture_logs(work: Callable[[], _Result]) -> tuple[_Result, str]:
    """The result of work, and what was logged meanwhile in this thread, which nobody else sees."""
    _install_filters()
    lines: list[str] = []
    _capture.lines = lines
    try:
        return work(), "\n".join(lines)
    finally:
        _capture.lines = None
