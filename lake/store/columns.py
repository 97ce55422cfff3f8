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
from deltalake import DeltaTable, Field, Schema

from lake.errors import SchemaError
from lake.model.catalog import builtin
from lake.model.dataset import RECEIVED_AT, Column, Dataset
from lake.model.partitions import MARKET_DAY, RESERVED, find_partitioning

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


def build_metadata(table: DeltaTable, dataset: Dataset) -> dict[str, Any]:
    """Build the entry of the log that keeps a table by the granularity of a dataset."""
    present, partitioning = table.metadata(), dataset.partitioning
    schema = json.loads(table.schema().to_json())
    fields = [field for field in schema["fields"] if field["name"] not in _PERIODS]
    if partitioning.keeps_date:
        fields.insert(len(MARKET_DAY), _describe(_PERIODS[partitioning.column]))
    bounded = {"delta.dataSkippingStatsColumns": ",".join(list_bounded(dataset))}
    return {
        "metaData": {
            "id": str(present.id),
            "name": present.name,
            "description": present.description,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({**schema, "fields": fields}),
            "partitionColumns": list(partitioning.columns),
            "createdTime": present.created_time,
            "configuration": {**present.configuration, **bounded},
        }
    }


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


def keep_stored(dataset: Dataset, table: DeltaTable) -> Dataset:
    """Return a dataset with all columns of its table: whoever rewrites rows keeps what is stored.

    A later version of lake, or another dataset file, may have added columns. They are part of no
    digest here.

    Raises
    ------
    SchemaError
        Such a column has a type that this version does not know.
    """
    fitted = fit_granularity(dataset, table.metadata().partition_columns)
    own = {*fitted.polars_schema, *fitted.partitions}
    more = [_read_column(fitted, field) for field in table.schema().fields if field.name not in own]
    return replace(fitted, columns=(*fitted.columns, *more)) if more else fitted


def _read_column(dataset: Dataset, field: Field) -> Column:
    """Read the description of a stored column that the dataset file lacks."""
    stored = json.loads(field.type.to_json())
    names = [name for name, kind in _DELTA_TYPES.items() if kind == stored]
    if not names:
        raise SchemaError(
            f"table {dataset.name}: this version does not know the type of column {field.name!r}, "
            "and would lose its values: nothing was written",
            "Install the version of lake that added the column, or a newer one.",
        )
    meaning = str(field.metadata.get("comment", ""))
    return Column(field.name, names[0], meaning, nullable=field.nullable, digest=False)


def find_lacking(stored: Schema, dataset: Dataset) -> tuple[str, ...]:
    """Find the columns that data files of a table may lack, and so read as null.

    They are those of the dataset, and stored ones that it does not know.
    """
    whole = {field.name for field in stored.fields if _ADDED not in field.metadata}
    added = (field.name for field in stored.fields if field.name not in whole)
    own = (column.name for column in dataset.columns if column.name not in whole)
    return tuple(dict.fromkeys([*own, *added]))


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
    where, file = f"table {dataset.name}", f"schemas/{dataset.family}.toml"
    restore = f"estore {file} to what it was when the table was created."
    for column in dataset.columns:
        name = f"column {column.name!r}"
        if column.name not in types:
            if column.nullable:
                continue
            hint = f"Make the column nullable: it is then null in stored rows. Or r{restore}"
            raise SchemaError(
                f"{where} has no {name}, but its dataset file has it", _advise(dataset, hint)
            )
        if json.loads(types[column.name].to_json()) != _DELTA_TYPES[column.type]:
            raise SchemaError(
                f"{where}: {name} has another type than in its dataset file",
                _advise(dataset, f"R{restore}"),
            )
        if column.name in optional and not column.nullable:
            raise SchemaError(
                f"{where}: {name} may be null in stored rows, but not by its dataset file",
                _advise(dataset, f"Make the column nullable in {file}, as it was."),
            )


def _advise(dataset: Dataset, hint: str) -> str:
    """Return a hint for the author of a dataset file, or one for a file that is part of lake."""
    if dataset.family not in builtin().families:
        return hint
    return "Another version of lake made the table: use that version, or a newer one, for it."


def require_nulls_fit(stored: Schema, dataset: Dataset, rows: pl.DataFrame) -> None:
    """Refuse nulls in a column that is nullable by its dataset file, and not in its table.

    Raises
    ------
    SchemaError
        Such a column has a null, or the dataset lacks a column: nothing was written.
    """
    required = {field.name for field in stored.fields if not field.nullable}
    if unknown := required - {*dataset.polars_schema, *RESERVED}:
        raise SchemaError(
            f"table {dataset.name}: column {min(unknown)!r} must not be null, and the dataset file "
            "does not have it",
            "Install the version of lake that made the table, or a newer one.",
        )
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
