"""Which versions of a table can still be read: a vacuum removes files that only old ones need."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from lake.errors import UnknownNameError
from lake.model.time import iso
from lake.store.log import (
    list_added,
    list_removed,
    read_actions,
    read_commit_time,
    read_latest_version,
)
from lake.store.root import replace_file

_RECORD = "_vacuum.json"


def record_vacuum(table: Path, now: datetime) -> None:
    """Record when a vacuum last removed files of old versions."""
    replace_file(table / _RECORD, json.dumps({"last": iso(now)}).encode())


def find_readable(table: Path, files: Collection[str]) -> dict[int, bool]:
    """Find which versions have all their data files, by version.

    Parameters
    ----------
    files
        The data files on disk, relative to the table.

    Raises
    ------
    DamagedError
        A commit is missing or cannot be read.
    """
    missing: set[str] = set()
    readable = {}
    for version in range(read_latest_version(table) + 1):
        actions = read_actions(table, version)
        missing -= set(list_removed(actions))
        missing |= list_added(actions).keys() - files
        readable[version] = not missing
    return readable


def require_kept(table: Path, version: int, paths: Collection[str]) -> None:
    """Refuse to read a version of which a vacuum has removed files.

    Files that are missing though no later version removed them are lost: reading them is an error
    about damage.

    Parameters
    ----------
    paths
        The data files to read, relative to the table.

    Raises
    ------
    UnknownNameError
        One of them was removed.
    """
    missing = {path for path in paths if not os.path.exists(f"{table}/{path}")}  # noqa: PTH110 - many
    if not missing:
        return
    latest = read_latest_version(table)
    later = (read_actions(table, number) for number in range(version + 1, latest + 1))
    removed = {path for actions in later for path in list_removed(actions)}
    if not missing <= removed:
        return
    raise UnknownNameError(
        f"table {table.name}: version {version} cannot be read any more: a vacuum{_when(table)} "
        f"removed {len(missing)} of the {len(paths)} data files",
        _describe_oldest(table, latest),
    )


def _describe_oldest(table: Path, latest: int) -> str:
    """Say from which version on all can be read."""
    files = {str(file.relative_to(table)) for file in table.rglob("*.parquet")}
    readable = find_readable(table, files)
    oldest = latest
    while readable.get(oldest - 1):
        oldest -= 1
    return (
        f"The oldest version of {table.name} that can still be read is {oldest}, committed at "
        f"{iso(read_commit_time(table, oldest))}; bundles keep what they pin."
    )


def _when(table: Path) -> str:
    try:
        last = json.loads((table / _RECORD).read_bytes())["last"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return ""  # of an earlier version or another engine, or damaged: only the time is lost
    return f" (the last one at {last})"
