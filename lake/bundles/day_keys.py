"""The key of a market-day: it is equal exactly if what a pin measures of its rows must be.

It is SHA-256 over the files that may hold rows of the day, what the dataset makes of them, and the
bounds of the selection if they cut the day.
"""

from __future__ import annotations

import hashlib
import json
from datetime import date, time

import polars as pl

from lake.model.dataset import Dataset
from lake.model.literals import time_literal
from lake.model.market import MARKET_COLUMNS
from lake.model.selection import Selection
from lake.model.time import MICROSECOND, in_utc, iso

KEY = [*MARKET_COLUMNS, "date", "key"]
"""What identifies a measured market-day."""
# Changes whenever other digests or delays are computed of the same rows.
_VERSION = 1
# Rows of impossible times spread a file over millennia.
_MAX_DAYS = 5_000_000


def spread_files(files: pl.DataFrame, selection: Selection) -> pl.DataFrame | None:
    """List each file for each day of a selection of which it may hold rows.

    Parameters
    ----------
    files
        Files of a table with their `sha256`.

    Returns
    -------
    DataFrame
        exchange, symbol, date, path, sha256; None if times of a file are unknown or impossible.
    """
    if files["first"].null_count() or files["last"].null_count():
        return None
    first, last = pl.col("first"), pl.col("last")
    if selection.start is not None:
        first = pl.max_horizontal(first, time_literal(selection.start))
    if selection.end is not None:
        last = pl.min_horizontal(last, time_literal(selection.end - MICROSECOND))
    spans = files.select(
        *MARKET_COLUMNS, "path", "sha256", begin=first.dt.date(), until=last.dt.date()
    ).filter(pl.col("begin") <= pl.col("until"))
    days = (pl.col("until") - pl.col("begin")).dt.total_days() + 1
    if spans.select(days.sum()).item() > _MAX_DAYS:
        return None
    return (
        spans.with_columns(date=pl.date_ranges("begin", "until"))
        .drop("begin", "until")
        .explode("date", empty_as_null=False)
        .select(*MARKET_COLUMNS, "date", "path", "sha256")
    )


def list_day_keys(dataset: Dataset, spread: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """List the key of each market-day of files, as `spread_files` gives them: `KEY`, sorted."""
    place = [*MARKET_COLUMNS, "date"]
    days = spread.group_by(place).agg(files=pl.col("sha256").sort().str.join(" ")).sort(place)
    facts = _describe_measuring(dataset)
    cuts = _describe_cuts(selection)
    keys = [
        hashlib.sha256(f"{facts}{cuts.get(day, '')}\n{listed}".encode()).hexdigest()
        for day, listed in days.select("date", "files").iter_rows()
    ]
    return days.with_columns(key=pl.Series(keys, dtype=pl.String)).select(KEY)


def _describe_measuring(dataset: Dataset) -> str:
    """Describe all of a dataset that digests and delays depend on."""
    return json.dumps(
        [
            _VERSION,
            dataset.fingerprint,
            dataset.time_column,
            str(dataset.timeframe),
            dataset.available_at,
            dataset.announcement_column,
            dataset.records_receipt,
            dataset.marks_open,
        ]
    )


def _describe_cuts(selection: Selection) -> dict[date, str]:
    """Describe by day the bounds of a selection that cut it."""
    cuts: dict[date, str] = {}
    for word, bound in (("from", selection.start), ("to", selection.end)):
        if bound is not None and in_utc(bound).time() != time.min:
            day = in_utc(bound).date()
            cuts[day] = f"{cuts.get(day, '')} {word} {iso(bound)}"
    return cuts
