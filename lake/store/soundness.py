"""Refuse a damaged log: delta-rs reads an empty commit as one that changed nothing.

A power cut can leave files empty that were not synced yet. Rows would be lost in silence, while
coverage says that they are there. So a table is opened only if its recent commits are whole.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import orjson

from lake.errors import DamagedError
from lake.log import get_logger
from lake.store.checksums import (
    FOLDER,
    LOG_PREFIX,
    find_last,
    forget_later,
    hash_if_present,
    list_records,
    list_vanished,
    name_checkpoint,
    read_log_hash,
)
from lake.store.locks import lock_file
from lake.store.log import (
    find_checkpoint_version,
    list_added,
    list_newest_entry,
    locate_log_file,
    read_actions,
    read_latest_version,
)
from lake.store.root import sync_folder

_log = get_logger(__name__)
# A checkpoint is written each 20 commits: older ones are not read to open a table, even if the last
# checkpoints are lost.
RECENT = 128
SET_ASIDE = "_set_aside"
_PARQUET = b"PAR1"
_CHANGED = "was changed since it was written"


class EntryId(NamedTuple):
    """What tells an entry of a log from another one of its version."""

    number: int
    changed_ns: int
    bytes: int


def identify_entry(table: Path, version: int) -> EntryId | None:
    """Return what tells the log's entry of a version from another one; None if there is none."""
    try:
        entry = os.stat(f"{table}/_delta_log/{version:020}.json")  # noqa: PTH116 - much faster
    except FileNotFoundError:
        return None
    return EntryId(entry.st_ino, entry.st_mtime_ns, entry.st_size)


def require_sound(table: Path, newest: int, after: int = -1) -> None:
    """Refuse empty commits among the recent ones, and a last one that differs from its checksum.

    Parameters
    ----------
    newest
        The version that was opened.
    after
        The version up to which the commits were checked before.

    Raises
    ------
    DamagedError
        A commit is empty or was changed; the message names its file.
    """
    for version in range(newest, max(after, newest - RECENT), -1):
        entry = identify_entry(table, version)  # other engines delete those before a checkpoint
        if entry and entry.bytes == 0:
            raise _build_error(table, version, "is empty")
    if newest > after and _differs_from_record(table, newest):
        raise _build_error(table, newest, _CHANGED)


def require_sound_end(table: Path) -> int:
    """Return the latest version after checking that its commit is whole, without opening the table.

    Raises
    ------
    DamagedError
        The commit is empty or cannot be parsed.
    """
    newest = read_latest_version(table)
    reason = find_fault(table, newest)
    if reason:
        raise _build_error(table, newest, reason)
    return newest


def require_whole_files(table: Path, newest: int) -> None:
    """Refuse a table if a data file that its last commit adds is missing or cut short.

    Raises
    ------
    DamagedError
        There is such a file.
    """
    if _is_torn(table, newest, is_last=True):
        raise _build_error(table, newest, "is not complete")


def require_all_commits(table: Path) -> None:
    """Refuse to write to a table whose newest commits vanished: the next would take their numbers.

    Raises
    ------
    DamagedError
        A version is recorded whose commit is not in the log.
    """
    vanished = list_vanished(table)
    if vanished:
        last = find_last(vanished)
        records = [f"{FOLDER}/{record.path.name}" for record in vanished]
        checkpoints = _list_checkpoints(table, list_newest_entry(table) + 1)
        names = ", ".join([*records, *checkpoints])
        raise DamagedError(
            f"table {table.name}: {describe_vanished(last)}: {locate_log_file(table, last)}",
            f"Restore the file from a backup: `lake verify table {table.name}` lists all that are "
            f"missing. Or, to go on without it, move {names} in {table} away, look which rows are "
            "missing with `lake status`, and ingest them again with --refetch.",
        )


def forget_vanished(table: Path, consequence: str) -> None:
    """Go on without the newest commits if they vanished, where that costs repeated work only."""
    vanished = list_vanished(table)
    if vanished:
        first, last = min(r.first for r in vanished), find_last(vanished)
        _log.warning(
            f"commits vanished from the log: {consequence}",
            table=table.name,
            first=first,
            last=last,
        )
        forget_later(table, first - 1)


def describe_vanished(version: int) -> str:
    """Describe a commit that was recorded and is gone."""
    return f"version {version} was committed and is not in the log"


def explain_damage(table: Path) -> DamagedError | None:
    """Return the error that names the damaged file of a log that cannot be loaded; None: none is.

    The commits since the last checkpoint are parsed, and the last checkpoint is looked at.
    """
    # Listed, because entries may be missing before the newest one.
    newest = max(read_latest_version(table), list_newest_entry(table))
    checkpoint = find_checkpoint(table)
    # Other engines delete commits before a checkpoint.
    first = 0 if checkpoint is None else _begins_at(checkpoint) + 1
    for version in range(max(0, newest - RECENT), newest + 1):
        reason = find_fault(table, version)
        if version >= first and not locate_log_file(table, version).exists():
            reason = "is missing"
        if reason:
            return _build_error(table, version, reason)
    if checkpoint is not None and not _is_parquet(checkpoint):
        return DamagedError(
            f"table {table.name}: its checkpoint {checkpoint} is damaged",
            f"Delete it and {checkpoint.parent / '_last_checkpoint'}: the commits beside it hold "
            "everything that it held.",
        )
    return None


