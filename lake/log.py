"""Logs: events with their context, by structlog through the standard `logging`.

A library configures no logging: importing this package adds a handler that writes nothing to the
logger `lake`, and changes no other logger and no hook of stamina. The command line calls
`configure`; whoever uses the package as a library configures `logging` as they like.

structlog is imported with the first event that is written.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

from lake.text import escape_unseen

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

FINDINGS = "lake.findings"
"""Logger of what checks find: one event per finding that is new or closed."""

_PACKAGE = "lake"
_format: Literal["text", "json"] = "text"

logging.getLogger(_PACKAGE).addHandler(logging.NullHandler())


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a logger whose events carry key-values; its messages are lines of logfmt or JSON."""
    return cast("FilteringBoundLogger", _Logger(name))


class _Logger:
    """A logger of structlog that is built for its first event, if the event is written at all."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        level = logging.getLevelNamesMapping().get(method.upper())
        if level is not None and not logging.getLogger(self._name).isEnabledFor(level):
            return _ignore
        return getattr(self._bound, method)

    @cached_property
    def _bound(self) -> FilteringBoundLogger:
        import structlog

        logger: FilteringBoundLogger = structlog.wrap_logger(
            logging.getLogger(self._name),
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


def _ignore(*_: Any, **__: Any) -> None:
    """Do nothing: the event is below the level of its logger."""


def configure(level: str, style: Literal["text", "json"], hidden: Collection[str] = ()) -> None:
    """Write this package's logs to stderr. For the command line only.

    Parameters
    ----------
    level
        Minimum level: `debug`, `info`, `warning`, `error`.
    style
        Format of each line.
    hidden
        Names of loggers that are not written, because the command shows their events itself.
    """
    global _format  # noqa: PLW0603 - one process, one stderr
    _format = style
    package = logging.getLogger(_PACKAGE)
    package.setLevel(level.upper())
    package.propagate = False
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda record: record.name not in hidden)
    package.handlers[:] = [handler]


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
    return escape_unseen(str(_get_renderer(_format)(logger, name, event)))


@cache
def _get_renderer(style: Literal["text", "json"]) -> Processor:
    from structlog.processors import JSONRenderer, LogfmtRenderer

    if style == "json":
        return JSONRenderer(default=str)
    return LogfmtRenderer(key_order=["event"], drop_missing=True)
