"""DuckDB connections that read given folders and nothing else.

A database takes 35 ms to open, a connection to it less than 1 ms: databases stay open, one for each
set of folders. Connections share no view, variable or macro, as long as these are temporary.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lake.errors import UsageError

if TYPE_CHECKING:
    import duckdb

ALLOW_FILES = "Name the folder of your own files: `lake sql --allow-files FOLDER`."
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
_MOST_OPEN = 8
# The others know better than the text of a query how few rows there are: none, where a plan is made
# over empty tables. Each of these moves conditions towards the rows that they are about.
_PLANNING_OPTIMIZERS = frozenset(
    {"cte_filter_pusher", "cte_inlining", "expression_rewriter", "filter_pullup", "filter_pushdown"}
)


def connect(folders: Iterable[str]) -> duckdb.DuckDBPyConnection:
    """Open a connection that reads the files in some folders only, for as long as it lives.

    Files elsewhere, hosts, extensions, Python variables, and the settings that would open them are
    refused. Times are in UTC. What does not fit into memory goes to a folder that does not exist
    before: DuckDB lets queries read it, and its default is a folder of the working directory.
    """
    # The threads of a database do not live on in a process that was forked.
    return _open_database(tuple(sorted(set(folders))), os.getpid()).cursor()


def connect_for_plans(folders: Iterable[str]) -> duckdb.DuckDBPyConnection:
    """Open a connection as `connect` does, of which plans show all conditions on each table."""
    return _open_planner(tuple(sorted(set(folders))), os.getpid()).cursor()


def resolve_folders(folders: Iterable[Path | str]) -> list[str]:
    """Resolve folders of a user's own files.

    Raises
    ------
    UsageError
        One of them is not a folder.
    """
    paths = [Path(folder).expanduser() for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder", ALLOW_FILES)
    return [str(path.absolute()) for path in paths] + [str(path) for path in paths]


@lru_cache(_MOST_OPEN)
def _open_database(folders: tuple[str, ...], _process: int) -> duckdb.DuckDBPyConnection:
    database = _create_database()
    _confine(database, folders)
    return database


@lru_cache(_MOST_OPEN)
def _open_planner(folders: tuple[str, ...], _process: int) -> duckdb.DuckDBPyConnection:
    database = _create_database()
    names = database.execute("SELECT name FROM duckdb_optimizers()").fetchall()
    disabled = ",".join(name for (name,) in names if name not in _PLANNING_OPTIMIZERS)
    database.execute(f"SET GLOBAL disabled_optimizers = '{disabled}'")
    _confine(database, folders)
    return database


def _create_database() -> duckdb.DuckDBPyConnection:
    import duckdb

    spill = Path(tempfile.gettempdir()) / f"lake-sql-{uuid.uuid4().hex}"
    return duckdb.connect(":memory:", config={**_CLOSED, "temp_directory": str(spill)})


def _confine(database: duckdb.DuckDBPyConnection, folders: Iterable[str]) -> None:
    quoted = ", ".join("'" + folder.replace("'", "''") + "'" for folder in folders)
    database.execute("SET GLOBAL TimeZone = 'UTC'")
    database.execute(f"SET GLOBAL allowed_directories = [{quoted}]")
    database.execute("SET GLOBAL enable_external_access = false")
    database.execute("SET GLOBAL lock_configuration = true")
