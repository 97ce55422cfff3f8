"""SQL over the tables of a lake with DuckDB: every table is a read-only view."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.exceptions import PolarsError

from lake.errors import DamagedError, LakeError, UnknownNameError, UsageError
from lake.model.dataset import Dataset
from lake.model.selection import Selection
from lake.model.time import iso
from lake.query.connection import ALLOW_FILES, confine, connect, resolve_folders
from lake.query.sql_columns import render_columns, render_typed_nulls
from lake.store.damages import Damages
from lake.store.faults import advise_to_verify
from lake.store.reader import EVERYTHING, OpenRows, TableReader
from lake.store.store import Store

if TYPE_CHECKING:
    import duckdb

_PIVOT = re.compile(r"\s*(pivot|from|select|with)\b", re.IGNORECASE)
# No comments or quotes inside: DuckDB must see the same statement after EXPLAIN as this pattern.
_COMMENTS = r"(?:\s|--[^\n\r]*\r?\n|/\*(?:(?!/\*).)*?\*/)*"
_ABOUT_TABLES = re.compile(
    r"\b(show|describe|desc|summarize|pivot|query|query_table|information_schema|duckdb_\w+)\b",
    re.IGNORECASE,
)
# DuckDB raises the same class for a truncated Parquet file and for `SELECT error('…')`.
_NAMES_A_FILE = re.compile(r"\bfile ['\"]", re.IGNORECASE)
_TABLE_OF_FILE = re.compile(r"/tables/(\w+)/exchange=")
_NO_MAGIC = re.compile(r"No magic bytes found at end of file ('[^']*'|\"[^\"]*\")")
_A_PATH_AS_TABLE = re.compile(r"Table with name \S*[./]")
_EXPLAIN = re.compile(
    rf"{_COMMENTS}explain\b(\s+analyze\b)?(\s*\(\s*(analyze|format)\b[\w\s,]*\))?",
    re.IGNORECASE | re.DOTALL,
)


class View:
    """A table, or a selection of it, for SQL; opened only when a query names it."""

    def __init__(self, open_rows: OpenRows, selection: Selection = EVERYTHING) -> None:
        self.open_rows = open_rows
        self.selection = selection


def list_views(
    store: Store, versions: Mapping[str, int], as_of: datetime | None = None
) -> dict[str, View]:
    """Return the views of a lake's tables by name: at the given versions, else as of a time.

    Raises
    ------
    UnknownNameError
        No dataset has such a name.
    """
    datasets = {name: store.catalog.dataset(name) for name in (*versions, *store.tables())}
    return {
        name: View(
            lambda name=name: store.snapshot(  # type: ignore[misc]
                datasets[name],
                version=versions.get(name),
                as_of=None if name in versions else as_of,
            )
        )
        for name in store.tables()
    }


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
    connection = connect()
    try:
        _require_query(connection, sql)
        readers: dict[str, TableReader] = {}
        damages = Damages()
        for name in _find_views(connection, sql, views):
            with _leave_out(name, sql, damages):
                readers[name] = views[name].open_rows()
        confine(connection, [*folders, *(reader.uri for reader in readers.values())])
        for name, reader in readers.items():
            with _leave_out(name, sql, damages):
                _create_view(connection, name, reader, views[name].selection)
        if parameters is not None:
            return connection.sql(sql, params=list(parameters))
        return connection.sql(sql)
    except duckdb.Error as error:
        raise _to_error(error, views) from error


def fetch_batches(relation: duckdb.DuckDBPyRelation, rows: int) -> Iterator[pl.DataFrame]:
    """Yield the result in frames of about `rows` rows; at least one, which may be empty.

    Raises
    ------
    UsageError
        DuckDB cannot compute a value, or Arrow does not support its type.
    DamagedError
        A data file is missing or damaged.
    """
    import duckdb

    intervals = [str(kind) == "INTERVAL" for kind in relation.types]
    if any(intervals):
        expressions = [
            f'CAST("{name}" AS VARCHAR) AS "{name}"' if is_interval else f'"{name}"'
            for name, is_interval in zip(relation.columns, intervals, strict=True)
        ]
        relation = relation.project(", ".join(expressions))
    try:
        reader = relation.to_arrow_reader(rows)
        yield pl.DataFrame(reader.schema.empty_table())
        for batch in reader:
            yield pl.DataFrame(batch)
    except (duckdb.Error, PolarsError) as error:
        if isinstance(error, duckdb.PermissionException):
            raise UsageError(f"SQL: {_get_first_line(error)}", ALLOW_FILES) from error
        if isinstance(error, duckdb.IOException) or _NAMES_A_FILE.search(str(error)):
            raise to_damaged_error(error) from error
        raise UsageError(
            f"SQL: {error}", "Change the query: this expression cannot be computed."
        ) from error


def to_damaged_error(error: BaseException, where: str = "SQL") -> DamagedError:
    """Convert DuckDB's error about an unreadable file."""
    line = _NO_MAGIC.sub(r"not a whole Parquet file: \1", _get_first_line(error))
    named = _TABLE_OF_FILE.search(line)
    return DamagedError(f"{where}: {line}", advise_to_verify(named[1] if named else "TABLE"))


