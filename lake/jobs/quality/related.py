"""Find the tables that a table is compared with: finer and longer bars, and trades."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from lake.jobs.quality.file_spans import Listing
from lake.model.dataset import Dataset
from lake.model.market import Market
from lake.model.time import DAY
from lake.store.reader import TableReader

_HOUR_SECONDS = 3600
_BARS = "bars"  # the family whose bars are made of the market's trades


def find_reference_tables(
    tables: Mapping[str, TableReader], listing: Listing, dataset: Dataset, market: Market
) -> list[str]:
    """Return the tables that a table is compared with.

    Bars are compared with the next finer bars, and with trades if they are not longer than an
    hour or have no finer bars; order books with trades.
    """
    is_bar = dataset.event == "bar" and dataset.timeframe is not None
    if not is_bar and dataset.event != "order_book":
        return []  # no other table is opened: it may be damaged
    has_trades = "trades" in tables and listing.span("trades", market) is not None
    if dataset.timeframe is None:
        return ["trades"] if has_trades else []
    names = _find_next_finer(tables, listing, dataset, market)
    if has_trades and (not names or dataset.timeframe.seconds <= _HOUR_SECONDS):
        names.append("trades")
    return names


def find_longer_tables(
    tables: Mapping[str, TableReader],
    listing: Listing,
    dataset: Dataset,
    market: Market,
    longest: timedelta,
) -> list[str]:
    """Return the tables of longer bars of a market, up to a length, the next longer first."""
    own = measure_longest_bar(dataset)
    longer = [
        (length, name)
        for name, length in _list_family(tables, listing, dataset, market).items()
        if own < length <= longest
    ]
    return [name for _, name in sorted(longer)]


def find_reference_margin(dataset: Dataset) -> timedelta:
    """Return how far around a range trades and finer bars are read: at least one bar."""
    return max(min(dataset.margin, DAY), measure_longest_bar(dataset))


def find_venue_margin(dataset: Dataset) -> timedelta:
    """Return how far around a range other venues are read: bars as far as the market's own."""
    return dataset.margin if dataset.timeframe else min(dataset.margin, DAY)


def find_finest_bars(
    tables: Mapping[str, TableReader], listing: Listing, dataset: Dataset, market: Market
) -> str | None:
    """Return the table of the finest bars that trades are compared with, of at most an hour."""
    if dataset.event != "trade":
        return None  # no other table is opened: it may be damaged
    lengths = [
        (reader.dataset.timeframe.longest, name)
        for name, reader in tables.items()
        if reader.dataset.family == _BARS
        and reader.dataset.timeframe is not None
        and reader.dataset.timeframe.seconds <= _HOUR_SECONDS
        and listing.span(name, market) is not None
    ]
    return min(lengths)[1] if lengths else None


def measure_longest_bar(dataset: Dataset) -> timedelta:
    """Return the length of the longest bar; 0 without a timeframe."""
    return dataset.timeframe.longest if dataset.timeframe else timedelta(0)


def _find_next_finer(
    tables: Mapping[str, TableReader], listing: Listing, dataset: Dataset, market: Market
) -> list[str]:
    own = measure_longest_bar(dataset)
    family = _list_family(tables, listing, dataset, market)
    finer = [(length, name) for name, length in family.items() if length < own]
    return [name for _, name in sorted(finer, reverse=True)[:1]]


def _list_family(
    tables: Mapping[str, TableReader], listing: Listing, dataset: Dataset, market: Market
) -> dict[str, timedelta]:
    """Return the length of bars of each table of the family that has rows of a market."""
    return {
        name: reader.dataset.timeframe.longest
        for name, reader in tables.items()
        if reader.dataset.family == dataset.family
        and reader.dataset.timeframe is not None
        and listing.span(name, market) is not None
    }


def has_venues(dataset: Dataset) -> bool:
    """Whether rows are compared with those of the same symbol on other venues."""
    return dataset.timeframe is not None or dataset.event == "order_book"
