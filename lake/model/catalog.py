"""The datasets of a lake, read from `schemas/*.toml`: the product's own and the user's."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import polars as pl
from polars.exceptions import PolarsError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lake.errors import SchemaError, UnknownNameError, UsageError
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
    Severity,
    Threshold,
)
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


class _DatasetFile(BaseModel):
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


class Catalog:
    """Datasets by name.

    Parameters
    ----------
    files
        Dataset files; the name of each must be its own.
    granularity
        Of single tables (by name), what differs from their file: `{"funding": "day"}`.

    Raises
    ------
    SchemaError
        A file is malformed: says file, key and reason.
    """

    def __init__(
        self, files: Iterable[Path], granularity: Mapping[str, Granularity] | None = None
    ) -> None:
        self._files: dict[str, _DatasetFile] = {}
        self._granularity = dict(granularity or {})
        for path in files:
            spec = _read(path)
            if spec.name in self._files:
                raise SchemaError(
                    f"{path}: name: a dataset called {spec.name!r} exists already",
                    "Give it another name; the datasets of the product cannot be replaced.",
                )
            self._files[spec.name] = spec
            if self._is_table_of_family(spec.name):
                raise _refusal(path, "name", f"{spec.name!r} is a table of another dataset")

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(sorted(self._files))

    def dataset(self, name: str) -> Dataset:
        """The dataset of a table's name, as `trades` or `bars_1m`.

        Raises
        ------
        UnknownNameError
            There is none: names the closest.
        """
        family, _, timeframe_name = name.rpartition("_")
        spec = self._files.get(name)
        if spec is not None and spec.date != "by_timeframe":
            return self._resolve(spec, None)
        spec = self._files.get(family)
        if spec is not None and spec.date == "by_timeframe":
            try:
                return self._resolve(spec, Timeframe.of_table_suffix(timeframe_name))
            except UsageError as error:
                raise UnknownNameError(f"there is no dataset {name!r}", error.message) from None
        raise UnknownNameError(f"there is no dataset {name!r}", self._suggestion(name))

    def _is_table_of_family(self, name: str) -> bool:
        family, _, suffix = name.rpartition("_")
        with suppress(UsageError):
            return self.has_timeframes(family) and bool(Timeframe.of_table_suffix(suffix))
        return False

    def has_timeframes(self, family: str) -> bool:
        """Whether the family has one table a timeframe."""
        spec = self._files.get(family)
        return spec is not None and spec.date == "by_timeframe"

    def _suggestion(self, name: str) -> str:
        names = [f + "_1m" if self.has_timeframes(f) else f for f in self.families]
        close = difflib.get_close_matches(name, names, n=len(names), cutoff=0.5)
        return "Datasets: " + ", ".join([*close, *(n for n in names if n not in close)]) + "."

    def _resolve(self, spec: _DatasetFile, timeframe: Timeframe | None) -> Dataset:
        name = f"{spec.name}_{timeframe.table_suffix}" if timeframe else spec.name
        columns = [Column(name=key, **column.model_dump()) for key, column in spec.columns.items()]
        return Dataset(
            name=name,
            family=spec.name,
            title=spec.title,
            description=spec.description.strip(),
            columns=(*_PARTITION_COLUMNS, *columns),
            key=tuple(spec.key),
            time_column=spec.time_column,
            sort=tuple(dict.fromkeys(spec.sort or [spec.time_column, *spec.key])),
            granularity=self._granularity.get(name) or _granularity(spec, timeframe),
            rows=spec.rows,
            rules=tuple(Rule(key, condition) for key, condition in spec.rules.items()),
            checks=tuple(check.check(key) for key, check in spec.checks.items()),
            interpolate=spec.interpolate,
            keep_when=spec.keep_when,
            timeframe=timeframe,
            available_at=spec.available_at,
        )


def builtin_files() -> tuple[Path, ...]:
    """The product's dataset files: in the installed package, or beside it in a checkout."""
    package = Path(str(resources.files("lake")))
    for folder in (package / "schemas", package.parent / "schemas"):
        if folder.is_dir():
            return tuple(sorted(folder.glob("*.toml")))
    raise SchemaError("the dataset files of lake are missing", "Install the package again.")


