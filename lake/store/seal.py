"""After a commit: sync it to disk, and record the SHA-256 of what it wrote.

delta-rs syncs nothing, so a power cut soon after a commit can leave empty files. Whoever commits
calls `seal_commits` before anything relies on the rows; coverage is recorded only then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from lake.errors import DamagedError
from lake.log import get_logger
from lake.store.checksums import (
    FOLDER,
    LOG_PREFIX,
    build_mismatch_error,
    hash_if_present,
    join_records,
    list_records,
    name_checkpoint,
    name_log_entry,
    read_record,
    write_record,
)
from lake.store.log import (
    is_of_lake,
    list_added,
    locate_log_file,
    parse_metadata,
    read_actions,
)
from lake.store.root import sync_folder
from lake.store.soundness import is_readable

_log = get_logger(__name__)
# Syncing waits for the disk; several at once share its work.
_THREADS = 8
_MOST_OTHERS = 100
_T = TypeVar("_T")
_R = TypeVar("_R")


def seal_commits(
    table: Path, sealed: int | None, newest: int, metadata: Mapping[str, Any] | None
) -> None:
    """Sync and record a writer's new commit; at first, also those that a crash left unsealed.

    Parameters
    ----------
    table
        The folder of the table.
    sealed
        The version up to which this writer has sealed; None: it has just opened the table.
    newest
        The present version.
    metadata
        The `userMetadata` of the commit just made; None if there was none.

    Raises
    ------
    OSError
        The disk failed: nothing may rely on the commit.
    DamagedError
        A file of the commit is not as it was written.
    """
    versions = range(0 if sealed is None else sealed + 1, newest + 1)
    if metadata is not None:
        own = _find_own(table, versions, metadata)
        _sync_others(table, [v for v in versions if v < own])
        _seal(table, own, is_own=True)
        join_records(table, own)
    elif sealed is not None:
        _sync_others(table, versions)
    if sealed is None:
        for version in _find_unsealed(table, newest):
            _log.info("recording checksums late", table=table.name, version=version)
            _seal(table, version, is_own=False)


def seal_entries(table: Path, versions: Iterable[int]) -> None:
    """Sync and record the log entries of commits, and not the data files that they added."""
    for version in versions:
        hashes = _sync_and_hash(table, [name_log_entry(version)])
        write_record(table, version, hashes, replace=False)


def seal_creation(table: Path) -> None:
    """Sync a new table, and record its first log entry: every later commit then has a record."""
    if not list_records(table):
        _seal(table, 0, is_own=False)
        sync_folder(table.parent)


def seal_checkpoint(table: Path, version: int) -> None:
    """Sync and record a checkpoint that was made after its version was sealed."""
    record = table / FOLDER / f"{version:020}.sha256"
    entries = dict(read_record(record).iter_rows()) if record.exists() else {}
    write_record(table, version, {**entries, **_seal_checkpoint(table, version)}, replace=True)


def _seal_checkpoint(table: Path, version: int) -> dict[str, str]:
    """Sync the checkpoint of a version and return its hash; nothing if it has none."""
    name = name_checkpoint(version)
    if not (table / name).exists():
        return {}
    hashes = _sync_and_hash(table, [name])
    _sync_all([table / LOG_PREFIX / "_last_checkpoint", table / LOG_PREFIX])
    return hashes


def _find_unsealed(table: Path, newest: int) -> list[int]:
    """Find versions without a record, from the oldest record on: older ones never had any."""
    records = list_records(table)
    if not records:
        return []
    unsealed: list[int] = []
    first = records[0].first
    for record in records:
        unsealed.extend(range(first, record.first))
        first = max(first, record.last + 1)
    return [*unsealed, *range(first, newest + 1)]


def _find_own(table: Path, versions: range, metadata: Mapping[str, Any]) -> int:
    """Find the commit with this metadata: the newest, unless others committed since."""
    as_logged = json.loads(json.dumps(metadata))
    for version in reversed(versions):
        actions = read_actions(table, version)
        infos = (action["commitInfo"] for action in actions if "commitInfo" in action)
        if any(parse_metadata(info) == as_logged for info in infos):
            return version
    raise DamagedError(
        f"table {table.name}: the commit just made is not in its log (up to {versions.stop - 1})",
        "Another program may have changed the log. Run the same command again.",
    )


def _sync_others(table: Path, versions: Sequence[int]) -> None:
    """Sync the commits of others before: rows that they have stored are not written again.

    Their writers may not have sealed them yet; the caller relies on their rows now.
    """
    recent = versions[-_MOST_OTHERS:]
    if not recent:
        return
    _sync_all([*(locate_log_file(table, version) for version in recent), table / LOG_PREFIX])
    for version in recent:
        if not (table / FOLDER / f"{version:020}.sha256").exists():
            added = list_added(read_actions(table, version))
            _sync_all([*(table / path for path in added), *_list_folders(table, added)])


def _seal(table: Path, version: int, *, is_own: bool) -> None:
    """Sync a commit and record its hashes.

    Of a commit of another engine, only the log entry is recorded: lake cannot attest its files.
    """
    actions = read_actions(table, version)
    added = list_added(actions) if is_own or is_of_lake(actions) else {}
    entry = name_log_entry(version)
    hashes = _sync_and_hash(table, [*added, entry])
    if is_own:
        _require_whole(table, added, hashes)
    else:
        _drop_unreadable(table, added, hashes)
    _sync_all(_list_folders(table, hashes))
    hashes |= _seal_checkpoint(table, version)
    write_record(table, version, hashes, replace=is_own)


def _require_whole(table: Path, added: Mapping[str, int], hashes: Mapping[str, str]) -> None:
    for path, size in added.items():
        if path in hashes and (table / path).stat().st_size != size:
            raise build_mismatch_error(table, path, hashes[path], "the commit is not complete")


def _drop_unreadable(table: Path, added: Mapping[str, int], hashes: dict[str, str]) -> None:
    """Attest no file that a crash or a power cut left damaged: `lake verify table` reports it."""
    for path, size in added.items():
        if path in hashes and not is_readable(table / path, size):
            _log.error("damaged file not recorded", table=table.name, file=path)
            del hashes[path]


def _sync_and_hash(table: Path, paths: Sequence[str]) -> dict[str, str]:
    """Sync files and return their SHA-256; skip files that a vacuum has deleted since."""

    def sync_one(path: str) -> str | None:
        digest = hash_if_present(table / path)
        _sync(table / path)
        return digest

    digests = zip(paths, _map(sync_one, paths), strict=True)
    return {path: digest for path, digest in digests if digest is not None}


def _list_folders(table: Path, paths: Iterable[str]) -> list[Path]:
    """List the folders of files, up to the table's: a new file's name is in its folder."""
    folders: dict[Path, None] = {}
    for path in paths:
        for folder in (table / path).parents:
            folders[folder] = None
            if folder == table:
                break
    return list(folders)


def _sync_all(paths: Iterable[Path]) -> None:
    _map(_sync, list(paths))


def _map(action: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    if len(items) <= _THREADS:
        return [action(item) for item in items]
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(action, items))


def _sync(path: Path) -> None:
    """Sync a file or a folder to disk."""
    with suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
