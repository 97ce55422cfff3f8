"""What a commit says of itself in the log of its table: when it was made, by whom, and of what."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from lake.errors import DamagedError
from lake.model.time import from_ms

_INFO = b'{"commitInfo"'


def commit_info(table: Path, version: int) -> dict[str, Any]:
    """The `commitInfo` of a version: `timestamp` (ms), operation, metrics, userMetadata.

    Other engines need not write one, nor a time into it: then that of the file counts.

    Raises
    ------
    DamagedError
        It cannot be read.
    """
    file = log_file(table, version)
    try:
        with file.open("rb") as log:
            for line in log:
                if line.startswith(_INFO):
                    return with_time(orjson.loads(line)["commitInfo"], file)
        if [orjson.loads(line) for line in file.read_bytes().splitlines()]:
            return with_time({}, file)
        raise unreadable(table, version)
    except (ValueError, AttributeError) as error:
        raise unreadable(table, version) from error


def log_file(table: Path, version: int) -> Path:
    """Where a version of a table is told."""
    return table / "_delta_log" / f"{version:020}.json"


def with_time(info: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """A `commitInfo` with a `timestamp`: its own, or that of the file."""
    if type(info.get("timestamp")) is int:
        return dict(info)
    return {**info, "timestamp": file.stat().st_mtime_ns // 1_000_000}


def commit_time(table: Path, version: int) -> datetime:
    """When a version was committed."""
    return from_ms(commit_info(table, version)["timestamp"])


def lake_metadata(info: Mapping[str, Any]) -> dict[str, Any]:
    """What the lake's own commits say of themselves: job, source, counts; others say nothing.

    They may have a `userMetadata` too, in which stands what they like.
    """
    with suppress(ValueError, TypeError):
        ours = orjson.loads(info.get("userMetadata") or "{}")
        if isinstance(ours, dict) and isinstance(ours.get("job"), str):
            return ours
    return {}


def unreadable(table: Path, version: int) -> DamagedError:
    """The error of a commit that is missing, or no JSON."""
    return DamagedError(
        f"table {table.name}: commit {version} cannot be read", "Restore its log from a backup."
    )
