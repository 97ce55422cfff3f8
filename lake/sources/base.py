"""What a source is: it gives frames of one market for a window, and never sees storage."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import polars as pl

from lake.model.dataset import Dataset
from lake.model.market import Market
from lake.model.time import TimeRange


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one answer, and the interval that they settle.

    Attributes
    ----------
    frame
        Rows with the columns of the dataset, without `exchange`, `symbol` and `date`; nullable
        columns that the venue does not give may be missing.
    settled
        The interval of which every row is known once this page and those before it are stored;
        None while that is open. Settled intervals of one window do not overlap.
    """

    frame: pl.DataFrame
    settled: TimeRange | None


class Source(Protocol):
    """Market data of one exchange. Times are UTC; windows are `[start, end)`."""

    @property
    def name(self) -> str:
        """What is recorded as the source of rows, as `ccxt:binance`."""
        ...

    @property
    def requests(self) -> int:
        """Answers asked for so far, repeats included."""
        ...

    async def market(self, symbol: str) -> Market:
        """The market of a symbol.

        Raises
        ------
        UnknownNameError
            The venue does not list it: names the closest.
        """
        ...

    async def require(self, dataset: Dataset, market: Market) -> None:
        """Refuse a dataset or timeframe that the venue, or this market, does not have.

        Raises
        ------
        UnknownNameError
            It has not: names what it has.
        """
        ...

    def window(self, dataset: Dataset) -> timedelta:
        """How much time one fetch should span, so that many can run at once."""
        ...

    def fetch(self, dataset: Dataset, market: Market, window: TimeRange) -> AsyncGenerator[Page]:
        """All rows of a window, in pages, in order of time.

        Raises
        ------
        SourceUnavailableError
            The venue did not answer, or answered rubbish, until the retries ran out.
        SourceError
            Its answer cannot be used, and asking again would not help.
        """
        ...

    async def order_book(self, market: Market, depth: int | None) -> pl.DataFrame:
        """One row of `orderbooks`: the book now, to the depth asked for (None: the venue's own)."""
        ...

    async def instruments(self) -> dict[str, pl.DataFrame]:
        """By symbol, one row of `instruments` without `valid_from`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
