"""As-of alignment: the newest row known at each time of a grid, and its age."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from lake.errors import UsageError
from lake.model.dataset import TIMESTAMP
from lake.model.market import MARKET_COLUMNS
from lake.model.time import TimeRange
from lake.model.timeframe import Timeframe
from lake.model.visibility import AVAILABLE_AT
from lake.model.words import count

_ZERO = timedelta(0)


def grid(every: timedelta | str, *, since: datetime, until: datetime) -> pl.DataFrame:
    """Return times from `since` on, `every` apart, before `until`.

    Parameters
    ----------
    every
        The step: a duration, or a timeframe such as `5m`, `1d`, `1M` (months of the calendar).
    since, until
        The range `[since, until)` in UTC.

    Returns
    -------
    DataFrame
        One column, `time` (Datetime us UTC), ascending.

    Raises
    ------
    UsageError
        The range is empty or not in UTC, or the step is not positive or not a timeframe.
    """
    span = TimeRange(since, until)
    if isinstance(every, str):
        every = Timeframe.parse(every).table_suffix
    elif not isinstance(every, timedelta) or every <= _ZERO:
        raise UsageError(
            f"every is {every}", "Use a positive timedelta, or a timeframe such as 5m, 1h, 1d."
        )
    # A time zone with a different name than Polars' own would result in a different type.
    first, last = (time.replace(tzinfo=None) for time in (span.start, span.end))
    times = pl.datetime_range(first, last, every, closed="left", time_unit="us", eager=True)
    return times.dt.replace_time_zone("UTC").alias("time").to_frame()


def as_of_join(
    times: pl.DataFrame,
    rows: pl.DataFrame | pl.LazyFrame,
    *,
    staleness: timedelta | None,
    by: Sequence[str] = MARKET_COLUMNS,
    on: str = "time",
    columns: Sequence[str] | None = None,
    prefix: str = "",
) -> pl.DataFrame:
    """Join the newest row that was known at each time.

    A row is known at a time if its `available_at` is at or before it. Of several rows with the same
    `available_at`, the last in the order of `rows` counts.

    Parameters
    ----------
    times
        Ascending times in column `on`. With the columns `by`, each time is joined for its market.
        Without them, it is joined for every market of `rows` from when its first row was known:
        earlier, the market was not known to exist.
    rows
        Rows with `available_at`, as computed by `Dataset.availability`, in order of their events.
    staleness
        Rows older than this (time minus `available_at`) are ignored; None: no limit.
    by
        Columns that identify the market of a row; empty: all rows belong to one market.
    columns
        Columns of `rows` to join; None: all but `by`.
    prefix
        Prefix of the names of joined columns, so that results of several joins fit together.

    Returns
    -------
    DataFrame
        The columns of `times`, those of `by`, the joined ones, and `age` (Duration us), time minus
        `available_at`. Joined columns and age are null if no row was known, or only a stale one.
        One row per row of `times`, in the same order; without `by` in `times`, ordered by time,
        then market.

    Raises
    ------
    UsageError
        A column is missing, duplicated, or not a time in UTC; `times` are not ascending; a time
        is null; `staleness` is negative.
    """
    if staleness is not None and staleness < _ZERO:
        raise UsageError(f"staleness is {staleness}", "Use a duration that is not negative.")
    _require_times("times", times.schema, on)
    rows_schema = rows.lazy().collect_schema()
    _require_times("rows", rows_schema, AVAILABLE_AT)
    others = [name for name in rows_schema if name not in by]
    joined_columns = others if columns is None else list(columns)
    _require_columns("rows", rows_schema, [*by, *joined_columns])
    added = {name: f"{prefix}{name}" for name in joined_columns}
    joined = rows.lazy().select(
        *by,
        pl.col(joined_columns).name.prefix(prefix),
        pl.col(AVAILABLE_AT).alias(_KNOWN),
    )
    right = joined.collect().sort(_KNOWN, maintain_order=True)
    _require_order(times, right, on)
    left = _add_markets(times, right, on, by)
    age = f"{prefix}age"
    _require_free(left.columns, [*added.values(), age])
    joined_rows = left.join_asof(
        right,
        left_on=on,
        right_on=_KNOWN,
        by=list(by) or None,
        strategy="backward",
        tolerance=staleness,
        check_sortedness=False,
    )
    ages = (pl.col(on) - pl.col(_KNOWN)).alias(age)
    return joined_rows.select(*left.columns, *added.values(), ages)


_KNOWN = "known at"


def _add_markets(
    times: pl.DataFrame, rows: pl.DataFrame, on: str, by: Sequence[str]
) -> pl.DataFrame:
    """Return the times with the columns `by`: their own, or each market from when it is known."""
    present = [name for name in by if name in times.columns]
    if len(present) == len(by):
        return times
    if present:
        missing = ", ".join(name for name in by if name not in present)
        raise UsageError(
            f"times has column {', '.join(present)} but not {missing}",
            "Include all columns of `by`, or none of them for all markets.",
        )
    markets = rows.group_by(list(by)).agg(pl.col(_KNOWN).min())
    pairs = times.join(markets, how="cross").filter(pl.col(_KNOWN) <= pl.col(on))
    return pairs.drop(_KNOWN).sort(on, *by, maintain_order=True)


def _require_times(what: str, schema: pl.Schema, name: str) -> None:
    _require_columns(what, schema, [name])
    if schema[name] != TIMESTAMP:
        raise UsageError(
            f"{what}: column {name!r} is {schema[name]}, not times in UTC",
            "Cast it to pl.Datetime('us', 'UTC'); set the zone of naive times first: "
            "dt.replace_time_zone('UTC').",
        )


def _require_columns(what: str, schema: pl.Schema, names: Sequence[str]) -> None:
    for name in names:
        if name not in schema:
            raise UsageError(f"{what} has no column {name!r}", f"Its columns: {', '.join(schema)}.")


def _require_order(times: pl.DataFrame, rows: pl.DataFrame, on: str) -> None:
    for what, column in (("times", times[on]), ("rows", rows[_KNOWN].alias(AVAILABLE_AT))):
        if column.null_count():
            raise UsageError(
                f"{what}: column {column.name!r} is null in {count(column.null_count(), 'row')}",
                "Fill these values, or remove these rows.",
            )
    if not times[on].is_sorted():
        raise UsageError(f"times are not in order of {on!r}", f"Sort them: times.sort({on!r}).")


def _require_free(existing: Sequence[str], added: Sequence[str]) -> None:
    names = [*existing, *added]
    for name in added:
        if names.count(name) > 1:
            raise UsageError(
                f"column {name!r} would be duplicated", "Set `columns`, or a `prefix`."
            )
