"""Slices for checks, made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lake.model.catalog import builtin
from lake.model.dataset import Dataset, Threshold
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.quality.check import BuiltinCheck, complete_columns
from lake.quality.slice import Reference, Slice

DAY = timedelta(days=1)
BINANCE = Market("binance", "BTC/USDT")


def slice_of(
    table: str | Dataset,
    frame: pl.DataFrame,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    market: Market = BINANCE,
    **more: Any,
) -> Slice:
    """Return the slice of some rows.

    Parameters
    ----------
    table
        Name of a dataset of the product, or a dataset.
    frame
        Rows in any order; columns that are absent are those of `market`, false of `closed` or null.
    start, end
        The checked range; by default the whole UTC days of the rows.
    market
        Of rows that do not name one.
    more
        Other fields of `Slice`; `now` is the end of the range by default.
    """
    dataset = builtin().dataset(table) if isinstance(table, str) else table
    rows = rows_of(dataset, frame, market)
    times = rows[dataset.time_column]
    first = midnight(times.min()) if start is None else start
    after = midnight(times.max()) + DAY if end is None else end
    fields = {"now": after, **more}
    named = Market(*rows.select("exchange", "symbol").row(0)) if rows.height else market
    return Slice(dataset, named, TimeRange(first, after), frame=rows.lazy(), **fields)


def reference_of(
    table: str | Dataset, frame: pl.DataFrame, *, market: Market = BINANCE, **more: Any
) -> Reference:
    """Return a reference of some rows; `more`: `coverage`."""
    dataset = builtin().dataset(table) if isinstance(table, str) else table
    rows = rows_of(dataset, frame, market)
    named = Market(*rows.select("exchange", "symbol").row(0)) if rows.height else market
    return Reference(dataset, named, rows.lazy(), **more)


def rows_of(dataset: Dataset, frame: pl.DataFrame, market: Market = BINANCE) -> pl.DataFrame:
    """Rows as they are stored: all columns of the dataset in its types and order."""
    defaults: dict[str, pl.Expr] = {
        "exchange": pl.lit(market.exchange),
        "symbol": pl.lit(market.symbol),
        "date": pl.col(dataset.time_column).dt.date(),
        "closed": pl.lit(value=True),
        **{
            name: pl.col(dataset.time_column)
            for name, column in ((c.name, c) for c in dataset.columns)
            if name == "received_at" and not column.nullable
        },
    }
    absent = [
        defaults.get(name, pl.lit(None, dtype=dtype)).alias(name)
        for name, dtype in dataset.polars_schema.items()
        if name not in frame.columns
    ]
    full = frame.with_columns(absent).select(list(dataset.polars_schema))
    return full.cast(dataset.polars_schema).sort(dataset.sort)


def midnight(time: Any) -> datetime:
    """Start of the UTC day of a time."""
    assert isinstance(time, datetime)
    return time.replace(hour=0, minute=0, second=0, microsecond=0)


def collect_findings(frame: pl.LazyFrame) -> pl.DataFrame:
    """Collect the findings of a check, with all columns and ordered by time."""
    return complete_columns(frame).sort("start", "against").collect()


def outcome(
    checks: Mapping[str, BuiltinCheck], name: str, rows: Slice, **thresholds: Threshold
) -> pl.DataFrame:
    """Run one check: its findings in the checked range; `thresholds` override the dataset file."""
    declared = {check.name: check.thresholds for check in rows.dataset.checks}
    function = checks[name].function
    frame = collect_findings(function(rows, **{**declared.get(name, {}), **thresholds}))
    return frame.filter(pl.col("start").is_between(rows.range.start, rows.range.end, closed="left"))
