"""A selection of rows: exchanges, symbols and a range of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import and_

import polars as pl

from lake.errors import UnknownNameError, UsageError
from lake.model.dataset import Dataset
from lake.model.time import in_utc, iso


@dataclass(frozen=True, slots=True)
class Selection:
    """Exchanges and symbols (empty: all) in the range `[start, end)` (None: unbounded)."""

    exchanges: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            time = getattr(self, name)
            if time is not None:
                object.__setattr__(self, name, in_utc(time))
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise UsageError(
                f"range is empty or reversed: {iso(self.start)} is not before {iso(self.end)}",
                "A range is [since, until): since must be earlier than until.",
            )

    def within(self, outer: Selection) -> Selection:
        """Return the part of this selection that lies in another.

        Raises
        ------
        UnknownNameError
            The selections have no exchange, symbol or time in common.
        """
        common = self.overlap(outer)
        if common is None:
            raise UnknownNameError(
                f"the requested range is outside {_format_bound(outer.start)} "
                f"to {_format_bound(outer.end)}",
                "Select a range that overlaps it.",
            )
        return common

    def overlap(self, outer: Selection) -> Selection | None:
        """Return the part of this selection that lies in another; None if no time is in both.

        Raises
        ------
        UnknownNameError
            The selections have no exchange or symbol in common.
        """
        exchanges = _intersect("exchange", self.exchanges, outer.exchanges)
        symbols = _intersect("symbol", self.symbols, outer.symbols)
        start = max(filter(None, (self.start, outer.start)), default=None)
        end = min(filter(None, (self.end, outer.end)), default=None)
        if start is not None and end is not None and start >= end:
            return None
        return Selection(exchanges, symbols, start, end)

    def predicate(self, dataset: Dataset) -> pl.Expr | None:
        """Return the condition on stored rows, with bounds on `date`: they prune files, too."""
        terms = []
        if self.exchanges:
            terms.append(pl.col("exchange").is_in(list(self.exchanges)))
        if self.symbols:
            terms.append(pl.col("symbol").is_in(list(self.symbols)))
        if self.start is not None:
            terms.append(pl.col("date") >= self.start.date())
            terms.append(pl.col(dataset.time_column) >= self.start)
        if self.end is not None:
            terms.append(pl.col("date") <= self.end.date())
            terms.append(pl.col(dataset.time_column) < self.end)
        return reduce(and_, terms) if terms else None


def as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return one name or several as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def _intersect(what: str, names: tuple[str, ...], outer_names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or not outer_names:
        return names or outer_names
    common = tuple(name for name in names if name in outer_names)
    if not common:
        raise UnknownNameError(
            f"{what} {', '.join(names)} is not in the selection",
            f"It has {', '.join(outer_names)}.",
        )
    return common


def _format_bound(time: datetime | None) -> str:
    return iso(time) if time else "any time"
