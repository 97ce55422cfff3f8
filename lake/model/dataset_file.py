"""The format of a dataset file, `schemas/NAME.toml`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from lake.errors import UsageError
from lake.model.dataset import (
    Check,
    Column,
    Dataset,
    Dimension,
    Fetch,
    FetchMethod,
    Interpolation,
    Kind,
    RepairPolicy,
    RowKind,
    Rule,
    Section,
    SourceKind,
    Threshold,
)
from lake.model.event_columns import EventKind
from lake.model.length import Length
from lake.model.partitions import Granularity
from lake.model.severity import Severity
from lake.model.timeframe import Timeframe

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
MARKET_DAY_COLUMNS = (
    Column("exchange", "string", "Exchange id as in ccxt; `chain:protocol` for a DEX."),
    Column("symbol", "string", "Unified symbol, as `BTC/USDT` or `BTC/USDT:USDT`."),
    Column("date", "date", "UTC calendar day of the time column.", unit="day"),
)
_SPARSE_FROM_SECONDS = 3600
# Defaults without timeframes, and with them.
_RANKS = (100, 10)
_MARGINS = (Length(1, "h"), Length(500, "slots"))
_NOTHING, _CLOSE_SLOTS = Length(0, "s"), Length(60, "slots")
_TOLERANCE = Length(1, "s")


def _parse_length(value: object) -> Length:
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")  # noqa: TRY004 - pydantic explains it
    try:
        return Length.parse(value)
    except UsageError as error:
        raise ValueError(f"{error.message}. {error.hint}") from error


_Length = Annotated[Length, PlainValidator(_parse_length)]


class _ColumnFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    type: str
    meaning: Annotated[str, Field(min_length=1)]
    unit: str = ""
    nullable: bool = False
    digest: bool = True
    keep_value: bool = False


class _CheckFile(BaseModel):
    """A check in a dataset file or in the settings; all other keys are thresholds."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Threshold]
    severity: Severity = "warning"
    enabled: bool = True
    sql: str | None = None
    python: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None
    dimension: Dimension | None = None

    def check(self, name: str) -> Check:
        """Return the check, under a name."""
        thresholds = dict(self.__pydantic_extra__)
        return Check(
            name,
            self.severity,
            thresholds,
            self.sql,
            self.python,
            self.dimension,
            self.enabled,
        )


class FetchFile(BaseModel):
    """How rows are fetched from exchanges."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    method: FetchMethod
    window: _Length | None = None

    def resolve(self, timeframe: Timeframe | None) -> Fetch:
        """Return how rows of a table with a timeframe, or without one, are fetched."""
        return Fetch(self.method, self.window.duration(timeframe) if self.window else None)


class RepairFile(BaseModel):
    """How rows are repaired."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    interpolate: Interpolation | None = None
    margin: _Length = _NOTHING
    join_within: _Length | None = None

    def resolve(self, timeframe: Timeframe | None) -> RepairPolicy:
        """Return how rows of a table with a timeframe, or without one, are repaired."""
        join_within = self.join_within or (_CLOSE_SLOTS if timeframe else _NOTHING)
        return RepairPolicy(
            self.interpolate, self.margin.duration(timeframe), join_within.duration(timeframe)
        )


