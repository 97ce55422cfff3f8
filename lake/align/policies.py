"""Policies of alignment: which rows a value uses, and how missing values are filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from lake.errors import UsageError
from lake.model.timeframe import Timeframe

Length = timedelta | str
Aggregate = Literal["ohlcv", "sum", "mean", "last"]

_ZERO = timedelta(0)
_CENTURY = timedelta(days=36525)
_CARRYING_FILLS = ("last", "flat")


@dataclass(frozen=True, slots=True)
class AsOf:
    """The newest row that was known at each time: for states, such as a rate, a price, a book.

    Attributes
    ----------
    staleness
        Maximum age (time minus `available_at`) of a fresh row, such as `8h` or a timedelta; None:
        no limit.
    fill
        The values if no fresh row is known. `none`: nulls. `last`: the stale values, up to
        `limit`. `zero`: zeros.
    limit
        Maximum age of a value that is carried forward.
    columns
        Columns of the source; by default, all except those that describe the row (market, date,
        `closed`, `fill`, `received_at`); with zeros, only numeric ones.

    Raises
    ------
    UsageError
        The parameters do not fit together.
    """

    staleness: Length | None
    fill: Literal["none", "last", "zero"] = "none"
    limit: Length | None = None
    columns: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        _require_one_of("fill", self.fill, ("none", "last", "zero"))
        _require_limit(self.fill, self.limit)
        fresh, reach = self.fresh, self.reach
        if self.limit is not None and (fresh is None or reach is None or reach <= fresh):
            raise UsageError(
                f"limit {self.limit} is not longer than staleness {self.staleness}",
                "Only stale values are carried forward: use a longer limit, or another fill.",
            )

    @property
    def fresh(self) -> timedelta | None:
        """Maximum age of a fresh row; None: no limit."""
        return None if self.staleness is None else _parse_length("staleness", self.staleness)

    @property
    def reach(self) -> timedelta | None:
        """Maximum age of a row that is used at all; None: no limit."""
        return self.fresh if self.limit is None else _parse_length("limit", self.limit)

    @property
    def needs_numbers(self) -> bool:
        """Whether all columns must be numeric."""
        return self.fill == "zero"

    def oldest(self, start: datetime, _before: datetime) -> datetime | None:
        """Return the earliest `available_at` of rows needed from `start` on; None: no limit."""
        return None if self.reach is None else start - self.reach


@dataclass(frozen=True, slots=True)
class Resample:
    """Rows that became known in the step up to each time, `(time - every, time]`, aggregated.

    Attributes
    ----------
    aggregate
        `ohlcv`: first `open`, highest `high`, lowest `low`, last `close`, and the sum of every
        other column. `sum`: null if one of the values is null. `mean`: the mean of the non-null
        values. `last`: the values of the row that became known last.
    fill
        The values if no row became known. `none`: nulls. `flat` (only for `ohlcv`): the last close
        for every price, and zero for other columns. `last` (only for `mean` and `last`): the
        values of the last row. `zero` (not for `ohlcv`): zeros.
    limit
        Maximum age of a row that `flat` or `last` carries forward.
    columns
        Columns of the source; by default, the numeric ones.

    Raises
    ------
    UsageError
        The parameters do not fit together.
    """

    aggregate: Aggregate
    fill: Literal["none", "last", "flat", "zero"] = "none"
    limit: Length | None = None
    columns: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        _require_one_of("aggregate", self.aggregate, tuple(_FILLS))
        _require_one_of(f"fill of {self.aggregate}", self.fill, _FILLS[self.aggregate])
        _require_limit(self.fill, self.limit)

    @property
    def carries(self) -> bool:
        """Whether a row is carried forward to steps without rows."""
        return self.fill in _CARRYING_FILLS

    @property
    def reach(self) -> timedelta | None:
        """Maximum age of a row that is carried forward; None: rows are not carried."""
        return None if self.limit is None else _parse_length("limit", self.limit)

    @property
    def needs_numbers(self) -> bool:
        """Whether all columns must be numeric."""
        return self.aggregate != "last" or self.fill == "zero"

    def oldest(self, start: datetime, before: datetime) -> datetime:
        """Return the earliest `available_at` of rows needed from `start` on.

        `before`: the time of the grid before `start`.
        """
        return before if self.reach is None else min(before, start - self.reach)


How = AsOf | Resample

# A price is never zero, and a traded amount must not be repeated.
_FILLS: Mapping[str, tuple[str, ...]] = {
    "ohlcv": ("none", "flat"),
    "sum": ("none", "zero"),
    "mean": ("none", "last", "zero"),
    "last": ("none", "last", "zero"),
}


def _parse_length(what: str, value: Length) -> timedelta:
    if isinstance(value, str):
        timeframe = Timeframe.parse(value)
        if timeframe.unit == "M":
            raise UsageError(f"{what} is {value}: months differ in length", "Use days: 30d.")
        value = timedelta(seconds=timeframe.seconds)
    if not isinstance(value, timedelta) or not _ZERO <= value <= _CENTURY:
        raise UsageError(
            f"{what} is {value}",
            "Use a timedelta from 0 to 100 years, or a timeframe such as 5m, 8h, 1d.",
        )
    return value


def _require_limit(fill: str, limit: Length | None) -> None:
    if (fill in _CARRYING_FILLS) != (limit is not None):
        requirement = "needs a limit" if limit is None else "does not use a limit"
        raise UsageError(
            f"fill {fill!r} {requirement}",
            "The limit is the maximum age of a value that is carried forward.",
        )
    if limit is not None:
        _parse_length("limit", limit)


def _require_one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{what} is {value!r}", f"Use one of {', '.join(allowed)}.")
