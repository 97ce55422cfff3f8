"""What happened to a lake: commits of its tables, and the jobs that made them."""

from __future__ import annotations

import difflib
import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import itemgetter
from typing import Any
from urllib.parse import unquote

import polars as pl

from lake.errors import UnknownNameError
from lake.model.dataset import TIMESTAMP
from lake.model.selection import Selection
from lake.store.ledger import Ledger
from lake.store.log import actions
from lake.store.reader import EVERYTHING
from lake.store.store import Store

_COMMIT = {
    "time": TIMESTAMP,
    "table": pl.String(),
    "version": pl.Int64(),
    "operation": pl.String(),
    "job": pl.String(),
    "source": pl.String(),
    "rows": pl.Int64(),
    "inserted": pl.Int64(),
    "updated": pl.Int64(),
    "deleted": pl.Int64(),
    "rejected": pl.Int64(),
    "digest": pl.String(),
}


def versions(store: Store, table: str) -> pl.DataFrame:
    """The commits of a table, newest first."""
    store.catalog.dataset(table)
    if not store.exists(table):
        raise UnknownNameError(f"table {table} does not exist yet", "`lake tables` lists tables.")
    return pl.DataFrame(Ledger(store).commits(table), schema=_COMMIT)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which commits an audit shows; what is not given lets all through.

    Attributes
    ----------
    tables
        Of these.
    selection
        With files of these markets added or removed, committed in `[start, end)`.
    job
        By the jobs whose id begins so.
    source
        Of rows that this source gave.
    operation
        As `merge`; case does not matter.
    """

    tables: tuple[str, ...] = ()
    selection: Selection = EVERYTHING
    job: str | None = None
    source: str | None = None
    operation: str | None = None


def audit(store: Store, wanted: AuditFilter, limit: int | None) -> pl.DataFrame:
    """The commits of some tables or of all, newest first, each with why: see `Lake.audit`.

    They are read from the newest on, until there are enough of them.
    """
    names = tuple(dict.fromkeys(wanted.tables)) or store.tables()
    for name in wanted.tables:
        _require_table(store, name)
    since, until = _span(store, wanted)
    ledger = Ledger(store)
    logs = [ledger.newest_commits(name, since, until) for name in names]
    newest = heapq.merge(*logs, key=itemgetter("time", "table", "version"), reverse=True)
    found = list(islice((one for one in newest if _is_wanted(store, one, wanted)), limit or None))
    commits = pl.DataFrame(found, schema=_COMMIT).sort("time", "table", "version", descending=True)
    return _with_reasons(store, commits)


def require_job(jobs: pl.DataFrame, job: str) -> pl.DataFrame:
    """The rows of `jobs` whose id begins so.

    Raises
    ------
    UnknownNameError
        There is none: names the closest.
    """
    found = jobs.filter(pl.col("job_id").str.starts_with(job))
    if found.is_empty():
        ids = jobs["job_id"].to_list()
        close = difflib.get_close_matches(job, ids, n=3, cutoff=0.5) or ids[:-4:-1]
        hint = f"Perhaps {', '.join(close)}. " if close else ""
        raise UnknownNameError(f"there is no job {job!r}", f"{hint}`lake audit --jobs` lists jobs.")
    return found


def _require_table(store: Store, name: str) -> None:
    store.catalog.dataset(name)
    if not store.exists(name):
        there = store.tables()
        close = difflib.get_close_matches(name, there, n=3, cutoff=0.5)
        hint = f"There are {', '.join(close or there)}." if there else "Ingest something first."
        raise UnknownNameError(f"table {name} does not exist yet", hint)


def _span(store: Store, wanted: AuditFilter) -> tuple[datetime | None, datetime | None]:
    """When the commits can have been made."""
    since, until = wanted.selection.start, wanted.selection.end
    if wanted.job is None:
        return since, until
    jobs = _jobs(store, [wanted.job])
    jobs = require_job(_jobs(store, []) if jobs.is_empty() else jobs, wanted.job)
    started = jobs["timestamp"].to_list()
    # A job that was killed has no end.
    ended = [] if jobs["finished_at"].has_nulls() else jobs["finished_at"].to_list()
    return (
        max([min(started), *([since] if since else [])]),
        min([*([until] if until else []), *([max(ended)] if ended else [])], default=None),
    )


def _is_wanted(store: Store, commit: Mapping[str, Any], wanted: AuditFilter) -> bool:
    chosen = wanted.selection
    job = commit["job"] or ""
    return (
        (chosen.start is None or commit["time"] >= chosen.start)
        and (chosen.end is None or commit["time"] < chosen.end)
        and job.startswith(wanted.job or "")
        and wanted.source in (None, commit["source"])
        and (wanted.operation or "").upper() in ("", (commit["operation"] or "").upper())
        and _touches(store, commit, chosen)
    )


def _touches(store: Store, commit: Mapping[str, Any], chosen: Selection) -> bool:
    """Whether a commit added or removed a file of the markets."""
    if not chosen.exchanges and not chosen.symbols:
        return True
    told = actions(store.root.tables / commit["table"], commit["version"])
    files = (one.get("add") or one.get("remove") or {} for one in told)
    # What was removed may be told by its path alone.
    places = [file.get("partitionValues") or _place(file["path"]) for file in files if file]
    return any(
        (not chosen.exchanges or place.get("exchange") in chosen.exchanges)
        and (not chosen.symbols or place.get("symbol") in chosen.symbols)
        for place in places
    )


def _place(path: str) -> dict[str, str]:
    """The partition of a file by its path, which the log encodes once more than the disk does."""
    parts = (part.partition("=") for part in unquote(path).split("/")[:-1])
    return {name: unquote(value) for name, _, value in parts}


def _with_reasons(store: Store, commits: pl.DataFrame) -> pl.DataFrame:
    """Commits with `why`: what their job was asked for."""
    names = commits["job"].drop_nulls().unique().to_list()
    jobs = _jobs(store, names) if names else _jobs(store, []).clear()
    reasons = [_reason(*row) for row in jobs.select("command", "arguments").iter_rows()]
    why = pl.Series("why", reasons, dtype=pl.String)
    named = jobs.select(pl.col("job_id").alias("job"), why)
    return commits.join(named, on="job", how="left", maintain_order="left")


def _reason(command: str, arguments: str) -> str:
    said = {key: value for key, value in json.loads(arguments).items() if value}
    parts = [f"{key} {', '.join(map(_brief, _list(value)))}" for key, value in said.items()]
    return f"{command}: {'; '.join(parts)}" if parts else command


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _brief(value: object) -> str:
    """A value, of a group of them each by its name, and of lists in it the lengths only."""
    if not isinstance(value, Mapping):
        return str(value)
    return " ".join(
        f"{len(one):,} {key}" if isinstance(one, list) else f"{key} {one}"
        for key, one in value.items()
    )


def _jobs(store: Store, names: Sequence[str]) -> pl.DataFrame:
    """Rows of `jobs` from when these ids were given; all where an id does not say when."""
    started = [_started(name) for name in names]
    known = [time for time in started if time is not None]
    selection = EVERYTHING
    if known and len(known) == len(started):
        selection = Selection(start=min(known), end=max(known) + timedelta(seconds=1))
    return store.read(store.catalog.dataset("jobs"), selection)


def _started(job: str) -> datetime | None:
    """When a job started, by its id."""
    try:
        return datetime.strptime(job.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
