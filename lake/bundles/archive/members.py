"""What an exported bundle consists of, in the order of an archive: the manifest comes first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from lake.bundles.contents import DATA, Contents
from lake.bundles.manifest import FILES, Manifest
from lake.errors import DamagedError


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an exported bundle.

    Attributes
    ----------
    path
        Relative to the bundle's folder, with slashes.
    bytes, sha256
        What it must be.
    """

    path: str
    bytes: int
    sha256: str


def list_side_files(manifest: Manifest) -> list[Member]:
    """The files beside the manifest."""
    parts = manifest.beside.parts()
    return [Member(name, part.bytes, part.sha256) for name, part in parts.items()]


def list_data_files(contents: Contents) -> Iterator[Member]:
    """The data files, in the order of the index.

    Raises
    ------
    DamagedError
        The index is damaged, or names a file that cannot be one of the bundle.
    """
    listed = contents.files.all().select("table", "path", "bytes", "sha256")
    _require_valid_index(contents, listed)
    for table, path, size, digest in listed.iter_rows():
        yield Member(f"{DATA}/{table}/{path}", size, digest)


def _require_valid_index(contents: Contents, listed: pl.DataFrame) -> None:
    """Refuse a forged index: one that leads out of the folder, or names a file twice."""
    tables = {ref.table for _, ref in contents.manifest.refs()}
    paths = [f"{table}/{path}" for table, path in listed.select("table", "path").iter_rows()]
    outside = [path for path in paths if not _is_inside(path)]
    unknown = set(listed["table"].drop_nulls()) - tables
    is_malformed = sum(listed.null_count().row(0)) or len(set(paths)) < len(paths)
    if outside or unknown or is_malformed:
        names = ", ".join(sorted({*outside, *unknown})) or "names are missing, or there twice"
        raise DamagedError(
            f"{contents.folder / FILES} lists what cannot be in a bundle: {names}",
            "It was not made by this program; do not use it.",
        )


def _is_inside(path: str) -> bool:
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))
