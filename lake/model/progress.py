"""Progress of long operations, for displays to follow."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of an operation.

    `begin` gives the total number of units: files, rows, days or markets; in an ingestion, seconds
    of market time. `advance` reports completed units, their number of rows, and what the operation
    works on now. `end` comes last, also after a failure, with the report of the operation if there
    is one.
    """

    def begin(self, what: str, total: float, /) -> None: ...

    def advance(self, count: float = 1, *, rows: int = 0, what: str | None = None) -> None: ...

    def end(self, outcome: object | None = None, /) -> None: ...


class NoProgress:
    """Ignores progress."""

    def begin(self, what: str, total: float, /) -> None: ...

    def advance(self, count: float = 1, *, rows: int = 0, what: str | None = None) -> None: ...

    def end(self, outcome: object | None = None, /) -> None: ...
