"""After a crash: undo the newest commits of a table if they were never sealed and cannot be read.

A power cut can leave zeros, or half a file, of what was not synced. Whoever commits relies on the
rows, and records their coverage, only when the commit is sealed (`lake.store.seal`). So a commit
that was never sealed can be undone: nothing counts on its rows, and they are fetched again.

A sealed commit is never undone, nor one of another program: what is wrong with it is damage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from deltalake import CommitProperties

from lake.errors import DamagedError
from lake.log import get_logger
from lake.store.checksums import (
    Checksums,
    find_last,
    list_records,
    name_checkpoint,
)
from lake.store.clock import CommitClock
from lake.store.local_table import LocalTable
from lake.store.locks import lock_file
from lake.store.log import (
    PROBED,
    has_entry,
    is_of_lake,
    list_added,
    list_newest_entry,
    list_removed,
    read_actions,
)
from lake.store.seal import seal_entries
from lake.store.soundness import (
    RECENT,
    SET_ASIDE,
    find_checkpoint,
    find_fault,
    is_readable,
    move_away,
)
from lake.version import VERSION

_log = get_logger(__name__)
_Actions = Sequence[Mapping[str, Any]]
_SHOWN = 3
_NEXT = "the command that wrote them was not done: run it again"


def heal_end(table: Path, clock: CommitClock, *, lists_log: bool = False) -> bool:
    """Undo the newest commits if they were never sealed and cannot be read; return whether so.

    A commit that cannot be parsed, or is missing, is moved away with all later ones. If a data file
    cannot be read, the version before is restored in one commit. Nothing is done to a commit that
    can be read: its writer may be about to seal it, or was killed, and the next writer seals it.

    Parameters
    ----------
    lists_log
        Whether to list the log, as for a table that cannot be opened. Otherwise commits are only
        looked for next to the last sealed one: every writer asks that.
    """
    unsealed = _list_unsealed(table, lists_log=lists_log)
    if _find_torn(table, unsealed) is None and _find_hollow(table, unsealed) is None:
        return False
    # Writers hold this lock until their commit is sealed: here, whoever left commits is dead.
    with lock_file(table, folder=True):
        drop_torn_checkpoint(table)
        unsealed = _list_unsealed(table, lists_log=lists_log)
        torn = _find_torn(table, unsealed)
        is_healed = torn is not None and _move_torn_away(table, torn, unsealed)
        if torn is not None:
            unsealed = range(unsealed.start, torn) if is_healed else range(0)
        hollow = _find_hollow(table, unsealed)
        return (hollow is not None and _restore_before(table, hollow, unsealed, clock)) or is_healed


def drop_torn_checkpoint(table: Path) -> bool:
    """Delete the last checkpoint if it was never sealed and cannot be read; return whether so.

    The commits hold everything that it held; if one is missing, it stays.
    """
    checkpoint = find_checkpoint(table)
    if checkpoint is None or not checkpoint.exists():
        return False
    version = int(checkpoint.name.partition(".")[0])
    is_sealed = Checksums(table).find([name_checkpoint(version)])
    if is_sealed or is_readable(checkpoint, checkpoint.stat().st_size):
        return False
    if not all(has_entry(table, number) for number in range(version + 1)):
        return False
    checkpoint.unlink()
    (checkpoint.parent / "_last_checkpoint").unlink(missing_ok=True)
    _log.warning("deleted a checkpoint that a crash left torn", table=table.name, version=version)
    return True


def _list_unsealed(table: Path, *, lists_log: bool) -> range:
    """List the versions after the last sealed one; none in a table that was never sealed.

    Only a creation is never sealed: it is listed if nothing was written after it. Nothing is listed
    if the first of them was deleted after a checkpoint, as other programs do.
    """
    last = find_last(list_records(table))
    near = range(last + 1, last + 1 + PROBED)
    if not lists_log and not any(has_entry(table, v) for v in near):
        return range(0)
    newest = list_newest_entry(table)
    if newest <= last or (last < 0 < newest) or _was_deleted(table, last + 1):
        return range(0)
    return range(last + 1, newest + 1)


def _was_deleted(table: Path, version: int) -> bool:
    """Whether the log entry of a version is not there, and a checkpoint holds what it held."""
    if has_entry(table, version):
        return False
    checkpoint = find_checkpoint(table)
    if checkpoint is None or int(checkpoint.name.partition(".")[0]) < version:
        return False
    return checkpoint.exists() and is_readable(checkpoint, checkpoint.stat().st_size)


def _find_torn(table: Path, unsealed: range) -> int | None:
    """Find the first unsealed commit that cannot be parsed, or is missing before a later one."""
    for version in unsealed:
        if find_fault(table, version) or not has_entry(table, version):
            return version
    return None


def _find_hollow(table: Path, unsealed: range) -> int | None:
    """Find the first unsealed commit of lake of which a live data file cannot be read."""
    commits = {version: read_actions(table, version) for version in unsealed}
    removed = {path for actions in commits.values() for path in list_removed(actions)}
    for version, actions in commits.items():
        added = list_added(actions) if is_of_lake(actions) else {}
        live = {path: size for path, size in added.items() if path not in removed}
        if not all(is_readable(table / path, size) for path, size in live.items()):
            return version
    return None


def _move_torn_away(table: Path, torn: int, unsealed: range) -> bool:
    """Move a torn commit and all later ones away; return whether they can only be of lake."""
    lost = range(torn, unsealed.stop)
    known = range(max(1, unsealed.stop - RECENT), unsealed.stop)
    if torn == 0 and any(table.rglob("*.parquet")):
        return False
    # Who wrote a torn commit cannot be read: where another program writes, it may be that one.
    if not all(is_of_lake(actions) for actions in _read_readable(table, known)):
        return False
    parts = _describe_parts(_read_readable(table, lost))
    move_away(table, lost)
    _warn("moved commits away that a crash left torn", table, lost, parts, str(table / SET_ASIDE))
    return True


def _restore_before(table: Path, hollow: int, unsealed: range, clock: CommitClock) -> bool:
    """Restore the version before a commit whose files cannot be read; return whether it was."""
    lost = range(hollow, unsealed.stop)
    commits = {version: read_actions(table, version) for version in lost}
    if hollow == 0 or not all(map(is_of_lake, commits.values())):
        return False
    handle = LocalTable(table)
    if handle.version() != lost[-1]:
        return False  # another program has just committed
    facts = {"job": "restore", "source": "lake", "lake": VERSION, "restored": hollow - 1}
    metadata = clock.stamp(facts, table, lost[-1])
    handle.restore(
        hollow - 1,
        commit_properties=CommitProperties({"userMetadata": json.dumps(metadata)}, 0),
    )
    # Of the undone commits, only the entries are part of the table: their files are not attested.
    seal_entries(table, lost)
    handle.seal(metadata)
    parts = _describe_parts(commits.values())
    _warn("undid commits whose files a crash left damaged", table, lost, parts, None)
    return True


def _read_readable(table: Path, versions: Iterable[int]) -> list[_Actions]:
    commits: list[_Actions] = []
    for version in versions:
        with suppress(DamagedError):
            commits.append(read_actions(table, version))
    return [actions for actions in commits if actions]


def _describe_parts(commits: Iterable[_Actions]) -> list[str]:
    """List the markets and days, months or years to which commits wrote."""
    files = [action["add"]["partitionValues"] for c in commits for action in c if "add" in action]
    dates: dict[str, list[str]] = {}
    for file in files:
        exchange, symbol, period = file.values()
        dates.setdefault(f"{exchange} {symbol}", []).append(period)
    return sorted(
        f"{market} {min(days)}" + (f" to {max(days)}" if len(set(days)) > 1 else "")
        for market, days in dates.items()
    )


def _warn(event: str, table: Path, lost: range, parts: Sequence[str], folder: str | None) -> None:
    more = [f"and {len(parts) - _SHOWN} more markets"] if len(parts) > _SHOWN else []
    _log.warning(
        f"{event}; {_NEXT}",
        table=table.name,
        first=lost[0],
        last=lost[-1],
        lost="; ".join([*parts[:_SHOWN], *more]) or "unknown",
        **({"folder": folder} if folder else {}),
    )
