"""Compute returns of a market per interval."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from lake.model.time import MICROSECOND
from lake.quality.slice import Reference, Slice


def compute_returns(data: Reference | Slice, length: timedelta) -> pl.LazyFrame:
    """Compute returns per interval: `_slot` (counted from the epoch), `_return`, `_rows`."""
    dataset = data.dataset
    frame = data.frame
    price = "price"
    if dataset.timeframe is not None:
        frame, price = frame.filter("closed"), "close"
    microseconds = length // MICROSECOND
    slot = pl.col(dataset.time_column).dt.timestamp("us") // microseconds
    moved = (pl.col("_price") / pl.col("_price").shift(1)).log()
    return (
        frame.group_by(slot.alias("_slot"))
        .agg(_price=pl.col(price).last(), _rows=pl.len().cast(pl.Int64))
        .sort("_slot")
        .with_columns(_return=pl.when(pl.col("_slot").diff() == 1).then(moved))
        .drop_nulls("_return")
        .select("_slot", "_return", "_rows")
    )
