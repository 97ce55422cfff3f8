"""Partitions: the files of a table are kept by market, and by day, month or year.

Files by month and year hold `date` as a column of their own; those by day have it in their path. So
`date` is the calendar day of a row for every reader, whatever the partitions are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

import polars as pl

from lake.model.market import MARKET_COLUMNS
from lake.model.time import TimeRange

Granularity = Literal["day", "month", "year"]
MARKET_DAY = (*MARKET_COLUMNS, "date")
"""Columns that follow from market and time of a row, so that they are part of no digest."""


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How the files of a table are kept by time.

    Attributes
    ----------
    granularity
        Its name.
    column
        The column beside exchange and symbol by which files are kept: `date`, `month` or `year`.
    dtype
        The Polars type of that column: Date; String such as `2026-01`; Int64.
    longest
        The longest time that a partition covers.
    """

    granularity: Granularity
    column: str
    dtype: pl.DataType
    longest: timedelta

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the partition columns."""
        return (*MARKET_COLUMNS, self.column)

    @property
    def keeps_date(self) -> bool:
        """Whether data files hold `date`, because it is no partition column."""
        return self.column != "date"

    def value(self, day: pl.Expr) -> pl.Expr:
        """Return an expression for the partition column of rows of a day."""
        values = {"day": day, "month": day.dt.strftime("%Y-%m"), "year": day.dt.year()}
        return values[self.granularity].cast(self.dtype).alias(self.column)

    def value_of(self, day: date) -> date | str | int:
        """Return the value of the partition column for rows of a day."""
        values: dict[str, date | str | int] = {"month": f"{day:%Y-%m}", "year": day.year}
        return values.get(self.granularity, day)

    def start(self, moment: pl.Expr) -> pl.Expr:
        """Return an expression for the first day of the partition of a time or day: `date`."""
        every = {"day": "1d", "month": "1mo", "year": "1y"}[self.granularity]
        return moment.dt.date().dt.truncate(every).alias("date")

    def start_of(self, moment: datetime | date) -> date:
        """Return the first day of the partition of a time or day."""
        first = {"month": 1, "year": 1}.get(self.granularity, moment.day)
        return date(moment.year, 1 if self.granularity == "year" else moment.month, first)

    def to_start(self, value: pl.Expr) -> pl.Expr:
        """Return an expression for the first day of a partition, by the value of its column."""
        if self.granularity == "month":
            value = (value + "-01").str.to_date()
        elif self.granularity == "year":
            value = pl.date(value, 1, 1)
        return value.alias("date")

    def range_of(self, start: date) -> TimeRange:
        """Return the range of times of the partition that begins on a day."""
        end = self.start_of(start + self.longest)
        first, after = (datetime.combine(day, time(), UTC) for day in (start, end))
        return TimeRange(first, after)


PARTITIONINGS: Mapping[Granularity, Partitioning] = {
    "day": Partitioning("day", "date", pl.Date(), timedelta(days=1)),
    "month": Partitioning("month", "month", pl.String(), timedelta(days=31)),
    "year": Partitioning("year", "year", pl.Int64(), timedelta(days=366)),
}
RESERVED = (*MARKET_COLUMNS, *(kind.column for kind in PARTITIONINGS.values()))
"""Names of columns that no dataset file may describe."""


def find_partitioning(columns: object) -> Partitioning | None:
    """Find the partitioning that has these partition columns; None: lake makes no such table."""
    fitting = (kind for kind in PARTITIONINGS.values() if list(kind.columns) == columns)
    return next(fitting, None)


def parse_partition(values: Mapping[str, str]) -> tuple[str, str, TimeRange]:
    """Parse partition values as Delta's log has them: exchange, symbol, and the range of times.

    Commits before a change of the granularity have other columns than those after it.

    Raises
    ------
    KeyError, ValueError
        They are of another program.
    """
    exchange, symbol = (str(values[name]) for name in MARKET_COLUMNS)
    kind = next((k for k in PARTITIONINGS.values() if k.column in values), None)
    if kind is None:
        raise KeyError("date")
    rest = {"month": "-01", "year": "-01-01"}.get(kind.column, "")
    return exchange, symbol, kind.range_of(date.fromisoformat(f"{values[kind.column]}{rest}"))
