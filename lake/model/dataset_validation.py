"""Read and validate dataset files; an error names file, key and reason."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError
from pydantic import ValidationError

from lake.errors import SchemaError
from lake.model.dataset import (
    END,
    FETCHED_EVENTS,
    PRESENT_METHODS,
    SHARED_SECTIONS,
    TYPES,
)
from lake.model.dataset_file import MARKET_DAY_COLUMNS, DatasetFile
from lake.model.event_columns import EVENT_COLUMNS, find_absent_columns
from lake.model.partitions import MARKET_DAY, RESERVED
from lake.model.time import DAY


def read_dataset_file(path: Path) -> DatasetFile:
    """Read and validate the dataset file at a path.

    Raises
    ------
    SchemaError
        The file is unreadable or malformed; the message names file, key and reason.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SchemaError(f"{path}: not TOML: {error}") from error
    return _parse(path, text)


# Every store and every lake of a process has a catalog, of files that stay the same.
@lru_cache(maxsize=256)
def _parse(path: Path, text: str) -> DatasetFile:
    try:
        spec = DatasetFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        raise _explain_validation_error(path, error) from error
    if spec.name != path.stem:
        raise build_error(
            path, "name", f"is {spec.name!r}, but the file is called {path.stem}.toml"
        )
    _require_known_columns(path, spec)
    _require_known_availability(path, spec)
    _require_fitting_kind(path, spec)
    _require_fitting_section(path, spec)
    _require_columns_of_event(path, spec)
    _require_content(path, spec)
    _require_fetchable(path, spec)
    _require_fitting_interpolation(path, spec)
    _require_lengths(path, spec)
    _require_working_rules(path, spec)
    return spec


def _require_known_columns(path: Path, spec: DatasetFile) -> None:
    for name, column in spec.columns.items():
        if name in RESERVED:
            reason = "lake keeps files by it; choose another name"
            if name in MARKET_DAY:
                reason = "every dataset has it already; remove it"
            raise build_error(path, f"columns.{name}", reason)
        if column.type not in TYPES:
            raise build_error(
                path, f"columns.{name}.type", f"{column.type!r} is none of {', '.join(TYPES)}"
            )
    _require_usable_columns(path, spec, "time_column", [spec.time_column])
    _require_usable_columns(path, spec, "key", spec.key)
    _require_usable_columns(path, spec, "sort", spec.sort)
    if spec.columns[spec.time_column].type != "timestamp":
        raise build_error(path, "time_column", f"column {spec.time_column!r} is not a timestamp")
    _require_tolerance(path, spec)
    _require_schedule(path, spec)
    _require_kept_values(path, spec)


def _require_tolerance(path: Path, spec: DatasetFile) -> None:
    tolerance = spec.time_tolerance
    if tolerance is None:
        return
    if spec.has_time_in_key and spec.schedule is None:
        raise build_error(
            path, "time_tolerance", f"the key has the time column {spec.time_column!r}; remove it"
        )
    # A merge looks at the dates of rows and at their neighbours only.
    if tolerance.is_in_slots or tolerance.duration(None) > DAY:
        raise build_error(path, "time_tolerance", "must be one day at most; write 0s, 1s or 1h")


def _require_schedule(path: Path, spec: DatasetFile) -> None:
    if spec.schedule is None:
        return
    if spec.key != [spec.time_column] or spec.rows != "revisable" or spec.has_timeframes:
        raise build_error(
            path, "schedule", "needs key = [time_column], rows = 'revisable' and no timeframes"
        )
    length, tolerance = spec.schedule, spec.time_tolerance
    if length.is_in_slots or tolerance is None or tolerance.duration(None) <= timedelta(0):
        raise build_error(path, "schedule", "needs a time_tolerance; write 1h and 1m, for example")
    step, near = length.duration(None), tolerance.duration(None)
    if step < 2 * near or step % near:
        raise build_error(
            path, "schedule", "must be an even multiple of time_tolerance, such as 1h"
        )


def _require_kept_values(path: Path, spec: DatasetFile) -> None:
    for name, column in spec.columns.items():
        if column.keep_value and not (column.nullable and column.digest):
            raise build_error(
                path, f"columns.{name}.keep_value", "only a nullable column of the content has it"
            )


def _require_content(path: Path, spec: DatasetFile) -> None:
    """Require that the columns that identify a row are part of its digest."""
    for name in dict.fromkeys([spec.time_column, *spec.key]):
        if not spec.columns[name].digest:
            raise build_error(
                path, f"columns.{name}.digest", "the time column and the key are always content"
            )


def _require_usable_columns(path: Path, spec: DatasetFile, key: str, names: Sequence[str]) -> None:
    """Require columns that exist, have an order, and, unless only sorted by, are never null."""
    for name in names:
        if name not in spec.columns:
            raise build_error(path, key, f"{name!r} is not among the columns")
        if key != "sort" and spec.columns[name].nullable:
            raise build_error(path, key, f"column {name!r} must not be nullable")
        if spec.columns[name].type.startswith("list"):
            raise build_error(path, key, f"column {name!r} is a list")


def _require_known_availability(path: Path, spec: DatasetFile) -> None:
    name = spec.available_at
    if name is None:
        return
    if name == END:
        if spec.date != "by_timeframe":
            raise build_error(path, "available_at", f"{END!r} needs date = 'by_timeframe'")
    elif name not in spec.columns:
        raise build_error(path, "available_at", f"{name!r} is not among the columns, nor {END!r}")
    elif spec.columns[name].type != "timestamp":
        raise build_error(path, "available_at", f"column {name!r} is not a timestamp")


