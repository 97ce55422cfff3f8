"""Find bars that were fetched before their end, and whose final form nobody has fetched since."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lake.model.length import Length
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase, group_runs
from lake.quality.slice import Slice


def left_open(data: Slice, *, after: str) -> pl.LazyFrame:
    """Report bars that are still open long after their end: an open bar is not final.

    An ingestion replaces open bars, unless the market was delisted, was renamed, or is not ingested
    any more. Pins, alignment and most checks leave such bars out. `measured` is the time since the
    end of the first one in seconds; reason `not_last` if the market has later bars, else `last`.

    Parameters
    ----------
    after
        Time since the end of a bar from which it is reported, such as `1d`.
    """
    if not data.dataset.marks_open:
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    allowed = Length.parse(after).duration(data.dataset.timeframe)
    end = data.dataset.happened_at()
    now = data.choose_time([one.now for one in data.markets], data.time)
    seconds = (now - end).dt.total_microseconds() / 1e6
    spans = [one.span.end for one in data.markets if one.span is not None]
    is_last = end >= data.choose_time(spans, data.time) if spans else data.time == data.time.max()
    reason = pl.when(pl.col("_is_last").last()).then(pl.lit("last")).otherwise(pl.lit("not_last"))
    return group_runs(
        data.frame.with_columns(_is_last=is_last),
        ~pl.col("closed") & (end + allowed < now),
        time=data.dataset.time_column,
        end=end,
        reason=reason,
        measured=seconds.first(),
        expected=pl.lit(allowed.total_seconds()),
        message=pl.format(
            "{} still open {} h after the end, so not final: ingest again with --refetch",
            count_phrase(pl.len(), "bar is", "bars are"),
            (seconds.first() / 3600).round(1),
        ),
    )


CHECKS: Mapping[str, BuiltinCheck] = {"left_open": BuiltinCheck(left_open, "completeness")}
