"""Report rows that a venue sent and the store rejected: they are defects of the data."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.time import EPOCH
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase
from lake.quality.slice import Slice


def refused(data: Slice) -> pl.LazyFrame:
    """Report rows in quarantine whose time no stored row has; a stored row replaces them.

    One finding per day and broken rule. Rows without a usable time, for example in a wrong unit,
    are reported on 1970-01-01 as a warning: it is unknown which row replaces them.
    """
    if data.quarantine is None or data.quarantine.is_empty():
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    timeless = pl.col("start") == EPOCH
    times = data.frame.select(data.time.alias("timestamp"))
    return (
        data.quarantine.lazy()
        .join(times, on="timestamp", how="anti")
        .group_by("reason", pl.col("timestamp").dt.date().alias("_day"))
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
            severity=pl.when(timeless).then(pl.lit("warning")),
            message=pl.format(
                "{} rejected: {}", count_phrase(pl.col("rows"), "row was", "rows were"), "reason"
            ),
        )
    )


CHECKS: Mapping[str, BuiltinCheck] = {"refused": BuiltinCheck(refused, "accuracy")}
