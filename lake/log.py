"""Logs: events with their context, by structlog through the standard `logging`.

A library configures no logging: importing this package adds a handler that writes nothing to the
logger `lake`, and changes no other logger and no hook of stamina. The command line calls
`configure`; whoever uses the package as a library configures `logging` as they like.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from lake.text import escape_unseen

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

FINDINGS = "lake.findings"
"""Logger of what checks find: one event per finding that is new or closed."""

_PACKAGE = "lake"
_RENDERERS: dict[str, Processor] = {
    "text": structlog.processors.LogfmtRenderer(key_order=["event"], drop_missing=True),
    "json": structlog.processors.JSONRenderer(default=str),
}
_format: Literal["text", "json"] = "text"

logging.getLogger(_PACKAGE).addHandler(logging.NullHandler())


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a logger whose events carry key-values; its messages are lines of logfmt or JSON."""
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


def configure(level: str, style: Literal["text", "json"], hidden: Collection[str] = ()) -> None:
    """Write this package's logs to stderr; log the retries of stamina. For the command line only.

    Parameters
    ----------
    level
        Minimum level: `debug`, `info`, `warning`, `error`.
    style
        Format of each line.
    hidden
        Names of loggers that are not written, because the command shows their events itself.
    """
    from stamina.instrumentation import set_on_retry_hooks

    global _format  # noqa: PLW0603 - one process, one stderr
    _format = style
    package = logging.getLogger(_PACKAGE)
    package.setLevel(level.upper())
    package.propagate = False
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda record: record.name not in hidden)
    package.handlers[:] = [handler]
    # stamina's own hook writes to structlog's default logger: to stdout, into the data
    set_on_retry_hooks([log_retry])


def log_retry(details: RetryDetails) -> None:
    """Log one retry, as a hook of stamina: `stamina.instrumentation.set_on_retry_hooks`."""
    get_logger(__name__).info(
        "tried_again",
        after=details.retry_num,
        wait_seconds=round(details.wait_for, 3),
        why=str(details.caused_by),
    )


def is_written(name: str, level: int) -> bool:
    """Whether an event of a logger and level reaches a handler that writes it."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None and logging.getLogger(name).isEnabledFor(level):
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _render(logger: WrappedLogger, name: str, event: EventDict) -> Any:
    return escape_unseen(str(_RENDERERS[_format](logger, name, event)))
