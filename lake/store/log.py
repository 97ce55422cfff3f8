"""Read the log of a table from its files: versions, commits, and the metadata of commits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson

from lake.errors import DamagedError, UnknownNameError, UsageError
from lake.model.dataset import Dataset
from lake.model.time import EPOCH, from_ms, in_utc, iso
from lake.store.faults import translate_errors

STAMP = "committed_at"
"""Key of `userMetadata` with the time of a commit of the lake: later than all commits before."""
CLOCK = "clock"
"""Key of `userMetadata` with what the clock of the writer showed, if it was behind the stamp."""
CLOCKS_APART = timedelta(minutes=1)
"""How far the clock of a writer may be behind without a word."""
PROBED = 3
"""How many versions after the last known one are looked for, without listing the log."""
_AHEAD = (2, 3, 4, 8, 16, 32, 64)
_INFO = b'{"commitInfo"'


@dataclass(frozen=True, slots=True)
class Commit:
    """A version of a table: when it was committed, and the data files that it added.

    `time` is that of `CommitTimes`; `added` are paths relative to the table and as on disk.
    """

    version: int
    time: datetime
    added: frozenset[str]


@dataclass(frozen=True, slots=True)
class CommitTime:
    """What a commit says of its time.

    Attributes
    ----------
    time
        Its stamp, or what the clock of its writer showed.
    is_stamped
        Whether it is a stamp, which is later than all commits before.
    clock
        What the clock of its writer showed, if that is known.
    """

    time: datetime
    is_stamped: bool
    clock: datetime


class CommitTimes:
    """When the versions of a table were committed: the one rule of time travel by time.

    No version is earlier than the one before it. A commit of the lake carries a stamp, which is
    later than all before (`lake.store.clock`). A commit without one has the time that the clock of
    its writer showed, or that of the version before it, if that is later.

    Parameters
    ----------
    table
        The folder of the table. Commits that were read are kept: use an instance for one look-up.
    """

    def __init__(self, table: Path) -> None:
        self._table = table
        self._times: dict[int, datetime] = {}

    def at(self, version: int) -> datetime:
        """Return when a version was committed.

        Commits without a stamp are read back to the last one that has it, each once.

        Raises
        ------
        DamagedError
            A commit cannot be read.
        """
        unknown: list[tuple[int, datetime]] = []
        number, latest = version, EPOCH
        while number >= 0:
            if number in self._times:
                latest = self._times[number]
                break
            # Other engines delete old commits after a checkpoint.
            if unknown and not locate_log_file(self._table, number).exists():
                break
            commit = parse_time(read_commit_info(self._table, number))
            unknown.append((number, commit.time))
            if commit.is_stamped:
                break
            number -= 1
        for number, time in reversed(unknown):
            latest = self._times[number] = max(latest, time)
        return latest


def has_table(path: Path) -> bool:
    """Whether a folder holds a table: a creation that failed leaves an empty log.

    A log that cannot be looked into counts: whoever opens the table gets the reason.
    """
    try:
        with os.scandir(path / "_delta_log") as entries:
            return any(entry.name.endswith((".json", ".parquet")) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # no permission, or a link to itself
        return True


def has_lost_log(path: Path) -> bool:
    """Whether a folder holds what only tables have, records of commits or data, and no log."""
    if has_table(path) or not path.is_dir():
        return False
    records = any((path / "_checksums").glob("*.sha256"))
    return records or any(path.glob("exchange=*/symbol=*/date=*/*.parquet"))


def read_latest_version(path: Path) -> int:
    """Read the latest version of a table from the file names of its log."""
    with translate_errors(f"table {path.name}"):
        require_log(path)
    newest = find_newest_entry(path)
    if newest < 0:
        raise DamagedError(
            f"table {path.name}: its log is empty", "Restore the table from a backup."
        )
    return newest


def find_newest_entry(table: Path) -> int:
    """Find the newest version that has an entry in the log; -1 without entries.

    A log is never cleaned up, so that listing it costs more each day. Entries are looked for one by
    one from the last checkpoint on; the log is listed if no checkpoint is named, if it has no
    entry of that version, or if an entry is missing before later ones.
    """
    version = find_checkpoint_version(table)
    if version is None or not has_entry(table, version):
        return list_newest_entry(table)
    while has_entry(table, version + 1):
        version += 1
    is_gap = any(has_entry(table, version + ahead) for ahead in _AHEAD)
    return list_newest_entry(table) if is_gap else version


def list_newest_entry(table: Path) -> int:
    """Find the newest version that has an entry by listing the log; -1 without entries."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(table / "_delta_log") as log:
        names = (entry.name.partition(".") for entry in log)
        return max((int(n) for n, _, kind in names if kind == "json" and n.isdecimal()), default=-1)
    return -1


