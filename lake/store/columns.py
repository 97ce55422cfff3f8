"""The columns of a stored table against those of its dataset file.

A dataset file may get a nullable column that the stored table lacks: in a lake that an earlier
version wrote, or where a user adds one. Such a column is null in all rows that are stored. The
first write adds it to the table, in a commit that changes no rows; the data files stay as they are,
so that some of them lack it for as long as they live. Its field in Delta's schema is marked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl
from deltalake import Field, Schema

from lake.errors import SchemaError
from lake.model.dataset import RECEIVED_AT, Column, Dataset
from lake.model.partitions import MARKET_DAY, find_partitioning

_DELTA_TYPES: Mapping[str, Any] = {
    "timestamp": "timestamp",
    "date": "date",
    "string": "string",
    "float64": "double",
    "int64": "long",
    "boolean": "boolean",
    "list<float64>": {"type": "array", "elementType": "double", "containsNull": True},
    "list<string>": {"type": "array", "elementType": "string", "containsNull": True},
}
_ADDED = "lake.added"
_PERIODS = {
    "month": Column("month", "string", "UTC month of `date`, as `2026-01`: files are kept by it."),
    "year": Column("year", "int64", "UTC year of `date`: files are kept by it."),
}


def build_schema(dataset: Dataset) -> Schema:
    """Build the schema of a new table."""
    columns = list(dataset.columns)
    if dataset.partitioning.keeps_date:
        columns.insert(len(MARKET_DAY), _PERIODS[dataset.partitioning.column])
    fields = [_describe(column) for column in columns]
    return Schema.from_json(json.dumps({"type": "struct", "fields": fields}))


def build_file_schema(dataset: Dataset) -> pl.Schema:
    """Build the schema of data files: all columns that are not in their paths."""
    in_path = dataset.partitions
    return pl.Schema({c.name: c.dtype for c in dataset.columns if c.name not in in_path})


def list_bounded(dataset: Dataset) -> tuple[str, ...]:
    """List the columns of which the log has bounds per file: time, key, receipt and `date`.

    Reads skip files by time and key; the receipt shows which files can hold late rows. Readers
    outside lake skip files by `date`.
    """
    receipt = [RECEIVED_AT] if dataset.records_receipt else []
    day = ["date"] if dataset.partitioning.keeps_date else []
    return tuple(dict.fromkeys([dataset.time_column, *dataset.key, *receipt, *day]))


def build_missing_fields(stored: Schema, dataset: Dataset) -> list[Field]:
    """Build the fields of columns that a table lacks, marked as added later."""
    present = {field.name for field in stored.fields}
    return [
        Field.from_json(json.dumps(_describe(column, added=True)))
        for column in dataset.columns
        if column.name not in present
    ]


def fit_granularity(dataset: Dataset, partitions: object) -> Dataset:
    """Return a dataset with the granularity that a table has, by its partition columns.

    It may be another than that of the dataset file: in versions from before it was changed.

    Raises
    ------
    SchemaError
        The table has other partition columns than lake makes.
    """
    kind = find_partitioning(partitions)
    if kind is None:
        raise SchemaError(
            f"table {dataset.name}: it is partitioned by {partitions}, and not by exchange, symbol "
            "and date, month or year",
            "Another program made it: move its folder away, and write its rows with lake.",
        )
    if kind.granularity == dataset.granularity:
        return dataset
    return replace(dataset, granularity=kind.granularity)


def find_lacking(stored: Schema, dataset: Dataset) -> tuple[str, ...]:
    """Find the columns of a dataset that data files of a table may lack, and so read as null."""
    whole = {field.name for field in stored.fields if _ADDED not in field.metadata}
    return tuple(column.name for column in dataset.columns if column.name not in whole)


def build_scan_options(dataset: Dataset, lacking: tuple[str, ...]) -> dict[str, Any]:
    """Build options for Polars to read data files of which some lack columns."""
    if not lacking:
        return {}
    return {
        "schema": build_file_schema(dataset),
        "missing_columns": "insert",
        "extra_columns": "ignore",
    }


def add_lacking(frame: pl.LazyFrame, stored: Schema, dataset: Dataset) -> pl.LazyFrame:
    """Add the columns that a table lacks to its rows, as nulls."""
    present = {field.name for field in stored.fields}
    return frame.with_columns(
        pl.lit(None, column.dtype).alias(column.name)
        for column in dataset.columns
        if column.name not in present
    )


def require_columns(stored: Schema, dataset: Dataset) -> None:
    """Require the columns of a dataset in its table; nullable ones may be missing.

    Raises
    ------
    SchemaError
        A column that must not be null is missing or may be null in stored rows, or a column has
        another type.
    """
    types = {field.name: field.type for field in stored.fields}
    optional = {field.name for field in stored.fields if field.nullable}
    restore = f"schemas/{dataset.family}.toml to what it was when the table was created."
    for column in dataset.columns:
        if column.name not in types:
            if column.nullable:
                continue
            raise SchemaError(
                f"table {dataset.name} has no column {column.name!r}, but its dataset file has it",
                f"Make the column nullable: it is then null in stored rows. Or restore {restore}",
            )
        if json.loads(types[column.name].to_json()) != _DELTA_TYPES[column.type]:
            raise SchemaError(
                f"table {dataset.name}: column {column.name!r} has another type than in its "
                "dataset file",
                f"Restore {restore}",
            )
        if column.name in optional and not column.nullable:
            raise SchemaError(
                f"table {dataset.name}: column {column.name!r} may be null in stored rows, but not "
                "by its dataset file",
                f"Make the column nullable in schemas/{dataset.family}.toml, as it was.",
            )


def require_nulls_fit(stored: Schema, dataset: Dataset, rows: pl.DataFrame) -> None:
    """Refuse nulls in a column that is nullable by its dataset file, and not in its table.

    Raises
    ------
    SchemaError
        Such a column has a null: nothing was written.
    """
    required = {field.name for field in stored.fields if not field.nullable}
    for column in dataset.columns:
        if column.nullable and column.name in required and rows[column.name].has_nulls():
            raise SchemaError(
                f"table {dataset.name}: column {column.name!r} is null in a row, and the table was "
                "created when its dataset file did not allow that",
                f"A table keeps that for ever: set nullable = false in schemas/{dataset.family}"
                ".toml again, or add a new column that is nullable.",
            )


def _describe(column: Column, *, added: bool = False) -> dict[str, Any]:
    unit = f" [{column.unit}]" if column.unit else ""
    mark = {_ADDED: "true"} if added else {}
    return {
        "name": column.name,
        "type": _DELTA_TYPES[column.type],
        "nullable": column.nullable,
        "metadata": {"comment": f"{column.meaning}{unit}", **mark},
    }
