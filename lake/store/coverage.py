"""Coverage: intervals for which sources have answered, and how they are joined. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from lake.model.time import TimeRange

NOT_GIVEN = "not_given"
"""Status of an interval that a source no longer serves: it answered, but nothing is settled."""
CLAIMED = "write"
"""Source of the coverage of a user's own rows: all that there are in that time, as they say."""


@dataclass(frozen=True, slots=True)
class CoveredRange:
    """An interval for which a source has answered, and the number of rows in the answer.

    Attributes
    ----------
    status
        How it answered, as in the table `coverage`; None: `fetched` with rows, else `empty`.
    """

    range: TimeRange
    rows: int
    status: str | None = None

    @property
    def kind(self) -> str:
        """The status as it is recorded."""
        return self.status or ("fetched" if self.rows else "empty")


def is_covered() -> pl.Expr:
    """Whether a row of `coverage` covers its interval: what was not given does not."""
    return pl.col("status") != NOT_GIVEN


def join_neighbours(ranges: Iterable[CoveredRange]) -> list[CoveredRange]:
    """Sort intervals, and join adjacent ones of one status."""
    result: list[CoveredRange] = []
    for item in sorted(ranges, key=lambda covered: covered.range):
        last = result[-1] if result else None
        if last and last.range.end == item.range.start and last.kind == item.kind:
            merged = TimeRange(last.range.start, item.range.end)
            result[-1] = CoveredRange(merged, last.rows + item.rows, item.status)
        else:
            result.append(item)
    return result
