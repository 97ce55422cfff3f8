"""Casts of a user's columns to those of a dataset, where no value changes. Pure."""

from __future__ import annotations

import polars as pl
from polars.exceptions import PolarsError

from lake.errors import SchemaError
from lake.model.dataset import Dataset


def cast_exactly(dataset: Dataset, frame: pl.DataFrame) -> pl.DataFrame:
    """Cast columns whose type differs from that of the dataset, if every value stays what it is.

    Numbers become numbers, times with a time zone UTC times, categories text. Columns of other
    types stay as they are, and so do unknown ones.

    Raises
    ------
    SchemaError
        A value would change: an integer beyond 2^53 as a double, nanoseconds as microseconds.
    """
    wanted = {c.name: c.dtype for c in dataset.columns if c.name in frame.columns}
    columns = []
    for name, dtype in wanted.items():
        column = frame[name]
        if column.dtype != dtype and _is_of_one_kind(column.dtype, dtype):
            columns.append(_cast(dataset.name, column, dtype))
    return frame.with_columns(columns)


def _is_of_one_kind(given: pl.DataType, wanted: pl.DataType) -> bool:
    if isinstance(wanted, pl.Datetime):
        return isinstance(given, pl.Datetime) and given.time_zone is not None
    if isinstance(wanted, pl.List) and isinstance(given, (pl.List, pl.Array)):
        return _is_of_one_kind(_inner(given), _inner(wanted))
    if wanted == pl.String():
        return isinstance(given, (pl.Categorical, pl.Enum))
    return given.is_numeric() and wanted.is_numeric()


def _inner(dtype: pl.List | pl.Array) -> pl.DataType:
    inner = dtype.inner
    return inner if isinstance(inner, pl.DataType) else inner()


def _cast(table: str, column: pl.Series, dtype: pl.DataType) -> pl.Series:
    try:
        cast = column.cast(dtype, strict=False)
        back = cast.cast(column.dtype, strict=False)
    except PolarsError as error:
        raise SchemaError(
            f"rows for {table}: column {column.name!r} is {column.dtype}, not {dtype}: {error}"
        ) from error
    changed = column.ne_missing(back)
    if changed.any():
        value = column.filter(changed)[0]
        raise SchemaError(
            f"rows for {table}: column {column.name!r} is {column.dtype}, and {value} is not "
            f"exactly a {dtype}",
            "Round or split such values yourself: what is stored must be what you gave.",
        )
    return cast
