"""Retries by stamina, logged as this package logs, and never printed.

stamina prints each retry by default, to stdout, into the data of whoever uses this package as a
library. Its hooks belong to the process: only that printing is left out, and only for our retries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from lake.log import log_retry

if TYPE_CHECKING:
    import stamina
    from stamina.instrumentation import RetryDetails
    from stamina.typing import RetryHook

_T = TypeVar("_T")
_is_own: ContextVar[bool] = ContextVar("lake_is_own_retry", default=False)
_PRINTING = ("stamina.instrumentation._structlog", "stamina.instrumentation._logging")


def retry(
    on: type[Exception], *, attempts: int, wait_initial: float = 0.1, wait_max: float
) -> Iterator[stamina.Attempt]:
    """Yield attempts as `stamina.retry_context` does: `for attempt in retry(…): with attempt: …`.

    Parameters
    ----------
    wait_initial, wait_max
        Bounds of the pause between two attempts, in seconds.
    """
    import stamina

    attempts_left = iter(
        stamina.retry_context(
            on, attempts=attempts, timeout=None, wait_initial=wait_initial, wait_max=wait_max
        )
    )
    _keep_from_printing()
    while True:
        token = _is_own.set(True)  # the hooks run before the pause, and that is in `next`
        try:
            attempt = next(attempts_left)
        except StopIteration:
            return
        finally:
            _is_own.reset(token)
        yield attempt


async def run_with_retries(
    caller: stamina.AsyncRetryingCaller,
    on: Callable[[Exception], bool | float],
    operation: Callable[[], Awaitable[_T]],
) -> _T:
    """Call an operation by a caller of stamina; return its result."""
    _keep_from_printing()
    token = _is_own.set(True)
    try:
        return await caller(on, operation)
    finally:
        _is_own.reset(token)


class _OthersOnly:
    """A hook of stamina that prints, for the retries of others."""

    def __init__(self, hook: RetryHook) -> None:
        self._hook = hook

    def __call__(self, details: RetryDetails) -> AbstractContextManager[None] | None:
        return None if _is_own.get() else self._hook(details)


def _log_own(details: RetryDetails) -> None:
    if _is_own.get():
        log_retry(details)


def _keep_from_printing() -> None:
    """Replace hooks that print by our log, for our retries; all other hooks stay."""
    from stamina.instrumentation import get_on_retry_hooks, set_on_retry_hooks

    hooks = get_on_retry_hooks()
    if not any(getattr(hook, "__module__", "") in _PRINTING for hook in hooks):
        return  # the hooks of a user, or of the command line
    quiet = [
        _OthersOnly(hook) if getattr(hook, "__module__", "") in _PRINTING else hook
        for hook in hooks
    ]
    set_on_retry_hooks([*quiet, _log_own])