def set_torn_commits_aside(table: Path, consequence: str, *, only_last: bool = False) -> bool:
    """Move the end of a log away, from its first torn commit on; return whether there was one.

    Only for tables whose loss costs repeated work and nothing else. A commit is torn if it is empty
    or cut short, or if a data file that it adds is.

    Parameters
    ----------
    consequence
        What becomes of what the commits recorded, for the warning.
    only_last
        Move nothing if the first torn commit has later ones.
    """
    with lock_file(table, folder=True):
        newest = max(read_latest_version(table), list_newest_entry(table))
        recent = range(max(1, newest - RECENT), newest + 1)
        faults = (v for v in recent if _is_torn(table, v, is_last=v == newest))
        torn = next(faults, None)
        if torn is None or (only_last and torn != newest):
            return False
        move_away(table, range(torn, newest + 1))
    _log.warning(
        f"moved torn commits away: {consequence}",
        table=table.name,
        first=torn,
        last=newest,
        folder=str(table / SET_ASIDE),
    )
    return True


def move_away(table: Path, versions: range) -> None:
    """Move commits and checkpoints to a folder that Delta does not read, the last one first."""
    log, away = table / "_delta_log", table / SET_ASIDE
    away.mkdir(exist_ok=True)
    (log / "_last_checkpoint").unlink(missing_ok=True)
    for version in reversed(versions):
        for file in sorted(log.glob(f"{version:020}.*")):
            file.rename(away / file.name)
    sync_folder(log)
    forget_later(table, versions.start - 1)


def _is_torn(table: Path, version: int, *, is_last: bool) -> bool:
    if find_fault(table, version):
        return True
    with suppress(FileNotFoundError):
        added = list_added(read_actions(table, version))
        if any(_is_short(table / path, size, is_last=is_last) for path, size in added.items()):
            return True
        is_sealed = version <= find_last(list_records(table))
        return not is_sealed and not all(is_readable(table / p, size) for p, size in added.items())
    return False


def _is_short(path: Path, size: int, *, is_last: bool) -> bool:
    """Whether a file has another size; one of an older commit may be missing after a vacuum."""
    try:
        return path.stat().st_size != size
    except FileNotFoundError:
        return is_last


def find_fault(table: Path, version: int) -> str | None:
    """Say what is wrong with a commit; None: nothing, or it was deleted after a checkpoint."""
    with suppress(FileNotFoundError):
        lines = locate_log_file(table, version).read_bytes().splitlines()
        if not any(lines):
            return "is empty"
        try:
            for line in filter(None, lines):
                orjson.loads(line)
        except ValueError:
            return "is cut short or damaged"
        return _CHANGED if _differs_from_record(table, version) else None
    return None


def _differs_from_record(table: Path, version: int) -> bool:
    recorded = read_log_hash(table, version)
    return recorded not in (None, hash_if_present(locate_log_file(table, version)))


def find_checkpoint(table: Path) -> Path | None:
    """Return the path of the last checkpoint, from the file that names it."""
    version = find_checkpoint_version(table)
    return None if version is None else table / name_checkpoint(version)


def _is_parquet(path: Path) -> bool:
    with suppress(FileNotFoundError):
        content = path.read_bytes()
        return content.startswith(_PARQUET) and content.endswith(_PARQUET)
    return False


def is_readable(path: Path, size: int) -> bool:
    """Whether a data file has its size and can be read to its end: a power cut can leave zeros."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.stat().st_size != size:
            return False
        with pq.ParquetFile(path) as file:
            for _ in file.iter_batches():
                pass
    except (pa.ArrowException, OSError):
        return False
    return True


def _build_error(table: Path, version: int, reason: str) -> DamagedError:
    file = locate_log_file(table, version)
    away = ", ".join([f"their records in {FOLDER}", *_list_checkpoints(table, version)])
    message = f"table {table.name}: commit {version} {reason}: {file}"
    if 0 <= find_last(list_records(table)) < version:
        return DamagedError(
            message,
            "A crash left it unfinished: run the command that wrote to the table again, such as "
            "`lake ingest`. It moves the commit away and writes its rows again.",
        )
    return DamagedError(
        message,
        "A power cut, a full disk or a failing one can leave that. Restore the file from a "
        f"backup; or move it and all later commits away, with {away}, look "
        "which rows are missing with `lake status`, and ingest them again with --refetch.",
    )


def _list_checkpoints(table: Path, version: int) -> list[str]:
    """List the checkpoints from a version on, and the file that names the last one.

    Without the commits of these versions, delta-rs would still load them from a checkpoint.
    """
    files = (table / LOG_PREFIX).glob("*.checkpoint*.parquet")
    later = sorted(f"{LOG_PREFIX}{file.name}" for file in files if _begins_at(file) >= version)
    return [*later, f"{LOG_PREFIX}_last_checkpoint"] if later else []


def _begins_at(checkpoint: Path) -> int:
    number = checkpoint.name.partition(".")[0]
    return int(number) if number.isdecimal() else -1
