"""What a user requests: names and a range, and the markets that they mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from lake.errors import UsageError
from lake.model.dataset import Dataset
from lake.model.market import Market
from lake.query.overview import read_coverage
from lake.store.reader import EVERYTHING
from lake.store.store import Store


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """What a user wants: a dataset of a market in a range.

    Without `since` it continues what is covered, without `until` it ends now; `refetch` fetches
    again what is covered.
    """

    dataset: Dataset
    market: Market
    since: datetime | None = None
    until: datetime | None = None
    refetch: bool = False


@dataclass(frozen=True, slots=True)
class IngestChoice:
    """Requests as users name them: of these tables, exchanges and symbols, in one range.

    Without symbols it means what is covered, of these tables and exchanges or of all.
    """

    tables: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    refetch: bool = False


def choose_requests(store: Store, choice: IngestChoice) -> list[IngestRequest]:
    """The requests that a choice means.

    Raises
    ------
    UnknownNameError
        There is no such dataset.
    UsageError
        A table does not come from exchanges as ranges, symbols stand alone, or nothing is covered.
    """
    datasets = [_require_ranges(store, name) for name in choice.tables]
    if choice.symbols:
        if not (choice.exchanges and datasets):
            raise UsageError(
                "symbols are given, but no dataset or no exchange",
                "Write `lake ingest bars -e binance -s BTC/USDT …`.",
            )
        pairs = _product(datasets, choice)
    else:
        pairs = list(_covered(store, choice))
    if not pairs:
        raise UsageError(
            "nothing is covered yet, so there is nothing to go on with",
            "Say what to fetch: `lake ingest bars -e binance -s BTC/USDT -t 1m --since 30d`.",
        )
    return [
        IngestRequest(dataset, market, choice.since, choice.until, choice.refetch)
        for dataset, market in pairs
    ]


def _require_ranges(store: Store, name: str) -> Dataset:
    dataset = store.catalog.dataset(name)
    if dataset.is_fetched_by_range:
        return dataset
    ranges, present = store.catalog.fetched_by_range, store.catalog.fetched_as_present
    if dataset.is_fetched_as_present:
        raise UsageError(
            f"{name} cannot be fetched by range: exchanges give only the present",
            f"Fetch it as it is now, or one of {', '.join(ranges)} by range.",
        )
    raise UsageError(
        f"{name} does not come from exchanges", f"These do: {', '.join((*ranges, *present))}."
    )


def _product(datasets: Sequence[Dataset], choice: IngestChoice) -> list[tuple[Dataset, Market]]:
    markets = [Market(exchange, s) for exchange in choice.exchanges for s in choice.symbols]
    return [(dataset, market) for dataset in datasets for market in markets]


def _covered(store: Store, choice: IngestChoice) -> Iterator[tuple[Dataset, Market]]:
    """What is covered, of the tables and exchanges of a choice."""
    rows = read_coverage(store, None, EVERYTHING).select("table", "exchange", "symbol")
    for table, exchange, symbol in rows.unique(maintain_order=True).iter_rows():
        if choice.tables and table not in choice.tables:
            continue
        if choice.exchanges and exchange not in choice.exchanges:
            continue
        yield store.catalog.dataset(table), Market(exchange, symbol)
