"""Lengths of time in dataset files: `90s`, `30d`, or `500 slots` of a table's timeframe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from lake.errors import UsageError
from lake.model.timeframe import Timeframe

_TEXT = re.compile(r"(\d{1,6}) ?(s|m|h|d|slots)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Length:
    """A length of time: a count and one of s, m, h, d, or slots (of the table's timeframe)."""

    count: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> Length:
        """Read a length such as `0s`, `10m`, `30d` or `500 slots`.

        Raises
        ------
        UsageError
            The text is not a length of time.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} is not a length of time", "Write 90s, 10m, 1h, 30d, or 500 slots."
            )
        return cls(int(match[1]), match[2])

    @property
    def is_in_slots(self) -> bool:
        """Whether the unit is slots of the table's timeframe."""
        return self.unit == "slots"

    def duration(self, timeframe: Timeframe | None) -> timedelta:
        """Return the duration in a table of a timeframe; a month counts as the shortest month.

        Raises
        ------
        UsageError
            The length is in slots, and the table has no timeframe.
        """
        if not self.is_in_slots:
            return timedelta(seconds=self.count * _SECONDS[self.unit])
        if timeframe is None:
            raise UsageError(f"{self.count} slots need a timeframe", "Write 90s, 1h or 30d.")
        return timedelta(seconds=self.count * timeframe.seconds)
