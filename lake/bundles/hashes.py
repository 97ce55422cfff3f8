"""The SHA-256 of the files that a pin lists: always computed from the files as they are now.

A bundle attests its files. So they must be as they were committed, and as earlier bundles list
them: otherwise the pin would attest damage.
"""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from lake.model.progress import Progress
from lake.store.checksums import build_mismatch_error
from lake.store.hashing import hash_files
from lake.store.snapshot import Snapshot

_NOT_PINNED = "nothing was pinned"


def hash_committed_files(
    snapshot: Snapshot, files: pl.DataFrame, progress: Progress
) -> pl.DataFrame:
    """Return the files with their `sha256`, after comparing it with what was recorded at commit.

    Parameters
    ----------
    files
        Files of the snapshot, as `Snapshot.files` gives them.

    Raises
    ------
    DamagedError
        A file is missing or was changed, the log was, or a record is damaged.
    """
    table = Path(snapshot.uri)
    snapshot.table.checksums.require_unchanged_log(snapshot.version, _NOT_PINNED)
    paths = files["path"].to_list()
    for path in paths:
        if not os.path.isfile(f"{table}/{path}"):  # noqa: PTH113 - for each of many files
            raise build_mismatch_error(table, path, None, _NOT_PINNED)
    progress.begin(f"hashing {snapshot.dataset.name}", len(paths))
    digests = hash_files([f"{table}/{path}" for path in paths], progress)
    progress.end()
    hashed = files.with_columns(sha256=pl.Series(digests, dtype=pl.String))
    recorded = snapshot.table.checksums.find(paths)
    schema = {"path": pl.String(), "recorded": pl.String()}
    require_equal_hashes(table, hashed, pl.DataFrame(list(recorded.items()), schema, orient="row"))
    return hashed


def require_equal_hashes(table: Path, hashed: pl.DataFrame, recorded: pl.DataFrame) -> None:
    """Refuse files whose `sha256` is not the `recorded` one; files without a record pass.

    Parameters
    ----------
    hashed
        `path`, `sha256`.
    recorded
        `path`, `recorded`.

    Raises
    ------
    DamagedError
        There is such a file.
    """
    joined = hashed.join(recorded, on="path", how="inner", maintain_order="left")
    changed = joined.filter(pl.col("sha256") != pl.col("recorded"))
    if changed.height:
        path, found = changed.select("path", "sha256").row(0)
        raise build_mismatch_error(table, path, found, _NOT_PINNED)
