"""A dataset: the columns, key and rules of one Delta table. It is data, not code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal

import polars as pl

from lake.model.event_columns import EventKind
from lake.model.market import MARKET_COLUMNS
from lake.model.severity import Severity
from lake.model.timeframe import Timeframe

Granularity = Literal["day", "year"]
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
"""Sections of a bundle's manifest with room for any table; the others are of one dataset each."""
FETCHED_EVENTS: Mapping[FetchMethod, EventKind | None] = {
    "fetchOHLCV": "bar",
    "fetchTrades": "trade",
    "fetchFundingRateHistory": "funding",
    "fetchOrderBook": "order_book",
    "fetchMarkets": None,
}
"""What the rows of each method are; None: specifications of markets."""
PRESENT_METHODS: tuple[FetchMethod, ...] = ("fetchOrderBook", "fetchMarkets")
"""Methods that give only what is now; the others give a range."""
PARTITIONS = (*MARKET_COLUMNS, "date")
END = "end"
"""Value of `available_at` for rows that describe a timeframe and are known at its end."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its type (a name of `TYPES`), unit, whether it may be null, what it means."""

    name: str
    type: str
    meaning: str
    unit: str = ""
    nullable: bool = False

    @property
    def dtype(self) -> pl.DataType:
        return TYPES[self.type]


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that every stored row passes (null passes): Polars SQL over the columns."""

    name: str
    condition: str

    @property
    def expression(self) -> pl.Expr:
        return pl.sql_expr(self.condition)


@dataclass(frozen=True)
class Check:
    """A check of stored rows: one of `lake.quality` by name, or a user's own.

    Attributes
    ----------
    severity
        Severity of a finding, unless the check itself gives one.
    thresholds
        Parameters by name.
    sql
        The query over `rows` of a user's own check.
    python
        The function of a user's own check, as `package.module:function`.
    dimension
        Which part of the score the findings of a user's own check lower.
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
        The method of ccxt that gives them, by its unified name.
    window
        How much time one fetch spans; None: the exchange gives only the present.
    """

    method: FetchMethod
    window: timedelta | None = None


@dataclass(frozen=True, slots=True)
class RepairPolicy:
    """How rows of a dataset are repaired.

    Attributes
    ----------
    interpolate
        How a missing row may be filled in where a user asks for it; its column `fill` says so.
        `flat`: the last price, no volume. `linear`: between its neighbours. `last`: the one before.
    margin
        How much is fetched again before and after the interval of a finding: a missing row may have
        the time of its neighbours, or miss the time of the schedule by a little.
    join_within
        Findings that are at most this far apart are fetched again in one window.
    """

    interpolate: Interpolation | None = None
    margin: timedelta = timedelta(0)
    join_within: timedelta = timedelta(0)


@dataclass(frozen=True)
class Dataset:
    """What one table holds.

    Attributes
    ----------
    name
        The table: `trades`, `bars_1m`.
    family
        The dataset file that it comes from: `trades`, `bars`.
    columns
        All columns in order, `exchange`, `symbol` and `date` first.
    key
        Columns beside exchange and symbol that make a row unique, the time column or an id.
    time_column
        The column that ranges and `date` refer to.
    sort
        Order of the rows in a file.
    granularity
        `day`: `date` is the UTC day of the time column. `year`: it is the first day of its year
        in storage, because a file a day would hold a handful of rows; every read shows the day.
    rows
        `immutable`: a stored row is never touched. `revisable`: a row of the same key replaces
        it where a value differs.
    rules
        What a row must pass to be stored; others go to quarantine.
    checks
        Checks of stored rows.
    keep_when
        For revisable rows: an SQL condition over the stored row `t` and the new row `s`
        under which the stored one stays, whatever the new one holds.
    timeframe
        The timeframe of the table, in a family with one table per timeframe.
    kind
        `data`: rows about markets, which are checked and scored. `reference`: descriptions of
        markets. `record`: the lake's own record, which only the lake writes.
    source_kind
        Where rows come from: `exchange`, `chain`, `file` (the user writes them) or `lake`.
    section
        The key of a bundle's manifest that holds its tables.
    rank
        Place in a replay among rows of one instant: lower ranks come first.
    event
        What a row is, if sources, checks, repairs and replays know such rows.
    margin
        How far before and after a judged range checks see rows of the market.
    fetch
        How rows are fetched from exchanges; None: exchanges do not give them.
    repair
        How rows are repaired.
    available_at
        When a row could first be known. `end`: at the time column plus the timeframe. A column:
        at its time, and where it is null at the time column. None: at the time column.
    """

    name: str
    family: str
    title: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    time_column: str
    sort: tuple[str, ...]
    granularity: Granularity
    rows: RowKind
    rules: tuple[Rule, ...] = field(default=())
    checks: tuple[Check, ...] = field(default=())
    keep_when: str | None = None
    timeframe: Timeframe | None = None
    available_at: str | None = None
    kind: Kind = "data"
    source_kind: SourceKind = "file"
    section: Section = "other"
    rank: int = 100
    event: EventKind | None = None
    margin: timedelta = timedelta(hours=1)
    fetch: Fetch | None = None
    repair: RepairPolicy = RepairPolicy()

    @property
    def is_fetched_by_range(self) -> bool:
        """Whether exchanges give the rows of a range."""
        return self.fetch is not None and self.fetch.window is not None

    @property
    def is_fetched_as_present(self) -> bool:
        """Whether exchanges give only what is now."""
        return self.fetch is not None and self.fetch.window is None

    @property
    def polars_schema(self) -> pl.Schema:
        return pl.Schema({column.name: column.dtype for column in self.columns})

    @property
    def full_key(self) -> tuple[str, ...]:
        return (*MARKET_COLUMNS, *self.key)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, types and nullability of the columns, and the key."""
        facts = [[c.name, c.type, c.nullable] for c in self.columns]
        text = json.dumps([facts, list(self.full_key)], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self.polars_schema)

    def availability(self) -> pl.Expr:
        """When a row could first be known: `available_at`, in microseconds of UTC.

        Months are those of the calendar: a bar of `1M` that opens on 1 January is known on
        1 February.
        """
        time = pl.col(self.time_column)
        if self.available_at == END and self.timeframe is not None:
            time = time.dt.offset_by(self.timeframe.table_suffix)
        elif self.available_at is not None:
            time = pl.coalesce(self.available_at, time)
        return time.alias("available_at")

    def partition_date(self) -> pl.Expr:
        """The stored `date` of a row."""
        day = pl.col(self.time_column).dt.date()
        return (day if self.granularity == "day" else day.dt.truncate("1y")).alias("date")

    def partition_date_of(self, time: datetime) -> date:
        """The stored `date` of rows at `time`."""
        return time.date() if self.granularity == "day" else date(time.year, 1, 1)
