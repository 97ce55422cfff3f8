"""Collect damaged tables, so that one stops no other: what is damaged is raised at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lake.errors import DamagedError
from lake.log import get_logger

_log = get_logger(__name__)
_SHOWN = 3


class Damages:
    """Collects damage by table.

    Attributes
    ----------
    errors
        By name, the first error of each table that could not be worked on.
    """

    def __init__(self) -> None:
        self.errors: dict[str, DamagedError] = {}

    @contextmanager
    def collect(self, table: str) -> Iterator[None]:
        """Note and log that the block failed because something is damaged."""
        try:
            yield
        except DamagedError as error:
            self.add(table, error)

    def add(self, table: str, error: DamagedError) -> None:
        """Note and log that something of a table is left out because of damage."""
        _log.error("left out because of damage", table=table, reason=error.message)
        self.errors.setdefault(table, error)

    def raise_if_any(self, report: object | None = None) -> None:
        """Raise one error for all damage.

        Parameters
        ----------
        report
            What was done all the same, for the error's `report`.

        Raises
        ------
        DamagedError
            Some table was left out.
        """
        if not self.errors:
            return
        messages = list(
            dict.fromkeys(
                error.message if f"table {table}:" in error.message else f"{table}: {error.message}"
                for table, error in self.errors.items()
            )
        )
        more = f"; and {len(messages) - _SHOWN} more" if len(messages) > _SHOWN else ""
        hints = list(dict.fromkeys(error.hint for error in self.errors.values()))
        joined = DamagedError("; ".join(messages[:_SHOWN]) + more, " ".join(hints[:_SHOWN]))
        joined.report = report
        raise joined
