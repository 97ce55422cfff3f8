"""Define the input of a check: the rows of one market in a range, and references for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.grid import Grid
from lake.model.intervals import RangeSet
from lake.model.literals import time_literal
from lake.model.market import Market
from lake.model.time import EPOCH, MICROSECOND, TimeRange
from lake.model.units import Units, find_units

NEAR_BARS = 24
"""Slots around the checked range that a check gets, at least, of the same bars on other venues."""


@dataclass(frozen=True)
class Reference:
    """Rows of another table or market that a check compares with, in the range and its margins.

    They have the order of their dataset. `coverage`: the intervals that the source has answered;
    None: not recorded. `bar_grid`: as in `Slice`.
    """

    dataset: Dataset
    market: Market
    frame: pl.LazyFrame
    coverage: RangeSet | None = None
    bar_grid: Grid | None = None

    @property
    def grid(self) -> Grid | None:
        """The grid of the bars; None without a timeframe."""
        return _find_grid(self.dataset, self.bar_grid)


@dataclass(frozen=True)
class Stretches:
    """Stretches of time of one length, one after another from `start`, each of one market."""

    start: datetime
    length: timedelta
    markets: tuple[Slice, ...]

    def number(self, time: pl.Expr) -> pl.Expr:
        """Return the number of the stretch that contains a time."""
        since = time.dt.timestamp("us") - (self.start - EPOCH) // MICROSECOND
        return since // (self.length // MICROSECOND)


@dataclass(frozen=True)
class Slice:
    """The input of a check.

    Attributes
    ----------
    dataset, market
        Dataset and market of the rows.
    range
        The checked range: whole UTC days, including today; for a pin exactly the pinned range.
    now
        The present. Rows after it are wrong; rows that are not due yet are not missing.
    frame
        The rows of the market, ordered as in the dataset: those of the range and the margin of the
        dataset on both sides.
    span
        From the first row of the market to just after its last row, in the whole table. Outside it
        only what `not_given`, `gone` and `claimed` name is missing. None: from the first to the
        last row of `frame`.
    coverage
        Intervals that the source has answered; None: not recorded, as for rows that were not
        fetched.
    not_given
        Intervals that were requested, and that the source no longer serves.
    gone
        Intervals before the first and after the last row whose rows were stored and are not there.
    claimed
        Intervals before the first and after the last row of which a user has written all bars.
    rows_per_second
        Average number of rows per second of covered time, in the whole table.
    has_consecutive_ids
        Whether the table has at least nine of ten ids between the market's first and last trade:
        then the venue numbers trades consecutively.
    trades
        The market's trades.
    finer
        The market's bars of finer timeframes, the next finer first.
    coarser
        The market's bars of longer timeframes, the next longer first, if a bar is missing.
    bars
        The market's finest bars, of trades.
    others
        The same table of the same asset on other venues.
    strangers
        The same table of another asset that has the same symbol on other venues.
    outages
        When all markets of the venue were silent.
    omits_empty_bars
        Whether the venue sends no bar for an interval without a trade.
    quarantine
        Rows of `quarantine` of this table and market in the range.
    bar_grid
        Where the venue's bars open, if not on the timeframe's own grid.
    funding_limit
        Largest absolute funding rate of the contract; None: unknown.
    units
        Units of amounts and volumes; None: those of the symbol's kind.
    stretches
        The markets of a joined slice, see `lake.quality.join`; None: there is one market.
    """

    dataset: Dataset
    market: Market
    range: TimeRange
    now: datetime
    frame: pl.LazyFrame
    span: TimeRange | None = None
    coverage: RangeSet | None = None
    not_given: RangeSet = ()
    gone: RangeSet = ()
    claimed: RangeSet = ()
    rows_per_second: float | None = None
    has_consecutive_ids: bool = False
    trades: Reference | None = None
    finer: tuple[Reference, ...] = ()
    coarser: tuple[Reference, ...] = ()
    bars: Reference | None = None
    others: tuple[Reference, ...] = ()
    strangers: tuple[Reference, ...] = ()
    outages: RangeSet = ()
    omits_empty_bars: bool = False
    quarantine: pl.DataFrame | None = None
    bar_grid: Grid | None = None
    funding_limit: float | None = None
    units: Units | None = None
    stretches: Stretches | None = None
    _shared: dict[str, pl.LazyFrame] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __repr__(self) -> str:
        return f"<Slice of {self.dataset.name} {self.market}: {self.range}>"

    @property
    def markets(self) -> tuple[Slice, ...]:
        """The slices of single markets: those that were joined, or this one."""
        return self.stretches.markets if self.stretches else (self,)

    def choose(self, values: Sequence[int], time: pl.Expr) -> pl.Expr:
        """Choose the value of the market whose time it is; `values` are those of `markets`."""
        if self.stretches is None:
            return pl.lit(values[0], dtype=pl.Int64)
        return pl.lit(pl.Series(values, dtype=pl.Int64)).gather(self.stretches.number(time))

    def choose_time(self, values: Sequence[datetime], time: pl.Expr) -> pl.Expr:
        """Choose the time of the market whose time it is; `values` are those of `markets`."""
        numbers = [(value - EPOCH) // MICROSECOND for value in values]
        return self.choose(numbers, time).cast(TIMESTAMP)

    def previous(self, value: pl.Expr, time: pl.Expr) -> pl.Expr:
        """Return a value of the row before, whose time is `time`; null for another market's."""
        if self.stretches is None:
            return value.shift(1)
        market = self.stretches.number(time)
        return pl.when(market == market.shift(1)).then(value.shift(1))

    @property
    def time(self) -> pl.Expr:
        """The time column."""
        return pl.col(self.dataset.time_column)

    @property
    def grid(self) -> Grid | None:
        """The grid of the bars; None if the rows are not bars."""
        return _find_grid(self.dataset, self.bar_grid)

    @property
    def known_units(self) -> Units:
        """The units of amounts and volumes."""
        return self.units or find_units(self.market.exchange, self.market.symbol)

    @property
    def reach(self) -> timedelta:
        """Time around a day that a bar is compared with; 0 without a timeframe.

        It is half of the margin: a row that far from the day is compared with rows as far from it,
        so that the findings of a day do not depend on which other days are checked with it.
        """
        return self.dataset.margin / 2 if self.dataset.timeframe else timedelta(0)

    @property
    def step(self) -> timedelta | None:
        """Length of a bar; None if the rows are not bars."""
        timeframe = self.dataset.timeframe
        return timedelta(seconds=timeframe.seconds) if timeframe else None

    def share(self, name: str, make: Callable[[], pl.LazyFrame]) -> pl.LazyFrame:
        """Compute a frame that several checks need; of checks that run together, only once."""
        if name not in self._shared:
            self._shared[name] = make().collect().lazy()
        return self._shared[name]

    def release(self) -> None:
        """Forget frames that checks shared."""
        self._shared.clear()

    def is_inside(self) -> pl.Expr:
        """Whether a row is in the checked range."""
        start, end = time_literal(self.range.start), time_literal(self.range.end)
        return self.time.is_between(start, end, closed="left")


def _find_grid(dataset: Dataset, known: Grid | None) -> Grid | None:
    return known or (Grid(dataset.timeframe) if dataset.timeframe else None)
