"""Find where the bars of a market open: by its stored bars, or by what is known of the venue."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from lake.model.dataset import Dataset
from lake.model.grid import Grid, is_long, learn_grid
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.timeframe import Timeframe
from lake.model.venues import find_capabilities
from lake.store.reader import TableReader
from lake.store.store import Store


def find_grid(store: Store, dataset: Dataset, market: Market) -> Grid | None:
    """Return the grid of a market's bars; None if its stored bars have no common grid.

    None, too, if the rows are not bars. Bars up to an hour are not read: all venues agree about
    their grid.
    """
    if dataset.timeframe is None:
        return None
    if not is_long(dataset.timeframe) or not store.exists(dataset.name):
        return _find_known_grid(dataset.timeframe, market)
    return read_grid(store.snapshot(dataset), market)


def read_grid(reader: TableReader, market: Market) -> Grid | None:
    """Return the grid of a market's bars in a table, as `find_grid` does."""
    dataset = reader.dataset
    if dataset.timeframe is None:
        return None
    known = _find_known_grid(dataset.timeframe, market)
    if not is_long(dataset.timeframe):
        return known
    columns = [name for name in ("fill", "closed") if name in dataset.polars_schema]
    selection = Selection((market.exchange,), (market.symbol,))
    rows = reader.collect(selection, columns=[dataset.time_column, *columns])
    if "fill" in columns:
        rows = rows.filter(pl.col("fill").is_null())
    return learn_grid(rows[dataset.time_column], known.timeframe) if rows.height else known


def _find_known_grid(timeframe: Timeframe, market: Market) -> Grid:
    offsets = find_capabilities(market.exchange).bar_offsets
    return Grid(timeframe, offsets.get(str(timeframe), timedelta(0)))