def has_entry(table: Path, version: int) -> bool:
    """Whether the log has an entry of a version."""
    return os.path.exists(f"{table}/_delta_log/{version:020}.json")  # noqa: PTH110 - much faster


def find_checkpoint_version(table: Path) -> int | None:
    """Return the version of the last checkpoint, from the file that names it."""
    with suppress(FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        named = orjson.loads((table / "_delta_log" / "_last_checkpoint").read_bytes())["version"]
        return named if type(named) is int else None
    return None


def require_log(path: Path) -> None:
    """Raise an error if the log of a table cannot be looked into, or is gone while its data is not.

    Raises
    ------
    OSError
        The storage refuses: no permission, or a link to itself.
    DamagedError
        The log is gone.
    """
    if has_lost_log(path):
        raise DamagedError(
            f"table {path.name}: its log is gone, and its data files are there: "
            f"{path / '_delta_log'}",
            "Restore this folder from a backup. Or move the folder of the table away, look which "
            "rows are missing with `lake status`, and ingest them again with --refetch.",
        )
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path / "_delta_log"):
        pass


def require_version(path: Path, dataset: Dataset, version: int) -> None:
    newest = read_latest_version(path)
    if not 0 <= version <= newest:
        raise UnknownNameError(
            f"table {dataset.name} has no version {version}", f"It has versions 0 to {newest}."
        )


def find_version(path: Path, dataset: Dataset, time: datetime, now: datetime) -> int:
    """Find the last version committed at or before a time, by `CommitTimes`.

    Times of log files are not used: copying or restoring a lake changes them.

    Raises
    ------
    UnknownNameError
        The table did not exist at that time.
    UsageError
        The time has no time zone.
    """
    time = in_utc(time)
    with translate_errors(f"table {dataset.name}"):
        low, high = 0, read_latest_version(path)
        times = CommitTimes(path)
        if times.at(high) <= time:
            return high
        first = times.at(low)
        if first > time:
            raise _build_not_yet_error(dataset, time, first, now)
        while low < high:
            middle = (low + high + 1) // 2
            if times.at(middle) <= time:
                low = middle
            else:
                high = middle - 1
        return low


def _build_not_yet_error(
    dataset: Dataset, time: datetime, first: datetime, now: datetime
) -> UnknownNameError:
    """Build the error for a time before the first commit, which may be stamped in the future."""
    if first > now:
        return UnknownNameError(
            f"table {dataset.name} has no version of {iso(time)}: its first commit is stamped "
            f"{iso(first)}, and now is {iso(now)}",
            "The stamps of its commits lie in the future: the clock of a writer was ahead. Without "
            "as_of, the newest version is read.",
        )
    return UnknownNameError(
        f"table {dataset.name} did not exist at {iso(time)}", f"It begins at {iso(first)}."
    )


def read_commits(path: Path, since: int = 0) -> Iterator[Commit]:
    """Read the commits of a table, from a version to the latest.

    Raises
    ------
    DamagedError
        A commit is missing or cannot be read.
    """
    latest = CommitTimes(path).at(since - 1) if since else EPOCH
    for version in range(since, read_latest_version(path) + 1):
        commit = _read_commit(path, version)
        latest = max(latest, commit.time)
        yield replace(commit, time=latest)


def read_actions(table: Path, version: int) -> list[dict[str, Any]]:
    """Read the actions of a commit: `commitInfo`, `metaData`, `add`, `remove`, one key each.

    Raises
    ------
    DamagedError
        It is missing or cannot be read.
    """
    try:
        lines = locate_log_file(table, version).read_bytes().splitlines()
        return [orjson.loads(line) for line in lines if line]
    except (FileNotFoundError, ValueError) as error:
        raise build_unreadable_error(table, version) from error


