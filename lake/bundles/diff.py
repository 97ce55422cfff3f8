"""Differences between two bundles: market-days, the jobs that wrote into them, and rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from typing import Any

import polars as pl

from lake.bundles.attribution import CommitRange, attribute_jobs, map_refs
from lake.bundles.contents import Contents
from lake.bundles.table import PinnedTable
from lake.errors import UnknownNameError
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.json_text import write_json
from lake.model.market import MARKET_COLUMNS
from lake.model.partitions import MARKET_DAY
from lake.model.schedule import scheduled_at
from lake.model.selection import Selection
from lake.model.time import DAY
from lake.store.hashing import FileChecker

_DAY = ("table", *MARKET_DAY)
_MARKET = ("table", *MARKET_COLUMNS)
_LINE = ("key", "change", "column", "old", "new")
_TEXTS = pl.List(pl.String())
DAY_DIFF = pl.Schema(
    {
        **dict.fromkeys(_MARKET, pl.String()),
        "date": pl.Date(),
        "change": pl.String(),
        **dict.fromkeys(("rows_before", "rows_after"), pl.Int64()),
        **dict.fromkeys(("jobs", "sources"), _TEXTS),
    }
)
ROW_DIFF = pl.Schema(
    {**dict.fromkeys(_MARKET, pl.String()), "time": TIMESTAMP, **dict.fromkeys(_LINE, pl.String())}
)
_TIME_OF_REPEATED, _KEY = "time of repeated", "key "
_NOTHING = pl.lit(None, dtype=pl.String())
_PART_ROWS = 500_000
_SLICE_ROWS = 50_000
_ISO = "%Y-%m-%dT%H:%M:%S%.fZ"


def diff_days(before: Contents, after: Contents, tables: Sequence[str] = ()) -> pl.DataFrame:
    """Find the market-days that differ between two bundles, without reading data files.

    `tables`: all tables by default.

    Returns
    -------
    DataFrame
        Ordered by table, market and date. `change`: `added`, `removed` or `changed`; if the
        columns of a table differ, each of its days is `changed`. `rows_before`, `rows_after`: 0 if
        the day is in one bundle only.

        `jobs` and `sources`: those of the commits that wrote into the day between the two
        versions of the table, oldest first. If `after` is the older version, these commits were
        undone. Compaction writes no rows and does not count. In tables with one partition per
        year, a commit counts for all days from its first to its last row, which may include days
        that it did not write. The lists are empty if the lake's log does not have the commits: the
        table is in one bundle only, is not the table that was pinned, or both bundles hold their
        own data. They are also empty if nothing was written, as when only the selections differ.

    Raises
    ------
    UnknownNameError
        A table is in neither of them.
    DamagedError
        A list of market-days, or a commit between the versions, cannot be read.
    """
    days = _find_different_days(before, after, tables)
    if days.is_empty():
        return pl.DataFrame(schema=DAY_DIFF)
    parts = [
        attribute_jobs(CommitRange.find_between(before, after, str(table)), group)
        for (table,), group in days.group_by("table", maintain_order=True)
    ]
    return pl.concat(parts)


def diff_rows(
    before: Contents, after: Contents, tables: Sequence[str] = ()
) -> Iterator[pl.DataFrame]:
    """Find the rows that differ between two bundles, with at most one partition in memory.

    Only market-days that differ are read, from files that are verified first. Rows are matched by
    key, and where the table has a schedule by event, whose exact time may change. NaN equals NaN;
    null equals only null; 0.0 does not equal -0.0.

    Yields
    ------
    DataFrame
        One line per changed value, and one line per row that is in one bundle only, ordered by
        table, market and time. `time`: time of the row. `key`: the other key columns as a JSON
        object; null if market and time are the key. `change`: `added`, `removed` or `changed`.
        `column`: the column of the value; null for a whole row. `old`, `new`: the value as text,
        floats with all digits, times as ISO-8601, lists as JSON; for a whole row, a JSON object in
        which NaN is `NaN`. The first frame is empty.

    Raises
    ------
    UnknownNameError
        A table is in neither of them.
    DamagedError
        A file is missing or differs from the pinned file.
    """
    return _diff_rows(before, after, _find_different_days(before, after, tables))


def list_reshaped_tables(before: Contents, after: Contents) -> list[str]:
    """List the tables whose columns or key differ between two bundles."""
    old, new = map_refs(before), map_refs(after)
    shared = sorted(old.keys() & new.keys())
    return [t for t in shared if old[t].schema_fingerprint != new[t].schema_fingerprint]


def _find_different_days(before: Contents, after: Contents, tables: Sequence[str]) -> pl.DataFrame:
    """Return the rows of `DAY_DIFF` without jobs and sources."""
    refs = {**map_refs(before), **map_refs(after)}
    for name in tables:
        if name not in refs:
            hint = f"Their tables are {', '.join(refs)}."
            raise UnknownNameError(f"table {name!r} is in neither bundle", hint)
    old, new = (contents.days.select(*_DAY, "rows", "digest") for contents in (before, after))
    joined = old.join(new, on=_DAY, how="full", coalesce=True, suffix="_after")
    same = (pl.col("digest") == pl.col("digest_after")).fill_null(value=False)
    same &= ~pl.col("table").is_in(list_reshaped_tables(before, after))
    counts = {"rows_before": pl.col("rows"), "rows_after": pl.col("rows_after")}
    days = joined.filter(pl.col("table").is_in(list(tables or refs)) & ~same).select(
        *_DAY, **{name: rows.fill_null(0) for name, rows in counts.items()}
    )
    added, removed = pl.col("rows_before") == 0, pl.col("rows_after") == 0
    one_sided = pl.when(added).then(pl.lit("added")).when(removed).then(pl.lit("removed"))
    change = one_sided.otherwise(pl.lit("changed")).alias("change")
    return days.select(*_DAY, change, *counts).sort(_DAY)


@dataclass(frozen=True)
class _Side:
    """Rows of one market in one bundle."""

    dataset: Dataset
    rows: pl.DataFrame

    def empty(self) -> _Side:
        return _Side(self.dataset, self.dataset.empty())

    @property
    def key(self) -> dict[str, pl.DataType]:
        return {name: self.dataset.polars_schema[name] for name in self.dataset.full_key}

    def use_schedule(self, other: _Side) -> _Side:
        """Return the rows with the schedule of the other bundle: an earlier version had none."""
        known = other.dataset
        if self.dataset.schedule is not None or known.schedule is None:
            return self
        dataset = replace(
            self.dataset, schedule=known.schedule, time_tolerance=known.time_tolerance
        )
        return _Side(dataset, self.rows)

    def select_keys(self) -> pl.DataFrame:
        """Return the keys of the rows, with scheduled times."""
        time = self.dataset.time_column
        keys = self.rows.select(self.key.keys())
        return keys.with_columns(scheduled_at(self.dataset)) if time in self.key else keys

    def select_repeated(self) -> pl.DataFrame:
        """Return the keys that several rows have."""
        keys = self.select_keys()
        return keys.filter(keys.is_duplicated())

    def select_prefixed(self, other: _Side, prefix: str) -> pl.DataFrame:
        """Return the rows with prefixed names; columns that only `other` has are null."""
        own, others = self.dataset.polars_schema, other.dataset.polars_schema
        nulls = {name: pl.lit(None, kind) for name, kind in others.items() if name not in own}
        return self.rows.with_columns(**nulls).select(pl.all().name.prefix(prefix))


def _diff_rows(before: Contents, after: Contents, days: pl.DataFrame) -> Iterator[pl.DataFrame]:
    yield pl.DataFrame(schema=ROW_DIFF)
    of_lakes = FileChecker()  # both bundles may pin the same files of a lake
    checkers = [x.create_checker() if x.owns_data else of_lakes for x in (before, after)]
    for (name,), group in days.group_by("table", maintain_order=True):
        pinned = [
            PinnedTable.open(contents, str(name), checker) if name in map_refs(contents) else None
            for contents, checker in zip((before, after), checkers, strict=True)
        ]
        dataset = next(table.dataset for table in pinned if table is not None)
        for part in _group_days(dataset, group):
            old = _read_side(pinned[0], dataset, part.filter(pl.col("rows_before") > 0))
            new = _read_side(pinned[1], dataset, part.filter(pl.col("rows_after") > 0))
            market = part.select(_MARKET).head(1)
            for lines in _compare(old, new):
                yield market.join(lines, how="cross").select(list(ROW_DIFF)).cast(ROW_DIFF)


def _group_days(dataset: Dataset, days: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Group the days of a table by partition, so that a file with many days is read once."""
    gathered = pl.max_horizontal("rows_before", "rows_after").cum_sum() // _PART_ROWS
    start = dataset.partitioning.start(pl.col("date")).alias("start")
    by = ["exchange", "symbol", start, gathered]
    return (part for _, part in days.group_by(by, maintain_order=True))


