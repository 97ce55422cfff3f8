"""The live data files of a table, which follow the entries of its log.

delta-rs lists all files of a table again for each commit: 5 ms per 1,000 files to load it, and as
much to hand the list over. Of a commit, only its own entry is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import polars as pl
from deltalake import DeltaTable
from polars.exceptions import PolarsError

from lake.errors import LakeError
from lake.model.time import in_utc
from lake.store.log import read_actions

# Longer ways are for delta-rs: it begins at a checkpoint.
_MOST_ENTRIES = 64
_MOST_CHUNKS = 64
_KNOWN = frozenset({"add", "remove", "commitInfo", "txn"})
_UNREADABLE = (LakeError, ValueError, TypeError, KeyError, AttributeError, PolarsError)
_PARTS = {"min": "minValues", "max": "maxValues", "null_count": "nullCount"}


@dataclass(frozen=True)
class LiveFiles:
    """The live data files of a table at a version.

    Attributes
    ----------
    frame
        As `DeltaTable.get_add_actions(flatten=True)` gives them, with paths as on disk; in any
        order.
    """

    version: int
    frame: pl.DataFrame

    @classmethod
    def load(cls, table: DeltaTable, version: int) -> LiveFiles:
        """List the files of a handle, which is at a version."""
        frame = pl.DataFrame(table.get_add_actions(flatten=True))
        if frame.is_empty():
            return cls(version, frame)
        paths = _decode_paths(frame["path"])
        partitions = [name for name in frame.columns if name.startswith("partition.")]
        # Sorting rows that are nearly sorted costs readers little.
        return cls(version, frame.with_columns(paths).sort(*partitions, "path"))

    def follow(self, folder: Path, version: int) -> LiveFiles | None:
        """Return the files of a later version; None if the log must be loaded anew.

        That is so if the table was empty, if many commits were made, or if one of them did
        something else than to add and to remove files, or cannot be read.
        """
        if self.frame.is_empty() or version - self.version > _MOST_ENTRIES:
            return None
        files: LiveFiles | None = self
        with suppress(*_UNREADABLE):
            for number in range(self.version + 1, version + 1):
                files = files and files.apply(number, read_actions(folder, number))
            return files
        return None

    def apply(self, version: int, actions: Sequence[Mapping[str, Any]]) -> LiveFiles | None:
        """Return the files after one more commit; None if it did more than add and remove files."""
        added = [action["add"] for action in actions if "add" in action]
        removed = [action["remove"] for action in actions if "remove" in action]
        if not all(action.keys() <= _KNOWN for action in actions) or _is_special(added, removed):
            return None
        frame = _change(self.frame, added, [unquote(file["path"]) for file in removed])
        return LiveFiles(version, frame)


def _change(
    frame: pl.DataFrame, added: Sequence[Mapping[str, Any]], removed: Sequence[str]
) -> pl.DataFrame:
    if removed:
        paths = pl.Series(removed, dtype=pl.String)
        frame = frame.filter(~pl.col("path").is_in(paths.implode()))
    if added:
        frame = frame.vstack(_build_frame(added, frame.schema))
    return frame.rechunk() if frame.n_chunks() > _MOST_CHUNKS else frame


def _decode_paths(paths: pl.Series) -> pl.Series:
    """Decode paths of the log: they are percent-encoded once more than on disk.

    Many files share the few folders that have a code in their names. These are taken with the slash
    at their end: `symbol=BTC%252FUSDT` begins other names, too.
    """
    folders = paths.str.extract_all(r"[^/]*%[^/]*/?").explode().drop_nulls().unique()
    decoded = {folder: unquote(folder) for folder in folders}
    return paths.str.replace_many(decoded) if decoded else paths


def _is_special(added: Sequence[Mapping[str, Any]], removed: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows are deleted within files, or the same files stated with other statistics."""
    if any(file.get("deletionVector") for file in (*added, *removed)):
        return True
    return not removed and not all(file.get("dataChange", True) for file in added)


def _build_frame(added: Sequence[Mapping[str, Any]], schema: pl.Schema) -> pl.DataFrame:
    """Build the rows of files that a commit adds."""
    own: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
        "path": lambda file: unquote(file["path"]),
        "size_bytes": lambda file: file["size"],
        "modification_time": lambda file: file["modificationTime"],
    }
    columns: dict[str, list[Any]] = {name: [] for name in schema}
    for file in added:
        statistics = orjson.loads(file.get("stats") or "{}")
        for name, dtype in schema.items():
            kind, _, column = name.partition(".")
            if name in own:
                value = own[name](file)
            elif name == "num_records":
                value = statistics.get("numRecords")
            elif kind == "partition":
                value = _parse_partition(file["partitionValues"].get(column), dtype)
            else:
                value = _parse_bound(statistics.get(_PARTS[kind], {}).get(column), dtype)
            columns[name].append(value)
    return pl.DataFrame(columns, schema=schema, strict=True)


def _parse_partition(value: str | None, dtype: pl.DataType) -> Any:
    if value is None or dtype == pl.String:
        return value
    if dtype == pl.Date:
        return date.fromisoformat(value)
    if dtype.is_integer():
        return int(value)
    raise ValueError(f"a partition of type {dtype}")


def _parse_bound(value: Any, dtype: pl.DataType) -> Any:
    if isinstance(value, str):
        if isinstance(dtype, pl.Datetime):
            return in_utc(datetime.fromisoformat(value))
        if dtype == pl.Date:
            return date.fromisoformat(value)
    return value
