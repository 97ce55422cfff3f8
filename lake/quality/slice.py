"""What a check is given: the rows of one market in a range, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from lake.model.dataset import Dataset
from lake.model.intervals import RangeSet
from lake.model.market import Market
from lake.model.time import TimeRange

NEAR_BARS = 24
"""Slots around the judged range that are seen at least of the same bars on other venues."""


@dataclass(frozen=True)
class Reference:
    """Rows that testify about others: of another table or market, in the range and its margins.

    They are in the order of their dataset.

    `coverage`: of which intervals the source's answer is known; None where nobody recorded it.
    """

    dataset: Dataset
    market: Market
    frame: pl.LazyFrame
    coverage: RangeSet | None = None


@dataclass(frozen=True)
class Slice:
    """What a check looks at.

    Attributes
    ----------
    dataset, market
        What the rows are.
    range
        Which part is judged: whole UTC days, today too; of a pin exactly what is pinned.
    now
        The present. Rows after it are wrong, and what is not there yet is not missing.
    rows
        The rows of the market in the order of the dataset, of the range and the margin of the
        dataset on both sides.
    span
        From the first row of the market to just after its last one, in the whole table: before
        and after it nothing is missing. None: as `rows` say.
    coverage
        Of which intervals the source's answer is known; None where nobody recorded it, as with
        rows that were not fetched.
    rows_per_second
        How many rows the market has in a second of covered time, in the whole table.
    has_consecutive_ids
        Whether nine of ten ids from the market's first to its last trade are in the table: the
        venue numbers them one by one.
    trades
        The market's trades.
    finer
        The market's bars of finer timeframes, the next finer first.
    others
        The same table of the same asset on other venues.
    outages
        When all markets of the venue were silent.
    omits_empty_bars
        Whether the venue is known to send no bar where there was no trade.
    quarantine
        Rows of `quarantine` of this table and market in the range.
    """

    dataset: Dataset
    market: Market
    range: TimeRange
    now: datetime
    frame: pl.LazyFrame
    span: TimeRange | None = None
    coverage: RangeSet | None = None
    rows_per_second: float | None = None
    has_consecutive_ids: bool = False
    trades: Reference | None = None
    finer: tuple[Reference, ...] = ()
    others: tuple[Reference, ...] = ()
    outages: RangeSet = ()
    omits_empty_bars: bool = False
    quarantine: pl.DataFrame | None = None

    @property
    def time(self) -> pl.Expr:
        """The time column."""
        return pl.col(self.dataset.time_column)

    @property
    def reach(self) -> timedelta:
        """How far a bar is compared with what is around its day; nothing without a timeframe.

        Half of the margin, so that from every row of the day and around it as much is seen again:
        what is found of a day is the same whatever else is judged.
        """
        return self.dataset.margin / 2 if self.dataset.timeframe else timedelta(0)

    @property
    def step(self) -> timedelta | None:
        """Length of a bar; None of what is no bar."""
        timeframe = self.dataset.timeframe
        return timedelta(seconds=timeframe.seconds) if timeframe else None

    def is_inside(self) -> pl.Expr:
        """Whether a row is in the judged range."""
        return self.time.is_between(self.range.start, self.range.end, closed="left")
