"""The files of an exported bundle, in the order of an archive: the manifest comes first."""

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
        Path relative to the bundle's folder, with slashes.
    bytes, sha256
        Size and digest that the file must have.
    """

    path: str
    bytes: int
    sha256: str


def list_side_files(manifest: Manifest) -> list[Member]:
    """List the files beside the manifest."""
    parts = manifest.beside.list_parts()
    return [Member(name, part.bytes, part.sha256) for name, part in parts.items()]


def list_data_files(contents: Contents) -> Iterator[Member]:
    """Yield the data files in the order of the index.

    Raises
    ------
    DamagedError
        The index is damaged, or names a file that cannot be part of the bundle.
    """
    listed = contents.files.read_all().select("table", "path", "bytes", "sha256")
    _require_valid_index(contents, listed)
    for table, path, size, digest in listed.iter_rows():
        yield Member(f"{DATA}/{table}/{path}", size, digest)


def _require_valid_index(contents: Contents, listed: pl.DataFrame) -> None:
    """Refuse an index with paths outside the folder, unknown tables, or a file listed twice."""
    tables = {ref.table for _, ref in contents.manifest.refs()}
    paths = [f"{table}/{path}" for table, path in listed.select("table", "path").iter_rows()]
    outside = [path for path in paths if not _is_inside(path)]
    unknown = set(listed["table"].drop_nulls()) - tables
    is_malformed = sum(listed.null_count().row(0)) or len(set(paths)) < len(paths)
    if outside or unknown or is_malformed:
        names = ", ".join(sorted({*outside, *unknown})) or "missing or duplicate names"
        raise DamagedError(
            f"{contents.folder / FILES} lists files that cannot be in a bundle: {names}",
            "This program did not write the index; do not use the bundle.",
        )


def _is_inside(path: str) -> bool:
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))