class DatasetFile(BaseModel):
    """The format of a dataset file.

    Attributes
    ----------
    name
        Name of the table and of the file; with `date = "by_timeframe"`, name of the family of
        tables `NAME_1m`, `NAME_1h`, ….
    title, description
        Text for users.
    rows
        `immutable`: a stored row never changes. `revisable`: a new row of the same key replaces it.
    date
        Files are kept by `day`, `month`, `year` or `by_timeframe` (by day below one hour, else by
        year). Files with few rows make reads slow.
    time_column
        The column to which ranges and `date` refer.
    available_at
        When a row first became available: a column, or `end` (of the timeframe). Default: at the
        time column. If the column is null, the time column counts. A column `received_at` of type
        `timestamp` always counts, whatever this key says: a row is never available before it was
        received. `available_at = "received_at"` is the same as the default: a row is available
        when it was received, but not before its time column, because an earlier receipt shows that
        a clock is wrong. Another column, such as `announced_at`, may be before the time column.
    key
        Columns that make a row unique, besides exchange and symbol.
    time_tolerance
        If the key does not have the time column: rows with equal keys are one row if their times
        differ by at most this, because a venue may tell the time of one trade in seconds here and
        in microseconds there; farther apart they are two rows. Default: `1s`. With a `schedule`:
        how far from it an event may be.
    schedule
        Events are due at multiples of this, such as `1h`, and the time column, which is then the
        key, may be off: rows less than `time_tolerance` from the same multiple are one event, and
        its latest time is stored. Other rows are those of the nearest multiple of `time_tolerance`.
        Needs revisable rows.
    sort
        Order of the rows of a market. Default: the time column, then the key.
    keep_when
        Condition over the stored row `t` and the new row `s`; if true, the stored row stays.
    kind
        `data` (rows about markets: checked, scored, part of the status), `reference` (descriptions
        of markets) or `record` (internal records of the lake).
    from
        Origin of rows: `exchange` (by `[fetch]`), `chain`, `file` (the user writes them; default)
        or `lake` (internal records).
    section
        Key of a bundle's manifest that holds the table: `chain` or `other` (default). `bars`,
        `trades`, `orderbooks` and `funding` hold one dataset each.
    rank
        Order in a replay among rows of the same instant: lower ranks first, then shorter
        timeframes, then names. Default: 10 with timeframes, else 100.
    event
        `bar`, `trade`, `order_book` or `funding`; the rows need the columns of the event.
    margin
        Length of time before and after a range of which checks also read the rows. Default:
        `500 slots` with timeframes, else `1h`.
    fetch
        How rows are fetched from exchanges: the ccxt `method`, and the `window` that one fetch
        covers (a few pages, so that many fetches can run at once). Without a window, only the
        present is fetched.
    columns
        By name: `type`, `meaning`, `unit`, `nullable`, and `digest = false` for what is not content
        of a row, such as when this machine received it: it is part of no digest, rows that differ
        in it only are the same, and a stored null may be filled later. `keep_value = true`: null
        means that a source did not give the value, and never replaces one. A nullable column may
        be added to a file: it is null in rows that are stored.
    rules
        Conditions that every row must meet to be stored, by name.
    checks
        Checks of stored rows by name: severity and thresholds, and `sql` or `python` for a custom
        check.
    repair
        `interpolate`: how a missing row may be filled when the user requests it: `linear` or
        `last`, or `flat` for bars. `margin`: length of time to refetch before and after a finding;
        default `0s`. `join_within`: findings at most this far apart are refetched in one window;
        default `60 slots` with timeframes, else `0s`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Name
    title: str
    description: str
    rows: RowKind
    date: Literal["day", "month", "year", "by_timeframe"]
    time_column: Name
    available_at: Name | None = None
    key: Annotated[list[Name], Field(min_length=1)]
    time_tolerance: _Length | None = None
    schedule: _Length | None = None
    sort: list[Name] = []
    keep_when: str | None = None
    kind: Kind = "data"
    source_kind: Annotated[SourceKind, Field(alias="from")] = "file"
    section: Section = "other"
    rank: Annotated[int, Field(ge=0, le=1000, strict=True)] | None = None
    event: EventKind | None = None
    margin: _Length | None = None
    fetch: FetchFile | None = None
    columns: dict[Name, _ColumnFile]
    rules: dict[Name, str] = {}
    checks: dict[Name, _CheckFile] = {}
    repair: RepairFile = RepairFile()

    @property
    def has_timeframes(self) -> bool:
        """Whether there is one table per timeframe."""
        return self.date == "by_timeframe"

    @property
    def has_time_in_key(self) -> bool:
        """Whether the time column is part of the key."""
        return self.time_column in self.key

    @property
    def place(self) -> int:
        """The rank, or its default if the file does not set one."""
        return _RANKS[self.has_timeframes] if self.rank is None else self.rank

    def table(self, timeframe: Timeframe | None) -> str:
        """Return the name of the table of a timeframe."""
        return f"{self.name}_{timeframe.table_suffix}" if timeframe else self.name

    def dataset(self, timeframe: Timeframe | None, granularity: Granularity | None) -> Dataset:
        """Return the dataset of the table of a timeframe; `granularity` overrides the file."""
        tolerance = self.time_tolerance or (_NOTHING if self.has_time_in_key else _TOLERANCE)
        columns = [Column(name=key, **column.model_dump()) for key, column in self.columns.items()]
        return Dataset(
            name=self.table(timeframe),
            family=self.name,
            title=self.title,
            description=self.description.strip(),
            columns=(*MARKET_DAY_COLUMNS, *columns),
            key=tuple(self.key),
            time_column=self.time_column,
            sort=tuple(dict.fromkeys(self.sort or [self.time_column, *self.key])),
            granularity=granularity or _choose_granularity(self, timeframe),
            rows=self.rows,
            rules=tuple(Rule(key, condition) for key, condition in self.rules.items()),
            checks=tuple(check.check(key) for key, check in self.checks.items()),
            keep_when=self.keep_when,
            timeframe=timeframe,
            available_at=self.available_at,
            kind=self.kind,
            source_kind=self.source_kind,
            section=self.section,
            rank=self.place,
            event=self.event,
            margin=(self.margin or _MARGINS[self.has_timeframes]).duration(timeframe),
            fetch=self.fetch.resolve(timeframe) if self.fetch else None,
            repair=self.repair.resolve(timeframe),
            time_tolerance=tolerance.duration(timeframe),
            schedule=_resolve(self.schedule),
        )


def _resolve(length: Length | None) -> timedelta | None:
    return None if length is None else length.duration(None)


def _choose_granularity(spec: DatasetFile, timeframe: Timeframe | None) -> Granularity:
    if spec.date != "by_timeframe":
        return spec.date
    dense = timeframe is not None and timeframe.seconds < _SPARSE_FROM_SECONDS
    return "day" if dense else "year"
