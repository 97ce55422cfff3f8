"""Datasets: the columns, key and rules of one Delta table each, as data and not as code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import polars as pl

from lake.model.event_columns import EventKind
from lake.model.grid import end_of
from lake.model.market import MARKET_COLUMNS
from lake.model.partitions import MARKET_DAY, PARTITIONINGS, Granularity, Partitioning
from lake.model.severity import Severity
from lake.model.timeframe import Timeframe

RowKind = Literal["immutable", "revisable"]
Kind = Literal["data", "reference", "record"]
SourceKind = Literal["exchange", "chain", "file", "lake"]
Section = Literal["bars", "trades", "orderbooks", "funding", "chain", "other"]
FetchMethod = Literal[
    "fetchOHLCV", "fetchTrades", "fetchFundingRateHistory", "fetchOrderBook", "fetchMarkets"
]
Dimension = Literal["completeness", "accuracy", "consistency", "timeliness"]
Interpolation = Literal["flat", "linear", "last"]
Threshold = bool | int | float | str | list[str]

TIMESTAMP = pl.Datetime("us", "UTC")
TYPES: Mapping[str, pl.DataType] = {
    "timestamp": TIMESTAMP,
    "date": pl.Date(),
    "string": pl.String(),
    "float64": pl.Float64(),
    "int64": pl.Int64(),
    "boolean": pl.Boolean(),
    "list<float64>": pl.List(pl.Float64()),
    "list<string>": pl.List(pl.String()),
}
SHARED_SECTIONS: tuple[Section, ...] = ("chain", "other")
"""Sections of a bundle's manifest that hold any table; each other section holds one dataset."""
FETCHED_EVENTS: Mapping[FetchMethod, EventKind | None] = {
    "fetchOHLCV": "bar",
    "fetchTrades": "trade",
    "fetchFundingRateHistory": "funding",
    "fetchOrderBook": "order_book",
    "fetchMarkets": None,
}
"""The kind of event that each method fetches; None: specifications of markets."""
PRESENT_METHODS: tuple[FetchMethod, ...] = ("fetchOrderBook", "fetchMarkets")
"""Methods that fetch only the present; the others fetch a range."""
END = "end"
"""Value of `available_at` for rows that describe a timeframe and are known at its end."""
RECEIVED_AT = "received_at"
"""Name of the column that says when this machine received a row."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its type (a name of `TYPES`), meaning, unit, and whether it may be null.

    `digest`: whether its values are content of the row. Other columns, such as the time when this
    machine received a row, are part of no digest, and rows that differ in them only are the same.
    `keep_value`: whether null means that no value was given, so that it never replaces a value.
    """

    name: str
    type: str
    meaning: str
    unit: str = ""
    nullable: bool = False
    digest: bool = True
    keep_value: bool = False

    @property
    def dtype(self) -> pl.DataType:
        """Polars type of the column."""
        return TYPES[self.type]


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that every stored row meets: Polars SQL over the columns. Null passes."""

    name: str
    condition: str

    @property
    def expression(self) -> pl.Expr:
        """The condition as a Polars expression."""
        return pl.sql_expr(self.condition)


@dataclass(frozen=True)
class Check:
    """A check of stored rows: a built-in check of `lake.quality`, or a custom one.

    Attributes
    ----------
    severity
        Severity of findings, unless the check sets one for each.
    thresholds
        Parameters by name.
    sql
        Query over `rows` of a custom check.
    python
        Function of a custom check, as `package.module:function`.
    dimension
        Part of the score that findings of a custom check lower.
    enabled
        Whether the check runs.
    """

    name: str
    severity: Severity
    thresholds: Mapping[str, Threshold] = field(hash=False)
    sql: str | None = None
    python: str | None = None
    dimension: Dimension | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Fetch:
    """How rows are fetched from an exchange.

    Attributes
    ----------
    method
        The ccxt method that fetches them, by its unified name.
    window
        Length of time that one fetch covers; None: the exchange serves only the present.
    """

    method: FetchMethod
    window: timedelta | None = None


@dataclass(frozen=True, slots=True)
class RepairPolicy:
    """How rows of a dataset are repaired.

    Attributes
    ----------
    interpolate
        How a missing row may be filled when the user requests it; its column `fill` records this.
        `flat`: last price, no volume. `linear`: between its neighbours. `last`: the previous row.
    margin
        Length of time to refetch before and after the interval of a finding: a missing row may have
        the time of its neighbours, or be slightly off schedule.
    join_within
        Findings at most this far apart are refetched in one window.
    """

    interpolate: Interpolation | None = None
    margin: timedelta = timedelta(0)
    join_within: timedelta = timedelta(0)


@dataclass(frozen=True)
class Dataset:
    """The description of one table.

    Attributes
    ----------
    name
        The table: `trades`, `bars_1m`.
    family
        The dataset file that describes it: `trades`, `bars`.
    columns
        All columns in order, `exchange`, `symbol` and `date` first.
    key
        Columns that make a row unique, besides exchange and symbol: the time column or an id.
    time_column
        The column to which ranges and `date` refer; `date` is its UTC day.
    sort
        Order of the rows in a file.
    time_tolerance
        Rows with equal keys are one row if their times differ by at most this; zero if the time
        column is part of the key, unless there is a schedule.
    schedule
        Events are due at multiples of this, and rows may be off; see `lake.model.schedule`.
    granularity
        Files are kept by `day`, `month` or `year`, so that none holds too few rows.
    rows
        `immutable`: a row never changes. `revisable`: another row of its key replaces it.
    rules
        Conditions of rows that are stored; others go to quarantine.
    checks
        Checks of stored rows.
    keep_when
        For revisable rows: the stored row `t` stays if this SQL over it and the new `s` is true.
    timeframe
        The timeframe of the table, in a family with one table per timeframe.
    kind
        `data`: rows about markets, which are checked and scored. `reference`: descriptions of
        markets. `record`: internal records, which only the lake writes.
    source_kind
        Origin of rows: `exchange`, `chain`, `file` (the user writes them) or `lake`.
    section
        Key of a bundle's manifest that holds the tables.
    rank
        Order in a replay among rows of the same instant: lower ranks first.
    event
        Kind of event, if sources, checks, repairs and replays support such rows.
    margin
        Length of time before and after a range of which checks also read the rows.
    fetch
        How rows are fetched from exchanges; None: exchanges do not serve them.
    repair
        How rows are repaired.
    available_at
        When a row first became available. `end`: at the time column plus the timeframe. A column:
        at its time, or at the time column if it is null. None: at the time column. Never before a
        time in `received_at`, if there is such a column; `received_at` itself never makes a row
        available before its time column or its end.
    counts_receipt
        Whether `received_at` counts; false for tables of a bundle that was made when it did not.
    """

    name: str
    family: str
    title: str
    description: str
    columns: tuple[Column, ...] = field(hash=False)  # long: a look-up in a cache hashes the rest
    key: tuple[str, ...]
    time_column: str
    sort: tuple[str, ...]
    granularity: Granularity
    rows: RowKind
    rules: tuple[Rule, ...] = field(default=(), hash=False)
    checks: tuple[Check, ...] = field(default=(), hash=False)
    keep_when: str | None = None
    timeframe: Timeframe | None = None
    available_at: str | None = None
    kind: Kind = "data"
    source_kind: SourceKind = "file"
    section: Section = "other"
    rank: int = 100
    event: EventKind | None = None
    margin: timedelta = timedelta(hours=1)
    fetch: Fetch | None = field(default=None, hash=False)
    repair: RepairPolicy = field(default=RepairPolicy(), hash=False)
    time_tolerance: timedelta = timedelta(0)
    counts_receipt: bool = True
    schedule: timedelta | None = None

    @property
    def is_fetched_by_range(self) -> bool:
        """Whether exchanges serve the rows of a range."""
        return self.fetch is not None and self.fetch.window is not None

    @property
    def is_fetched_as_present(self) -> bool:
        """Whether exchanges serve only the present."""
        return self.fetch is not None and self.fetch.window is None

    @property
    def polars_schema(self) -> pl.Schema:
        """Names and Polars types of all columns, in order."""
        return pl.Schema({column.name: column.dtype for column in self.columns})

    @property
    def partitioning(self) -> Partitioning:
        """How files are kept by time."""
        return PARTITIONINGS[self.granularity]

    @property
    def partitions(self) -> tuple[str, ...]:
        """Names of the partition columns: exchange, symbol, and `date`, `month` or `year`."""
        return self.partitioning.columns

    @property
    def full_key(self) -> tuple[str, ...]:
        """The key, exchange and symbol first."""
        return (*MARKET_COLUMNS, *self.key)

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that no two stored rows have in common: market, key and time."""
        return (*MARKET_COLUMNS, *self.row_key)

    @property
    def row_key(self) -> tuple[str, ...]:
        """Columns that no two stored rows of a market have in common: key and time."""
        return tuple(dict.fromkeys([*self.key, self.time_column]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key and of the names, types and nullability of the columns in digests."""
        facts = [[c.name, c.type, c.nullable] for c in self.columns if c.digest]
        text = json.dumps([facts, list(self.full_key)], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def content(self) -> tuple[Column, ...]:
        """The columns that digests cover: all but exchange, symbol, date and `digest = false`."""
        return tuple(c for c in self.columns if c.digest and c.name not in MARKET_DAY)

    @property
    def values(self) -> tuple[str, ...]:
        """The columns of the content that do not identify a row."""
        return tuple(c.name for c in self.content if c.name not in self.identity)

    @property
    def needs_stored(self) -> bool:
        """Whether rows must be compared with the stored rows that they may be.

        Data and references that never change, because a contradiction is reported; rows with an
        id or a schedule, because their times are compared.
        """
        is_compared = self.rows == "immutable" and self.kind != "record"
        return is_compared or not self.has_time_in_key or self.schedule is not None

    @property
    def fillable(self) -> tuple[str, ...]:
        """The columns of which a stored null may be filled later: not content, and nullable."""
        return tuple(c.name for c in self.columns if c.nullable and not c.digest)

    @property
    def kept_values(self) -> tuple[str, ...]:
        """The columns of the content of which a null never replaces a value."""
        return tuple(c.name for c in self.content if c.keep_value)

    @property
    def reach(self) -> timedelta:
        """How far apart the times of two rows can be that are one row."""
        return self.time_tolerance if self.schedule is None else 2 * self.time_tolerance

    @property
    def has_time_in_key(self) -> bool:
        """Whether the time column is part of the key."""
        return self.time_column in self.key

    @property
    def marks_open(self) -> bool:
        """Whether a column `closed` tells rows that are final from those that are still open."""
        return self.polars_schema.get("closed") == pl.Boolean()

    def empty(self) -> pl.DataFrame:
        """Return a frame with all columns and no rows."""
        return pl.DataFrame(schema=self.polars_schema)

    @property
    def records_receipt(self) -> bool:
        """Whether a column says when this machine received a row."""
        return self.counts_receipt and any(
            c.name == RECEIVED_AT and c.type == "timestamp" for c in self.columns
        )

    @property
    def announcement_column(self) -> str | None:
        """The column by which a row may be known before its time, as an announcement is; or None.

        `received_at` is none: a row that was received before its time tells that a clock is wrong.
        """
        return None if self.available_at in (END, RECEIVED_AT) else self.available_at

    def happened_at(self, time: pl.Expr | None = None) -> pl.Expr:
        """Return an expression for the time when the event of a row had happened.

        It is the time column, or the end of a bar. Months are calendar months: a `1M` bar that
        opens on 1 January has happened on 1 February.

        Parameters
        ----------
        time
            The time of a row; by default the time column.
        """
        time = pl.col(self.time_column) if time is None else time
        if self.available_at == END and self.timeframe is not None:
            return end_of(time, self.timeframe)
        return time

    def availability(self) -> pl.Expr:
        """Return an expression for the time when a row first became available.

        It is the later one of two times: when the row's event had happened (`happened_at`), and
        when this machine received the row, if `received_at` says so. A clock that is behind the
        venue's thus never makes a row available before it happened. Rows with an
        `announcement_column` are available at its time, but not before they were received. An
        open bar is not available: its values are not those that it has at its end. It is null.

        Its name is `available_at`, its type Datetime us UTC.
        """
        known = self.happened_at()
        if self.announcement_column is not None:
            known = pl.coalesce(self.announcement_column, known)
        if self.records_receipt:
            known = pl.max_horizontal(known, RECEIVED_AT)
        if self.marks_open:
            known = pl.when(pl.col("closed").fill_null(value=True)).then(known)
        return known.alias("available_at")

    def day(self) -> pl.Expr:
        """Return an expression for the calendar day of a row: `date`."""
        return pl.col(self.time_column).dt.date().alias("date")
