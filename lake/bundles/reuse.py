"""Which market-days of a pin earlier bundles have measured already, and what is left to read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time

import polars as pl

from lake.bundles.day_keys import KEY, list_day_keys, spread_files
from lake.bundles.draft import DAYS
from lake.model.dataset import Dataset
from lake.model.market import MARKET_COLUMNS
from lake.model.selection import Selection
from lake.model.time import DAY


@dataclass(frozen=True)
class Measured:
    """What is known of a selection before rows are read.

    Attributes
    ----------
    days
        The market-days that are measured: `DAYS`.
    parts
        The parts of the selection that are not.
    unsure
        The files that may hold open bars.
    """

    days: pl.DataFrame
    parts: list[Selection]
    unsure: pl.DataFrame


def find_measured(
    dataset: Dataset, files: pl.DataFrame, selection: Selection, known: pl.DataFrame
) -> Measured:
    """Find the market-days of a selection whose files have the hashes of an earlier bundle.

    Parameters
    ----------
    files
        All files of the selection, with the `sha256` of their bytes.
    known
        Market-days that bundles list: `lake.bundles.known.MEASURED`.
    """
    spread = spread_files(files, selection)
    nothing = Measured(pl.DataFrame(schema=DAYS), [selection], files)
    if spread is None or known.is_empty():
        return nothing
    days = list_day_keys(dataset, spread, selection).join(
        known, on=KEY, how="left", maintain_order="left"
    )
    if days["rows"].null_count() == days.height:
        return nothing
    listed = days.filter(pl.col("rows") > 0).with_columns(table=pl.lit(dataset.name))
    unsure = days.filter(pl.col("may_be_open").fill_null(value=True))
    paths = spread.join(unsure, on=[*MARKET_COLUMNS, "date"], how="semi")["path"]
    return Measured(
        listed.select(list(DAYS)),
        _list_parts(days, selection),
        files.filter(pl.col("path").is_in(paths.implode())),
    )


def _list_parts(days: pl.DataFrame, selection: Selection) -> list[Selection]:
    """List the ranges of each market that hold only days without `rows`, as long as they can be."""
    is_known = pl.col("rows").is_not_null()
    runs = (
        days.with_columns(run=is_known.cum_sum().over(MARKET_COLUMNS))
        .filter(~is_known)
        .group_by(*MARKET_COLUMNS, "run", maintain_order=True)
        .agg(pl.col("date").min().alias("first"), pl.col("date").max().alias("last"))
    )
    parts = []
    for exchange, symbol, _, first, last in runs.iter_rows():
        start = datetime.combine(first, time.min, UTC)
        end = datetime.combine(last, time.min, UTC) + DAY
        start = start if selection.start is None else max(start, selection.start)
        end = end if selection.end is None else min(end, selection.end)
        parts.append(Selection((exchange,), (symbol,), start, end))
    return parts
