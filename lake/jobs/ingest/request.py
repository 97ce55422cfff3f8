"""What a user requests: names and a range, and the markets that they mean."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from lake.errors import UnknownNameError, UsageError
from lake.model.catalog import Catalog
from lake.model.dataset import Dataset
from lake.model.market import Market
from lake.model.names import expand_tables, list_closest, table_of
from lake.query.unfinished import Part, find_unfinished
from lake.sources.registry import is_served
from lake.store.coverage import CLAIMED
from lake.store.ledger import Ledger
from lake.store.reader import EVERYTHING
from lake.store.refusals import Refusals
from lake.store.store import Store

_DEFAULT_TIMEFRAME = "1m"


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

    A dataset with one table a timeframe, as `bars`, means `1m` where no timeframe is given.
    Without symbols it means what was asked for before, of these tables and exchanges or of all.
    """

    tables: tuple[str, ...] = ()
    timeframes: tuple[str, ...] = ()
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
    datasets = find_fetchable(store.catalog, choice.tables, choice.timeframes)
    begun = _read_begun(store)
    if choice.symbols:
        if not (choice.exchanges and datasets):
            raise UsageError(
                "symbols are given, but no dataset or no exchange",
                "Write `lake ingest bars -e binance -s BTC/USDT …`.",
            )
        pairs = _product(datasets, choice)
    else:
        tables = {dataset.name for dataset in datasets}
        pairs = list(_list_begun(store.catalog, begun, tables, choice.exchanges))
    if not pairs:
        raise UsageError(
            "nothing is covered yet, so there is nothing to go on with",
            "Say what to fetch: `lake ingest bars -e binance -s BTC/USDT -t 1m --since 30d`.",
        )
    return [
        IngestRequest(
            dataset,
            market,
            choice.since or begun.get((dataset.name, market.exchange, market.symbol)),
            choice.until,
            choice.refetch,
        )
        for dataset, market in pairs
    ]


def find_fetchable(
    catalog: Catalog,
    names: Sequence[str],
    timeframes: Sequence[str],
    *,
    of_present: bool = False,
) -> list[Dataset]:
    """The datasets that names mean, which exchanges give by range.

    Parameters
    ----------
    of_present
        Let through also what exchanges give only as it is now.

    Raises
    ------
    UnknownNameError
        There is no such dataset: names those that exchanges give, the closest first.
    UsageError
        It does not come from exchanges; or a timeframe is given without a dataset that has any.
    """
    families = {
        family: [table_of(family, _DEFAULT_TIMEFRAME)]
        for family in catalog.families
        if catalog.has_timeframes(family)
    }
    tables = expand_tables(names, timeframes, families)
    return [_require_fetchable(catalog, name, of_present=of_present) for name in tables]


def _require_fetchable(catalog: Catalog, name: str, *, of_present: bool) -> Dataset:
    ranges, present = catalog.fetched_by_range, catalog.fetched_as_present
    listed = list_closest(name, (*ranges, *present) if of_present else ranges)
    try:
        dataset = catalog.dataset(name)
    except UnknownNameError:
        raise UnknownNameError(
            f"there is no dataset {name!r}", f"Exchanges give {listed}."
        ) from None
    if dataset.is_fetched_by_range or (of_present and dataset.is_fetched_as_present):
        return dataset
    if dataset.is_fetched_as_present:
        raise UsageError(
            f"{name} cannot be fetched by range: exchanges give only the present",
            f"Fetch it as it is now, without a range, or one of {', '.join(ranges)} by range.",
        )
    raise UsageError(f"{name} does not come from exchanges", f"These do: {listed}.")


def _product(datasets: Sequence[Dataset], choice: IngestChoice) -> list[tuple[Dataset, Market]]:
    markets = [Market(exchange, s) for exchange in choice.exchanges for s in choice.symbols]
    return [(dataset, market) for dataset in datasets for market in markets]


def _read_begun(store: Store) -> dict[Part, datetime | None]:
    """Return what was covered, refused, or left behind by an ingestion that did not end.

    With the beginning that the latter was to fetch from; all else goes on from what is recorded.
    What only a user's own rows cover was never fetched, and is not begun.
    """
    rows = Ledger(store).read_coverage(EVERYTHING).filter(pl.col("source") != CLAIMED)
    begun = rows.group_by("dataset", "exchange", "symbol").agg(pl.col("timestamp").min())
    known: dict[Part, datetime] = {(t, e, s): start for t, e, s, start in begun.iter_rows()}
    for item in Refusals(store).read():
        part = (item.table, item.market.exchange, item.market.symbol)
        known[part] = min(item.start, known.get(part, item.start))
    left = {part: item.since for part, item in find_unfinished(store, known).items()}
    return {**dict.fromkeys(known), **left}


def _list_begun(
    catalog: Catalog, begun: Collection[Part], tables: Collection[str], exchanges: Collection[str]
) -> Iterator[tuple[Dataset, Market]]:
    """List what was asked for before, of some tables and exchanges or of all.

    What was recorded or imported, and no source serves by range, cannot go on.
    """
    for table, exchange, symbol in sorted(begun):
        if (tables and table not in tables) or (exchanges and exchange not in exchanges):
            continue
        with suppress(UnknownNameError):  # its dataset file is gone
            dataset = catalog.dataset(table)
            if dataset.is_fetched_by_range and is_served(exchange):
                yield dataset, Market(exchange, symbol)
