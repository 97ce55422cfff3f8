"""What is not checked yet: the rows of commits that are newer than the last check of a table."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import polars as pl

from lake.model.dataset import PARTITIONS, Dataset
from lake.model.market import Market, StoredMarket
from lake.model.time import DAY, MICROSECOND, TimeRange
from lake.store.damages import Damages
from lake.store.log import CommitTimes, parse_metadata, read_actions
from lake.store.marks import Marks
from lake.store.reader import TIME_STEP
from lake.store.store import Store

RECORDS = ("coverage", "quarantine")
"""Records whose rows say what to check: answers of sources, and rejected rows."""


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A range of a table and market that is not checked since a time.

    `origin`: the table whose commit says so.
    """

    origin: str
    table: str
    market: Market
    range: TimeRange
    since: datetime


@dataclass(frozen=True, slots=True)
class _Commit:
    time: datetime
    job: str | None
    actions: list[dict[str, Any]]


def read_versions(store: Store) -> dict[str, int]:
    """Return the latest versions of the tables whose commits are to be checked.

    Those whose log is damaged are left out, and logged: nothing of them can be checked.
    """
    names = [*store.data_tables(), *(name for name in RECORDS if store.exists(name))]
    versions, damages = {}, Damages()
    for name in names:
        with damages.collect(name):
            versions[name] = store.version(store.catalog.dataset(name))
    return versions


def find_unchecked(
    store: Store,
    versions: Mapping[str, int] | None = None,
    checked_jobs: Collection[str] = (),
    damages: Damages | None = None,
) -> list[Unchecked]:
    """Find what commits changed since the last check of their table.

    Only commits after that check are read. Compactions change no rows.

    Parameters
    ----------
    versions
        Versions up to which to look; by default the latest.
    checked_jobs
        Jobs whose commits are checked.
    damages
        Gets the tables of which a commit cannot be read: what they leave is not known.
    """
    upto = read_versions(store) if versions is None else versions
    marks = Marks(store).read()
    found: list[Unchecked] = []
    damages = Damages() if damages is None else damages
    for name, last in upto.items():
        # A table that was made again begins with version 0.
        mark = marks.get(name, -1)
        first = mark + 1 if mark <= last else 0
        with damages.collect(name):
            commits = [
                commit
                for commit in _read_commits(store, name, range(first, last + 1))
                if commit.job is None or commit.job not in checked_jobs
            ]
            found += _find_unchecked(store, store.catalog.dataset(name), commits)
    return found


def _find_unchecked(
    store: Store, dataset: Dataset, commits: Iterable[_Commit]
) -> Iterator[Unchecked]:
    if dataset.name in RECORDS:
        return _find_recorded(store, dataset, commits)
    return _find_changed(dataset, commits)


def _read_commits(store: Store, table: str, versions: Iterable[int]) -> Iterator[_Commit]:
    """Yield commits that may have changed rows."""
    path = store.root.tables / table
    times = CommitTimes(path)
    for version in versions:
        actions = read_actions(path, version)
        infos = (action["commitInfo"] for action in actions if "commitInfo" in action)
        own = parse_metadata(next(infos, {}))
        if own.get("changes", True):
            yield _Commit(times.at(version), own.get("job"), actions)


def _find_changed(dataset: Dataset, commits: Iterable[_Commit]) -> Iterator[Unchecked]:
    for commit in commits:
        added = _list_files(commit, "add")
        places = {_place(file) for file in added}
        removed = _list_files(commit, "remove")
        for file in (*added, *(file for file in removed if _place(file) not in places)):
            exchange, symbol, day = _place(file)
            market = StoredMarket(exchange, symbol)
            span = _find_span(dataset, day, file.get("stats"))
            yield Unchecked(dataset.name, dataset.name, market, span, commit.time)


def _list_files(commit: _Commit, kind: str) -> list[Mapping[str, Any]]:
    """List the files of a kind; other engines mark those that only hold the same rows again."""
    files = (action[kind] for action in commit.actions if kind in action)
    return [f for f in files if f.get("dataChange", True) and f.get("partitionValues")]


def _place(file: Mapping[str, Any]) -> tuple[str, str, str]:
    exchange, symbol, day = (str(file["partitionValues"][name]) for name in PARTITIONS)
    return exchange, symbol, day


def _find_span(dataset: Dataset, day: str, statistics: str | None) -> TimeRange:
    """Return the range of the rows of a file, by its statistics or its date."""
    bounds = json.loads(statistics or "{}")
    try:
        first, last = (
            datetime.fromisoformat(bounds[name][dataset.time_column]).astimezone(UTC)
            for name in ("minValues", "maxValues")
        )
    except (KeyError, TypeError, ValueError):
        start = datetime.combine(date.fromisoformat(day), time(), UTC)
        length = DAY if dataset.granularity == "day" else 366 * DAY
        return TimeRange(start, start + length)
    return TimeRange(first, last + TIME_STEP)


def _find_recorded(
    store: Store, dataset: Dataset, commits: Iterable[_Commit]
) -> Iterator[Unchecked]:
    """Find what the rows of `coverage` or `quarantine` that some commits wrote are about."""
    jobs = {commit.job for commit in commits} - {None}
    if not jobs:
        return
    columns = ["dataset", "exchange", "symbol", "timestamp"]
    is_coverage = dataset.name == "coverage"
    more = ["end", "recorded_at"] if is_coverage else ["refused_at"]
    snapshot = store.snapshot(dataset)
    rows = snapshot.collect(columns=[*columns, "job_id", *more]).filter(
        pl.col("job_id").is_in(list(jobs))
    )
    if not is_coverage:
        rows = rows.with_columns(end=pl.col("timestamp") + MICROSECOND, recorded_at="refused_at")
    tables = set(store.data_tables())
    for table, exchange, symbol, start, end, since in rows.select(
        *columns, "end", "recorded_at"
    ).iter_rows():
        if table in tables:
            market = StoredMarket(exchange, symbol)
            yield Unchecked(dataset.name, table, market, TimeRange(start, end), since)
