"""Fill missing rows by rule. Pure functions.

Filled rows are not data: the column `fill` of each names its rule, and none replaces another row.
None is available before the rows that it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from lake.model.dataset import RECEIVED_AT, TIMESTAMP, Dataset, Interpolation
from lake.model.derive import BARS, INTERPOLATED, add_receipt
from lake.model.grid import Grid, end_of
from lake.model.partitions import MARKET_DAY
from lake.model.time import EPOCH, TimeRange
from lake.model.visibility import carry_availability, carry_receipt

_MINUTE = timedelta(minutes=1)
_MINUTE_US = 60_000_000


FLAT = f"{INTERPOLATED}flat"
"""Value of `fill` for a bar of an interval without trades."""


def is_guess(fill: pl.Expr) -> pl.Expr:
    """Return whether a row is a guess: filled by a rule although an event took place."""
    return (fill.str.starts_with(INTERPOLATED) & (fill != FLAT)).fill_null(value=False)


def build_flat_bars(bars: pl.DataFrame, opens: pl.Series, grid: Grid) -> pl.DataFrame:
    """Build bars without trades: all prices are the previous close, all volumes zero.

    A bar is built only if the bar directly before it is stored or built here: after an unknown
    interval, the last price is unknown too.

    Parameters
    ----------
    bars
        Stored bars of one market, within and before the intervals.
    opens
        Open times of the intervals without trades, in order.

    Returns
    -------
    DataFrame
        Columns of `BARS`; `fill` is `interpolated:flat`.
    """
    closed = add_receipt(bars).filter("closed")
    rows = closed.select("timestamp", "close", RECEIVED_AT).iter_rows()
    taken = set(bars["timestamp"])
    ends = {grid.after(time): (close, received) for time, close, received in rows}
    flat_bars: list[tuple[datetime, float, datetime | None]] = []
    for time in opens:
        last = ends.get(time)
        if last is not None and time not in taken:
            ends[grid.after(time)] = last
            flat_bars.append((time, *last))
    schema = {"timestamp": TIMESTAMP, "close": pl.Float64(), RECEIVED_AT: TIMESTAMP}
    frame = pl.DataFrame(flat_bars, schema=schema, orient="row")
    prices = [pl.col("close").alias(name) for name in ("open", "high", "low")]
    volumes = [name for name in BARS if "volume" in name or name == "trade_count"]
    return frame.with_columns(
        *prices,
        *(pl.lit(0).cast(BARS[name]).alias(name) for name in volumes),
        carry_receipt(end_of(pl.col("timestamp"), grid.timeframe), pl.col(RECEIVED_AT)),
        closed=pl.lit(value=True),
        fill=pl.lit(f"{INTERPOLATED}flat"),
    ).select(BARS.names())


def find_obstacle(dataset: Dataset) -> str:
    """Return why rows of a dataset cannot be filled by its policy; empty if they can.

    A filled row must never pass for an observed one, nor replace it: whatever the order of writes,
    the dataset must keep the observed row.
    """
    columns = {column.name: column for column in dataset.columns}
    fill = columns.get("fill")
    if dataset.repair.interpolate is None:
        return "its dataset file does not set `repair.interpolate`"
    if fill is None or fill.type != "string" or not fill.nullable:
        return "its dataset file has no column `fill` (a string, nullable) to mark filled rows"
    if dataset.key != (dataset.time_column,):
        return "its key has more columns than the time"
    if dataset.rows != "revisable":
        return "its rows are immutable: an observed row could not replace a filled one"
    if not _keeps_observed_rows(dataset):
        return "its `keep_when` must keep observed rows (`fill` is null), and no others"
    if not _can_tell_when_known(dataset):
        return (
            "its dataset file has no column `received_at` (a timestamp, nullable, digest = false) "
            "to say that a value between two rows is known only with the later one"
        )
    return ""


def _can_tell_when_known(dataset: Dataset) -> bool:
    """Return whether a column can say that a filled row is known later than its own time."""
    is_between = dataset.repair.interpolate == "linear"
    return not is_between or carry_availability(dataset, pl.lit(None)) is not None


def _keeps_observed_rows(dataset: Dataset) -> bool:
    """Return whether `keep_when` keeps observed rows, and no others."""
    keeps_observed = _keeps_stored_row(dataset, stored=None, new="")
    return keeps_observed and not _keeps_stored_row(dataset, stored="", new=None)


def _keeps_stored_row(dataset: Dataset, stored: str | None, new: str | None) -> bool:
    """Return whether `keep_when` keeps a stored row, given only `fill` of it and of the new row."""
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
    """Return the times in a range at which a row is missing, by the schedule of nearby rows.

    The schedule is the most common distance between rows, in whole minutes, and its most common
    phase; venues send times that are some milliseconds off. With fewer than two rows, there is no
    schedule and the result is empty.

    Parameters
    ----------
    times
        Times of the stored rows in and around the range, in order.
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
    """Build rows at the times from the observed row before (`last`) or both neighbours (`linear`).

    Nullable columns are null: no value is invented without need. Times without the observed rows
    that the rule needs get no row.

    Parameters
    ----------
    rows
        Stored rows of one market, in order. Filled rows are ignored.
    how
        `last` or `linear`.

    Returns
    -------
    DataFrame
        Time column, non-nullable columns, `fill` (`interpolated:last` or `:linear`), and the column
        by which none is available before the rows that it is made of.
    """
    key, fill_mark = dataset.time_column, f"{INTERPOLATED}{how}"
    wanted = pl.DataFrame({key: times}).sort(key)
    observed = add_receipt(rows).filter(pl.col("fill").is_null()).sort(key)
    kept = [c.name for c in dataset.columns if not c.nullable and c.name not in {*MARKET_DAY, key}]
    source_rows = observed.select(
        key, *kept, pl.col(key).alias("_time"), dataset.availability().alias("_known")
    )
    before = wanted.join_asof(source_rows, on=key, strategy="backward").drop_nulls("_time")
    if how == "linear":
        after = wanted.join_asof(source_rows, on=key, strategy="forward").drop_nulls("_time")
        numbers = [c.name for c in dataset.columns if c.name in kept and c.type == "float64"]
        before = _interpolate_between(before, after, key, numbers)
    carrier = carry_availability(dataset, pl.col("_known"))
    columns = {key: pl.col(key), **{name: pl.col(name) for name in kept}}
    columns["fill"] = pl.lit(fill_mark)
    if carrier is not None:
        columns[carrier.meta.output_name()] = carrier
    return before.select(**columns)


def _interpolate_between(
    before: pl.DataFrame, after: pl.DataFrame, key: str, numbers: Sequence[str]
) -> pl.DataFrame:
    """Interpolate numbers between the rows before and after each time; known with the later."""
    share = (pl.col(key) - pl.col("_time")) / (pl.col("_time_after") - pl.col("_time"))
    return before.join(after, on=key, suffix="_after").with_columns(
        *(pl.col(name) + (pl.col(f"{name}_after") - pl.col(name)) * share for name in numbers),
        pl.max_horizontal("_known", "_known_after").alias("_known"),
    )
