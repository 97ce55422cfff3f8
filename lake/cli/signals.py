"""Signals that end a command: SIGTERM and SIGHUP do what Ctrl-C does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class EndingSignals:
    """The signals that ended a command.

    Attributes
    ----------
    exit_code
        What a shell expects of a process that the first of them ended; None if none came.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._terminals = [n for n in (1, 2) if _is_terminal(n)]

    def handle(self, number: int, frame: FrameType | None) -> None:
        """End the command as Ctrl-C does: what it has begun is stored, recorded and summed up."""
        if self.exit_code is None:
            self.exit_code = 128 + number
        if number == signal.SIGHUP:
            self._leave_terminal()
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):  # a background job of a shell ignores Ctrl-C, but not this
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

    def _leave_terminal(self) -> None:
        """Write to nowhere what was for a terminal that is gone: each write would be an error."""
        for number in self._terminals:
            if not _is_terminal(number):
                with Path(os.devnull).open("wb") as nowhere:
                    os.dup2(nowhere.fileno(), number)


@contextmanager
def ending_signals() -> Iterator[EndingSignals]:
    """Let signals end the block as Ctrl-C does; those that the caller ignores stay ignored."""
    signals = EndingSignals()
    before = {
        number: signal.signal(number, signals.handle)
        for number in _ENDING
        if signal.getsignal(number) == signal.SIG_DFL
    }
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_terminal(number: int) -> bool:
    with suppress(OSError):
        return os.isatty(number)
    return False
