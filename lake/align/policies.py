"""How a source gets onto a grid of times: what counts as known, and what stands elsewhere."""

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
    """The newest row that was known at each time: for states, as a rate, a price, a book.

    Attributes
    ----------
    staleness
        How old it may be (time less `available_at`) to count as known fresh, as `8h` or a
        timedelta; None: never too old.
    fill
        What stands where nothing fresh is known. `none`: nulls. `last`: the values that are
        stale, up to `limit`. `zero`: zeros.
    limit
        How old a value that is carried on may be.
    columns
        Of the source; by default all but what rows say of themselves (market, date, `closed`,
        `fill`), or with zeros, those that are numbers.

    Raises
    ------
    UsageError
        The parts do not go together.
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
                f"limit {self.limit} is no longer than staleness {self.staleness}",
                "What is fresh is not carried on: give a longer limit, or another fill.",
            )

    @property
    def fresh(self) -> timedelta | None:
        """How old a row may be to count as fresh; None: never too old."""
        return None if self.staleness is None else _parse_length("staleness", self.staleness)

    @property
    def reach(self) -> timedelta | None:
        """How old a row may be to count at all; None: never too old."""
        return self.fresh if self.limit is None else _parse_length("limit", self.limit)

    @property
    def needs_numbers(self) -> bool:
        """Whether all columns must be numbers."""
        return self.fill == "zero"

    def oldest(self, start: datetime, _before: datetime) -> datetime | None:
        """When the oldest row became known that can count from `start` on; None: at any time."""
        return None if self.reach is None else start - self.reach


@dataclass(frozen=True, slots=True)
class Resample:
    """What became known in the step up to each time, `(time - every, time]`, made one value.

    Attributes
    ----------
    aggregate
        `ohlcv`: first `open`, highest `high`, lowest `low`, last `close`, and the sum of every
        other column. `sum`: null where one of the values is. `mean`: of the values that are not
        null. `last`: of the row that became known last.
    fill
        What stands where nothing became known. `none`: nulls. `flat` (of `ohlcv`): the last close
        as every price, and zero for the rest. `last` (of `mean` and `last`): the values of the
        last row. `zero` (not of `ohlcv`): zeros.
    limit
        How old a row that is carried on, by `flat` or `last`, may be.
    columns
        Of the source; by default those that are numbers.

    Raises
    ------
    UsageError
        The parts do not go together.
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
        """Whether a row is carried on where nothing became known."""
        return self.fill in _CARRYING_FILLS

    @property
    def reach(self) -> timedelta | None:
        """How old a row that is carried on may be; None: no row is."""
        return None if self.limit is None else _parse_length("limit", self.limit)

    @property
    def needs_numbers(self) -> bool:
        """Whether all columns must be numbers."""
        return self.aggregate != "last" or self.fill == "zero"

    def oldest(self, start: datetime, before: datetime) -> datetime:
        """When the oldest row became known that can count from `start` on.

        `before`: the time of the grid before `start`.
        """
        return before if self.reach is None else min(before, start - self.reach)


How = AsOf | Resample

# A price is never zero, and what was traded once is not traded again.
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
            raise UsageError(f"{what} is {value}: months differ in length", "Say it in days: 30d.")
        value = timedelta(seconds=timeframe.seconds)
    if not isinstance(value, timedelta) or not _ZERO <= value <= _CENTURY:
        raise UsageError(
            f"{what} is {value}", "Give a timedelta from nothing to a century, or as 5m, 8h, 1d."
        )
    return value


def _require_limit(fill: str, limit: Length | None) -> None:
    if (fill in _CARRYING_FILLS) != (limit is not None):
        requirement = "needs a limit" if limit is None else "has no use for a limit"
        raise UsageError(
            f"fill {fill!r} {requirement}",
            "The limit says how old a value that is carried on may be.",
        )
    if limit is not None:
        _parse_length("limit", limit)


def _require_one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{what} is {value!r}", f"It is one of {', '.join(allowed)}.")
