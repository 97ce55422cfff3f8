"""Find the tables and markets of a lake by the names that a user gives, or the closest names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Literal

import polars as pl

from lake.errors import UnknownNameError
from lake.model import names
from lake.model.dataset import Dataset
from lake.model.market import MARKET_COLUMNS
from lake.model.names import Families, expand_table, expand_tables, list_closest
from lake.model.selection import Selection
from lake.store.reader import EVERYTHING, TableReader
from lake.store.store import Store

_EXAMPLES = ("1m", "1h", "1d")
Missing = Literal["error", "empty"]
"""The result for a market that a table does not hold: an error, or no rows."""


def find_dataset(store: Store, table: str, timeframe: str | None = None) -> Dataset:
    """Return the dataset of a table, which need not exist yet.

    Raises
    ------
    UnknownNameError
        There is no such dataset; the hint lists the closest names.
    UsageError
        The dataset has one table per timeframe, and no timeframe is given.
    """
    families = _group_tables(store)
    name = expand_table(table, timeframe, families)
    catalog = store.catalog
    single = [name for name in catalog.families if name not in (*families, *catalog.records)]
    examples = [f"{family}_{suffix}" for family in families for suffix in _EXAMPLES]
    _require_datasets(store, [name], [*chain(*families.values()), *examples, *single])
    return catalog.dataset(name)


def find_table(store: Store, table: str, timeframe: str | None = None) -> Dataset:
    """Return the dataset of an existing table.

    Raises
    ------
    UnknownNameError
        There is no such table; the hint lists the closest names.
    UsageError
        The dataset has one table per timeframe, and no timeframe is given.
    """
    name = expand_table(table, timeframe, _group_tables(store))
    _require_datasets(store, [name], _list_data_tables(store))
    _require_tables(store, [name])
    return store.catalog.dataset(name)


def find_tables(
    store: Store,
    tables: Sequence[str],
    timeframes: Sequence[str] = (),
    *,
    must_exist: bool = True,
    may_be_lost: bool = False,
) -> tuple[str, ...]:
    """Return the tables that names mean; no names give no tables, which means all.

    Parameters
    ----------
    may_be_lost
        A table whose log is gone counts as existing.

    Raises
    ------
    UnknownNameError
        There is no such table; the hint lists the closest names.
    UsageError
        A timeframe is given without a dataset that has timeframes.
    """
    chosen = expand_tables(tables, timeframes, _group_tables(store))
    _require_datasets(store, chosen, _list_data_tables(store))
    if must_exist:
        lost = store.lost_tables() if may_be_lost else ()
        _require_tables(store, [name for name in chosen if name not in lost])
    return chosen


def require_markets(
    store: Store, tables: Iterable[TableReader], selection: Selection, missing: Missing
) -> None:
    """Refuse exchanges and symbols that no table stores or covers.

    Parameters
    ----------
    missing
        `empty` accepts all.

    Raises
    ------
    UnknownNameError
        No table has one of them; the hint lists the closest names.
    """
    if missing == "empty" or not (selection.exchanges or selection.symbols):
        return
    data = [table for table in tables if table.dataset.kind != "record"]
    if not data or not names.list_absent(_list_stored_markets(data, selection), selection):
        return
    table_names = [table.dataset.name for table in data]
    markets = _list_stored_markets(data, EVERYTHING) | _list_covered_markets(store, table_names)
    names.require_markets(", ".join(table_names), markets, selection)


def _list_stored_markets(
    tables: Sequence[TableReader], selection: Selection
) -> set[tuple[str, str]]:
    any_time = Selection(selection.exchanges, selection.symbols)
    files = [table.files(any_time).select(MARKET_COLUMNS).unique() for table in tables]
    return set(pl.concat(files).iter_rows())


def _list_covered_markets(store: Store, tables: Sequence[str]) -> set[tuple[str, str]]:
    """List the covered markets: a covered market may have no rows."""
    from lake.query.overview import read_coverage

    covered = read_coverage(store, tables, EVERYTHING)
    return set(covered.select(MARKET_COLUMNS).iter_rows())


def _group_tables(store: Store) -> Families:
    catalog, existing = store.catalog, store.tables()
    return {
        family: [name for name in existing if catalog.dataset(name).family == family]
        for family in catalog.families
        if catalog.has_timeframes(family)
    }


def _list_data_tables(store: Store) -> tuple[str, ...]:
    """List the existing tables except those of the lake's own records."""
    return tuple(name for name in store.tables() if store.catalog.dataset(name).kind != "record")


def _require_datasets(store: Store, tables: Sequence[str], listed: Sequence[str]) -> None:
    for name in tables:
        try:
            store.catalog.dataset(name)
        except UnknownNameError:
            raise UnknownNameError(
                f"there is no table {name!r}", _build_hint(name, listed)
            ) from None


def _require_tables(store: Store, tables: Sequence[str]) -> None:
    for name in tables:
        if not store.exists(name):
            raise UnknownNameError(
                f"table {name} does not exist yet", _build_hint(name, _list_data_tables(store))
            )


def _build_hint(name: str, listed: Sequence[str]) -> str:
    return (
        f"Tables: {list_closest(name, listed)}."
        if listed
        else "The lake has no tables yet; run `lake ingest` first."
    )
