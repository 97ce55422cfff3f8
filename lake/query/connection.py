"""A DuckDB connection that reads given folders and nothing else."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable
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


def connect() -> duckdb.DuckDBPyConnection:
    """Open a connection without extensions to load and without Python variables as tables.

    What does not fit into memory goes to a folder that does not exist before: DuckDB lets queries
    read it, and its default is a folder of the working directory.
    """
    import duckdb

    spill = Path(tempfile.gettempdir()) / f"lake-sql-{uuid.uuid4().hex}"
    connection = duckdb.connect(":memory:", config={**_CLOSED, "temp_directory": str(spill)})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def confine(connection: duckdb.DuckDBPyConnection, folders: Iterable[str]) -> None:
    """Let a connection read the files in some folders only, for as long as it lives.

    Files elsewhere, hosts, and the settings that would open them are refused from now on.
    """
    quoted = ", ".join("'" + folder.replace("'", "''") + "'" for folder in sorted(set(folders)))
    connection.execute(f"SET allowed_directories = [{quoted}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


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
