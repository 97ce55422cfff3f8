"""The tables of a lake or a bundle as views of DuckDB."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from lake.model.dataset import Dataset
from lake.model.selection import Selection
from lake.model.time import iso
from lake.query.names import find_table
from lake.query.sql_columns import render_columns, render_partition_types, render_typed_nulls
from lake.query.sql_errors import to_file_error
from lake.store.reader import EVERYTHING, OpenRows, TableReader
from lake.store.store import Store

if TYPE_CHECKING:
    import duckdb


class View:
    """A table in a folder, or a selection of it, for SQL; opened only when a query names it."""

    def __init__(
        self, folder: Path, open_rows: OpenRows, selection: Selection = EVERYTHING
    ) -> None:
        # Not `Path.resolve`, which fails for a link to itself.
        self.folders = {str(folder), os.path.realpath(folder)}
        self.open_rows = open_rows
        self.selection = selection


def list_views(
    store: Store, versions: Mapping[str, int], as_of: datetime | None = None
) -> dict[str, View]:
    """Return the views of a lake's tables by name: at the given versions, else as of a time.

    Raises
    ------
    UnknownNameError
        A version is given of a table that does not exist; the hint suggests similar names.
    """
    names = store.tables()
    for name in versions:
        if name not in names:
            find_table(store, name)
    datasets = {name: store.catalog.dataset(name) for name in names}

    def open_table(name: str) -> TableReader:
        if name not in versions and as_of is None:
            return store.latest(datasets[name])
        time = None if name in versions else as_of
        return store.snapshot(datasets[name], version=versions.get(name), as_of=time)

    return {
        name: View(store.root.tables / name, lambda name=name: open_table(name))  # type: ignore[misc]
        for name in names
    }


def create_view(
    connection: duckdb.DuckDBPyConnection, name: str, reader: TableReader, selection: Selection
) -> None:
    """Create a temporary view of the rows of a selection.

    Raises
    ------
    DamagedError
        The first data file is missing or damaged.
    """
    import duckdb

    rows = render_rows(connection, name, reader, selection)
    try:
        connection.execute(f'CREATE TEMP VIEW "{name}" AS {rows}')
    except duckdb.Error as error:
        raise to_file_error(error, f"table {name}") from error


def render_rows(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    reader: TableReader,
    selection: Selection,
    parts: Sequence[Selection] | None = None,
) -> str:
    """Render the rows of a selection, and set the variable with their files in a connection.

    Parameters
    ----------
    parts
        If given, rows of the selection that lie in none of these parts may be left out.
    """
    files = _list_files(reader, [selection] if parts is None else parts)
    dataset = reader.dataset  # listing may find that the files are kept otherwise
    if files:
        connection.execute(f'SET VARIABLE "files of {name}" = ?', [files])
        source = _render_files(name, dataset, reader.list_lacking())
    else:
        source = f"(SELECT {render_typed_nulls(dataset)} WHERE false)"
    # Names come from dataset files, which allow only [a-z0-9_]; values are quoted.
    return f"SELECT {render_columns(dataset)} FROM {source}{_render_where(reader, selection)}"  # noqa: S608


def _list_files(reader: TableReader, selections: Sequence[Selection]) -> list[str]:
    """List the files that may hold rows of selections, in the order of the reader."""
    if not selections:
        return []
    files = pl.concat([reader.files(selection) for selection in selections])
    if len(selections) > 1:
        files = files.unique("path").sort("exchange", "symbol", "first", "path")
    return reader.locate(files["path"])


def _render_files(name: str, dataset: Dataset, lacking: Sequence[str]) -> str:
    """Render the rows of the files in a variable; columns that files lack are null.

    The union with no row keeps DuckDB from planning an ASOF JOIN by the folders of the files:
    DuckDB 2.0.0 then finds no match for most rows, if the join names several partition columns.
    """
    union = ", union_by_name = true" if lacking else ""
    rows = (
        f"read_parquet(getvariable('files of {name}'), hive_partitioning = true, hive_types = "
        f"{render_partition_types(dataset)}{union})"
    )
    nothing = f"SELECT {render_typed_nulls(dataset)} WHERE false"
    return f"(SELECT * FROM {rows} UNION ALL BY NAME {nothing})"  # noqa: S608 - see _create_view


def _render_where(reader: TableReader, selection: Selection) -> str:
    terms = ['"closed" IS NOT FALSE'] if reader.closed_only else []
    for column, values in (("exchange", selection.exchanges), ("symbol", selection.symbols)):
        if values:
            terms.append(f'"{column}" IN ({", ".join(_quote(value) for value in values)})')
    time = f'"{reader.dataset.time_column}"'
    if selection.start is not None:
        terms.append(f"{time} >= TIMESTAMPTZ '{iso(selection.start)}'")
    if selection.end is not None:
        terms.append(f"{time} < TIMESTAMPTZ '{iso(selection.end)}'")
    return f" WHERE {' AND '.join(terms)}" if terms else ""


def _quote(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
