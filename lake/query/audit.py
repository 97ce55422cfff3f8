"""The audit of a lake: commits of its tables, and the jobs that wrote them."""

from __future__ import annotations

import difflib
import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
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
from lake.store.damages import Damages
from lake.store.faults import translate_errors
from lake.store.history import find_readable
from lake.store.ledger import Ledger
from lake.store.log import read_actions
from lake.store.reader import EVERYTHING
from lake.store.store import Store
from lake.store.vacuum import list_data_files

_COMMIT = {
    "time": TIMESTAMP,
    "clock": TIMESTAMP,
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


def list_versions(store: Store, table: str) -> pl.DataFrame:
    """List the commits of a table, newest first.

    `readable`: whether the version has all its data files; a vacuum removes those that only old
    versions need.
    """
    store.catalog.dataset(table)
    if not store.exists(table):
        raise UnknownNameError(f"table {table} does not exist yet", "`lake tables` lists tables.")
    folder = store.root.tables / table
    with translate_errors(f"table {table}"):
        files = {file.path for file in list_data_files(folder)}
        readable = find_readable(folder, files)
    commits = pl.DataFrame(Ledger(store).read_commits(table), schema=_COMMIT)
    known = pl.col("version").replace_strict(readable, default=None, return_dtype=pl.Boolean)
    return commits.with_columns(readable=known)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which commits an audit shows; an empty field admits all commits.

    Attributes
    ----------
    tables
        Names of tables.
    selection
        Markets whose files were added or removed, and the range `[start, end)` of commit times.
    job
        Job ID or prefix.
    source
        The source of the rows.
    operation
        The operation, such as `merge`; case does not matter.
    """

    tables: tuple[str, ...] = ()
    selection: Selection = EVERYTHING
    job: str | None = None
    source: str | None = None
    operation: str | None = None


def list_commits(store: Store, commit_filter: AuditFilter, limit: int | None) -> pl.DataFrame:
    """List commits of some or all tables, newest first, with the reason: see `Lake.audit`.

    Commits are read from the newest on, until `limit` is reached; of a log with a damaged commit,
    only the later ones, and the damage is logged.

    Raises
    ------
    DamagedError
        A table was named, and its log is damaged.
    """
    names = tuple(dict.fromkeys(commit_filter.tables)) or store.tables()
    for name in commit_filter.tables:
        _require_table(store, name)
    since, until = _find_range(store, commit_filter)
    damages = Damages()

    def iterate(name: str) -> Iterator[dict[str, Any]]:
        with damages.collect(name):
            for commit in Ledger(store).iterate_commits(name, since, until):
                if _matches(store, commit, commit_filter):
                    yield commit

    logs = [iterate(name) for name in names]
    newest = heapq.merge(*logs, key=itemgetter("time", "table", "version"), reverse=True)
    commits = pl.DataFrame(list(islice(newest, limit or None)), schema=_COMMIT).sort(
        "time", "table", "version", descending=True
    )
    with_reasons = _add_reasons(store, commits)
    if commit_filter.tables:
        damages.raise_if_any(with_reasons)
    return with_reasons


def list_jobs(store: Store, selection: Selection, job: str | None = None) -> pl.DataFrame:
    """Return jobs, oldest first, by start time and by job ID or prefix; also running ones.

    Raises
    ------
    UnknownNameError
        No job matches; the hint lists the closest ids.
    """
    ledger = Ledger(store)
    if job is None:
        return ledger.read_jobs(Selection(start=selection.start, end=selection.end))
    jobs = require_job(ledger.read_jobs(), job)
    if selection.start is not None:
        jobs = jobs.filter(pl.col("timestamp") >= selection.start)
    if selection.end is not None:
        jobs = jobs.filter(pl.col("timestamp") < selection.end)
    return jobs


def require_job(jobs: pl.DataFrame, job: str) -> pl.DataFrame:
    """Return the rows of `jobs` whose id starts with `job`.

    Raises
    ------
    UnknownNameError
        No job matches; the hint lists the closest ids.
    """
    matching_jobs = jobs.filter(pl.col("job_id").str.starts_with(job))
    if matching_jobs.is_empty():
        ids = jobs["job_id"].to_list()
        close = difflib.get_close_matches(job, ids, n=3, cutoff=0.5) or ids[:-4:-1]
        hint = f"Did you mean {', '.join(close)}? " if close else ""
        raise UnknownNameError(
            f"no job starts with {job!r}", f"{hint}`lake audit --jobs` lists jobs."
        )
    return matching_jobs


def _require_table(store: Store, name: str) -> None:
    store.catalog.dataset(name)
    if not store.exists(name):
        tables = store.tables()
        close = difflib.get_close_matches(name, tables, n=3, cutoff=0.5)
        hint = f"Use {', '.join(close or tables)}." if tables else "Run `lake ingest` first."
        raise UnknownNameError(f"table {name} does not exist yet", hint)


def _find_range(
    store: Store, commit_filter: AuditFilter
) -> tuple[datetime | None, datetime | None]:
    """Return the range of commit times that can match."""
    since, until = commit_filter.selection.start, commit_filter.selection.end
    if commit_filter.job is None:
        return since, until
    jobs = _read_jobs(store, [commit_filter.job])
    jobs = require_job(_read_jobs(store, []) if jobs.is_empty() else jobs, commit_filter.job)
    started_at = jobs["timestamp"].to_list()
    # The end of a job is no bound: if its clock was behind, its commits have later times.
    return max([min(started_at), *([since] if since else [])]), until


def _matches(store: Store, commit: Mapping[str, Any], commit_filter: AuditFilter) -> bool:
    selection = commit_filter.selection
    operation = (commit_filter.operation or "").upper()
    return (
        _is_in_range(commit["time"], selection)
        and (commit["job"] or "").startswith(commit_filter.job or "")
        and commit_filter.source in (None, commit["source"])
        and operation in ("", (commit["operation"] or "").upper())
        and _touches_markets(store, commit, selection)
    )


def _is_in_range(time: datetime, selection: Selection) -> bool:
    return (selection.start is None or time >= selection.start) and (
        selection.end is None or time < selection.end
    )


def _touches_markets(store: Store, commit: Mapping[str, Any], selection: Selection) -> bool:
    """Return whether a commit added or removed a file of the markets."""
    if not selection.exchanges and not selection.symbols:
        return True
    for entry in read_actions(store.root.tables / commit["table"], commit["version"]):
        file = entry.get("add") or entry.get("remove")
        if file and _is_in_markets(file, selection):
            return True
    return False


def _is_in_markets(file: Mapping[str, Any], selection: Selection) -> bool:
    # The log may name a removed file by its path alone.
    partition = file.get("partitionValues") or _parse_partition(file["path"])
    return (not selection.exchanges or partition.get("exchange") in selection.exchanges) and (
        not selection.symbols or partition.get("symbol") in selection.symbols
    )


def _parse_partition(path: str) -> dict[str, str]:
    """Parse the partition from a file's path, which the log encodes once more than the disk."""
    parts = (part.partition("=") for part in unquote(path).split("/")[:-1])
    return {name: unquote(value) for name, _, value in parts}


def _add_reasons(store: Store, commits: pl.DataFrame) -> pl.DataFrame:
    """Add the column `why`: the command and arguments of the job."""
    names = commits["job"].drop_nulls().unique().to_list()
    jobs = _read_jobs(store, names) if names else _read_jobs(store, []).clear()
    reasons = [_format_reason(*row) for row in jobs.select("command", "arguments").iter_rows()]
    why = pl.Series("why", reasons, dtype=pl.String)
    reasons_by_job = jobs.select(pl.col("job_id").alias("job"), why)
    return commits.join(reasons_by_job, on="job", how="left", maintain_order="left")


def _format_reason(command: str, arguments: str) -> str:
    given_arguments = {key: value for key, value in json.loads(arguments).items() if value}
    parts = [
        f"{key} {', '.join(map(_format_value, _as_list(value)))}"
        for key, value in given_arguments.items()
    ]
    return f"{command}: {'; '.join(parts)}" if parts else command


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _format_value(value: object) -> str:
    """Format a value; a group as its names and values, with lists as their lengths."""
    if not isinstance(value, Mapping):
        return str(value)
    return " ".join(
        f"{len(item):,} {key}" if isinstance(item, list) else f"{key} {item}"
        for key, item in value.items()
    )


def _read_jobs(store: Store, names: Sequence[str]) -> pl.DataFrame:
    """Read the rows of `jobs` from the start times in the ids; all rows if an id has none."""
    started_at = [_parse_start(name) for name in names]
    times = [time for time in started_at if time is not None]
    selection = EVERYTHING
    if times and len(times) == len(started_at):
        selection = Selection(start=min(times), end=max(times) + timedelta(seconds=1))
    return Ledger(store).read_jobs(selection)


def _parse_start(job: str) -> datetime | None:
    """Parse the start time of a job from its id; None if it has none."""
    try:
        return datetime.strptime(job.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
