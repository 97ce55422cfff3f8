"""Timeframes of bars: their names, their grid, and where a bar ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lake.errors import UsageError
from lake.model.time import EPOCH

_NAME = re.compile(r"([1-9]\d{0,3})([smhdwM])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
_MONTHS_A_YEAR = 12
_LONGEST_MONTH = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Timeframe:
    """A timeframe as exchanges name it: a count and one of s, m, h, d, w, M (calendar months).

    Bars below a week start at multiples of the timeframe from the Unix epoch, weeks on Monday,
    months on the first: the grid that the big venues share.
    """

    count: int
    unit: str

    @classmethod
    def parse(cls, name: str) -> Timeframe:
        """Parse a name such as `1m`, `4h`, `1d`, `1M`.

        Raises
        ------
        UsageError
            It is not the name of a timeframe.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise UsageError(
                f"{name!r} is not a timeframe",
                "Write a count and a unit: 1m, 5m, 1h, 1d, 1w, or 1M for months.",
            )
        return cls(int(match[1]), match[2])

    @classmethod
    def of_table_suffix(cls, suffix: str) -> Timeframe:
        """Parse the suffix of a table name: `1m`, and `1mo` for months."""
        return cls.parse(suffix.removesuffix("mo") + "M" if suffix.endswith("mo") else suffix)

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    @property
    def table_suffix(self) -> str:
        """Name where case does not count, so that `1m` and `1M` differ (SQL, some file systems)."""
        return f"{self.count}mo" if self.unit == "M" else str(self)

    @property
    def seconds(self) -> int:
        """Length of a bar in seconds; of months, the shortest possible."""
        return self.count * (_SECONDS[self.unit] if self.unit != "M" else 28 * 86400)

    @property
    def longest(self) -> timedelta:
        """Length of a bar; of months, the longest possible."""
        if self.unit == "M":
            return self.count * _LONGEST_MONTH
        return timedelta(seconds=self.seconds)

    def floor(self, time: datetime) -> datetime:
        """Return the open time of the bar that contains `time`."""
        if self.unit == "M":
            months = time.year * _MONTHS_A_YEAR + time.month - 1
            return _to_month(months - months % self.count)
        origin = _MONDAY if self.unit == "w" else EPOCH
        step = timedelta(seconds=self.seconds)
        return origin + (time - origin) // step * step

    def ceiling(self, time: datetime) -> datetime:
        """Return the first open time at or after `time`."""
        floor = self.floor(time)
        return floor if floor == time else self.after(floor)

    def after(self, open_time: datetime, bars: int = 1) -> datetime:
        """Return the open time of the bar that is `bars` later; for 1, the end of this bar."""
        if self.unit == "M":
            months = open_time.year * _MONTHS_A_YEAR + open_time.month - 1
            return _to_month(months + self.count * bars)
        return open_time + timedelta(seconds=self.seconds * bars)


def _to_month(months: int) -> datetime:
    return datetime(months // _MONTHS_A_YEAR, months % _MONTHS_A_YEAR + 1, 1, tzinfo=UTC)
