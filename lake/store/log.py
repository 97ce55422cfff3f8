"""The commits in a table's log, read from the log itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson

from lake.model.time import from_ms
from lake.store import delta
from lake.store.commits import log_file, unreadable, with_time


@dataclass(frozen=True, slots=True)
class Commit:
    """A version of a table: when it was committed, and the data files that it added.

    `added` are paths relative to the table and as on disk.
    """

    version: int
    time: datetime
    added: frozenset[str]


def commits(path: Path, since: int = 0) -> Iterator[Commit]:
    """The commits of a table, from a version to the latest.

    Raises
    ------
    DamagedError
        One of them is missing or cannot be read.
    """
    for version in range(since, delta.latest_version(path) + 1):
        yield _commit(path, version)


def actions(table: Path, version: int) -> list[dict[str, Any]]:
    """What a commit says: `commitInfo`, `metaData`, `add`, `remove`, each an object of one key.

    Raises
    ------
    DamagedError
        It is missing or cannot be read.
    """
    try:
        lines = log_file(table, version).read_bytes().splitlines()
        return [orjson.loads(line) for line in lines if line]
    except (FileNotFoundError, ValueError) as error:
        raise unreadable(table, version) from error


def _commit(table: Path, version: int) -> Commit:
    told = actions(table, version)
    info: dict[str, Any] = next((one["commitInfo"] for one in told if "commitInfo" in one), {})
    try:
        # The log encodes paths once more than the disk does.
        added = frozenset(unquote(action["add"]["path"]) for action in told if "add" in action)
        time = from_ms(with_time(info, log_file(table, version))["timestamp"])
    except (AttributeError, KeyError, TypeError) as error:
        raise unreadable(table, version) from error
    return Commit(version, time, added)
