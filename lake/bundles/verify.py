"""Verifies a bundle: compares its manifest and lists with its files and rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from lake.bundles.contents import MANIFEST, Contents
from lake.bundles.manifest import FilePart
from lake.bundles.measure import measure_days
from lake.bundles.table import PinnedTable
from lake.errors import DamagedError, LakeError
from lake.model.progress import Progress
from lake.model.selection import Selection
from lake.store import delta
from lake.store.hashing import hash_file, hash_files
from lake.store.snapshot import Snapshot

Kind = Literal["missing", "damaged", "foreign", "differs"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One difference from what was pinned.

    `missing`: a file does not exist. `damaged`: the content of a file has changed. `foreign`: a
    file is another file of the bundle, or does not belong to it. `differs`: rows or versions are
    not the pinned ones.
    """

    kind: Kind
    place: str
    expected: str
    found: str


def verify(contents: Contents, *, deep: bool, progress: Progress) -> list[Problem]:
    """Return all problems of a bundle; an empty list means that it is intact."""
    problems = [*_verify_side_files(contents)]
    if problems:
        return problems  # without its lists, the bundle's files are unknown
    problems += _verify_data_files(contents, progress)
    if contents.owns_data:
        problems += _find_foreign_files(contents)
    else:
        problems += _verify_log(contents)
    if deep:
        problems += _verify_rows(contents, progress, {problem.place for problem in problems})
    return problems


def _verify_side_files(contents: Contents) -> Iterator[Problem]:
    for name, part in contents.manifest.beside.list_parts().items():
        yield from _verify_file(contents.folder / name, part)


def _verify_file(path: Path, part: FilePart) -> Iterator[Problem]:
    try:
        found = hash_file(path)
    except FileNotFoundError:
        yield Problem("missing", str(path), part.sha256, "no file")
        return
    if found != part.sha256:
        yield Problem("damaged", str(path), part.sha256, found)


def _verify_data_files(contents: Contents, progress: Progress) -> Iterator[Problem]:
    """Compare files with their SHA-256; report a file that has the content of another."""
    listed = contents.files.read_all().with_columns(path=pl.format("{}/{}", "table", "path"))
    owners = dict(listed.select("sha256", "path").iter_rows())
    rows = listed.select("path", "sha256").rows()
    present = [(path, digest) for path, digest in rows if (contents.tables / path).is_file()]
    for path, digest in set(rows) - set(present):
        yield Problem("missing", str(contents.tables / path), digest, "no file")
    progress.begin("hashing files", len(present))
    digests = hash_files([contents.tables / path for path, _ in present], progress)
    progress.end()
    for (path, expected), found in zip(present, digests, strict=True):
        if found == expected:
            continue
        place = str(contents.tables / path)
        if found in owners:
            yield Problem("foreign", place, expected, f"the bytes of {owners[found]}")
        else:
            yield Problem("damaged", place, expected, found)


def _find_foreign_files(contents: Contents) -> Iterator[Problem]:
    """Find files in an exported bundle that it does not list."""
    listed = contents.files.read_all().select(pl.format("{}/{}", "table", "path")).to_series()
    listed_paths = {
        contents.folder / name for name in (MANIFEST, *contents.manifest.beside.list_parts())
    }
    listed_paths |= {contents.tables / path for path in listed}
    for path in sorted(contents.folder.rglob("*")):
        if path.is_file() and path not in listed_paths:
            yield Problem("foreign", str(path), "no file", "a file that is not in the bundle")


def _verify_log(contents: Contents) -> Iterator[Problem]:
    """Verify that the lake's tables are the pinned ones, and that their versions have the files."""
    for place, ref in contents.manifest.refs():
        dataset = contents.dataset(ref.table)
        folder = contents.tables / ref.table
        try:
            snapshot = Snapshot(dataset, delta.open_table(folder, dataset, ref.version))
            if snapshot.table_id != ref.table_id:
                yield Problem("foreign", f"{place}.table_id", ref.table_id, snapshot.table_id)
                continue
            pinned = ref.selection.selection
            logged = snapshot.files(pinned)["path"]
        except LakeError as error:
            yield Problem("damaged", f"{place}.version", f"version {ref.version}", error.message)
            continue
        listed = contents.files.files(ref.table, pinned)["path"]
        for path in sorted(set(logged) ^ set(listed)):
            where = "in the index only" if path in set(listed) else "in the log only"
            yield Problem("differs", str(folder / path), "in index and log", where)


def _verify_rows(contents: Contents, progress: Progress, broken: set[str]) -> Iterator[Problem]:
    """Verify the digest of each market-day; skip markets with broken files, already reported."""
    for place, ref in contents.manifest.refs():
        table = PinnedTable.open(contents, ref.table)
        for exchange, symbol in table.markets:
            pinned = Selection((exchange,), (symbol,), table.pinned.start, table.pinned.end)
            paths = contents.files.files(ref.table, pinned)["path"]
            if broken.isdisjoint(f"{table.uri}/{path}" for path in paths):
                pinned_days = contents.days.filter(
                    table=ref.table, exchange=exchange, symbol=symbol
                )
                for problem in _verify_days(table, pinned, pinned_days, progress):
                    yield replace(problem, place=f"{place}: {exchange} {symbol}{problem.place}")


def _verify_days(
    table: PinnedTable, selection: Selection, pinned_days: pl.DataFrame, progress: Progress
) -> Iterator[Problem]:
    try:
        stored_days = measure_days(table, selection, progress)
    except DamagedError as error:
        yield Problem("damaged", "", "readable", error.message)
        return
    columns = ("date", "rows", "digest")
    joined = pinned_days.select(columns).join(
        stored_days.select(columns),
        on="date",
        how="full",
        coalesce=True,
        maintain_order="left_right",
    )
    for date, rows, digest, rows_found, digest_found in joined.iter_rows():
        if digest != digest_found:
            expected, found = _format_rows(rows, digest), _format_rows(rows_found, digest_found)
            yield Problem("differs", f" {date}", expected, found)


def _format_rows(rows: int | None, digest: str | None) -> str:
    return "no rows" if digest is None else f"{rows} rows, digest {digest}"