def _read_side(pinned: PinnedTable | None, dataset: Dataset, days: pl.DataFrame) -> _Side:
    """Read the rows of some days of a market; `dataset` is used if the bundle lacks the table."""
    dataset = dataset if pinned is None else pinned.dataset
    if pinned is None or days.is_empty():
        return _Side(dataset, dataset.empty())
    exchange, symbol, first = days.select("exchange", "symbol", "date").row(0)
    start = datetime.combine(first, time(), UTC)
    end = datetime.combine(days["date"][-1], time(), UTC) + DAY
    rows = pinned.collect(Selection((exchange,), (symbol,), start, end))
    return _Side(dataset, rows.filter(pl.col("date").is_in(days["date"].implode())))


def _compare(old: _Side, new: _Side) -> Iterator[pl.DataFrame]:
    """Yield the rows of `ROW_DIFF` without the market."""
    if old.key != new.key:  # no two rows match
        yield from _compare(old, old.empty())
        yield from _compare(new.empty(), new)
        return
    old, new = old.use_schedule(new), new.use_schedule(old)
    for piece in _join_sides(old, new).iter_slices(_SLICE_ROWS):
        removed_rows = piece.filter(pl.col("new exchange").is_null())
        added_rows = piece.filter(pl.col("old exchange").is_null())
        joined = piece.filter(pl.col("old exchange") == pl.col("new exchange"))
        lines = [
            _build_lines(
                removed_rows, "removed", old=_rows_to_json(removed_rows, "old ", old.dataset)
            ),
            _build_lines(added_rows, "added", new=_rows_to_json(added_rows, "new ", new.dataset)),
            *_list_changed_values(joined, old.dataset, new.dataset),
        ]
        yield pl.concat(lines).sort("line", maintain_order=True).drop("line")


