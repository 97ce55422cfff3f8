"""Collect unreadable tables, so that one stops no other: a job raises them at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lake.errors import DamagedError, LakeError, SchemaError, StorageError
from lake.log import get_logger

_log = get_logger(__name__)
_SHOWN = 3
UNREADABLE = (DamagedError, StorageError, SchemaError)
"""What stops one table and no other: damage, no permission, columns of another program."""


class Damages:
    """Collects by table what cannot be read.

    Attributes
    ----------
    errors
        By name, the first error of each table that could not be worked on.
    """

    def __init__(self) -> None:
        self.errors: dict[str, LakeError] = {}
        self._logged: set[str] = set()

    @contextmanager
    def collect(self, table: str) -> Iterator[None]:
        """Note and log that the block failed because something cannot be read."""
        try:
            yield
        except UNREADABLE as error:
            self.add(table, error)

    def add(self, table: str, error: LakeError) -> None:
        """Note that something of a table is left out, and log each reason once."""
        reason = f"{table} {error.message}"
        if reason not in self._logged:
            _log.error(
                "left out because of damage", table=table, reason=error.message, hint=error.hint
            )
            self._logged.add(reason)
        self.errors.setdefault(table, error)

    def raise_if_any(self, report: object | None = None) -> None:
        """Raise one error for all tables.

        Parameters
        ----------
        report
            What was done all the same, for the error's `report`.

        Raises
        ------
        DamagedError
            Some table was left out because of damage.
        StorageError, SchemaError
            Some table was left out for another reason, and none because of damage.
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
        errors = list(self.errors.values())
        kind = next(kind for kind in UNREADABLE if any(isinstance(e, kind) for e in errors))
        joined = kind("; ".join(messages[:_SHOWN]) + more, " ".join(hints[:_SHOWN]))
        joined.report = report
        raise joined


class RaisedDamages(Damages):
    """Raises what cannot be read, at once."""

    def add(self, table: str, error: LakeError) -> None:  # noqa: ARG002 - as in `Damages`
        raise error
