"""The format of a dataset file, `schemas/NAME.toml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lake.model.dataset import (
    Check,
    Column,
    Dataset,
    Dimension,
    Granularity,
    Interpolation,
    RowKind,
    Rule,
    Threshold,
)
from lake.model.severity import Severity
from lake.model.timeframe import Timeframe

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
PARTITION_COLUMNS = (
    Column("exchange", "string", "Exchange id as in ccxt; `chain:protocol` for a DEX."),
    Column("symbol", "string", "Unified symbol, as `BTC/USDT` or `BTC/USDT:USDT`."),
    Column("date", "date", "UTC calendar day of the time column.", unit="day"),
)
_SPARSE_FROM_SECONDS = 3600


class _ColumnFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: str
    meaning: Annotated[str, Field(min_length=1)]
    unit: str = ""
    nullable: bool = False


class _CheckFile(BaseModel):
    """A check in a dataset file or in the settings; what else it holds are its thresholds."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Threshold]
    severity: Severity = "warning"
    enabled: bool = True
    sql: str | None = None
    python: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None
    dimension: Dimension | None = None

    def check(self, name: str) -> Check:
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


class DatasetFile(BaseModel):
    """The format of a dataset file."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    title: str
    description: str
    rows: RowKind
    date: Literal["day", "year", "by_timeframe"]
    time_column: Name
    available_at: Name | None = None
    key: Annotated[list[Name], Field(min_length=1)]
    sort: list[Name] = []
    keep_when: str | None = None
    columns: dict[Name, _ColumnFile]
    rules: dict[Name, str] = {}
    checks: dict[Name, _CheckFile] = {}
    interpolate: Interpolation | None = None

    def table(self, timeframe: Timeframe | None) -> str:
        """The name of one of its tables."""
        return f"{self.name}_{timeframe.table_suffix}" if timeframe else self.name

    def dataset(self, timeframe: Timeframe | None, granularity: Granularity | None) -> Dataset:
        """The dataset of one of its tables; `granularity`: where it differs from the file."""
        columns = [Column(name=key, **column.model_dump()) for key, column in self.columns.items()]
        return Dataset(
            name=self.table(timeframe),
            family=self.name,
            title=self.title,
            description=self.description.strip(),
            columns=(*PARTITION_COLUMNS, *columns),
            key=tuple(self.key),
            time_column=self.time_column,
            sort=tuple(dict.fromkeys(self.sort or [self.time_column, *self.key])),
            granularity=granularity or _granularity(self, timeframe),
            rows=self.rows,
            rules=tuple(Rule(key, condition) for key, condition in self.rules.items()),
            checks=tuple(check.check(key) for key, check in self.checks.items()),
            interpolate=self.interpolate,
            keep_when=self.keep_when,
            timeframe=timeframe,
            available_at=self.available_at,
        )


def _granularity(spec: DatasetFile, timeframe: Timeframe | None) -> Granularity:
    if spec.date != "by_timeframe":
        return spec.date
    dense = timeframe is not None and timeframe.seconds < _SPARSE_FROM_SECONDS
    return "day" if dense else "year"
