"""Find where the bars of a market open: by its stored bars, or by what is known of the venue."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from lake.model.dataset import Dataset
from lake.model.grid import Grid, is_long, learn_grid
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.venues import find_capabilities
from lake.store.reader import TableReader
from lake.store.store import Store


def find_grid(store: Store, dataset: Dataset, market: Market) -> Grid | None:
    """Return the grid of a market's bars; None if its stored bars have no common grid.

    Raises
    ------
    ValueError
        The dataset has no timeframe.
    """
    if not store.exists(dataset.name):
        return _find_known_grid(dataset, market)
    return read_grid(store.snapshot(dataset), market)


def read_grid(reader: TableReader, market: Market) -> Grid | None:
    """Return the grid of a market's bars in a table; None if they have no common grid.

    Bars up to an hour are not read: all venues agree about their grid.
    """
    dataset = reader.dataset
    known = _find_known_grid(dataset, market)
    if not is_long(known.timeframe):
        return known
    columns = [name for name in ("fill", "closed") if name in dataset.polars_schema]
    selection = Selection((market.exchange,), (market.symbol,))
    rows = reader.collect(selection, columns=[dataset.time_column, *columns])
    if "fill" in columns:
        rows = rows.filter(pl.col("fill").is_null())
    return learn_grid(rows[dataset.time_column], known.timeframe) if rows.height else known


def _find_known_grid(dataset: Dataset, market: Market) -> Grid:
    if dataset.timeframe is None:
        raise ValueError(f"{dataset.name} has no timeframe")
    offsets = find_capabilities(market.exchange).bar_offsets
    return Grid(dataset.timeframe, offsets.get(str(dataset.timeframe), timedelta(0)))
