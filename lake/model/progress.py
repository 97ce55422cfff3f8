"""How far a long piece of work is, for whoever wants to show it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Follows a piece of work: what is done, of how many units, and what came of it.

    `begin` gives the number of units; they are files, rows, days or markets, and seconds of market
    time in an ingestion. `advance` says that units are done, how many rows came with them, and
    what the work has turned to. `end` comes last, also where the work fails, with the report of
    the work where there is one.
    """

    def begin(self, what: str, total: float, /) -> None: ...

    def advance(self, count: float = 1, *, rows: int = 0, what: str | None = None) -> None: ...

    def end(self, outcome: object | None = None, /) -> None: ...


class NoProgress:
    """Progress that shows nothing."""

    def begin(self, what: str, total: float, /) -> None: ...

    def advance(self, count: float = 1, *, rows: int = 0, what: str | None = None) -> None: ...

    def end(self, outcome: object | None = None, /) -> None: ...
