"""Compaction: rewrite the many files of a partition as one file with the same rows."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from deltalake.exceptions import CommitFailedError

from lake.errors import CommitConflictError, DamagedError
from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.digest import combine_digests, digest_market_days
from lake.model.frames import sort_by
from lake.model.partitions import MARKET_DAY, find_partitioning
from lake.model.time import DAY
from lake.retries import retry
from lake.store import delta
from lake.store.columns import build_file_schema, build_scan_options, keep_stored, list_bounded
from lake.store.delta import DataFile
from lake.store.faults import translate_errors
from lake.store.local_table import LocalTable
from lake.store.log import read_commits
from lake.store.snapshot import Snapshot
from lake.version import VERSION

if TYPE_CHECKING:
    import pyarrow as pa

FILE_ROWS = 5_000_000
MOST_SMALL = 64
"""How many small files a partition may have."""
SETTLED_AFTER = timedelta(minutes=10)
_SMALL_BYTES = 16_000_000
_PARTITION_SCHEMA = {"exchange": pl.String(), "symbol": pl.String(), "date": pl.Date()}
_BATCH_DATES = 32
_BATCH_ROWS = 2_000_000
_ATTEMPTS = 20
_LEVEL = 3


@dataclass(frozen=True, slots=True)
class CompactionRule:
    """Which files are compacted.

    Attributes
    ----------
    before
        All files of dates that ended by then, if there are more than the rows need; None: of none.
    settled
        In any partition, the small files that were written before, if there are more than
        `MOST_SMALL`: younger ones may be rewritten by their writers at the same time. None: all
        small files.
    """

    before: datetime | None
    settled: datetime | None


@dataclass(frozen=True, slots=True)
class CompactionBatch:
    """Partitions that are compacted in one commit: exchange, symbol and first day of each."""

    partitions: tuple[tuple[Any, ...], ...]

    def __str__(self) -> str:
        first, last = (" ".join(map(str, self.partitions[end])) for end in (0, -1))
        return first if first == last else f"{first} to {last}"


@dataclass(frozen=True, slots=True)
class CompactionResult:
    """Result of one commit: dates, files and bytes before and after, rows and their digest.

    `version` is the version of the table afterwards.
    """

    version: int
    dates: int
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    rows: int
    digest: str


@dataclass(slots=True)
class _Staging:
    """New files that are written but not committed, and the files that they replace."""

    paths: list[str] = field(default_factory=list)
    added: list[DataFile] = field(default_factory=list)
    removed: list[DataFile] = field(default_factory=list)
    days: list[pl.DataFrame] = field(default_factory=list)
    rows: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return combine_digests(pl.concat(self.days))

    def build_result(self, version: int) -> CompactionResult:
        return CompactionResult(
            version=version,
            dates=len(self.days),
            files_before=len(self.removed),
            files_after=len(self.added),
            bytes_before=sum(file.bytes for file in self.removed),
            bytes_after=sum(file.bytes for file in self.added),
            rows=self.rows,
            digest=self.digest,
        )


def list_files(snapshot: Snapshot) -> pl.DataFrame:
    """List the files of a table as `Snapshot.files` does, and when they were `modified`."""
    files = snapshot.files()
    if files.is_empty():
        return files.with_columns(modified=pl.lit(None, TIMESTAMP))
    modified = pl.from_epoch("modification_time", "ms").dt.replace_time_zone("UTC")
    times = snapshot.table.list_live().select("path", modified=modified)
    return files.join(times, on="path", maintain_order="left")


def plan_batches(
    files: pl.DataFrame, dataset: Dataset, rule: CompactionRule
) -> list[CompactionBatch]:
    """Plan the compaction of a table: partitions with files that a rule names, market by market.

    Parameters
    ----------
    files
        As `list_files` gives them.
    """
    result: list[CompactionBatch] = []
    loose = _count_loose(files, dataset, rule)
    for _, market in loose.group_by(["exchange", "symbol"], maintain_order=True):
        batch: list[tuple[Any, ...]] = []
        rows = 0
        for *partition, count in market.select(*MARKET_DAY, "rows").iter_rows():
            if batch and (len(batch) == _BATCH_DATES or rows + count > _BATCH_ROWS):
                result.append(CompactionBatch(tuple(batch)))
                batch, rows = [], 0
            batch.append(tuple(partition))
            rows += count
        result.append(CompactionBatch(tuple(batch)))
    return result


def find_crowded(table: LocalTable) -> CompactionBatch | None:
    """Find the partitions of a table with too many files; no file is read, and no log."""
    live, kind = table.list_live(), find_partitioning(table.metadata().partition_columns)
    if live.height <= MOST_SMALL or kind is None:
        return None
    names = [f"partition.{name}" for name in kind.columns]
    crowded = live.group_by(names).len().filter(pl.col("len") > MOST_SMALL).sort(names)
    places = crowded.select(*names[:-1], kind.to_start(pl.col(names[-1])))
    return CompactionBatch(tuple(places.iter_rows())) if crowded.height else None


def compact(
    table: LocalTable,
    dataset: Dataset,
    batch: CompactionBatch,
    rule: CompactionRule,
    *,
    now: datetime,
    job_id: str,
) -> CompactionResult | None:
    """Rewrite files of the partitions of a batch, one file each, while others read and write.

    Before the commit, the new files are read back, and the digest of their rows must be that of
    the rows of the old ones. Rows that others add meanwhile stay in files of their own.

    Parameters
    ----------
    table
        A handle that nobody else uses, at any version; afterwards at the latest.

    Returns
    -------
    Compacted or None
        None: nothing is left to do, because the partitions are compact already.

    Raises
    ------
    DamagedError
        An old file is not as it was committed or cannot be read, or the new files hold other rows:
        nothing was committed.
    CommitConflictError
        Other writers kept rewriting the same dates.
    """
    where = f"table {dataset.name}"
    try:
        for attempt in retry(CommitFailedError, attempts=_ATTEMPTS, wait_max=2.0):
            with attempt, translate_errors(where), table.hold():
                table.update_incremental()
                delta.add_missing_columns(table, dataset, job_id)
                snapshot = Snapshot(keep_stored(dataset, table), table)
                staged = _compact_once(snapshot, batch, rule, now, job_id)
                if staged is None:
                    return None
                table.update_incremental()
                table.seal(staged.metadata)
                return staged.build_result(table.version())
    except CommitFailedError as error:
        raise CommitConflictError(
            f"{where}: others kept rewriting {batch} ({_ATTEMPTS} attempts)",
            "Run the same command again later: the rows are as they were.",
        ) from error
    raise AssertionError("unreachable: the last attempt returns or raises")


def _compact_once(
    snapshot: Snapshot, batch: CompactionBatch, rule: CompactionRule, now: datetime, job_id: str
) -> _Staging | None:
    """Compact once; the handle must not move before `replace_files`."""
    chosen = pl.DataFrame(batch.partitions, schema=_PARTITION_SCHEMA, orient="row")
    files = list_files(snapshot).join(chosen, on=MARKET_DAY, maintain_order="left")
    loose = _find_loose(files, snapshot.dataset, rule)
    if loose.is_empty():
        return None
    staged = _Staging()
    snapshot.table.checksums.require_unchanged_log(snapshot.version, "not compacted")
    snapshot.table.checksums.require_unchanged(loose["path"], "not compacted")
    try:
        for part in loose.partition_by(MARKET_DAY, maintain_order=True):
            _stage(snapshot, part, staged)
        staged.metadata = {
            "job": job_id,
            "source": "lake",
            "changes": False,
            "lake": VERSION,
            "rows": staged.rows,
            "digest": staged.digest,
        }
        staged.metadata = delta.replace_files(
            snapshot.table, staged.added, staged.removed, now, staged.metadata
        )
    except BaseException:  # Ctrl-C too: nobody uses files that no commit names
        _discard(snapshot, staged.paths)
        raise
    return staged


def _count_loose(files: pl.DataFrame, dataset: Dataset, rule: CompactionRule) -> pl.DataFrame:
    """Count what to rewrite in each partition: `MARKET_DAY`, `rows`."""
    loose = _find_loose(files, dataset, rule)
    return loose.group_by(MARKET_DAY).agg(pl.col("rows").fill_null(0).sum()).sort(MARKET_DAY)


def _find_loose(files: pl.DataFrame, dataset: Dataset, rule: CompactionRule) -> pl.DataFrame:
    """Find the files to rewrite."""
    needed = (pl.col("rows").fill_null(0).sum() / FILE_ROWS).ceil().clip(1)
    spare = (pl.len() > needed).over(MARKET_DAY)
    is_closed = pl.lit(value=False)
    if rule.before is not None:
        is_closed = pl.col("date") <= _find_last_closed(dataset, rule.before)
    is_small = pl.col("bytes") < _SMALL_BYTES
    if rule.settled is not None:
        is_small &= pl.col("modified") < rule.settled
    crowds = is_small.sum().over(MARKET_DAY) > MOST_SMALL
    return files.filter((is_closed & spare) | (is_small & crowds))


def _find_last_closed(dataset: Dataset, before: datetime) -> date:
    """Return the first day of the last partition that ended before a time."""
    partitioning = dataset.partitioning
    return partitioning.start_of(partitioning.start_of(before.astimezone(UTC)) - DAY)


def _stage(snapshot: Snapshot, files: pl.DataFrame, staged: _Staging) -> None:
    """Write the new files of one partition, and verify that they hold the rows of the old ones."""
    dataset, where = snapshot.dataset, f"table {snapshot.dataset.name}"
    exchange, symbol, start = files.select(MARKET_DAY).row(0)
    period = dataset.partitioning.value_of(start)
    partition = dict(zip(dataset.partitions, (exchange, symbol, period), strict=True))
    rows = sort_by(_read_rows(snapshot, files["path"], partition), dataset.sort)
    place = " ".join(str(value) for value in partition.values())
    if files["rows"].null_count() == 0 and rows.height != files["rows"].sum():
        raise DamagedError(
            f"{where}: the files of {place} hold {rows.height} rows, and the log says "
            f"{files['rows'].sum()}: not compacted",
            "Restore the files from a backup.",
        )
    # A folder made by another engine may be spelt differently; readers know it by this name.
    folder = Path(files["path"][0]).parent
    values = {name: str(value) for name, value in partition.items()}
    written: list[str] = []
    for part in rows.iter_slices(FILE_ROWS):
        path = f"{folder}/part-{len(written):05}-{uuid.uuid4()}-c000.zstd.parquet"
        written.append(path)
        staged.paths.append(path)
        size = write_rows(Path(snapshot.uri, path), part.select(build_file_schema(dataset).names()))
        staged.added.append(DataFile(path, size, values, compute_statistics(dataset, part)))
    days = digest_market_days(dataset, rows)
    back = _read_rows(snapshot, written, partition)
    outside = [column.name for column in dataset.columns if not column.digest]
    differs = not back.select(outside).equals(rows.select(outside))
    if differs | (not digest_market_days(dataset, back).equals(days)):
        raise DamagedError(
            f"{where}: the rows of {place} read back differently than they were written: "
            "not compacted",
            "Check the disk and the memory of this machine. The old files are as they were.",
        )
    staged.removed.extend(
        DataFile(path, size, values, {}) for path, size in files.select("path", "bytes").iter_rows()
    )
    staged.days.append(days)
    staged.rows += rows.height


def _read_rows(snapshot: Snapshot, paths: Iterable[str], partition: dict[str, Any]) -> pl.DataFrame:
    """Read the rows of files of one partition, with the columns that are in their paths."""
    full = snapshot.locate(paths)
    options = build_scan_options(snapshot.dataset, snapshot.list_lacking())
    stored = pl.scan_parquet(full, glob=False, hive_partitioning=False, **options).collect()
    shown = snapshot.dataset.polars_schema
    values = (pl.lit(value).alias(name) for name, value in partition.items() if name in shown)
    return stored.with_columns(values)


def write_rows(path: Path, rows: pl.DataFrame, *, syncs: bool = True) -> int:
    """Write a Parquet file as delta-rs does, and sync it to disk; return its size in bytes."""
    import pyarrow.parquet as pq

    with path.open("xb") as file:
        tables = _split_row_groups(rows)
        first = next(tables)
        with pq.ParquetWriter(
            file,
            first.schema,
            compression="zstd",
            compression_level=_LEVEL,
            use_dictionary=False,
            store_schema=False,
        ) as writer:
            writer.write_table(first)
            for table in tables:
                writer.write_table(table)
        file.flush()
        if syncs:
            os.fsync(file.fileno())
    return path.stat().st_size


def _split_row_groups(rows: pl.DataFrame) -> Iterator[pa.Table]:
    """Split rows into row groups with Arrow's plain types, whose string arrays hold up to 2 GB."""
    import pyarrow as pa

    for part in rows.iter_slices(delta.GROUP_ROWS):
        table = part.to_arrow(compat_level=pl.CompatLevel.oldest())
        fields = [pa.field(f.name, _simplify_type(f.type)) for f in table.schema]
        yield table.cast(pa.schema(fields))


def _simplify_type(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(_simplify_type(kind.value_type))
    return kind


def compute_statistics(dataset: Dataset, rows: pl.DataFrame) -> dict[str, Any]:
    """Compute the statistics of a file for Delta's log: with them, readers skip files."""
    columns = [rows[name] for name in list_bounded(dataset)]
    bounded = [c for c in columns if not c.dtype.is_nested() and c.null_count() < len(c)]
    return {
        "numRecords": rows.height,
        "minValues": {c.name: _format_bound(c.min()) for c in bounded},
        "maxValues": {c.name: _format_bound(c.max()) for c in bounded},
        "nullCount": {c.name: c.null_count() for c in columns},
    }


def _format_bound(value: Any) -> Any:
    """Format a bound for Delta's log: the protocol truncates times to milliseconds."""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03}Z"
    return value.isoformat() if isinstance(value, date) else value


def _discard(snapshot: Snapshot, paths: Sequence[str]) -> None:
    """Delete staged files, except those that were committed in spite of the error."""
    table = Path(snapshot.uri)
    named: set[str] = set()
    for commit in read_commits(table, since=snapshot.version + 1):
        named |= commit.added
    for path in paths:
        if path not in named:
            (table / path).unlink(missing_ok=True)
