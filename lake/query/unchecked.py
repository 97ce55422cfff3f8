"""What is not checked yet: the rows of commits that are newer than the last check of a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import polars as pl

from lake.errors import UnknownNameError
from lake.log import get_logger
from lake.model.dataset import Dataset
from lake.model.intervals import RangeSet, subtract, union
from lake.model.market import MARKET_COLUMNS, Market, StoredMarket
from lake.model.partitions import parse_partition
from lake.model.time import MICROSECOND, TimeRange
from lake.store.coverage import Coverage, Part
from lake.store.damages import Damages
from lake.store.log import CommitTimes, parse_metadata, read_actions
from lake.store.marks import Marks
from lake.store.reader import TIME_STEP
from lake.store.store import Store

_log = get_logger(__name__)
MarketPair = tuple[str, str]
Place = tuple[str, MarketPair]
"""A table, and exchange and symbol of a market."""
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
    version: int
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
    found: list[Unchecked] = []
    damages = Damages() if damages is None else damages
    for name, after in _list_owed(store, upto):
        with damages.collect(name):
            commits = [
                commit
                for commit in _read_commits(store, name, after)
                if commit.job is None or commit.job not in checked_jobs
            ]
            found += _find_unchecked(store, store.catalog.dataset(name), commits)
    return found


def find_unchecked_since(
    store: Store, markets: Mapping[str, Collection[MarketPair]]
) -> dict[Place, datetime]:
    """Find the time of the first unchecked change of tables and markets.

    Parameters
    ----------
    markets
        The markets of tables: once a change of each was found, later commits are not read.
    """
    since: dict[Place, datetime] = {}
    damages = Damages()
    for name, after in _list_owed(store, read_versions(store)):
        with damages.collect(name):
            commits = _read_commits(store, name, after)
            for place, time_ in _list_changes(store, name, commits, markets.get(name)):
                since[place] = min(since.get(place, time_), time_)
    return since


def _list_changes(
    store: Store, name: str, commits: Iterable[_Commit], markets: Collection[MarketPair] | None
) -> Iterator[tuple[Place, datetime]]:
    if name in RECORDS:
        for item in _find_recorded(store, store.catalog.dataset(name), list(commits)):
            yield (item.table, (item.market.exchange, item.market.symbol)), item.since
        return
    waiting = None if markets is None else set(markets)
    for commit in commits:
        files = (*_list_files(commit, "add"), *_list_files(commit, "remove"))
        changed = {_read_market(file) for file in files}
        yield from (((name, market), commit.time) for market in changed)
        waiting = None if waiting is None else waiting - changed
        if waiting is not None and not waiting:
            return


def _list_owed(store: Store, upto: Mapping[str, int]) -> Iterator[tuple[str, range]]:
    """List tables with the versions that are not checked."""
    marks = Marks(store).read()
    for name, last in upto.items():
        # A table that was made again begins with version 0.
        mark = marks.get(name, -1)
        yield name, range(mark + 1 if mark <= last else 0, last + 1)


def _find_unchecked(
    store: Store, dataset: Dataset, commits: Sequence[_Commit]
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
            yield _Commit(version, times.at(version), own.get("job"), actions)


def _find_changed(dataset: Dataset, commits: Iterable[_Commit]) -> Iterator[Unchecked]:
    for commit in commits:
        added = _list_files(commit, "add")
        removed = _list_files(commit, "remove")
        places = {_name_place(file) for file in added} if removed else set()
        for file in (*added, *(file for file in removed if _name_place(file) not in places)):
            market = StoredMarket(*_read_market(file))
            span = _find_span(dataset, file)
            yield Unchecked(dataset.name, dataset.name, market, span, commit.time)


def _list_files(commit: _Commit, kind: str) -> list[Mapping[str, Any]]:
    """List the files of a kind; other engines mark those that only hold the same rows again."""
    files = (action[kind] for action in commit.actions if kind in action)
    return [f for f in files if f.get("dataChange", True) and f.get("partitionValues")]


def _read_market(file: Mapping[str, Any]) -> MarketPair:
    values = file["partitionValues"]
    return str(values["exchange"]), str(values["symbol"])


def _name_place(file: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Name the partition of a file."""
    return tuple(sorted(file["partitionValues"].items()))


