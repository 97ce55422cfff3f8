"""Errors of DuckDB, as errors of the lake."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lake.errors import DamagedError, LakeError, UnknownNameError, UsageError
from lake.query.connection import ALLOW_FILES
from lake.store.faults import advise_to_verify, explain_os_error, find_reason, get_first_line

if TYPE_CHECKING:
    import duckdb

# DuckDB raises the same class for a truncated Parquet file and for `SELECT error('…')`.
NAMES_A_FILE = re.compile(r"\bfile ['\"]", re.IGNORECASE)
_TABLE_OF_FILE = re.compile(r"/tables/(\w+)/exchange=")
_NO_MAGIC = re.compile(r"No magic bytes found at end of file ('[^']*'|\"[^\"]*\")")
_A_PATH_AS_TABLE = re.compile(r"Table with name \S*[./]")


def to_file_error(error: BaseException, where: str = "SQL") -> LakeError:
    """Convert DuckDB's error about a file that cannot be read."""
    if find_reason(error) is not None:
        return explain_os_error(error, where)
    line = _NO_MAGIC.sub(r"not a whole Parquet file: \1", get_first_line(error))
    named = _TABLE_OF_FILE.search(line)
    return DamagedError(f"{where}: {line}", advise_to_verify(named[1] if named else "TABLE"))


def to_query_error(error: duckdb.Error, tables: Iterable[str]) -> LakeError:
    """Convert DuckDB's error about a query."""
    import duckdb

    line = f"SQL: {get_first_line(error)}"
    if isinstance(error, duckdb.CatalogException):
        names = ", ".join(sorted(tables)) or "none yet; run `lake ingest` first"
        hint = f"{ALLOW_FILES} " if _A_PATH_AS_TABLE.search(line) else ""
        return UnknownNameError(line, f"{hint}Tables: {names}.")
    if isinstance(error, duckdb.PermissionException):
        return UsageError(line, ALLOW_FILES)
    if isinstance(error, duckdb.IOException):
        return to_file_error(error)
    return UsageError(f"SQL: {error}", "`lake describe TABLE` lists columns.")
