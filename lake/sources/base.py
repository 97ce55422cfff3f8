"""What a source is: it gives frames of markets, and never sees storage.

A source serves one or several things: ranges of the past, the present, specifications of markets.
Each is a protocol, so that a source implements only what it can serve.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

import polars as pl

from lake.errors import UnknownNameError
from lake.model.dataset import Dataset
from lake.model.market import Market
from lake.model.time import TimeRange


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What one fetch asks a source for, within a window: a dataset of a market."""

    dataset: Dataset
    market: Market


@dataclass(frozen=True, slots=True)
class Refused:
    """A raw record of an answer that cannot become a row.

    Attributes
    ----------
    reason
        Why not, as a name: `price_missing`.
    raw
        The record as the source sent it: JSON, or other text.
    time
        Its time in UTC; None where it has no usable time.
    """

    reason: str
    raw: str
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one answer, and the intervals that they settle.

    Attributes
    ----------
    frame
        Rows with the columns of the dataset, without `exchange`, `symbol` and `date`; nullable
        columns that the venue does not give may be missing.
    settled
        The interval that is complete once this page and those before it are stored; None while
        that is open. Settled intervals of one request and window do not overlap.
    refused
        Records of the answer that cannot become rows; they go to the table `quarantine`.
    not_given
        The part of the window that the venue no longer serves, because its oldest row is younger:
        there may have been rows. It does not overlap settled intervals. None where there is no
        such part.
    """

    frame: pl.DataFrame
    settled: TimeRange | None
    refused: tuple[Refused, ...] = ()
    not_given: TimeRange | None = None

    @property
    def end(self) -> datetime:
        """The end of the interval that is settled or not given.

        Raises
        ------
        ValueError
            The page has neither.
        """
        return max(part.end for part in (self.settled, self.not_given) if part is not None)

    @property
    def records(self) -> int:
        """Count of the records of the answer: rows, and what was refused."""
        return self.frame.height + len(self.refused)


class Source(Protocol):
    """Market data of one exchange: what all sources have in common. Times are UTC."""

    @property
    def name(self) -> str:
        """Name that is recorded as the source of rows: that of the registry."""
        ...

    @property
    def requests(self) -> int:
        """Count of requests sent so far, repeats included."""
        ...

    async def market(self, symbol: str) -> Market:
        """Return the market of a symbol.

        Raises
        ------
        UnknownNameError
            The venue does not list it: names the closest.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@runtime_checkable
class RangeSource(Source, Protocol):
    """Serves the rows of ranges, window by window; windows are `[start, end)`."""

    @property
    def batch_size(self) -> int:
        """The most requests that one fetch takes."""
        ...

    @property
    def concurrency(self) -> int:
        """How many fetches should run at once now; it changes with the answers."""
        ...

    async def require(self, dataset: Dataset, market: Market) -> None:
        """Refuse a dataset or timeframe that the venue, or this market, does not have.

        Raises
        ------
        UnknownNameError
            It does not have it; the error names what it has.
        """
        ...

    def window(self, dataset: Dataset) -> timedelta:
        """Return how much time one fetch should span, so that many can run at once."""
        ...

    def fetch(
        self, requests: Sequence[FetchRequest], window: TimeRange
    ) -> AsyncGenerator[tuple[FetchRequest, Page]]:
        """Yield all rows of a window, in pages: those of each request in order of time.

        Parameters
        ----------
        requests
            At most `batch_size`, each once; their pages may alternate.

        Raises
        ------
        SourceRefusedError
            The venue permanently refuses the market, or this window. Pages that came before the
            error hold: what they do not settle is refused.
        SourceUnavailableError
            The venue gave no usable answer until the retries ran out.
        SourceError
            Its answer cannot be used, and another request would not help.
        """
        ...


@runtime_checkable
class PresentSource(Source, Protocol):
    """Serves the present."""

    async def order_book(self, market: Market, depth: int | None) -> pl.DataFrame:
        """Return one row of `orderbooks`: the book now, to a depth (None: the venue's own)."""
        ...


@runtime_checkable
class SpecificationSource(Source, Protocol):
    """Serves the specifications of markets."""

    async def instruments(self, symbols: Collection[str] | None = None) -> dict[str, pl.DataFrame]:
        """Return by symbol one row of `instruments` without `valid_from`.

        Parameters
        ----------
        symbols
            Those to return, as far as the venue lists them; None for all.
        """
        ...


def require_ranges(source: Source) -> RangeSource:
    """Return the source as one that serves ranges.

    Raises
    ------
    UnknownNameError
        It does not; the error names what it serves.
    """
    if isinstance(source, RangeSource):
        return source
    raise _build_error(source, "ranges of time")


def require_present(source: Source) -> PresentSource:
    """Return the source as one that serves the present.

    Raises
    ------
    UnknownNameError
        It does not; the error names what it serves.
    """
    if isinstance(source, PresentSource):
        return source
    raise _build_error(source, "order books")


def require_specifications(source: Source) -> SpecificationSource:
    """Return the source as one that serves specifications.

    Raises
    ------
    UnknownNameError
        It does not; the error names what it serves.
    """
    if isinstance(source, SpecificationSource):
        return source
    raise _build_error(source, "specifications of markets")


def _build_error(source: Source, ability: str) -> UnknownNameError:
    abilities = {
        "ranges of time": isinstance(source, RangeSource),
        "order books": isinstance(source, PresentSource),
        "specifications of markets": isinstance(source, SpecificationSource),
    }
    served = [name for name, has in abilities.items() if has]
    return UnknownNameError(
        f"{source.name} does not serve {ability}", f"It serves {' and '.join(served) or 'nothing'}."
    )
