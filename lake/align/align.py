"""Aligns several sources on one grid of times; every value is observed or marked as filled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import Any, Protocol

import polars as pl

from lake.align.asof import grid
from lake.align.policies import How, Length, Resample
from lake.align.resample import STORED, Grid, Source, place_on_grid
from lake.errors import UsageError
from lake.model.dataset import RECEIVED_AT, TIMESTAMP
from lake.model.market import MARKET_COLUMNS
from lake.model.ohlcv import PRICES
from lake.model.time import MICROSECOND
from lake.model.timeframe import Timeframe
from lake.model.visibility import AVAILABLE_AT
from lake.model.words import count

Frame = pl.LazyFrame | pl.DataFrame

# Columns that describe the rows of a lake; they are not values to align.
_METADATA = (AVAILABLE_AT, *MARKET_COLUMNS, "date", "closed", "fill", RECEIVED_AT)


@dataclass(frozen=True, slots=True)
class AlignInput:
    """Rows of a table as a source of an alignment: one market, or several with `by`."""

    table: str
    _: KW_ONLY
    timeframe: str | None = None
    exchange: str | Sequence[str] = ()
    symbol: str | Sequence[str] = ()


class ScanKnown(Protocol):
    """Returns the rows of an input that became available in `[since, until)`.

    They have a column `available_at`. With `witnesses`, markets without such rows that were known
    before have one earlier row.
    """

    def __call__(
        self, rows: AlignInput, since: datetime | None, until: datetime, *, witnesses: bool
    ) -> pl.LazyFrame:
        """Return the rows."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """Sources on one grid, with the numbers of observed, filled and missing values.

    Attributes
    ----------
    frame
        One row per time (and market): `time` (Datetime us UTC), the columns `by`, and for each
        source NAME: `NAME_COLUMN` for its columns; `NAME_age` (Duration us), time minus
        `available_at` of the newest row in the value; `NAME_fill` (String), null if the value is
        observed, `none` if it is missing, else the fill, with `stored:METHOD` for a row of the
        source that a repair filled; for `Resample` also `NAME_rows` (Int64), the number of
        aggregated rows.
    summary
        One row per source (and market): `source`, the columns `by`, `points` = `observed` +
        `filled` + `missing` (Int64), and `oldest_age` (Duration us), the maximum age of its values.
    """

    frame: pl.DataFrame
    summary: pl.DataFrame

    def __repr__(self) -> str:
        sources = ", ".join(self.summary["source"].unique(maintain_order=True))
        return f"<Aligned: {count(self.frame.height, 'row')} of {sources}>"


def align(
    sources: Mapping[str, Frame],
    every: Length,
    *,
    since: datetime,
    until: datetime,
    how: How | Mapping[str, How],
    by: str | Sequence[str] = (),
) -> Aligned:
    """Align several sources on one grid; a value uses only rows that were known at its time.

    Rows whose `closed` is not true are ignored: such a bar may not be final at its end.

    Parameters
    ----------
    sources
        Rows with `available_at` by name, such as the result of `Bundle.available`, in order of
        their events. The same rows can have two names with different policies.
    every
        The step: a duration, or a timeframe such as `5m`, `1d`, `1M` (months of the calendar).
    since, until
        Times of the grid are in `[since, until)` and start at `since`.
    how
        The policy of each source, or one policy for all: `AsOf` or `Resample`.
    by
        Columns of all sources that identify markets. The result then has one row per time and
        market, from when its first row is known in any source. Without `by`, each source has one
        market, and the result has one row per time.

    Raises
    ------
    UsageError
        The range, the step or a policy is invalid; a column is missing, not numeric, or would be
        duplicated; times are not in UTC; a source has several markets that `by` does not
        distinguish.
    """
    times = grid(every, since=since, until=until)["time"]
    return _align_sources(sources, times, _find_previous_time(times, every), how, by)


def align_tables(
    scan: ScanKnown,
    inputs: Mapping[str, AlignInput | str],
    every: Length,
    *,
    since: datetime,
    until: datetime,
    how: How | Mapping[str, How],
    by: str | Sequence[str] = (),
) -> Aligned:
    """Align tables of a lake or a bundle like `align`, reading only the necessary range.

    Parameters
    ----------
    scan
        Returns the rows of an input that became available in a range, with `available_at`.
    inputs
        The rows to align, by name; the name of a table means all of its rows. Of rows that became
        available before `since`, those are read that the policy can reach: all rows without a
        staleness limit. Tables with a column for their availability, such as `announced_at`, are
        read whole.
    """
    times = grid(every, since=since, until=until)["time"]
    before = _find_previous_time(times, every)
    sources = {}
    for name, policy in _pair_policies(inputs, how):
        given = inputs[name]
        table_input = AlignInput(given) if isinstance(given, str) else given
        oldest = policy.oldest(times[0], before)
        sources[name] = scan(table_input, oldest, until, witnesses=bool(by))
    return _align_sources(sources, times, before, how, by)


def _align_sources(
    sources: Mapping[str, Frame],
    times: pl.Series,
    before: datetime,
    how: How | Mapping[str, How],
    by: str | Sequence[str],
) -> Aligned:
    markets = _as_tuple(by)
    opened_sources = [
        _open_source(name, sources[name], policy, markets)
        for name, policy in _pair_policies(sources, how)
    ]
    _require_free(
        ["time", *markets, *(name for source in opened_sources for name in source.added_columns)]
    )
    target_grid = Grid(times, before, _build_points(times, opened_sources, markets))
    parts = [place_on_grid(source, target_grid) for source in opened_sources]
    frame = pl.concat([target_grid.points, *parts], how="horizontal")
    return Aligned(frame, _summarize(frame, [source.name for source in opened_sources], markets))


def _open_source(name: str, frame: Frame, how: How, by: tuple[str, ...]) -> Source:
    """Build a source after checking the presence and types of its columns."""
    rows = frame.lazy()
    schema = rows.collect_schema()
    columns = _as_tuple(_default_columns(schema, how, by) if how.columns is None else how.columns)
    _require_columns(name, schema, how, by, columns)
    if schema.get("closed") == pl.Boolean:
        rows = rows.filter(pl.col("closed"))
    stored = pl.col("fill") if schema.get("fill") == pl.String else pl.lit(None, pl.String)
    return Source(name, rows.with_columns(stored.alias(STORED)), how, columns, by)


def _as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _default_columns(schema: pl.Schema, how: How, by: tuple[str, ...]) -> list[str]:
    names = [name for name in schema if name not in (*_METADATA, *by)]
    return [name for name in names if not how.needs_numbers or schema[name].is_numeric()]


def _require_columns(
    name: str, schema: pl.Schema, how: How, by: tuple[str, ...], columns: tuple[str, ...]
) -> None:
    prices = PRICES if isinstance(how, Resample) and how.aggregate == "ohlcv" else ()
    for column in (AVAILABLE_AT, *by, *columns, *prices):
        if column not in schema:
            raise UsageError(
                f"source {name!r} has no column {column!r}", f"Its columns: {', '.join(schema)}."
            )
    if schema[AVAILABLE_AT] != TIMESTAMP:
        raise UsageError(
            f"source {name!r}: column {AVAILABLE_AT!r} is {schema[AVAILABLE_AT]}, not times in UTC",
            "Cast it to pl.Datetime('us', 'UTC'); set the zone of naive times first: "
            "dt.replace_time_zone('UTC').",
        )
    for column in (*prices, *columns) if how.needs_numbers else ():
        if not schema[column].is_numeric():
            raise UsageError(
                f"source {name!r}: column {column!r} is {schema[column]}, not numeric",
                "Set `columns` to numeric ones, or use AsOf for it under a second name.",
            )


def _build_points(times: pl.Series, sources: Sequence[Source], by: tuple[str, ...]) -> pl.DataFrame:
    """Return the times, or times by market from when the market was known in any source."""
    first_known = [_find_first_known(source) for source in sources]
    if not by:
        return times.to_frame()
    first = pl.concat(first_known).group_by(by).agg(pl.col(AVAILABLE_AT).min())
    pairs = times.to_frame().join(first, how="cross").filter(pl.col(AVAILABLE_AT) <= pl.col("time"))
    return pairs.select("time", *by).sort("time", *by)


def _find_first_known(source: Source) -> pl.DataFrame:
    """Return when each market was first known; refuse markets that `by` does not distinguish."""
    schema = source.rows.collect_schema()
    keys = [
        *source.by,
        *(name for name in MARKET_COLUMNS if name in schema and name not in source.by),
    ]
    if not keys:
        return pl.DataFrame()
    first_known = source.rows.group_by(keys).agg(pl.col(AVAILABLE_AT).min()).collect().sort(keys)
    mixed = first_known.filter(pl.struct(source.by).is_duplicated()) if source.by else first_known
    if mixed.height > 1:
        examples = " and ".join(" ".join(map(str, row)) for row in mixed.select(keys).rows()[:2])
        raise UsageError(
            f"source {source.name!r} has several markets: {examples}",
            "Select one of them, or set by=('exchange', 'symbol') for one row per market.",
        )
    return first_known.select(*source.by, AVAILABLE_AT)


def _summarize(frame: pl.DataFrame, names: Iterable[str], by: tuple[str, ...]) -> pl.DataFrame:
    """Count observed, filled and missing points by source and market."""
    parts = []
    for name in names:
        fill = pl.col(f"{name}_fill")
        missing = fill.eq_missing("none")
        counts = {
            "points": pl.len(),
            "observed": fill.null_count(),
            "filled": (fill.is_not_null() & ~missing).sum(),
            "missing": missing.sum(),
        }
        figures = [expression.cast(pl.Int64).alias(key) for key, expression in counts.items()]
        figures.append(pl.col(f"{name}_age").max().alias("oldest_age"))
        counts_by_market = frame.group_by(by).agg(figures).sort(by) if by else frame.select(figures)
        parts.append(counts_by_market.select(pl.lit(name).alias("source"), pl.all()))
    return pl.concat(parts)


def _pair_policies(
    sources: Mapping[str, Any], how: How | Mapping[str, How]
) -> list[tuple[str, How]]:
    """Return the name of each source with its policy."""
    if not sources:
        raise UsageError("no sources to align", "Pass at least one, by name.")
    policies = how if isinstance(how, Mapping) else dict.fromkeys(sources, how)
    hint = f"Sources: {', '.join(sources)}."
    for name in (*sources, *policies):
        if name not in policies:
            raise UsageError(f"how has no policy for source {name!r}", "Use an AsOf or a Resample.")
        if name not in sources:
            raise UsageError(f"how names the unknown source {name!r}", hint)
        if not isinstance(policies[name], How):
            raise UsageError(f"how is {policies[name]!r}", "Use an AsOf or a Resample.")
    return [(name, policies[name]) for name in sources]


def _find_previous_time(times: pl.Series, every: Length) -> datetime:
    """Return the time of the grid before its first."""
    if isinstance(every, str):
        step = Timeframe.parse(every).table_suffix
    else:
        step = f"{every // MICROSECOND}us"
    before: datetime = times.head(1).dt.offset_by(f"-{step}")[0]
    return before


def _require_free(names: Sequence[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise UsageError(
                f"column {name!r} would be duplicated",
                "Set `columns`, or rename a source.",
            )
