"""SQL over the tables of a lake with DuckDB: every table is a read-only view."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.exceptions import PolarsError

from lake.errors import LakeError, UsageError
from lake.query.connection import ALLOW_FILES, connect, resolve_folders
from lake.query.sql_errors import NAMES_A_FILE, to_file_error, to_query_error
from lake.query.sql_filters import choose_selections
from lake.query.sql_plan import Scans, find_scans
from lake.query.sql_text import (
    add_tables,
    find_views,
    fix_now,
    require_query,
)
from lake.query.sql_views import View, create_view, render_rows
from lake.store.damages import Damages
from lake.store.reader import TableReader

if TYPE_CHECKING:
    import duckdb


def query(
    sql: str,
    views: Mapping[str, View],
    parameters: Sequence[Any] | None = None,
    allow_files: Sequence[Path | str] = (),
) -> duckdb.DuckDBPyRelation:
    """Run a query over views; rows are read when the result is fetched.

    It reads the files of its views and those in the folders `allow_files`, and nothing else: no
    other file, no host, no variable of the caller. Times are in UTC. A view has the columns of its
    dataset, and as the last one `available_at`: when a row became available, as in
    `Lake.available`. Only SELECT, DESCRIBE, SUMMARIZE, SHOW and EXPLAIN are allowed.

    Raises
    ------
    UsageError
        The text is not a query, DuckDB rejects it, or it reads a file elsewhere.
    UnknownNameError
        The query names a table that does not exist.
    """
    import duckdb

    folders = resolve_folders(allow_files)
    connection = connect([*folders, *(path for view in views.values() for path in view.folders)])
    try:
        begin = require_query(connection, sql)
        damages = Damages()
        readers: dict[str, TableReader] = {}
        for name in find_views(connection, sql, views):
            with _leave_out(name, sql, damages):
                readers[name] = views[name].open_rows()
        macros = fix_now(connection, sql)
        scans = find_scans(
            sql[begin:], parameters, {n: r.dataset for n, r in readers.items()}, folders, macros
        )
        pruned = _run_pruned(connection, (sql, begin), parameters, readers, views, scans)
        if pruned is not None:
            return pruned
        for name, reader in readers.items():
            with _leave_out(name, sql, damages):
                create_view(connection, name, reader, views[name].selection)
        return _run(connection, sql, parameters)
    except duckdb.Error as error:
        raise to_query_error(error, views) from error


def fetch_batches(relation: duckdb.DuckDBPyRelation, rows: int) -> Iterator[pl.DataFrame]:
    """Yield the result in frames of about `rows` rows; at least one, which may be empty.

    Columns of equal names are renamed as by `relation.pl()`: the second `close` is `close_1`.

    Raises
    ------
    UsageError
        DuckDB cannot compute a value, or Arrow does not support its type.
    DamagedError
        A data file is missing or damaged.
    StorageError
        A data file cannot be read for another reason.
    """
    import duckdb
    from arro3.core import RecordBatchReader

    relation = _prepare_columns(relation)
    try:
        # arro3 comes with deltalake; the reader of DuckDB would import pyarrow and numpy.
        reader = RecordBatchReader.from_stream(relation)
        yield pl.DataFrame(schema=pl.Schema(reader.schema))
        for batch in reader:
            yield from pl.DataFrame(batch).iter_slices(rows)
    except Exception as error:  # arro3 raises what DuckDB says as a bare Exception
        if type(error) is not Exception and not isinstance(error, (duckdb.Error, PolarsError)):
            raise
        raise _explain_fetch(error) from error


def _prepare_columns(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Give each column a name of its own, and a type that Arrow readers know."""
    if len({name.lower() for name in relation.columns}) < len(relation.columns):
        relation = relation.project("*")  # renames the later ones
    intervals = [str(kind) == "INTERVAL" for kind in relation.types]
    if not any(intervals):
        return relation
    names = ['"{}"'.format(name.replace('"', '""')) for name in relation.columns]
    expressions = [
        f"CAST({name} AS VARCHAR) AS {name}" if is_interval else name
        for name, is_interval in zip(names, intervals, strict=True)
    ]
    return relation.project(", ".join(expressions))


def _explain_fetch(error: Exception) -> LakeError:
    """Explain why rows cannot be fetched; arro3 gives DuckDB's errors as text, without a class."""
    text = str(error).removeprefix("C Data interface error: ")
    line = text.splitlines()[0]
    if line.startswith("Permission Error"):
        return UsageError(f"SQL: {line}", ALLOW_FILES)
    if line.startswith("IO Error") or NAMES_A_FILE.search(text):
        return to_file_error(Exception(text))
    return UsageError(f"SQL: {text}", "Change the query: this expression cannot be computed.")


def _run_pruned(
    connection: duckdb.DuckDBPyConnection,
    query: tuple[str, int],
    parameters: Sequence[Any] | None,
    readers: Mapping[str, TableReader],
    views: Mapping[str, View],
    scans: Scans,
) -> duckdb.DuckDBPyRelation | None:
    """Run a query over the files that may hold its rows; None if it needs views with all files.

    Its tables are part of its text, not views: what is derived from its result, such as
    `relation.filter`, may name tables too, and must not find some of their rows only.
    """
    import duckdb

    if not scans:
        return None
    tables = {}
    for name, reader in readers.items():
        outer, parts = views[name].selection, None
        if name in scans:
            parts = choose_selections(scans[name], reader.dataset, outer)
        tables[name] = render_rows(connection, name, reader, outer, parts)
    try:
        return _run(connection, add_tables(*query, tables), parameters)
    except (duckdb.CatalogException, duckdb.BinderException, duckdb.ParserException):
        return None


def _run(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | None
) -> duckdb.DuckDBPyRelation:
    if parameters is None:
        return connection.sql(sql)
    return connection.sql(sql, params=list(parameters))


@contextmanager
def _leave_out(name: str, sql: str, damages: Damages) -> Iterator[None]:
    """Leave out a table that cannot be read, if a query about tables does not name it."""
    is_named = re.search(rf"\b{name}\b", sql, re.IGNORECASE)
    with nullcontext() if is_named else damages.collect(name):
        yield
