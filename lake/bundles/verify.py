"""Verifies a bundle: every link from its rows to its id.

The id is the digest of the digests of the tables (checked when a bundle is opened); each of these
is the digest of the table's market-days in `days.parquet`; and each of these, with `deep`, that of
its rows. The files with the rows have the hashes in `files.parquet`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from lake.bundles.chain import (
    compare_days,
    find_wrong_bounds,
    read_bounds,
    sum_days,
    sum_files,
)
from lake.bundles.contents import MANIFEST, Contents
from lake.bundles.manifest import DAYS_FILE, FILES, FilePart
from lake.bundles.measure import measure_days
from lake.bundles.table import PinnedTable
from lake.errors import DamagedError, LakeError
from lake.model.market import MARKET_COLUMNS
from lake.model.progress import Progress
from lake.model.selection import Selection
from lake.store import delta
from lake.store.hashing import hash_file, hash_files, is_plain_file
from lake.store.snapshot import Snapshot

Kind = Literal["missing", "damaged", "foreign", "differs"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One difference from what was pinned.

    `missing`: a file does not exist. `damaged`: the content of a file has changed. `foreign`: a
    file is another file of the bundle, or does not belong to it. `differs`: rows, lists or versions
    are not the pinned ones, though each file is as it was sealed.
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
    problems += verify_chain(contents)
    problems += _verify_data_files(contents, progress)
    if contents.owns_data:
        problems += _find_foreign_files(contents)
    else:
        problems += _verify_log(contents)
    if deep:
        problems += _verify_rows(contents, progress, {problem.place for problem in problems})
    return problems


def verify_content(contents: Contents, progress: Progress) -> list[Problem]:
    """Verify all rows of a bundle against its id.

    Reading them compares the files with their hashes; files beside them are not looked at.
    """
    return [*verify_chain(contents), *_verify_rows(contents, progress, set())]


def verify_chain(contents: Contents) -> Iterator[Problem]:
    """Verify that the lists add up to the digests, and so to the id: no data file is read."""
    tables = {ref.table for _, ref in contents.manifest.refs()}
    files = contents.files.read_all()
    for name, listed in ((DAYS_FILE, contents.days["table"]), (FILES, files["table"])):
        for table in sorted({*listed} - tables):
            yield Problem("differs", f"{name}: {table}", "no such table", "rows of it")
    for place, ref in contents.manifest.refs():
        expected = {
            "schema_fingerprint": ref.schema_fingerprint,
            "digest": ref.digest,
            "rows": ref.rows,
            "first": ref.first,
            "last": ref.last,
            "files": ref.files,
            "bytes": ref.bytes,
        }
        found = {
            "schema_fingerprint": contents.dataset(ref.table).fingerprint,
            **sum_days(contents.days.filter(table=ref.table)),
            **sum_files(files.filter(table=ref.table)),
        }
        for key, value in expected.items():
            if found[key] != value:
                yield Problem("differs", f"{place}.{key}", str(value), str(found[key]))


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
    present = []
    for path, digest in rows:
        place = contents.tables / path
        if not place.is_file():
            yield Problem("missing", str(place), digest, "no file")
        elif contents.owns_data and not is_plain_file(place, contents.folder):
            yield Problem("foreign", str(place), digest, "a link, or outside")
        else:
            present.append((path, digest))
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
        if path not in listed_paths and (path.is_symlink() or not path.is_dir()):
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
    """Verify the rows of each market-day; skip markets with broken files, already reported."""
    for place, ref in contents.manifest.refs():
        table = PinnedTable.open(contents, ref.table)
        pinned_days = contents.days.filter(table=ref.table)
        markets = {*table.markets, *pinned_days.select(MARKET_COLUMNS).iter_rows()}
        for market in sorted(markets):
            pinned = Selection(market[:1], market[1:], table.pinned.start, table.pinned.end)
            files = contents.files.files(ref.table, pinned)
            if not broken.isdisjoint(table.locate(files["path"])):
                continue
            own_days = pinned_days.filter(exchange=market[0], symbol=market[1])
            where = f"{place}: {' '.join(market)}"
            for problem in _verify_market(table, pinned, own_days, progress):
                yield replace(problem, place=f"{where}{problem.place}")


def _verify_market(
    table: PinnedTable, selection: Selection, pinned_days: pl.DataFrame, progress: Progress
) -> Iterator[Problem]:
    try:
        stored_days = measure_days(table, selection, progress)
        found_bounds = read_bounds(table, selection)
    except DamagedError as error:
        yield Problem("damaged", "", "readable", error.message)
        return
    for differing in compare_days(pinned_days, stored_days):
        yield Problem("differs", f" {differing.place}", differing.expected, differing.found)
    for path, expected, found in find_wrong_bounds(found_bounds):
        yield Problem("differs", f" {path}", expected, found)
