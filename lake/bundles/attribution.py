"""Finds the jobs that wrote into a market-day between two versions of its table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from lake.bundles.contents import Contents
from lake.bundles.manifest import Ref
from lake.model.dataset import PARTITIONS, Dataset
from lake.store.log import has_table, parse_metadata, read_actions, read_latest_version

_DAY = ("table", *PARTITIONS)
_TIME = re.compile(r"arrow_cast\('([^']+)'")
"""A time in the predicate of a merge, such as `timestamp = arrow_cast('2024-01-01T…', …)`."""


@dataclass(frozen=True)
class CommitRange:
    """The commits of a table between the versions of two bundles."""

    folder: Path
    dataset: Dataset
    versions: range

    @classmethod
    def find_between(cls, before: Contents, after: Contents, table: str) -> CommitRange | None:
        """Return the commits between two bundles; None if there are none or the lake lacks them."""
        old, new = map_refs(before).get(table), map_refs(after).get(table)
        if old is None or new is None or old.table_id != new.table_id:
            return None
        table_folders = {contents.tables for contents in (before, after) if not contents.owns_data}
        low, high = sorted((old.version, new.version))
        if len(table_folders) != 1 or low == high:
            return None
        folder = table_folders.pop() / table
        if not _has_commits(folder, old.table_id, high):
            return None
        return cls(folder, after.dataset(table), range(low + 1, high + 1))

    def list_writes(self, partitions: set[tuple[str, str, str]]) -> pl.DataFrame:
        """List the commits that wrote into partitions, and the days of their rows, oldest first."""
        unique = dict.fromkeys(
            write for version in self.versions for write in self._read_writes(version, partitions)
        )
        names = (*PARTITIONS, "first", "last", "job", "source")
        frame = pl.DataFrame(list(unique), schema=dict.fromkeys(names, pl.String()), orient="row")
        return frame.with_columns(pl.col("date", "first", "last").str.to_date())

    def _read_writes(
        self, version: int, partitions: set[tuple[str, str, str]]
    ) -> Iterator[tuple[str | None, ...]]:
        """Yield partition, first and last day, job and source of each file that a commit added."""
        entries = read_actions(self.folder, version)
        info = _find_commit_info(entries)
        own = parse_metadata(info)
        # Merges write rows; other commits of the lake itself are maintenance.
        if own.get("source") == "lake" and info.get("operation") != "MERGE":
            return
        for add in (entry["add"] for entry in entries if "add" in entry):
            partition = tuple(add["partitionValues"][name] for name in PARTITIONS)
            if add["dataChange"] and partition in partitions:
                days = self._find_row_days(add, info)
                yield (*partition, *days, own.get("job"), own.get("source"))

    def _find_row_days(self, add: Mapping[str, Any], info: Mapping[str, Any]) -> tuple[str, str]:
        """Return bounds of the first and last day of the rows that a commit wrote into a file."""
        start = add["partitionValues"]["date"]
        if self.dataset.granularity == "day":
            return start, start
        name = self.dataset.time_column
        stats = orjson.loads(add.get("stats") or "{}")
        # A rewritten file also holds rows that the commit did not touch. The rows of the commit lie
        # within the times of its batch, which are in its predicate.
        predicate = (info.get("operationParameters") or {}).get("predicate") or ""
        times = sorted(_TIME.findall(predicate))
        firsts = [start, stats.get("minValues", {}).get(name), *times[:1]]
        lasts = [stats.get("maxValues", {}).get(name), f"{start[:4]}-12-31", *times[-1:]]
        return max(text[:10] for text in firsts if text), min(text[:10] for text in lasts if text)


def _find_commit_info(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {k: v for entry in entries for k, v in entry.get("commitInfo", {}).items()}


def _has_commits(folder: Path, table_id: str, version: int) -> bool:
    """Return whether a folder holds a table up to a version, and not a newer table."""
    if not has_table(folder) or read_latest_version(folder) < version:
        return False
    # A table that was deleted and created again starts again at version 0.
    ids = [action["metaData"]["id"] for action in read_actions(folder, 0) if "metaData" in action]
    return ids == [table_id]


def map_refs(contents: Contents) -> dict[str, Ref]:
    """Return the refs of a bundle by table."""
    return {ref.table: ref for _, ref in contents.manifest.refs()}


def attribute_jobs(log: CommitRange | None, days: pl.DataFrame) -> pl.DataFrame:
    """Add to days of a table the jobs and sources that wrote into them."""
    empty_list = pl.lit([], dtype=pl.List(pl.String()))
    if log is None:
        return days.with_columns(jobs=empty_list, sources=empty_list)
    stored = days.with_columns(stored=to_stored_date(log.dataset))
    partitions = stored.select("exchange", "symbol", pl.col("stored").cast(pl.String))
    writes = log.list_writes(set(partitions.iter_rows())).rename({"date": "stored"})
    writers = (
        stored.join(writes, on=["exchange", "symbol", "stored"], maintain_order="left_right")
        .filter(pl.col("date").is_between("first", "last"))
        .group_by(_DAY, maintain_order=True)
        .agg(pl.col("job", "source").drop_nulls().unique(maintain_order=True).name.suffix("s"))
    )
    days_with_writers = days.join(writers, on=_DAY, how="left", maintain_order="left")
    return days_with_writers.with_columns(pl.col("jobs", "sources").fill_null(empty_list))


def to_stored_date(dataset: Dataset) -> pl.Expr:
    """Return an expression for the stored `date` of a calendar day."""
    day = pl.col("date")
    return day if dataset.granularity == "day" else day.dt.truncate("1y")