def _join_sides(old: _Side, new: _Side) -> pl.DataFrame:
    """Join rows by key, with columns `old …` and `new …`; add `line`, `time` and `key`.

    Rows whose key comes several times in a bundle are also told apart by their times.
    """
    several = pl.concat([old.select_repeated(), new.select_repeated()]).unique()
    marked = [
        side.select_prefixed(other, prefix)
        .hstack(side.select_keys().select(pl.all().name.prefix(f"{prefix}{_KEY}")))
        .with_columns(_find_repeated(side, several).alias(f"{prefix}{_TIME_OF_REPEATED}"))
        for side, other, prefix in ((old, new, "old "), (new, old, "new "))
    ]
    keys = [*(f"{_KEY}{name}" for name in old.key), _TIME_OF_REPEATED]
    joined = marked[0].join(
        marked[1],
        left_on=[f"old {name}" for name in keys],
        right_on=[f"new {name}" for name in keys],
        how="full",
        coalesce=False,
        nulls_equal=True,
    )
    time_column = new.dataset.time_column
    key_columns = [name for name in old.dataset.key if name != time_column]
    key = {name: pl.coalesce(f"new {name}", f"old {name}").alias(name) for name in key_columns}
    at = pl.coalesce(f"new {time_column}", f"old {old.dataset.time_column}")
    ordered = joined.sort(at, *key.values()).with_row_index("line")
    texts = [_format_time(value, old.key[name]) for name, value in key.items()]
    as_json = pl.struct(texts).struct.json_encode() if texts else _NOTHING
    return ordered.with_columns(at.alias("time"), as_json.alias("key"))