def _require_fitting_kind(path: Path, spec: DatasetFile) -> None:
    if (spec.kind == "record") != (spec.source_kind == "lake"):
        raise build_error(path, "from", "'lake' requires kind = 'record', and the reverse")
    if (spec.fetch is None) == (spec.source_kind == "exchange"):
        raise build_error(path, "from", "'exchange' requires [fetch], and the reverse")
    if spec.checks and spec.kind != "data":
        raise build_error(
            path, "checks", f"rows of kind {spec.kind!r} are not checked; remove them"
        )


def _require_fitting_section(path: Path, spec: DatasetFile) -> None:
    if spec.section in SHARED_SECTIONS:
        return
    if (spec.section == "bars") != spec.has_timeframes:
        needed = "needs" if spec.section == "bars" else "holds one table; it cannot have"
        raise build_error(path, "section", f"{spec.section!r} {needed} date = 'by_timeframe'")


def _require_columns_of_event(path: Path, spec: DatasetFile) -> None:
    if spec.event is None:
        return
    columns = EVENT_COLUMNS[spec.event].items()
    present = {name: column.type for name, column in spec.columns.items()}
    absent = find_absent_columns(spec.event, present)
    if [*present.items(), *absent.items()] != list(columns):
        listed = ", ".join(f"{name} ({kind})" for name, kind in columns)
        raise build_error(
            path, "event", f"{spec.event!r} has these columns in this order: {listed}"
        )
    if spec.time_column != "timestamp":
        raise build_error(path, "event", f"{spec.event!r} needs time_column = 'timestamp'")
    if (spec.event == "bar") != spec.has_timeframes:
        raise build_error(path, "event", "'bar' requires date = 'by_timeframe', and the reverse")


def _require_fetchable(path: Path, spec: DatasetFile) -> None:
    if spec.fetch is None:
        return
    method, event = spec.fetch.method, FETCHED_EVENTS[spec.fetch.method]
    if spec.event != event:
        needed = f"event = {event!r}" if event else "no event"
        raise build_error(path, "fetch.method", f"{method!r} needs {needed}")
    if method in PRESENT_METHODS and spec.fetch.window is not None:
        raise build_error(path, "fetch.window", f"{method!r} fetches only the present; remove it")
    if method not in PRESENT_METHODS and spec.fetch.window is None:
        raise build_error(
            path,
            "fetch.window",
            f"{method!r} needs one; write the time that one fetch covers, as 1h",
        )


def _require_fitting_interpolation(path: Path, spec: DatasetFile) -> None:
    how = spec.repair.interpolate
    if how == "flat" and spec.event != "bar":
        raise build_error(path, "repair.interpolate", "'flat' needs event = 'bar'")
    if how in ("linear", "last") and spec.has_timeframes:
        raise build_error(
            path, "repair.interpolate", f"{how!r} cannot be used with date = 'by_timeframe'"
        )


def _require_lengths(path: Path, spec: DatasetFile) -> None:
    window = spec.fetch.window if spec.fetch else None
    for key, length in (
        ("margin", spec.margin),
        ("fetch.window", window),
        ("repair.margin", spec.repair.margin),
        ("repair.join_within", spec.repair.join_within),
    ):
        if length is not None and length.is_in_slots and not spec.has_timeframes:
            raise build_error(path, key, "slots need date = 'by_timeframe'; write 90s, 1h or 30d")
    if window is not None and window.count == 0:
        raise build_error(path, "fetch.window", "must be longer than zero")


def _require_working_rules(path: Path, spec: DatasetFile) -> None:
    schema = {column.name: column.dtype for column in MARKET_DAY_COLUMNS}
    schema |= {name: TYPES[column.type] for name, column in spec.columns.items()}
    empty = pl.DataFrame(schema=schema)
    for name, condition in spec.rules.items():
        with _explain_condition_errors(path, f"rules.{name}", condition):
            _require_boolean(empty.select(pl.sql_expr(condition)))
    if spec.keep_when is None:
        return
    if spec.rows == "immutable":
        raise build_error(path, "keep_when", "immutable rows are always kept; remove it")
    pairs = f"SELECT {spec.keep_when} FROM t CROSS JOIN s"  # noqa: S608 - over empty frames
    with _explain_condition_errors(path, "keep_when", spec.keep_when):
        _require_boolean(pl.SQLContext(t=empty, s=empty).execute(pairs, eager=True))


def _require_boolean(result: pl.DataFrame) -> None:
    if result.dtypes != [pl.Boolean]:
        raise SchemaError(f"it gives {result.dtypes[0]}, not a boolean")


@contextmanager
def _explain_condition_errors(path: Path, key: str, text: str) -> Iterator[None]:
    """Raise errors of a condition as an error that names file and key."""
    try:
        yield
    except (PolarsError, SchemaError) as error:
        reason = str(error).splitlines()[0]
        raise build_error(path, key, f"{text!r} does not work: {reason}") from error


def build_error(path: Path, key: str, reason: str) -> SchemaError:
    """Return the error of a key of a dataset file."""
    return SchemaError(f"{path}: {key}: {reason}")


def _explain_validation_error(path: Path, error: ValidationError) -> SchemaError:
    first: Any = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return build_error(path, key or "file", reason)
