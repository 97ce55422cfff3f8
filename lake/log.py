"""Logs: events with their context, by structlog through the standard `logging`, on stderr."""

from __future__ import annotations

import logging
from typing import Any, Literal

import structlog
from stamina.instrumentation import RetryDetails, set_on_retry_hooks
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

_RENDERERS: dict[str, Processor] = {
    "text": structlog.processors.LogfmtRenderer(key_order=["event"], drop_missing=True),
    "json": structlog.processors.JSONRenderer(default=str),
}
_format: Literal["text", "json"] = "text"


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose events carry key-values; unless configured, warnings go to stderr."""
    logger: FilteringBoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _render,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Set level and format of this package's logs; called by the command line."""
    global _format  # noqa: PLW0603 - one process, one stderr
    _format = style
    package = logging.getLogger("lake")
    package.setLevel(level.upper())
    package.propagate = False
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    package.handlers[:] = [handler]


def quieten(name: str) -> None:
    """Let a part of this package log errors only: what else it tells is shown otherwise."""
    logging.getLogger(name).setLevel(logging.ERROR)


def _render(logger: WrappedLogger, name: str, event: EventDict) -> Any:
    return _RENDERERS[_format](logger, name, event)


def _log_retry(details: RetryDetails) -> None:
    get_logger(__name__).info(
        "tried_again",
        after=details.retry_num,
        wait_seconds=round(details.wait_for, 3),
        why=str(details.caused_by),
    )


# stamina's own hook writes to structlog's default logger: to stdout, into the data
set_on_retry_hooks([_log_retry])
