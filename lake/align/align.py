"""Alignment: several sources on one grid of times, where each value is known fresh or marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lake.align.asof import AVAILABLE_AT, grid
from lake.align.policies import How, Length, Resample
from lake.align.resample import STORED, Grid, Source, on_grid
from lake.errors import UsageError
from lake.model.dataset import END, TIMESTAMP, Dataset
from lake.model.market import MARKET_COLUMNS
from lake.model.ohlcv import PRICES
from lake.model.time import DAY, MICROSECOND
from lake.model.timeframe import Timeframe

Frame = pl.LazyFrame | pl.DataFrame

# What the rows of a lake say of themselves; none of it is a value to align.
_METADATA = (AVAILABLE_AT, *MARKET_COLUMNS, "date", "closed", "fill")
_MAX_RECEIPT_DELAY = DAY
_MAX_CLOCK_DIFFERENCE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class AlignInput:
    """Rows of a table, as a source of an alignment: of one market, or of several with `by`."""

    table: str
    exchange: str | Sequence[str] = ()
    symbol: str | Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Aligned:
    """Sources on one grid, and what in it is observed.

    Attributes
    ----------
    frame
        A row a time (and market): `time` (Datetime us UTC), the columns `by`, and of each source
        `NAME_COLUMN` for its columns; `NAME_age` (Duration us): time less `available_at` of the
        newest row in the value; `NAME_fill` (String): null where it is observed, else what it was
        filled with, `none` where it is missing, and `stored:METHOD` where a row of the source was
        filled in by a repair; for `Resample` also `NAME_rows` (Int64): rows that became one.
    summary
        A row a source (and market): `source`, the columns `by`, `points` = `observed` + `filled`
        + `missing` (Int64), and `oldest_age` (Duration us) of all its values.
    """

    frame: pl.DataFrame
    summary: pl.DataFrame


def align(
    sources: Mapping[str, Frame],
    every: Length,
    *,
    since: datetime,
    until: datetime,
    how: How | Mapping[str, How],
    by: str | Sequence[str] = (),
) -> Aligned:
    """Put several sources on one grid; at each time only what was known by then counts.

    Rows whose `closed` is not true are left out: such a bar may not be final at its end.

    Parameters
    ----------
    sources
        By name, rows with `available_at`, as `Bundle.available` gives them, in order of their
        events. The same rows may be there under two names, with another `how` each.
    every
        The step: a duration, or a timeframe such as `5m`, `1d`, `1M` (months of the calendar).
    since, until
        Times of the grid are in `[since, until)`, from `since` on.
    how
        How each source gets onto the grid, or one way for all: `AsOf` or `Resample`.
    by
        Columns that all sources have and that tell markets apart: then there is a row a time and
        market, from when the first of its rows is known in any source. Without, each source is of
        one market, and there is a row a time.

    Raises
    ------
    UsageError
        The range, step or a policy cannot be; a column is missing, no number, or would be there
        twice; times are not in UTC; a source has several markets that nothing tells apart.
    """
    times = grid(every, since=since, until=until)["time"]
    return _align_sources(sources, times, _find_previous_time(times, every), how, by)


def align_tables(
    available: Callable[..., pl.LazyFrame],
    dataset: Callable[[str], Dataset],
    inputs: Mapping[str, AlignInput | str],
    every: Length,
    *,
    since: datetime,
    until: datetime,
    how: How | Mapping[str, How],
    by: str | Sequence[str] = (),
) -> Aligned:
    """Align tables of a lake or a bundle: as `align`, of which only the range needed is read.

    Parameters
    ----------
    available
        Gives the rows of a table with `available_at`, as `Bundle.available`.
    dataset
        Gives the dataset of a table.
    inputs
        By name, what to align; a table's name alone means all of its rows. Of rows from before
        `since`, those are read that a policy can reach: all without a staleness limit. One that
        was received more than a day after its time may be missed there.
    """
    times = grid(every, since=since, until=until)["time"]
    before = _find_previous_time(times, every)
    sources = {}
    for name, policy in _pair_policies(inputs, how):
        given = inputs[name]
        table_input = AlignInput(given) if isinstance(given, str) else given
        oldest = policy.oldest(times[0], before)
        sources[name] = available(
            table_input.table,
            exchange=table_input.exchange,
            symbol=table_input.symbol,
            since=None if oldest is None else oldest - _find_max_delay(dataset(table_input.table)),
            until=until + _MAX_CLOCK_DIFFERENCE,
        )
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
    _require_free(["time", *markets, *(name for source in opened_sources for name in source.adds)])
    target_grid = Grid(times, before, _build_points(times, opened_sources, markets))
    parts = [on_grid(source, target_grid) for source in opened_sources]
    frame = pl.concat([target_grid.points, *parts], how="horizontal")
    return Aligned(frame, _summarize(frame, [source.name for source in opened_sources], markets))


def _open_source(name: str, frame: Frame, how: How, by: tuple[str, ...]) -> Source:
    """A source whose columns are there, and of the right types."""
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
                f"source {name!r} has no column {column!r}", f"It has {', '.join(schema)}."
            )
    if schema[AVAILABLE_AT] != TIMESTAMP:
        raise UsageError(
            f"source {name!r}: column {AVAILABLE_AT!r} is {schema[AVAILABLE_AT]}, not times in UTC",
            "Cast it to pl.Datetime('us', 'UTC'); give naive times their zone first: "
            "dt.replace_time_zone('UTC').",
        )
    for column in (*prices, *columns) if how.needs_numbers else ():
        if not schema[column].is_numeric():
            raise UsageError(
                f"source {name!r}: column {column!r} is {schema[column]}, not numbers",
                "Choose `columns` that are, or take it by AsOf under a second name.",
            )


def _build_points(times: pl.Series, sources: Sequence[Source], by: tuple[str, ...]) -> pl.DataFrame:
    """The times; by market, from when one of its rows was known in any source."""
    first_known = [_find_first_known(source) for source in sources]
    if not by:
        return times.to_frame()
    first = pl.concat(first_known).group_by(by).agg(pl.col(AVAILABLE_AT).min())
    pairs = times.to_frame().join(first, how="cross").filter(pl.col(AVAILABLE_AT) <= pl.col("time"))
    return pairs.select("time", *by).sort("time", *by)


def _find_first_known(source: Source) -> pl.DataFrame:
    """When each market was first known; refuses two that the columns `by` do not tell apart."""
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
            "Choose one of them, or give `by`, as by=('exchange', 'symbol'), for a row a market.",
        )
    return first_known.select(*source.by, AVAILABLE_AT)


def _summarize(frame: pl.DataFrame, names: Iterable[str], by: tuple[str, ...]) -> pl.DataFrame:
    """By source and market, how many points are observed, filled and missing."""
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
    """Each source's name with its policy."""
    if not sources:
        raise UsageError("there is no source to align", "Give one or more, by name.")
    policies = how if isinstance(how, Mapping) else dict.fromkeys(sources, how)
    hint = f"There are {', '.join(sources)}."
    for name in (*sources, *policies):
        if name not in policies:
            raise UsageError(
                f"how says nothing of source {name!r}", "Give it an AsOf or a Resample."
            )
        if name not in sources:
            raise UsageError(f"how names {name!r}, but there is no such source", hint)
        if not isinstance(policies[name], How):
            raise UsageError(f"how is {policies[name]!r}", "Give an AsOf or a Resample.")
    return [(name, policies[name]) for name in sources]


def _find_previous_time(times: pl.Series, every: Length) -> datetime:
    """The time of the grid before its first."""
    if isinstance(every, str):
        step = Timeframe.parse(every).table_suffix
    else:
        step = f"{every // MICROSECOND}us"
    before: datetime = times.head(1).dt.offset_by(f"-{step}")[0]
    return before


def _find_max_delay(dataset: Dataset) -> timedelta:
    """How long after its time a row becomes known."""
    timeframe = dataset.timeframe
    if dataset.available_at == END and timeframe is not None:
        return timeframe.longest
    return _MAX_RECEIPT_DELAY if dataset.available_at is not None else timedelta(0)


def _require_free(names: Sequence[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise UsageError(
                f"column {name!r} would be there twice",
                "Choose `columns`, or other names of sources.",
            )
