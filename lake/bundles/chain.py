"""The links from the rows of a bundle to its digests: what its lists say, and what rows give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from lake.bundles.table import PinnedTable
from lake.model.digest import combine_digests
from lake.model.partitions import MARKET_DAY
from lake.model.selection import Selection
from lake.model.words import count
from lake.store.columns import build_scan_options
from lake.store.faults import translate_errors
from lake.store.reader import TIME_STEP


@dataclass(frozen=True, slots=True)
class Differing:
    """A market-day whose rows are not the pinned ones."""

    place: str
    expected: str
    found: str


def sum_days(days: pl.DataFrame) -> dict[str, Any]:
    """Return digest, rows, first and last time of all market-days of a table."""
    sums = days.select(pl.col("rows").sum(), pl.col("first").min(), pl.col("last").max())
    return {"digest": combine_digests(days), **sums.row(0, named=True)}


def sum_files(files: pl.DataFrame) -> dict[str, int]:
    """Return number and size of the data files of a table."""
    return {"files": files.height, "bytes": int(files["bytes"].sum())}


def compare_days(pinned: pl.DataFrame, stored: pl.DataFrame) -> Iterator[Differing]:
    """Compare market-days of one market: as they were pinned, and as its rows give them.

    Delays of rows may be smaller than pinned: earlier versions listed clocks that were behind.
    """
    joined = pinned.join(
        stored, on=MARKET_DAY, how="full", coalesce=True, maintain_order="left_right"
    )
    for row in joined.iter_rows(named=True):
        day = row["date"]
        if row["digest"] != row["digest_right"] or row["rows"] != row["rows_right"]:
            pinned_rows = _format_rows(row["rows"], row["digest"])
            yield Differing(
                str(day), pinned_rows, _format_rows(row["rows_right"], row["digest_right"])
            )
        elif (row["first"], row["last"]) != (row["first_right"], row["last_right"]):
            expected, found = (
                f"rows from {row['first' + end]} to {row['last' + end]}" for end in ("", "_right")
            )
            yield Differing(str(day), expected, found)
        elif not _has_valid_delays(row):
            expected, found = (
                f"delays from {row['min_delay_us' + end]} to {row['max_delay_us' + end]} us"
                for end in ("", "_right")
            )
            yield Differing(str(day), expected, found)


def read_bounds(table: PinnedTable, selection: Selection) -> pl.DataFrame:
    """Read rows, first and last time of each data file of a market, beside what the index says.

    Returns
    -------
    DataFrame
        The files of the index, and `rows_found`, `first_found`, `last_found`.
    """
    files = table.index.files(table.dataset.name, selection)
    if files.is_empty():
        return files.with_columns(rows_found="rows", first_found="first", last_found="last")
    time = pl.col(table.dataset.time_column)
    with translate_errors(f"table {table.dataset.name}"):
        found = (
            pl.scan_parquet(
                table.locate(files["path"]),
                glob=False,
                hive_partitioning=False,
                include_file_paths="_path",
                **build_scan_options(table.dataset, table.list_lacking()),
            )
            .group_by("_path")
            .agg(rows_found=pl.len().cast(pl.Int64), first_found=time.min(), last_found=time.max())
            .collect()
        )
    relative = pl.col("_path").str.strip_prefix(f"{table.uri}/").alias("path")
    return files.join(found.with_columns(relative), on="path", how="left", maintain_order="left")


def find_wrong_bounds(files: pl.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Find files whose rows are not what the index says, so that reads would skip some of them.

    The index rounds times down to milliseconds. A file of another program may have no statistics.
    """
    is_wrong = pl.any_horizontal(
        pl.col("rows") != pl.col("rows_found"),
        pl.col("rows_found").is_null(),
        pl.col("first") > pl.col("first_found"),
        pl.col("last") + TIME_STEP <= pl.col("last_found"),
    )
    for row in files.filter(is_wrong.fill_null(value=False)).iter_rows(named=True):
        expected, found = (
            f"{count(row['rows' + end], 'row')} from {row['first' + end]} to {row['last' + end]}"
            for end in ("", "_found")
        )
        yield row["path"], expected, found


def _has_valid_delays(row: dict[str, Any]) -> bool:
    lowest, highest = row["min_delay_us_right"], row["max_delay_us_right"]
    return bool(row["min_delay_us"] <= lowest and highest <= max(row["max_delay_us"], lowest))


def _format_rows(rows: int | None, digest: str | None) -> str:
    return "no rows" if digest is None else f"{count(rows or 0, 'row')}, digest {digest}"