def list_added(actions: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """List the data files that a commit adds: size by path, relative to the table, as on disk."""
    added = (action["add"] for action in actions if "add" in action)
    # Paths in the log are percent-encoded once more than on disk.
    return {unquote(action["path"]): action["size"] for action in added}


def list_removed(actions: Iterable[Mapping[str, Any]]) -> list[str]:
    """List the data files that a commit removes: paths relative to the table, as on disk."""
    return [unquote(action["remove"]["path"]) for action in actions if "remove" in action]


def is_of_lake(actions: Iterable[Mapping[str, Any]]) -> bool:
    """Whether lake wrote a commit: its metadata names a job."""
    return any(parse_metadata(a["commitInfo"]) for a in actions if "commitInfo" in a)


def read_commit_info(table: Path, version: int) -> dict[str, Any]:
    """Read the `commitInfo` of a version: `timestamp` (ms), operation, metrics, userMetadata.

    Other engines may write none, or one without a time: then the time of the file counts.

    Raises
    ------
    DamagedError
        It cannot be read.
    """
    file = locate_log_file(table, version)
    try:
        with file.open("rb") as log:
            for line in log:
                if line.startswith(_INFO):
                    return add_time(orjson.loads(line)["commitInfo"], file)
        if [orjson.loads(line) for line in file.read_bytes().splitlines()]:
            return add_time({}, file)
        raise build_unreadable_error(table, version)
    except (ValueError, AttributeError) as error:
        raise build_unreadable_error(table, version) from error


def locate_log_file(table: Path, version: int) -> Path:
    """Return the path of the log file of a version."""
    return table / "_delta_log" / f"{version:020}.json"


def add_time(info: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return a `commitInfo` with a `timestamp`: its own, or that of its file."""
    if type(info.get("timestamp")) is int:
        return dict(info)
    return {**info, "timestamp": file.stat().st_mtime_ns // 1_000_000}


def read_commit_time(table: Path, version: int) -> datetime:
    """Read when a version was committed, by `CommitTimes`."""
    return CommitTimes(table).at(version)


def parse_time(info: Mapping[str, Any]) -> CommitTime:
    """Return what a `commitInfo` with a `timestamp` says of its time."""
    own, clock = _parse_user_metadata(info), from_ms(info["timestamp"])
    with suppress(KeyError, TypeError, ValueError, UsageError):
        stamp = in_utc(datetime.fromisoformat(own[STAMP]))
        shown = own.get(CLOCK)
        clock = stamp if shown is None else in_utc(datetime.fromisoformat(shown))
        return CommitTime(stamp, is_stamped=True, clock=clock)
    return CommitTime(clock, is_stamped=False, clock=clock)


def parse_metadata(info: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the metadata of a commit of the lake: job, source, counts; empty for other commits.

    Commits of other engines may have a `userMetadata` with any content.
    """
    own = _parse_user_metadata(info)
    return own if isinstance(own.get("job"), str) else {}


def build_unreadable_error(table: Path, version: int) -> DamagedError:
    """Build the error for a commit that is missing or not JSON."""
    return DamagedError(
        f"table {table.name}: commit {version} cannot be read: {locate_log_file(table, version)}",
        "Restore the file from a backup.",
    )


def _parse_user_metadata(info: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the `userMetadata` of a commit; empty if it is no object of JSON."""
    with suppress(ValueError, TypeError):
        content = orjson.loads(info.get("userMetadata") or "{}")
        if isinstance(content, dict):
            return content
    return {}


def _read_commit(table: Path, version: int) -> Commit:
    actions = read_actions(table, version)
    infos = (action["commitInfo"] for action in actions if "commitInfo" in action)
    info: dict[str, Any] = next(infos, {})
    try:
        added = frozenset(list_added(actions))
        time = parse_time(add_time(info, locate_log_file(table, version))).time
    except (AttributeError, KeyError, TypeError) as error:
        raise build_unreadable_error(table, version) from error
    return Commit(version, time, added)
