"""Rows filled in by rule where the venue gave none. Pure.

No such row is data: each says in `fill` by which rule it was made, and none is made over another.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from lake.model.dataset import PARTITIONS, TIMESTAMP, Dataset, Interpolation
from lake.model.derive import BARS, INTERPOLATED
from lake.model.time import EPOCH, TimeRange
from lake.model.timeframe import Timeframe

_MINUTE = timedelta(minutes=1)
_MINUTE_US = 60_000_000


FLAT = f"{INTERPOLATED}flat"
"""What `fill` says of a bar of an interval in which nothing was traded."""


def is_guess(fill: pl.Expr) -> pl.Expr:
    """Whether a row was filled in by a rule alone: something happened, and nobody has it."""
    return (fill.str.starts_with(INTERPOLATED) & (fill != FLAT)).fill_null(value=False)


def build_flat_bars(bars: pl.DataFrame, opens: pl.Series, timeframe: Timeframe) -> pl.DataFrame:
    """Bars without trades: all prices are the close of the bar before, all volumes zero.

    A bar is made only where the one right before it is stored, or made here: beyond an interval
    of which nothing is known, the last price is not known either.

    Parameters
    ----------
    bars
        Stored bars of one market, in and before the intervals.
    opens
        Open times of the intervals without trades, in order.

    Returns
    -------
    DataFrame
        Columns of `BARS`; `fill` is `interpolated:flat`.
    """
    closed = bars.filter("closed")
    closes = dict(zip(closed["timestamp"], closed["close"], strict=True))
    taken = set(bars["timestamp"])
    ends = {timeframe.after(time): close for time, close in closes.items()}
    flat_bars: list[tuple[datetime, float]] = []
    for time in opens:
        close = ends.get(time)
        if close is not None and time not in taken:
            ends[timeframe.after(time)] = close
            flat_bars.append((time, close))
    schema = {"timestamp": TIMESTAMP, "close": pl.Float64()}
    frame = pl.DataFrame(flat_bars, schema=schema, orient="row")
    prices = [pl.col("close").alias(name) for name in ("open", "high", "low")]
    volumes = [name for name in BARS if "volume" in name or name == "trade_count"]
    return frame.with_columns(
        *prices,
        *(pl.lit(0).cast(BARS[name]).alias(name) for name in volumes),
        closed=pl.lit(value=True),
        fill=pl.lit(f"{INTERPOLATED}flat"),
    ).select(BARS.names())


def find_obstacle(dataset: Dataset) -> str:
    """Why no row of a dataset may be filled in by its policy; empty where it may.

    Nobody must take such a row for an observed one, nor may it stand in the way of one: whatever
    is written when, the dataset has to keep the observed.
    """
    columns = {column.name: column for column in dataset.columns}
    fill = columns.get("fill")
    if dataset.repair.interpolate is None:
        return "its dataset file does not say how to fill in"
    if fill is None or fill.type != "string" or not fill.nullable:
        return "its dataset file has no column `fill` (a string, nullable) that could say so"
    if dataset.key != (dataset.time_column,):
        return "its rows have more of a key than their time"
    if dataset.rows != "revisable":
        return "its rows are immutable: an observed one could not replace what was filled in"
    if not _keeps_stored_row(dataset, stored=None, new="") or _keeps_stored_row(
        dataset, stored="", new=None
    ):
        return "its `keep_when` must keep observed rows, where `fill` is null, and those only"
    return ""


def _keeps_stored_row(dataset: Dataset, stored: str | None, new: str | None) -> bool:
    """Whether `keep_when` keeps a stored row, if all it knows of two is how they were filled in."""
    if dataset.keep_when is None:
        return False
    empty = pl.DataFrame(
        {name: [None] for name in dataset.polars_schema}, schema=dataset.polars_schema
    )
    pair = {
        name: empty.with_columns(fill=pl.lit(fill, pl.String))
        for name, fill in (("t", stored), ("s", new))
    }
    query = f"SELECT {dataset.keep_when} AS kept FROM t CROSS JOIN s"  # noqa: S608 - two such rows
    return pl.SQLContext(pair).execute(query, eager=True)["kept"].item() is True


def find_due_times(times: pl.Series, window: TimeRange) -> pl.Series:
    """Times in a range at which a row is missing, by the schedule of the rows around it.

    The schedule is the most common distance between rows, in whole minutes, and the most common
    of its phases: venues send times some milliseconds off. Without two rows there is none.

    Parameters
    ----------
    times
        Of the stored rows in and around the range, in order.
    """
    empty = pl.Series("timestamp", [], dtype=TIMESTAMP)
    minutes = ((times.to_physical() + _MINUTE_US // 2) // _MINUTE_US).unique(maintain_order=True)
    steps = minutes.diff().drop_nulls()
    if steps.is_empty():
        return empty
    step = int(steps.mode().min())  # type: ignore[arg-type]
    phase = int((minutes % step).mode().min())  # type: ignore[arg-type]
    first = -((EPOCH - window.start) // _MINUTE)
    first += (phase - first) % step
    end = -((EPOCH - window.end) // _MINUTE)
    wanted = pl.int_range(first, max(end, first), step, eager=True)
    missing = wanted.filter(~wanted.is_in(minutes.implode()))
    return (missing * _MINUTE_US).cast(TIMESTAMP).alias("timestamp")


def interpolate_rows(
    dataset: Dataset, rows: pl.DataFrame, times: pl.Series, how: Interpolation
) -> pl.DataFrame:
    """Rows at the times, from those that the venue sent before (`last`) or around (`linear`).

    Numbers that may be null are: what the venue did not say is not made up where it need not be.
    At times without the rows that the rule needs, none is made.

    Parameters
    ----------
    rows
        Stored rows of one market, in order. Those that were filled in are no ground for others.
    how
        `last` or `linear`.

    Returns
    -------
    DataFrame
        Columns of the dataset but the market; `fill` is `interpolated:last` or `:linear`.
    """
    key, fill_mark = dataset.time_column, f"{INTERPOLATED}{how}"
    wanted = pl.DataFrame({key: times}).sort(key)
    observed = rows.filter(pl.col("fill").is_null()).sort(key)
    kept = [c.name for c in dataset.columns if not c.nullable and c.name not in {*PARTITIONS, key}]
    source_rows = observed.select(key, *kept, pl.col(key).alias("_time"))
    before = wanted.join_asof(source_rows, on=key, strategy="backward").drop_nulls("_time")
    if how == "linear":
        after = wanted.join_asof(source_rows, on=key, strategy="forward").drop_nulls("_time")
        both = before.join(after, on=key, suffix="_after")
        numbers = [c.name for c in dataset.columns if c.name in kept and c.type == "float64"]
        share = (pl.col(key) - pl.col("_time")) / (pl.col("_time_after") - pl.col("_time"))
        before = both.with_columns(
            pl.col(name) + (pl.col(f"{name}_after") - pl.col(name)) * share for name in numbers
        )
    return before.select(key, *kept, pl.lit(fill_mark).alias("fill"))
