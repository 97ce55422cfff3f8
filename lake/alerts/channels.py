"""Deliver messages through channels: the log directly, everything else with apprise.

URLs of channels hold secrets: host, path and query of `slack://`, for example, are tokens.
Therefore no text of apprise or of its libraries is shown; reasons are given in our own words.
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
_HINT = "`lake alert test` sends a test message; the next run sends the alerts again."
_KINDS: dict[Level, str] = {
    "info": "info",
    "warning": "warning",
    "error": "failure",
    "critical": "failure",
    "resolved": "success",
}
_STATUS = re.compile(r"error=(\d{3})\b")
_TIMED_OUT = "no answer in time"
# Texts in messages of apprise and its libraries, and the reasons shown instead.
_REASONS = {
    "timed out": _TIMED_OUT,
    "Connection refused": "the connection was refused",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not valid",
    "Failed to resolve": "its host is unknown",
    "Name or service not known": "its host is unknown",
    "Temporary failure in name resolution": "its host is unknown",
    "SMTPAuthenticationError": "it rejected the user name or the password",
    "onnection error": "the connection failed or was interrupted",
}


class DeliveryError(SourceUnavailableError):
    """A channel did not accept a message; names the channel and the reason, but not its URL."""

    code = "delivery"


class NoAnswerError(DeliveryError):
    """A channel did not answer in time; another message to it would wait as long."""


@dataclass(frozen=True, slots=True)
class Channel:
    """The name of a channel, and its target: `log`, or a URL."""

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
    """Send a message, and wait until it is accepted, for at most the timeout.

    A service that answers too late may have accepted the message: then it gets it twice.

    Raises
    ------
    DeliveryError
        The channel did not accept the message.
    ConfigError
        apprise is not installed, or does not support the URL.
    """
    if channel.is_log:
        _write_line(channel, title, body, level)
        return
    service = _open_service(channel)
    service.socket_connect_timeout = service.socket_read_timeout = timeout_seconds
    try:
        accepted, log_text = _run_with_timeout(
            timeout_seconds, lambda: _capture_logs(lambda: _send(service, title, body, level))
        )
    except TimeoutError:
        raise _build_error(channel, _TIMED_OUT) from None
    except Exception as error:  # noqa: BLE001 - whatever one of a hundred plugins may raise
        raise _build_error(channel, f"{type(error).__name__} in apprise") from None
    if not accepted:
        raise _build_error(channel, _explain(log_text))


def require_apprise(channel: Channel) -> ModuleType:
    """Import apprise, which all channels but `log` need.

    Raises
    ------
    ConfigError
        apprise is not installed.
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
    log_level = {"critical": logging.CRITICAL, "error": logging.ERROR}.get(level, logging.WARNING)
    if not logging.getLogger(__name__).isEnabledFor(log_level):
        raise DeliveryError(
            f"channel {channel.name!r} did not accept the message: the level of [log] excludes it",
            'Set level = "warning" under [log] in lake.toml.',
        )
    if not is_written(__name__, log_level):
        raise DeliveryError(
            f"channel {channel.name!r} did not accept the message: logging is not configured",
            "Give the logger `lake` a handler, for example with `logging.basicConfig()`.",
        )
    _log.log(log_level, "alert", title=title, severity=level, message=body)


def _open_service(channel: Channel) -> NotifyBase:
    """Return the apprise service of a channel."""
    require_apprise(channel)
    from apprise import OverflowMode

    url = channel.target.get_secret_value()
    service = _capture_logs(lambda: _instantiate(url) or _instantiate(_to_apprise_url(url)))[0]
    if service is None:
        raise ConfigError(
            f"channel {channel.name!r}: apprise does not support its URL",
            "Its documentation lists the forms: json://HOST/PATH, slack://…, mailto://…",
        )
    if "redirect=" not in url:
        # A redirected request is repeated without the message, and counts as success.
        service.redirects = False
    if "overflow=" not in url:
        # A service that rejects long messages would reject this one in every run.
        service.overflow_mode = OverflowMode.TRUNCATE
    return service


def _instantiate(url: str) -> NotifyBase | None:
    from apprise import Apprise, AppriseAsset, NotifyBase

    asset = AppriseAsset(app_id="lake", app_desc="market data lakehouse", async_mode=False)
    service = Apprise.instantiate(url, asset=asset)
    return service if isinstance(service, NotifyBase) else None


def _to_apprise_url(url: str) -> str:
    """Convert an `http(s)://` URL to apprise's form, which posts JSON to it, with its query."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        return url
    query = [(f"-{name}", value) for name, value in parse_qsl(parts.query, keep_blank_values=True)]
    scheme = "jsons" if parts.scheme == "https" else "json"
    return urlunsplit((scheme, parts.netloc, parts.path, urlencode(query, quote_via=quote), ""))


def _send(service: NotifyBase, title: str, body: str, level: Level) -> bool:
    from apprise import NotifyFormat, NotifyType

    # Not with `Apprise.notify`: it sends in threads of its own, which an exit would wait for.
    kind = NotifyType(_KINDS[level])
    return service.notify(body=body, title=title, notify_type=kind, body_format=NotifyFormat.TEXT)


def _build_error(channel: Channel, reason: str) -> DeliveryError:
    kind = NoAnswerError if reason == _TIMED_OUT else DeliveryError
    return kind(f"channel {channel.name!r} did not accept the message: {reason}", _HINT)


def _explain(log_text: str) -> str:
    """Explain why apprise failed, in words that cannot contain parts of a URL."""
    if status := _STATUS.search(log_text):
        number = int(status[1])
        is_known = number in set(HTTPStatus)
        return f"HTTP status {number}" + (f" ({HTTPStatus(number).phrase})" if is_known else "")
    reasons = (reason for words, reason in _REASONS.items() if words in log_text)
    return next(reasons, "apprise gives no reason")


def _run_with_timeout(seconds: float, work: Callable[[], _Result]) -> _Result:
    """Return the result of work that may hang; its thread then continues, and no exit waits for it.

    Raises
    ------
    TimeoutError
        The work took longer.
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
    """A filter that captures log lines of threads that ask for it, and passes all others."""

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
    """Install the filters once: apprise logs the cause of a failure only at the level `debug`."""
    for name in ("apprise", "urllib3.connectionpool"):
        logger = logging.getLogger(name)
        logger.addFilter(_CaptureFilter(logger))
        logger.setLevel(logging.DEBUG)


def _capture_logs(work: Callable[[], _Result]) -> tuple[_Result, str]:
    """Return the result of work and the log lines of this thread meanwhile, which are not shown."""
    _install_filters()
    lines: list[str] = []
    _capture.lines = lines
    try:
        return work(), "\n".join(lines)
    finally:
        _capture.lines = None
