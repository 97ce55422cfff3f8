"""A bundle on disk: the folder of its manifest and lists, and the place of its data files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from lake.bundles.draft import DAYS
from lake.bundles.manifest import (
    DAYS_FILE,
    FILES,
    QUALITY_FILE,
    Manifest,
    Ref,
    compute_checksum_of,
    parse_manifest,
)
from lake.errors import ConfigError, DamagedError, UnknownNameError
from lake.model.dataset import Dataset
from lake.model.names import list_closest
from lake.quality.report.document import Report, from_json
from lake.store.faults import translate_errors
from lake.store.hashing import FileChecker, is_plain_file
from lake.store.index import FileIndex, read_checked

MANIFEST, DATA = "manifest.json", "data"


@dataclass(frozen=True)
class Contents:
    """The parts of a bundle on disk.

    Attributes
    ----------
    folder
        The folder of the manifest, `files.parquet` and `days.parquet`; an exported bundle also has
        `data` there.
    manifest
        The sealed manifest.
    tables
        The folder with one folder of data files per table.
    """

    folder: Path
    manifest: Manifest
    tables: Path

    @classmethod
    def open(cls, folder: Path, lake_id: str | None = None, tables: Path | None = None) -> Contents:
        """Open the bundle of a folder.

        Parameters
        ----------
        lake_id, tables
            The lake of the bundle and the folder of its tables; not needed if the bundle has its
            own data.

        Raises
        ------
        ConfigError
            The format is newer, or the tables of the bundle's lake are not here.
        DamagedError
            The manifest has changed since it was sealed.
        """
        own = folder / DATA
        if own.is_dir():
            _require_plain_files(folder, [MANIFEST])
        manifest = read_manifest(folder / MANIFEST)
        if own.is_dir():
            _require_plain_files(folder, manifest.beside.list_parts())
            return cls(folder, manifest, own)
        if tables is None:
            raise ConfigError(
                f"{folder} has a manifest but no data; its data is in the tables of a lake",
                "Open the bundle by name in its lake, or run `lake bundle export` there.",
            )
        if manifest.metadata.lake_id != lake_id:
            raise ConfigError(
                f"{folder} pins tables of another lake ({manifest.metadata.lake_id})",
                "Run `lake bundle export` in that lake, then `lake bundle import` here.",
            )
        return cls(folder, manifest, tables)

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def owns_data(self) -> bool:
        """Whether the data files are in the bundle's own folder."""
        return self.tables == self.folder / DATA

    def create_checker(self) -> FileChecker:
        """Create what checks the data files: of an exported bundle, each is a file inside it."""
        return FileChecker(self.folder if self.owns_data else None)

    @cached_property
    def files(self) -> FileIndex:
        """The data files of the selection."""
        return FileIndex(self.folder / FILES, self.manifest.beside.files.seal)

    @cached_property
    def days(self) -> pl.DataFrame:
        """Count, times, delays and digest of each market-day: `DAYS`."""
        return read_checked(self.folder / DAYS_FILE, self.manifest.beside.days.seal, DAYS)

    @cached_property
    def quality(self) -> Report | None:
        """The quality report of the pin; None if no check was run.

        Raises
        ------
        DamagedError
            The report has changed since it was sealed.
        """
        part = self.manifest.beside.quality
        if part is None:
            return None
        path = self.folder / QUALITY_FILE
        with translate_errors(f"bundle {self.id[:12]}"):
            text = path.read_bytes()
        if hashlib.sha256(text).hexdigest() != part.sha256:
            raise DamagedError(
                f"{path} has changed since it was sealed", "Restore it from a backup or an export."
            )
        return from_json(text)

    def ref(self, table: str) -> Ref:
        """Return the ref of a table.

        Raises
        ------
        UnknownNameError
            The bundle does not pin the table.
        """
        refs = {ref.table: ref for _, ref in self.manifest.refs()}
        if table not in refs:
            raise UnknownNameError(
                f"table {table!r} is not in bundle {self.id[:12]}",
                f"It pins {list_closest(table, refs)}.",
            )
        return refs[table]

    def dataset(self, table: str) -> Dataset:
        """Return the dataset of a table at the time of the pin."""
        return self.manifest.data_dictionary[self.ref(table).table].dataset(table)


def _require_plain_files(folder: Path, names: Iterable[str]) -> None:
    """Refuse links as lists of a bundle that somebody else may have made."""
    for name in names:
        path = folder / name
        if os.path.lexists(path) and not is_plain_file(path, folder):
            raise DamagedError(
                f"{path} is a link, or no file",
                "Copy the bundle again from its origin, or import its archive.",
            )


def group_tables(*bundles: Contents) -> dict[str, list[str]]:
    """Map each dataset with timeframes, such as `bars`, to the tables that some bundles pin."""
    families: dict[str, list[str]] = {}
    for contents in bundles:
        for table, part in contents.manifest.data_dictionary.items():
            dataset = part.dataset(table)
            if dataset.timeframe is not None and table not in families.get(dataset.family, []):
                families.setdefault(dataset.family, []).append(table)
    return families


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check it against its checksum and id.

    Raises
    ------
    DamagedError
        The manifest is missing, or was edited.
    """
    try:
        with translate_errors(f"bundle {path.parent.name}"):
            text = path.read_bytes()
    except DamagedError:
        raise DamagedError(
            f"{path} cannot be read", "Restore it from a backup, or import the bundle again."
        ) from None
    manifest = parse_manifest(text, str(path))
    digests = {
        "checksum": (manifest.checksum, compute_checksum_of(text)),
        "id": (manifest.id, manifest.compute_id()),
    }
    for key, (recorded, computed) in digests.items():
        if recorded != computed:
            raise DamagedError(
                f"{path} was changed since it was written: {key} is {recorded}, but the content "
                f"gives {computed}",
                "Restore it from a backup, or import the bundle again.",
            )
    return manifest
