"""The root of a lake: a folder with a marker file, with its tables and bundles."""

from __future__ import annotations

import json
import os
import re
import secrets
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lake.errors import ConfigError, DamagedError
from lake.model.catalog import Catalog, builtin_files, parse_granularity
from lake.model.partitions import Granularity
from lake.model.time import iso
from lake.settings.urls import mask
from lake.store.faults import explain_os_error, translate_errors
from lake.version import VERSION

FORMAT = 2
FEATURES: frozenset[str] = frozenset()
"""What a lake may use that earlier versions cannot write; this version knows these."""
MIN_WRITER = "0.1.0"
"""The oldest version that may write to a new lake."""
MARKER = "lake.json"
_TEMPORARY = ".tmp"
_FOLDERS = ("tables", "bundles", "schemas")


@dataclass(frozen=True)
class Root:
    """An existing lake.

    Attributes
    ----------
    path
        Its folder.
    id
        Unique for ever, in every manifest of the lake.
    granularity
        Tables whose granularity differs from their dataset file, set at creation or by a migration.
    """

    path: Path
    id: str
    granularity: Mapping[str, Granularity]

    @classmethod
    def create(
        cls, uri: str, now: datetime, granularity: Mapping[str, Granularity] | None = None
    ) -> Root:
        """Create a lake in a new or empty folder, or where a creation was killed.

        Raises
        ------
        ConfigError
            There is a lake already, or the folder holds something else.
        StorageError
            It cannot be written.
        """
        path = _parse_uri(uri)
        catalog = Catalog(builtin_files())
        granularities = {
            catalog.dataset(name).name: parse_granularity(f"{name}={value}")[1]
            for name, value in (granularity or {}).items()
        }
        if (path / MARKER).exists():
            raise ConfigError(f"{path} is a lake already", "Use it as it is: `lake status`.")
        if path.is_file() or (path.is_dir() and not all(map(_is_left_over, path.iterdir()))):
            raise ConfigError(
                f"{path} exists and is not an empty folder", "Give a new folder: `lake init PATH`."
            )
        marker = {
            "format": FORMAT,
            "id": str(uuid.uuid4()),
            "created_at": iso(now),
            "granularity": granularities,
            "features": [],
            "min_writer": MIN_WRITER,
        }
        try:
            for folder in _FOLDERS:
                (path / folder).mkdir(parents=True, exist_ok=True)
            write_new_file(path / MARKER, json.dumps(marker, indent=2).encode() + b"\n")
            sync_folder(path)
            sync_folder(path.parent)
        except OSError as error:
            raise explain_os_error(error, f"lake {path}") from error
        return cls.open(uri)

    @classmethod
    def open(cls, uri: str) -> Root:
        """Open the lake at a URI.

        Raises
        ------
        ConfigError
            There is none, or its format is another than that of this version.
        DamagedError
            Its marker cannot be read.
        """
        path = _parse_uri(uri)
        marker = _read_marker(path)
        if marker["format"] != FORMAT:
            raise build_format_error(f"{path} has lake format", marker["format"], FORMAT)
        return cls(path, marker["id"], marker["granularity"])

    def require_writer(self) -> None:
        """Refuse to write if the lake needs a later version, which it may since it was opened.

        Raises
        ------
        ConfigError
            The lake uses a feature that this version does not know, or its `min_writer` is later.
        """
        marker = _read_marker(self.path)
        unknown = sorted(set(marker["features"]) - FEATURES)
        needed, own = (_parse_version(text) for text in (marker["min_writer"], VERSION))
        if not unknown and needed <= own:
            return
        feature = f", and it uses {', '.join(unknown)}" if unknown else ""
        raise ConfigError(
            f"{self.path} is written by lake {marker['min_writer']} or later{feature}: lake "
            f"{VERSION} may read it, and not write to it",
            "Install a newer version of lake.",
        )

    def set_granularity(self, granularity: Mapping[str, Granularity]) -> Root:
        """Record granularities that differ from the dataset files; return the lake with them."""
        marker = _read_marker(self.path)
        marker["granularity"] = dict(granularity)
        with translate_errors(f"lake {self.path}"):
            replace_file(self.path / MARKER, json.dumps(marker, indent=2).encode() + b"\n")
            sync_folder(self.path)
        return replace(self, granularity=dict(granularity))

    @property
    def tables(self) -> Path:
        return self.path / "tables"

    @property
    def bundles(self) -> Path:
        return self.path / "bundles"

    def read_catalog(self) -> Catalog:
        """Read the built-in datasets, and those in the `schemas/` folder of the lake."""
        own = sorted((self.path / "schemas").glob("*.toml"))
        return Catalog([*builtin_files(), *own], self.granularity)


def build_format_error(what: str, stored: int, known: int) -> ConfigError:
    """Build the error for a lake or bundle of another format; `what` ends with the word format."""
    if stored > known:
        return ConfigError(
            f"{what} {stored}; this version reads {known}", "Install a newer version of lake."
        )
    return ConfigError(
        f"{what} {stored}, of a version before the first release; this version reads {known}",
        "Make a new lake with `lake init`, and ingest into it again.",
    )


def write_new_file(path: Path, content: bytes) -> None:
    """Write a new file, completely or not at all.

    Raises
    ------
    FileExistsError
        The file exists already; it is not changed.
    """
    _write_aside(path, content, os.link)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all; replace one that exists."""
    _write_aside(path, content, os.replace)


def sync_folder(path: Path) -> None:
    """Sync a folder to disk, so that files created in it survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_left_over(entry: Path) -> bool:
    """Whether an entry of a folder is what the creation of a lake leaves if it is killed."""
    if entry.name in _FOLDERS:
        return entry.is_dir() and not any(entry.iterdir())
    return entry.name.startswith(f".{MARKER}.") and entry.suffix == _TEMPORARY


def _write_aside(path: Path, content: bytes, move: Callable[[Path, Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _parse_uri(uri: str) -> Path:
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        raise ConfigError(
            f"{mask(uri)}: a lake on {scheme}:// is not supported yet",
            "Give the path of a folder.",
        )
    path = Path(unquote(rest) if separator else uri).expanduser().absolute()
    text = str(path)
    if unquote(text) != text or "\\" in text or not text.isprintable():
        raise ConfigError(
            f"{text!r} cannot hold a lake: Delta misreads percent codes, backslashes and control "
            "characters in a path",
            "Give the folder another name; spaces and letters of any language are fine.",
        )
    return path


def _read_marker(path: Path) -> dict[str, Any]:
    try:
        text = (path / MARKER).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{path} is not a lake: it has no {MARKER}",
            f"Make one with `lake init {path}`, or name another by --lake or LAKE_URI.",
        ) from None
    except OSError as error:
        raise explain_os_error(error, f"lake {path}") from error
    return _parse_marker(path, text)


def _parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version, such as (0, 1, 0), to be compared."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()


def _parse_marker(path: Path, text: bytes) -> dict[str, Any]:
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        marker: dict[str, Any] = json.loads(text)
        kinds = {"format": int, "id": str, "granularity": dict, "features": list, "min_writer": str}
        filled = {"granularity": {}, "features": [], "min_writer": "0", **marker}
        if all(isinstance(filled[name], kind) for name, kind in kinds.items()):
            return filled
    raise DamagedError(
        f"{path / MARKER} is damaged", "Restore it from a backup; the tables are not affected."
    )
