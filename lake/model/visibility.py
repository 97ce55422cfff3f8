"""What a time may see: the rows that had become available, and where in a table they can be.

Alignment, replay, as-of joins and look-ups all see a row from its `Dataset.availability` on. Tables
are ordered by the time column, so that reads need bounds of it; these follow from the same rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from lake.model.dataset import END, RECEIVED_AT, Dataset
from lake.model.selection import Selection
from lake.model.time import MICROSECOND

AVAILABLE_AT = "available_at"


def carry_receipt(happened_at: pl.Expr, known: pl.Expr) -> pl.Expr:
    """Return `received_at` of a row that is made of others: null, unless they were known later.

    Parameters
    ----------
    happened_at
        The time from which the row would be available without `received_at`.
    known
        When the last of the others became available, or was received; null: not recorded.
    """
    return pl.when(known > happened_at).then(known).alias(RECEIVED_AT)


def carry_availability(dataset: Dataset, known: pl.Expr) -> pl.Expr | None:
    """Return the column by which a row that is made of others is not available before them.

    It is the announcement column, else `received_at`; None: the dataset has neither.
    """
    own = dataset.happened_at()
    if dataset.announcement_column is not None:
        return pl.max_horizontal(own, known).alias(dataset.announcement_column)
    if not dataset.records_receipt:
        return None
    column = next(c for c in dataset.columns if c.name == RECEIVED_AT)
    if not column.nullable:
        return pl.max_horizontal(own, known).alias(RECEIVED_AT)
    return carry_receipt(own, known)


@dataclass(frozen=True, slots=True)
class Visibility:
    """The rows of a dataset that became available in `[since, until)`; None: no bound."""

    dataset: Dataset
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def at(cls, dataset: Dataset, time: datetime) -> Visibility:
        """Return what was available at a time, that time included."""
        return cls(dataset, None, time + MICROSECOND)

    def includes(self, available_at: pl.Expr | None = None) -> pl.Expr:
        """Return whether a row became available then.

        Parameters
        ----------
        available_at
            Its availability; by default, that of the dataset.
        """
        known = self.dataset.availability() if available_at is None else available_at
        inside = pl.lit(value=True)
        if self.since is not None:
            inside &= known >= self.since
        if self.until is not None:
            inside &= known < self.until
        return inside

    def select(self, markets: Selection) -> Selection:
        """Select the rows of some markets that became available then, but for late ones.

        No row is available before it happened, except announcements, which may be of any time.
        Rows that were received late may lie before the selection: see `select_late`.
        """
        if self.dataset.announcement_column is not None:
            return Selection(markets.exchanges, markets.symbols)
        return Selection(markets.exchanges, markets.symbols, self._oldest, self.until)

    def select_late(self, markets: Selection) -> Selection | None:
        """Select the rows before those of `select`: the late ones are among them; None: no row."""
        if self._oldest is None or not self.dataset.records_receipt:
            return None
        if self.dataset.announcement_column is not None:
            return None
        return Selection(markets.exchanges, markets.symbols, None, self._oldest)

    def is_late(self) -> pl.Expr:
        """Return whether a row of `select_late` was received in time to be one of them."""
        return pl.col(RECEIVED_AT) >= pl.lit(self.since)

    @property
    def _oldest(self) -> datetime | None:
        """The time column of the oldest row that became available then, if it was not late."""
        if self.since is None:
            return None
        timeframe = self.dataset.timeframe
        if self.dataset.available_at == END and timeframe is not None:
            return self.since - timeframe.longest
        return self.since
