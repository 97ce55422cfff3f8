"""The text of a query: what it may be, which tables it names, and what is added to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from lake.errors import UsageError

if TYPE_CHECKING:
    import duckdb

_PIVOT = re.compile(r"\s*(pivot|from|select|with)\b", re.IGNORECASE)
# No comments or quotes inside: DuckDB must see the same statement after EXPLAIN as this pattern.
_COMMENTS = r"(?:\s|--[^\n\r]*\r?\n|/\*(?:(?!/\*).)*?\*/)*"
ABOUT_TABLES = re.compile(
    r"\b(show|describe|summarize|pivot|query|query_table|information_schema|duckdb_\w+)\b"
    rf"|(\A|\(|\bexplain\b){_COMMENTS}desc\b",  # not as in ORDER BY
    re.IGNORECASE | re.DOTALL,
)
_EXPLAIN = re.compile(
    rf"{_COMMENTS}explain\b(\s+analyze\b)?(\s*\(\s*(analyze|format)\b[\w\s,]*\))?",
    re.IGNORECASE | re.DOTALL,
)
_WITH = re.compile(rf"{_COMMENTS}WITH\b({_COMMENTS}RECURSIVE\b)?", re.IGNORECASE)
_NOW_FUNCTIONS = (
    "now",
    "transaction_timestamp",
    "get_current_timestamp",
    "today",
    "current_date",
    "get_current_time",
    "current_localtime",
    "current_localtimestamp",
)
_NOW = re.compile(
    rf"\b({'|'.join(_NOW_FUNCTIONS)}|current_time(stamp)?|localtime(stamp)?)\b", re.IGNORECASE
)


def require_query(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    """Require one query that only reads; return where it begins: after EXPLAIN."""
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
        return explain.end() + require_query(connection, sql[explain.end() :])
    if statement.type == duckdb.StatementType.MULTI and _PIVOT.match(sql):
        return 0  # DuckDB splits a PIVOT into several statements
    if statement.type != duckdb.StatementType.SELECT:
        raise UsageError(
            f"SQL: {statement.type.name} is not allowed: SQL reads a lake, it cannot write",
            "`lake ingest` adds rows; `lake sql … -o parquet > FILE` saves a result.",
        )
    return 0


def find_views(
    connection: duckdb.DuckDBPyConnection, sql: str, views: Iterable[str]
) -> Iterable[str]:
    """Return the views that a query needs; all for a query about tables.

    DuckDB cannot list the tables of a query with parameters: then every name in it counts.
    """
    import duckdb

    if ABOUT_TABLES.search(sql):
        return views
    try:
        tables = {name.lower() for name in connection.get_table_names(sql)}
    except duckdb.Error:
        text = sql.lower()
        return [name for name in views if re.search(rf"\b{name}\b", text)]
    return [name for name in views if name in tables]


def add_tables(sql: str, begin: int, tables: Mapping[str, str]) -> str:
    """Add tables, by name as a query of their rows, to a query that begins in its text at `begin`.

    They hide views of the same names, for this query alone.
    """
    added = ", ".join(f'"{name}" AS NOT MATERIALIZED ({rows})' for name, rows in tables.items())
    with_clause = _WITH.match(sql, begin)
    if with_clause is None:
        return f"{sql[:begin]} WITH {added}\n{sql[begin:]}"
    return f"{sql[: with_clause.end()]} {added},\n{sql[with_clause.end() :]}"


def fix_now(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """Let a query see the present time as it is now, whenever its result is fetched.

    Returns
    -------
    list
        The statements that do so in another connection too.
    """
    if not _NOW.search(sql):
        return []
    values = ", ".join(f"{name}()::VARCHAR, typeof({name}())" for name in _NOW_FUNCTIONS)
    row = connection.execute(f"SELECT {values}").fetchone() or ()
    macros = [
        f"CREATE TEMP MACRO {name}() AS CAST('{value}' AS {kind})"
        for name, value, kind in zip(_NOW_FUNCTIONS, row[::2], row[1::2], strict=True)
    ]
    for macro in macros:
        connection.execute(macro)
    return macros