def _find_repeated(side: _Side, several: pl.DataFrame) -> pl.Series:
    """Return the times of rows with one of several keys; null for other rows."""
    time = side.rows[side.dataset.time_column]
    if several.is_empty():
        return time.clear().extend_constant(None, len(time))
    marked = several.with_columns(_is_repeated=pl.lit(value=True))
    keys = side.select_keys().with_columns(time.alias("_time"))
    joined = keys.join(marked, on=several.columns, how="left", maintain_order="left")
    return joined.select(pl.when("_is_repeated").then("_time")).to_series()


def _list_changed_values(
    joined: pl.DataFrame, old: Dataset, new: Dataset
) -> Iterator[pl.DataFrame]:
    """Yield one line per changed value, column by column."""
    left = {**new.polars_schema, **old.polars_schema}
    right = {**old.polars_schema, **new.polars_schema}
    matched = {*MARKET_DAY, *old.key} - ({old.time_column} if old.schedule else set())
    for name in (name for name in right if name not in matched):
        before, after = pl.col(f"old {name}"), pl.col(f"new {name}")
        changed_rows = joined.filter(_build_difference(before, after, left[name], right[name]))
        texts = {"old": _to_text(before, left[name]), "new": _to_text(after, right[name])}
        yield _build_lines(changed_rows, "changed", column=pl.lit(name), **texts)


def _build_lines(rows: pl.DataFrame, change: str, **cells: pl.Expr) -> pl.DataFrame:
    """Build lines of `ROW_DIFF`; missing cells are null."""
    cells = {**dict.fromkeys(("column", "old", "new"), _NOTHING), **cells}
    return rows.select("line", "time", "key", change=pl.lit(change), **cells)


def _build_difference(
    before: pl.Expr, after: pl.Expr, left: pl.DataType, right: pl.DataType
) -> pl.Expr:
    """Return whether two values differ; reciprocals distinguish 0.0 from -0.0, like the digest."""
    if left != right:
        return _to_text(before, left).ne_missing(_to_text(after, right))
    differ = before.ne_missing(after)
    if left == pl.Float64():
        differ |= (1 / before).ne_missing(1 / after)
    if left == pl.List(pl.Float64()):
        inverse = 1 / pl.element()
        differ |= before.list.eval(inverse).ne_missing(after.list.eval(inverse))
    return differ


def _to_text(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Convert a value to text without loss."""
    if isinstance(dtype, pl.List):
        return value.map_elements(lambda items: _to_json(items.to_list()), return_dtype=pl.String)
    return _format_time(value, dtype).cast(pl.String)


def _format_time(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return value.dt.to_string(_ISO) if isinstance(dtype, pl.Datetime) else value


def _rows_to_json(rows: pl.DataFrame, side: str, dataset: Dataset) -> pl.Expr:
    """Convert whole rows to JSON; Polars would write NaN as null."""
    schema = dataset.polars_schema
    values = rows.select(
        _format_time(pl.col(f"{side}{name}"), schema[name]).alias(name)
        for name in schema
        if name not in MARKET_DAY
    )
    texts = [_to_json(row) for row in values.iter_rows(named=True)]
    return pl.lit(pl.Series(texts, dtype=pl.String))


def _to_json(value: Any) -> str:
    return write_json(value, ensure_ascii=False, separators=(",", ":"), default=str)
