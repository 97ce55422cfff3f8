"""The lake's own record: covered intervals, jobs, and what each commit did."""

from __future__ import annotations

import json
import secrets
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Literal

import polars as pl

from lake.model.intervals import RangeSet
from lake.model.market import Market
from lake.model.selection import Selection
from lake.model.time import MICROSECOND
from lake.store.coverage import (
    Coverage,
    CoveredRange,
    Part,
    add_answers,
    describe_interval,
    find_changed,
    part_of,
)
from lake.store.faults import translate_errors
from lake.store.log import (
    CLOCKS_APART,
    CommitTimes,
    parse_metadata,
    parse_time,
    read_commit_info,
    read_latest_version,
)
from lake.store.reader import EVERYTHING
from lake.store.running import Hold, RunningJobs, StartedJob
from lake.store.snapshot import Snapshot
from lake.store.store import Origin, Store
from lake.store.update import Update
from lake.version import VERSION

RUNNING: Mapping[str, Any] = {"status": "running"}
INTERRUPTED: Mapping[str, Any] = {
    "status": "interrupted",
    "error": "killed, or stopped before it could record its end",
}
"""Outcome of a job without one; when it ended is not known."""
_ANY = "*"
_SLACK = timedelta(hours=1)
# As delta-rs names them, and Spark, which writes numbers as texts.
_INSERTED = ("num_target_rows_inserted", "num_added_rows", "numTargetRowsInserted", "numOutputRows")
_UPDATED = ("num_target_rows_updated", "numTargetRowsUpdated")
_DELETED = {
    "MERGE": ("num_target_rows_deleted", "numTargetRowsDeleted"),
    "DELETE": ("num_deleted_rows", "numDeletedRows"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """A running job; `Ledger.finish_job` records its end.

    `hold`: its file, which this process has locked; None where another process ran it.
    """

    id: str
    command: str
    arguments: Mapping[str, Any]
    started_at: datetime
    hold: Hold | None = field(default=None, compare=False, repr=False)


class Ledger:
    """Record and read coverage and jobs; read commits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs = store.catalog.dataset("jobs")
        self._coverage = store.catalog.dataset("coverage")
        self._running = RunningJobs(store.root.path)

    def read_covered(self, table: str, market: Market) -> RangeSet:
        """Return the covered ranges of a table and market, by any source."""
        selection = Selection((market.exchange,), (market.symbol,))
        coverage = Coverage.of(self.read_coverage(selection))
        return coverage.covered(part_of(table, market))

    def read_coverage(
        self, selection: Selection = EVERYTHING, as_of: datetime | None = None
    ) -> pl.DataFrame:
        """Read rows of `coverage` that overlap a selection, now or as of a time."""
        begun = replace(selection, start=None)  # an interval begins long before it ends
        rows = self._store.read(self._coverage, begun, as_of)
        return rows if selection.start is None else rows.filter(pl.col("end") > selection.start)

    def record_coverage(
        self, answers: Mapping[Part, Iterable[CoveredRange]], origin: Origin
    ) -> None:
        """Record answered intervals of any tables and markets, in one commit or none.

        They are joined with the stored intervals of their source, as `add_answers` does. These are
        read while nobody else commits, so that no writer undoes what another has recorded.
        """
        given = {part: ranges for part, items in answers.items() if (ranges := list(items))}
        if not given:
            return
        now = self._store.now()
        facts = {"source": origin.source, "job_id": origin.job_id, "recorded_at": now}
        exchanges, symbols = (tuple(sorted({part[n] for part in given})) for n in (1, 2))

        def join(snapshot: Snapshot) -> Update:
            stored = Coverage.of(snapshot.collect(Selection(exchanges, symbols)))
            rows: tuple[list[dict[str, Any]], list[dict[str, Any]]] = [], []
            for part, ranges in given.items():
                before = stored.of_source(part, origin.source)
                after = add_answers(before, ranges, stored.covered(part))
                for listed, items in zip(rows, find_changed(before, after), strict=True):
                    listed += [{**describe_interval(part, item), **facts} for item in items]
            schema = {k: v for k, v in self._coverage.polars_schema.items() if k != "date"}
            return Update(*(pl.DataFrame(listed, schema=schema) for listed in rows))

        self._store.update(self._coverage, join, origin)

    def start_job(self, command: str, arguments: Mapping[str, Any]) -> Job:
        """Begin a job that this process runs; record those that were interrupted before.

        Raises
        ------
        ConfigError
            The lake needs a later version to write to it.
        """
        self._store.root.require_writer()
        self.record_interrupted()
        now = self._store.now()
        job_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        hold = self._running.add(job_id, command, arguments, now)
        return Job(job_id, command, arguments, now, hold)

    def finish_job(
        self,
        job: Job,
        status: Literal["ok", "failed", "interrupted"],
        counts: Mapping[str, int],
        error: str | None = None,
    ) -> None:
        """Record how a job ended; `counts`: rows, inserted, updated, rejected.

        If that fails, the job counts as interrupted.
        """
        started = StartedJob(
            job.id,
            job.command,
            json.dumps(job.arguments, sort_keys=True),
            job.started_at,
            VERSION,
            is_running=False,
        )
        outcome = {**counts, "status": status, "error": error, "finished_at": self._store.now()}
        try:
            self._write_jobs([_describe_job(started, outcome)], Origin(job.id, "lake"))
            if job.hold is not None:
                job.hold.remove()
        finally:
            if job.hold is not None:
                job.hold.release()

    def record_interrupted(self) -> None:
        """Record the jobs that ended without a record: by a kill, or on a full disk."""
        with self._running.claim_interrupted() as jobs:
            recorded = self._read_recorded(jobs)
            rows = [_describe_job(job, INTERRUPTED) for job in jobs if job.id not in recorded]
            if rows:
                self._write_jobs(rows, Origin(str(rows[-1]["job_id"]), "lake"))

    def read_jobs(self, selection: Selection = EVERYTHING) -> pl.DataFrame:
        """Read the jobs that started in a range, oldest first: recorded, running or interrupted."""
        recorded = self._store.read(self._jobs, selection)
        return pl.concat([recorded, self.read_unrecorded_jobs(selection)]).sort(*self._jobs.key)

    def read_unrecorded_jobs(self, selection: Selection = EVERYTHING) -> pl.DataFrame:
        """Read jobs that are not in the table, with its columns: `running` or `interrupted`."""
        listed = [job for job in self._running.read() if _is_within(job, selection)]
        recorded = self._read_recorded(listed)
        rows = [
            _describe_job(job, RUNNING if job.is_running else INTERRUPTED)
            for job in listed
            if job.id not in recorded
        ]
        frame = pl.DataFrame(rows, schema=self._jobs.polars_schema)
        return frame.with_columns(date=pl.col("timestamp").dt.date())

    def read_commits(self, table: str, limit: int | None = None) -> list[dict[str, Any]]:
        """Return what each commit of a table did, newest first."""
        return list(islice(self.iterate_commits(table), limit or None))

    def iterate_commits(
        self, table: str, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[dict[str, Any]]:
        """Iterate over what each commit of a table did, newest first; each is read when needed.

        Commits outside `[since, until)` are skipped, except those up to an hour outside: the clocks
        of writers differ.
        """
        path = self._store.root.tables / table
        with translate_errors(f"table {table}"):
            versions = range(read_latest_version(path) + 1)
            times = CommitTimes(path)
            first = bisect_left(versions, since - _SLACK, key=times.at) if since else 0
            last = bisect_left(versions, until + _SLACK, key=times.at) if until else len(versions)
        for version in reversed(versions[first:last]):
            with translate_errors(f"table {table}"):
                info, time = read_commit_info(path, version), times.at(version)
            yield _describe_commit(table, version, info, time)

    def _read_recorded(self, jobs: Sequence[StartedJob]) -> set[str]:
        """Return which of some jobs the table has."""
        if not jobs:
            return set()
        times = [job.started_at for job in jobs]
        spanned = Selection(start=min(times), end=max(times) + MICROSECOND)
        return set(self._store.read(self._jobs, spanned)["job_id"])

    def _write_jobs(self, rows: Sequence[Mapping[str, Any]], origin: Origin) -> None:
        schema = self._jobs.polars_schema
        types = {name: dtype for name, dtype in schema.items() if name in rows[0]}
        self._store.write(self._jobs, pl.DataFrame(rows, schema=types), origin)


def _is_within(job: StartedJob, selection: Selection) -> bool:
    """Whether a job started in the range of a selection."""
    return (selection.start is None or job.started_at >= selection.start) and (
        selection.end is None or job.started_at < selection.end
    )


def _describe_job(job: StartedJob, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a job as a row of `jobs`."""
    return {
        "exchange": _ANY,
        "symbol": _ANY,
        "timestamp": job.started_at,
        "job_id": job.id,
        "command": job.command,
        "arguments": job.arguments,
        "version": job.version,
        **outcome,
    }


def _describe_commit(
    table: str, version: int, info: Mapping[str, Any], time: datetime
) -> dict[str, Any]:
    """Describe a commit: when, by which job, and its counts of rows.

    `clock` is null unless it was behind `time` by more than a minute. Counts that the commit does
    not state are null. A commit that overwrites states no deleted rows, unless `userMetadata` has
    `deleted`.
    """
    metrics, operation = info.get("operationMetrics") or {}, info.get("operation") or ""
    own, clock = parse_metadata(info), parse_time(info).clock
    return {
        "time": time,
        "clock": clock if time - clock > CLOCKS_APART else None,
        "table": table,
        "version": version,
        "operation": info.get("operation"),
        "job": own.get("job"),
        "source": own.get("source"),
        "rows": own.get("rows"),
        "inserted": _read_count(metrics, *_INSERTED),
        "updated": _read_count(metrics, *_UPDATED),
        "deleted": own.get("deleted", _read_count(metrics, *_DELETED.get(operation, ()))),
        "rejected": own.get("rejected"),
        "digest": own.get("digest"),
    }


def _read_count(metrics: Mapping[str, Any], *names: str) -> int | None:
    count = next((metrics[name] for name in names if name in metrics), None)
    return None if count is None else int(count)
