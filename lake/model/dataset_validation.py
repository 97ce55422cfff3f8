"""Reading of dataset files: each is sound, or its error says file, key and reason."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError
from pydantic import ValidationError

from lake.errors import SchemaError
from lake.model.dataset import END, PARTITIONS, TYPES
from lake.model.dataset_file import PARTITION_COLUMNS, DatasetFile


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
    schema = {column.name: column.dtype for column in PARTITION_COLUMNS}
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
