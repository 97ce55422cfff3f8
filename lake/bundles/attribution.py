"""Finds the jobs that wrote into a market-day between two versions of its table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from lake.bundles.contents import Contents
from lake.bundles.manifest import Ref
from lake.model.dataset import Dataset
from lake.model.market import MARKET_COLUMNS
from lake.model.partitions import MARKET_DAY, parse_partition
from lake.model.time import DAY, TimeRange
from lake.store.log import has_table, parse_metadata, read_actions, read_latest_version

_DAY = ("table", *MARKET_DAY)


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

    def list_writes(self, markets: set[tuple[str, str]]) -> pl.DataFrame:
        """List the days of markets to which commits wrote, oldest first: `date`, `job`, `source`.

        Commits that wrote to files of a month or a year may have written to fewer days.
        """
        unique = dict.fromkeys(
            write for version in self.versions for write in self._read_writes(version, markets)
        )
        names = (*MARKET_COLUMNS, "first", "last", "job", "source")
        frame = pl.DataFrame(list(unique), schema=dict.fromkeys(names, pl.String()), orient="row")
        days = pl.date_ranges(pl.col("first").str.to_date(), pl.col("last").str.to_date())
        return frame.with_columns(date=days).drop("first", "last").explode("date")

    def _read_writes(
        self, version: int, markets: set[tuple[str, str]]
    ) -> Iterator[tuple[str | None, ...]]:
        """Yield market, first and last day, job and source of each file that a commit added."""
        entries = read_actions(self.folder, version)
        info = _find_commit_info(entries)
        own = parse_metadata(info)
        # Merges write rows; other commits of the lake itself are maintenance.
        if own.get("source") == "lake" and info.get("operation") != "MERGE":
            return
        for add in (entry["add"] for entry in entries if "add" in entry):
            *market, whole = parse_partition(add["partitionValues"])
            if add["dataChange"] and tuple(market) in markets:
                days = self._find_row_days(add, whole, own)
                yield (*market, *days, own.get("job"), own.get("source"))

    def _find_row_days(
        self, add: Mapping[str, Any], whole: TimeRange, own: Mapping[str, Any]
    ) -> tuple[str, str]:
        """Return bounds of the first and last day of the rows that a commit wrote into a file.

        `own`: what lake says of the commit, with the first and last time of all its rows.
        """
        start, end = f"{whole.start:%Y-%m-%d}", f"{whole.end - DAY:%Y-%m-%d}"
        if start == end:
            return start, start
        name = self.dataset.time_column
        stats = orjson.loads(add.get("stats") or "{}")
        # A rewritten file also holds rows that the commit did not touch.
        firsts = [start, stats.get("minValues", {}).get(name), own.get("first")]
        lasts = [stats.get("maxValues", {}).get(name), end, own.get("last")]
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
    writes = log.list_writes(set(days.select(MARKET_COLUMNS).iter_rows()))
    writers = (
        days.join(writes, on=MARKET_DAY, maintain_order="left_right")
        .group_by(_DAY, maintain_order=True)
        .agg(pl.col("job", "source").drop_nulls().unique(maintain_order=True).name.suffix("s"))
    )
    days_with_writers = days.join(writers, on=_DAY, how="left", maintain_order="left")
    return days_with_writers.with_columns(pl.col("jobs", "sources").fill_null(empty_list))
