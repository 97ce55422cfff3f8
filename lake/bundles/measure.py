"""Measure the rows of a selection by market and day: a pin records it, `verify` compares it."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lake.bundles.draft import DAYS
from lake.model.dataset import Dataset
from lake.model.digest import digest_market_days
from lake.model.market import MARKET_COLUMNS
from lake.model.progress import Progress
from lake.model.selection import Selection
from lake.store.chunks import chunk_selection
from lake.store.reader import TableReader, may_hold_rows


def measure_days(rows: TableReader, selection: Selection, progress: Progress) -> pl.DataFrame:
    """Return count, times, delays and digest of each market-day (`DAYS`), sorted by both."""
    return measure_parts(rows, rows.files(selection), [selection], progress)


def measure_parts(
    rows: TableReader, files: pl.DataFrame, parts: Sequence[Selection], progress: Progress
) -> pl.DataFrame:
    """Measure parts of a table as `measure_days` does, in their order.

    Parameters
    ----------
    files
        The data files of all parts.
    """
    listed = [(part, files.filter(may_hold_rows(part))) for part in parts]
    total = sum(int(own["rows"].sum()) for _, own in listed)
    progress.begin(f"reading {rows.dataset.name}", total)
    days = [pl.DataFrame(schema=DAYS)]
    for part, own in listed:
        for chunk in chunk_selection(rows, own, part):
            frame = rows.collect(chunk)
            days.append(_measure_frame(rows.dataset, frame))
            progress.advance(frame.height)
    progress.end()
    return pl.concat(days)


def _measure_frame(dataset: Dataset, frame: pl.DataFrame) -> pl.DataFrame:
    time = pl.col(dataset.time_column)
    delay_us = (dataset.availability() - time).dt.total_microseconds()
    sums = frame.group_by(*MARKET_COLUMNS, time.dt.date().alias("date")).agg(
        rows=pl.len().cast(pl.Int64),
        first=time.min(),
        last=time.max(),
        min_delay_us=delay_us.min(),
        max_delay_us=delay_us.max(),
    )
    days = digest_market_days(dataset, frame).join(
        sums, on=[*MARKET_COLUMNS, "date"], maintain_order="left"
    )
    return days.with_columns(table=pl.lit(dataset.name)).select(list(DAYS)).cast(DAYS)