@cache
def builtin() -> Catalog:
    """The product's own datasets."""
    return Catalog(builtin_files())


def parse_granularity(text: str) -> tuple[str, Granularity]:
    """The table and granularity of `TABLE=day` or `TABLE=year`."""
    name, _, value = text.partition("=")
    for granularity in get_args(Granularity):
        if name and value == granularity:
            return name, granularity
    raise UsageError(f"{text!r} is not TABLE=day or TABLE=year", "For example funding=day.")


def _granularity(spec: _DatasetFile, timeframe: Timeframe | None) -> Granularity:
    if spec.date != "by_timeframe":
        return spec.date
    dense = timeframe is not None and timeframe.seconds < _SPARSE_FROM_SECONDS
    return "day" if dense else "year"


def _read(path: Path) -> _DatasetFile:
    try:
        spec = _DatasetFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        raise _explained(path, error) from error
    if spec.name != path.stem:
        raise _refusal(path, "name", f"is {spec.name!r}, but the file is called {path.stem}.toml")
    _require_known_columns(path, spec)
    _require_known_availability(path, spec)
    _require_working_rules(path, spec)
    return spec


def _require_known_columns(path: Path, spec: _DatasetFile) -> None:
    for name, column in spec.columns.items():
        if name in PARTITIONS:
            raise _refusal(path, f"columns.{name}", "every dataset has it already; leave it out")
        if column.type not in TYPES:
            raise _refusal(
                path, f"columns.{name}.type", f"{column.type!r} is none of {', '.join(TYPES)}"
            )
    named = {"time_column": [spec.time_column], "key": spec.key, "sort": spec.sort}
    for key, names in named.items():
        for name in names:
            if name not in spec.columns:
                raise _refusal(path, key, f"{name!r} is not among the columns")
            if key != "sort" and spec.columns[name].nullable:
                raise _refusal(path, key, f"column {name!r} must not be nullable")
            if spec.columns[name].type.startswith("list"):
                raise _refusal(path, key, f"column {name!r} is a list")
    if spec.columns[spec.time_column].type != "timestamp":
        raise _refusal(path, "time_column", f"column {spec.time_column!r} is not a timestamp")


def _require_known_availability(path: Path, spec: _DatasetFile) -> None:
    name = spec.available_at
    if name is None:
        return
    if name == END:
        if spec.date != "by_timeframe":
            raise _refusal(path, "available_at", f"{END!r} needs date = 'by_timeframe'")
    elif name not in spec.columns:
        raise _refusal(path, "available_at", f"{name!r} is not among the columns, nor {END!r}")
    elif spec.columns[name].type != "timestamp":
        raise _refusal(path, "available_at", f"column {name!r} is not a timestamp")


def _require_working_rules(path: Path, spec: _DatasetFile) -> None:
    schema = {column.name: column.dtype for column in _PARTITION_COLUMNS}
    schema |= {name: TYPES[column.type] for name, column in spec.columns.items()}
    empty = pl.DataFrame(schema=schema)
    for name, condition in spec.rules.items():
        with _condition(path, f"rules.{name}", condition):
            _require_boolean(empty.select(pl.sql_expr(condition)))
    if spec.keep_when is None:
        return
    if spec.rows == "immutable":
        raise _refusal(path, "keep_when", "immutable rows are always kept; leave it out")
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
        raise _refusal(path, key, f"{text!r} does not work: {reason}") from error


def _refusal(path: Path, key: str, reason: str) -> SchemaError:
    return SchemaError(f"{path}: {key}: {reason}")


def _explained(path: Path, error: ValidationError) -> SchemaError:
    first: Any = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    return _refusal(path, key or "file", first["msg"])