def _find_span(dataset: Dataset, file: Mapping[str, Any]) -> TimeRange:
    """Return the range of the rows of a file, by its statistics or its partition."""
    bounds = orjson.loads(file.get("stats") or "{}")
    try:
        first, last = (
            datetime.fromisoformat(bounds[name][dataset.time_column]).astimezone(UTC)
            for name in ("minValues", "maxValues")
        )
    except (KeyError, TypeError, ValueError):
        return parse_partition(file["partitionValues"])[2]
    return TimeRange(first, last + TIME_STEP)


def _find_recorded(
    store: Store, dataset: Dataset, commits: Sequence[_Commit]
) -> Iterator[Unchecked]:
    """Find what the rows of `coverage` or `quarantine` that some commits wrote are about."""
    find = _find_answered if dataset.name == "coverage" else _find_rejected
    tables = set(store.data_tables())
    return (item for item in find(store, dataset, commits) if item.table in tables)


def _find_rejected(
    store: Store, dataset: Dataset, commits: Sequence[_Commit]
) -> Iterator[Unchecked]:
    jobs = {commit.job for commit in commits} - {None}
    if not jobs:
        return
    columns = ["dataset", *MARKET_COLUMNS, "timestamp", "refused_at"]
    rows = store.snapshot(dataset).collect(columns=[*columns, "job_id"])
    own = rows.filter(pl.col("job_id").is_in(list(jobs)))
    for table, exchange, symbol, time_, since in own.select(columns).iter_rows():
        market = StoredMarket(exchange, symbol)
        yield Unchecked(dataset.name, table, market, TimeRange(time_, time_ + MICROSECOND), since)


def _find_answered(
    store: Store, dataset: Dataset, commits: Sequence[_Commit]
) -> Iterator[Unchecked]:
    """Find what became covered, not given, or neither: what coverage says differently now."""
    for run in _group_runs(commits):
        # Where a version is gone, more is unchecked: all before it, or what came after it as well.
        before = _read_at(store, dataset, run[0].version - 1) or Coverage({})
        after = _read_at(store, dataset, run[-1].version)
        after = after or Coverage.of(store.snapshot(dataset).collect())
        for part in {*before, *after}:
            table, *market = part
            for item in _find_differing(before, after, part):
                place = StoredMarket(*market)
                yield Unchecked(dataset.name, table, place, item, run[0].time)


def _read_at(store: Store, dataset: Dataset, version: int) -> Coverage | None:
    """Read the coverage at a version; None if there was none, or a vacuum has removed it."""
    if version < 0:
        return None
    try:
        return Coverage.of(store.snapshot(dataset, version=version).collect())
    except UnknownNameError as error:
        _log.info("coverage of an unchecked version is gone", version=version, reason=error.message)
        return None


def _find_differing(before: Coverage, after: Coverage, part: Part) -> RangeSet:
    """Find the time that is covered, or not given, in one of two states of coverage only."""
    pairs = [
        (before.covered(part), after.covered(part)),
        (before.not_given(part), after.not_given(part)),
    ]
    return union(
        item
        for first, second in pairs
        for item in (*subtract(first, second), *subtract(second, first))
    )


def _group_runs(commits: Iterable[_Commit]) -> list[list[_Commit]]:
    """Group commits that follow each other: of a run only its ends need to be read."""
    runs: list[list[_Commit]] = []
    for commit in commits:
        if runs and runs[-1][-1].version == commit.version - 1:
            runs[-1].append(commit)
        else:
            runs.append([commit])
    return runs
