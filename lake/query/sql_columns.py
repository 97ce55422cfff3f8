"""Columns of the views of SQL: those of the dataset, and `available_at` as in `Lake.available`."""

from __future__ import annotations

from collections.abc import Mapping

from lake.model.dataset import END, RECEIVED_AT, Dataset
from lake.model.visibility import AVAILABLE_AT

_DUCKDB_TYPES: Mapping[str, str] = {
    "timestamp": "TIMESTAMPTZ",
    "date": "DATE",
    "string": "VARCHAR",
    "float64": "DOUBLE",
    "int64": "BIGINT",
    "boolean": "BOOLEAN",
    "list<float64>": "DOUBLE[]",
    "list<string>": "VARCHAR[]",
}


def render_columns(dataset: Dataset) -> str:
    """Render the columns of a view; `available_at` is the last one of tables with data.

    A dataset with an own column of this name keeps it, and gets no other.
    """
    names = {column.name: f'"{column.name}"' for column in dataset.columns}
    if AVAILABLE_AT not in names and dataset.kind == "data":
        names[AVAILABLE_AT] = f'{render_availability(dataset)} AS "{AVAILABLE_AT}"'
    return ", ".join(names.values())


def render_partition_types(dataset: Dataset) -> str:
    """Render the types of the columns that are in the paths of files, for `read_parquet`."""
    kind = {"day": "DATE", "month": "VARCHAR", "year": "BIGINT"}[dataset.granularity]
    return f"{{'exchange': VARCHAR, 'symbol': VARCHAR, '{dataset.partitioning.column}': {kind}}}"


def render_typed_nulls(dataset: Dataset) -> str:
    """Render a null of its type for each column of a dataset."""
    return ", ".join(f'NULL::{_DUCKDB_TYPES[c.type]} AS "{c.name}"' for c in dataset.columns)


def render_view_types(dataset: Dataset) -> str:
    """Render a null of its type for each column that `render_columns` gives a view."""
    has_available = AVAILABLE_AT in {column.name for column in dataset.columns}
    if has_available or dataset.kind != "data":
        return render_typed_nulls(dataset)
    return f'{render_typed_nulls(dataset)}, NULL::TIMESTAMPTZ AS "{AVAILABLE_AT}"'


def render_availability(dataset: Dataset) -> str:
    """Render `Dataset.availability` in SQL."""
    known = _render_end(dataset) if dataset.available_at == END else f'"{dataset.time_column}"'
    if dataset.announcement_column is not None:
        known = f'COALESCE("{dataset.announcement_column}", {known})'
    if dataset.records_receipt:
        known = f'GREATEST({known}, "{RECEIVED_AT}")'
    return f'CASE WHEN "closed" IS NOT FALSE THEN {known} END' if dataset.marks_open else known


def _render_end(dataset: Dataset) -> str:
    """Render the end of a bar: `lake.model.grid.end_of` of its open time."""
    time, timeframe = f'"{dataset.time_column}"', dataset.timeframe
    if timeframe is None:
        return time
    if timeframe.unit != "M":
        return f"{time} + INTERVAL {timeframe.seconds} SECOND"
    # The first of the month that begins at most half a month before or after the open time.
    month = f"date_trunc('month', {time} + INTERVAL 14 DAY)"
    return f"{month} + INTERVAL {timeframe.count} MONTH + ({time} - {month})"
