"""Who is told how far a long piece of work is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told what is being done, of how many units, and each time that some are done."""

    def begin(self, what: str, total: int) -> None: ...

    def advance(self, count: int = 1) -> None: ...

    def end(self) -> None: ...


class NoProgress:
    """Progress that shows nothing."""

    def begin(self, what: str, total: int) -> None: ...

    def advance(self, count: int = 1) -> None: ...

    def end(self) -> None: ...