def _to_error(error: duckdb.Error, views: Mapping[str, View]) -> LakeError:
    import duckdb

    line = f"SQL: {_get_first_line(error)}"
    if isinstance(error, duckdb.CatalogException):
        names = ", ".join(sorted(views)) or "none yet; run `lake ingest` first"
        hint = f"{ALLOW_FILES} " if _A_PATH_AS_TABLE.search(line) else ""
        return UnknownNameError(line, f"{hint}Tables: {names}.")
    if isinstance(error, duckdb.PermissionException):
        return UsageError(line, ALLOW_FILES)
    if isinstance(error, duckdb.IOException):
        return to_damaged_error(error)
    return UsageError(f"SQL: {error}", "`lake describe TABLE` lists columns.")


def _require_query(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    import duckdb

    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise UsageError(
            f"SQL: expected one query, got {len(statements)}", "Run one query at a time."
        )
    statement = statements[0]
    if statement.type == duckdb.StatementType.EXPLAIN:
        explain = _EXPLAIN.match(sql)
        if explain is None:
            raise UsageError("SQL: this form of EXPLAIN is not supported", "Write EXPLAIN SELECT …")
        _require_query(connection, sql[explain.end() :])
    elif statement.type == duckdb.StatementType.MULTI and _PIVOT.match(sql):
        return  # DuckDB splits a PIVOT into several statements
    elif statement.type != duckdb.StatementType.SELECT:
        raise UsageError(
            f"SQL: {statement.type.name} is not allowed: SQL reads a lake, it cannot write",
            "`lake ingest` adds rows; `lake sql … -o parquet > FILE` saves a result.",
        )


def _find_views(
    connection: duckdb.DuckDBPyConnection, sql: str, views: Mapping[str, View]
) -> Iterable[str]:
    """Return the views that a query needs; all for a query about tables.

    DuckDB cannot list the tables of a query with parameters: then every name in it counts.
    """
    import duckdb

    if _ABOUT_TABLES.search(sql):
        return views
    try:
        tables = {name.lower() for name in connection.get_table_names(sql)}
    except duckdb.Error:
        text = sql.lower()
        return [name for name in views if re.search(rf"\b{name}\b", text)]
    return [name for name in views if name in tables]


@contextmanager
def _leave_out(name: str, sql: str, damages: Damages) -> Iterator[None]:
    """Leave out a table that cannot be read, if a query about tables does not name it."""
    is_named = re.search(rf"\b{name}\b", sql, re.IGNORECASE)
    with nullcontext() if is_named else damages.collect(name):
        yield


def _create_view(
    connection: duckdb.DuckDBPyConnection, name: str, reader: TableReader, selection: Selection
) -> None:
    import duckdb

    dataset = reader.dataset
    files = [f"{reader.uri}/{path}" for path in reader.files(selection)["path"]]
    if files:
        connection.execute(f'SET VARIABLE "files of {name}" = ?', [files])
        source = _render_files(name, dataset, reader.list_lacking())
    else:
        source = f"(SELECT {render_typed_nulls(dataset)} WHERE false)"
    # Names come from dataset files, which allow only [a-z0-9_]; values are quoted.
    statement = f"SELECT {render_columns(dataset)} FROM {source}{_render_where(reader, selection)}"  # noqa: S608
    try:
        connection.execute(f'CREATE VIEW "{name}" AS {statement}')
    except duckdb.Error as error:
        raise to_damaged_error(error, f"table {name}") from error


def _render_files(name: str, dataset: Dataset, lacking: Sequence[str]) -> str:
    """Render the rows of the files in a variable; columns that files lack are null.

    The union with no row keeps DuckDB from planning an ASOF JOIN by the folders of the files:
    DuckDB 2.0.0 then finds no match for most rows, if the join names several partition columns.
    """
    union = ", union_by_name = true" if lacking else ""
    rows = (
        f"read_parquet(getvariable('files of {name}'), hive_partitioning = true, hive_types = "
        f"{{'exchange': VARCHAR, 'symbol': VARCHAR, 'date': DATE}}{union})"
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


def _get_first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]
