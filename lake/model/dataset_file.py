"""The format of a dataset file, `schemas/NAME.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from polars.exceptions import PolarsError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lake.errors import SchemaError
from lake.model.dataset import (
    END,
    PARTITIONS,
    TYPES,
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
_PARTITION_COLUMNS = (
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
            columns=(*_PARTITION_COLUMNS, *columns),
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


def read_dataset_file(path: Path) -> DatasetFile:
    """The dataset file at a path.

    Raises
    ------
    SchemaError
        It is malformed: says file, key and reason.
    """
    try:
        spec = DatasetFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        raise _explained(path, error) from error
    if spec.name != path.stem:
        raise refusal(path, "name", f"is {spec.name!r}, but the file is called {path.stem}.toml")
    _require_known_columns(path, spec)
    _require_known_availability(path, spec)
    _require_working_rules(path, spec)
    return spec


def _require_known_columns(path: Path, spec: DatasetFile) -> None:
    for name, column in spec.columns.items():
        if name in PARTITIONS:
            raise refusal(path, f"columns.{name}", "every dataset has it already; leave it out")
        if column.type not in TYPES:
            raise refusal(
                path, f"columns.{name}.type", f"{column.type!r} is none of {', '.join(TYPES)}"
            )
    named = {"time_column": [spec.time_column], "key": spec.key, "sort": spec.sort}
    for key, names in named.items():
        for name in names:
            if name not in spec.columns:
                raise refusal(path, key, f"{name!r} is not among the columns")
            if key != "sort" and spec.columns[name].nullable:
                raise refusal(path, key, f"column {name!r} must not be nullable")
            if spec.columns[name].type.startswith("list"):
                raise refusal(path, key, f"column {name!r} is a list")
    if spec.columns[spec.time_column].type != "timestamp":
        raise refusal(path, "time_column", f"column {spec.time_column!r} is not a timestamp")


def _require_known_availability(path: Path, spec: DatasetFile) -> None:
    name = spec.available_at
    if name is None:
        return
    if name == END:
        if spec.date != "by_timeframe":
            raise refusal(path, "available_at", f"{END!r} needs date = 'by_timeframe'")
    elif name not in spec.columns:
        raise refusal(path, "available_at", f"{name!r} is not among the columns, nor {END!r}")
    elif spec.columns[name].type != "timestamp":
        raise refusal(path, "available_at", f"column {name!r} is not a timestamp")


def _require_working_rules(path: Path, spec: DatasetFile) -> None:
    schema = {column.name: column.dtype for column in _PARTITION_COLUMNS}
    schema |= {name: TYPES[column.type] for name, column in spec.columns.items()}
    empty = pl.DataFrame(schema=schema)
    for name, condition in spec.rules.items():
        with _condition(path, f"rules.{name}", condition):
            _require_boolean(empty.select(pl.sql_expr(condition)))
    if spec.keep_when is None:
        return
    if spec.rows == "immutable":
        raise refusal(path, "keep_when", "immutable rows are always kept; leave it out")
    pairs = f"SELECT {spec.keep_when} FROM t CROSS JOIN s"  # noqa: S608 - over empty frames
    with _condition(path, "keep_when", spec.keep_when):
        _require_boolean(pl.SQLContext(t=empty, s=empty).execute(pairs, eager=True))


def _require_boolean(result: pl.DataFrame) -> None:
    if result.dtypes != [pl.Boolean]:
        raise SchemaError(f"it gives {result.dtypes[0]}, not true or false")


@contextmanager
def _condition(path: Path, key: str, text: str) -> Iterator[None]:
    """Turn what goes wrong with a condition into an error that says where it stands."""
    try:
        yield
    except (PolarsError, SchemaError) as error:
        reason = str(error).splitlines()[0]
        raise refusal(path, key, f"{text!r} does not work: {reason}") from error


def refusal(path: Path, key: str, reason: str) -> SchemaError:
    """The error of a key that a dataset file must not have so."""
    return SchemaError(f"{path}: {key}: {reason}")


def _explained(path: Path, error: ValidationError) -> SchemaError:
    first: Any = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    return refusal(path, key or "file", first["msg"])


def _granularity(spec: DatasetFile, timeframe: Timeframe | None) -> Granularity:
    if spec.date != "by_timeframe":
        return spec.date
    dense = timeframe is not None and timeframe.seconds < _SPARSE_FROM_SECONDS
    return "day" if dense else "year"
