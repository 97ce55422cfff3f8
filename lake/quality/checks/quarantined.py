"""Report rows that a venue sent and the store rejected: they are defects of the data."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.identity import CONTRADICTS
from lake.model.revision import CONFLICTS
from lake.model.slots import slot_of
from lake.model.time import EPOCH
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase
from lake.quality.checks.completeness import classify_missing
from lake.quality.slice import Slice

KEY, SEPARATOR = "key", "\t"
"""Column of rejected rows with the values of their key, joined by a separator; null: unknown."""


def refused(data: Slice) -> pl.LazyFrame:
    """Report rows in quarantine that no stored row replaces: one of their key, or of their time.

    One finding per day and broken rule. Rows without a usable time, for example in a wrong unit,
    are reported on 1970-01-01 as a warning: it is unknown which row replaces them. Rows that
    explain a missing bar are information: the check `gaps` reports that bar as a loss.
    """
    if data.quarantine is None or data.quarantine.is_empty():
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    timeless = pl.col("start") == EPOCH
    # A row that contradicts another has that one in its place: the check `contradicted` has it.
    others = data.quarantine.filter(~pl.col("reason").is_in([CONTRADICTS, CONFLICTS]))
    return (
        _add_is_gap(_find_not_replaced(others, data), data)
        .group_by("reason", pl.col("timestamp").dt.date().alias("_day"), "_is_gap")
        .agg(
            start=pl.col("timestamp").min(),
            end=pl.col("timestamp").max().dt.offset_by("1us"),
            rows=pl.len().cast(pl.Int64),
        )
        .drop("_day")
        .sort("start", "reason")
        .with_columns(
            measured=pl.col("rows").cast(pl.Float64),
            expected=pl.lit(0.0),
            severity=pl.when("_is_gap").then(pl.lit("info")).when(timeless).then(pl.lit("warning")),
            message=pl.format(
                "{} rejected: {}{}",
                count_phrase(pl.col("rows"), "row was", "rows were"),
                "reason",
                pl.when("_is_gap")
                .then(pl.lit("; the bar counts as missing"))
                .otherwise(pl.lit("")),
            ),
        )
        .drop("_is_gap")
    )


def _find_not_replaced(quarantine: pl.DataFrame, data: Slice) -> pl.LazyFrame:
    """Find the rejected rows that no stored row replaces.

    Where ids identify rows, another row of the same moment replaces none.
    """
    times = data.frame.select(data.time.alias("timestamp"))
    if KEY not in quarantine.columns:
        return quarantine.lazy().join(times, on="timestamp", how="anti")
    # Of rows without a usable time, the stored rows at hand are not those of their time.
    has_key = pl.col(KEY).is_not_null() & (pl.col("timestamp") != EPOCH)
    parts = [pl.col(name).cast(pl.String) for name in data.dataset.key]
    keys = data.frame.select(pl.concat_str(parts, separator=SEPARATOR).alias(KEY))
    by_key = quarantine.lazy().filter(has_key).join(keys, on=KEY, how="anti")
    by_time = quarantine.lazy().filter(~has_key).join(times, on="timestamp", how="anti")
    return pl.concat([by_key, by_time])


def _add_is_gap(rows: pl.LazyFrame, data: Slice) -> pl.LazyFrame:
    """Add `_is_gap`: whether a rejected row is the reason of a missing bar."""
    grid = data.grid
    if grid is None:
        return rows.with_columns(_is_gap=pl.lit(value=False))
    missing = classify_missing(data, grid)
    if missing is None:
        return rows.with_columns(_is_gap=pl.lit(value=False))
    gaps = missing.filter(pl.col("reason") == "refused")
    marked = gaps.select(_slot="slot", _is_gap=pl.lit(value=True))
    slot = slot_of(pl.col("timestamp"), grid).alias("_slot")
    return (
        rows.with_columns(slot)
        .join(marked, on="_slot", how="left")
        .with_columns(pl.col("_is_gap").fill_null(value=False))
        .drop("_slot")
    )


CHECKS: Mapping[str, BuiltinCheck] = {"refused": BuiltinCheck(refused, "accuracy")}
