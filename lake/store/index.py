"""The file index of a bundle: its data files in one sorted Parquet file, read in milliseconds.

Opening it reads only the footer, and a selection reads only the row groups that it touches. Both
are verified: the footer by the SHA-256 of the file's tail, the pages by their CRC.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from lake.errors import DamagedError
from lake.model.dataset import TIMESTAMP
from lake.model.selection import Selection
from lake.store.faults import explain_os_error, find_reason, name_refused
from lake.store.hashing import hash_file
from lake.store.reader import EVERYTHING, FILES, TIME_STEP, may_hold_rows

SCHEMA = pl.Schema({"table": pl.String(), **FILES, "sha256": pl.String()})
_ORDER = ("table", "exchange", "symbol", "first", "path")
_GROUP_ROWS = 8192
_REPEATING = ["table", "exchange", "symbol", "date"]
_END_BYTES = 8  # length of the footer, and the letters PAR1
_HINT = "Restore it from a backup, or import the bundle again from an export."


@dataclass(frozen=True, slots=True)
class FileSeal:
    """What a file must match: its size, its SHA-256, and that of its tail, the Parquet footer."""

    bytes: int
    sha256: str
    tail_sha256: str


def write_sealed(path: Path, frame: pl.DataFrame) -> FileSeal:
    """Write sorted rows as a Parquet file whose pages have checksums; return its seal."""
    import pyarrow.parquet as pq

    with path.open("xb") as file:
        pq.write_table(
            frame.to_arrow(),
            file,
            compression="zstd",
            row_group_size=_GROUP_ROWS,
            use_dictionary=_REPEATING,
            write_page_checksum=True,
            store_schema=False,
        )
        file.flush()
        os.fsync(file.fileno())
    return FileSeal(
        path.stat().st_size, hash_file(path), hashlib.sha256(_read_tail(path)).hexdigest()
    )


def open_checked(path: Path, sealed: FileSeal) -> Any:
    """Open a Parquet file (of pyarrow) and verify its footer; reading verifies its pages.

    Raises
    ------
    DamagedError
        It is missing, or its footer is not the sealed one.
    """
    import pyarrow.parquet as pq

    try:
        with name_refused(path):
            tail = _read_tail(path)
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing", _HINT) from None
    if hashlib.sha256(tail).hexdigest() != sealed.tail_sha256:
        raise DamagedError(f"{path} is damaged: its footer is not as it was written", _HINT)
    return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)


def read_checked(path: Path, sealed: FileSeal, schema: pl.Schema) -> pl.DataFrame:
    """Read all rows of a sealed file."""
    return _read_frame(path, open_checked(path, sealed), None, schema)


@dataclass(frozen=True)
class FileIndex:
    """The data files of a bundle, by table, market and time. Safe to share among threads."""

    path: Path
    sealed: FileSeal
    # A Parquet file of pyarrow breaks the process when two threads read it at once.
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, compare=False)

    @staticmethod
    def sort_rows(frame: pl.DataFrame) -> pl.DataFrame:
        """Sort rows in the order of the index."""
        return frame.select(list(SCHEMA)).sort(_ORDER)

    def files(self, table: str, selection: Selection = EVERYTHING) -> pl.DataFrame:
        """Return files of a table that may hold rows of a selection: `FILES` and `sha256`.

        Raises
        ------
        DamagedError
            The index is missing or damaged.
        """
        with self._one_at_a_time:
            groups = self._groups.filter(self._may_hold(table, selection))["group"].to_list()
            listed = _read_frame(self.path, self._file, groups, SCHEMA)
        may_match = (pl.col("table") == table) & may_hold_rows(selection)
        return listed.filter(may_match).drop("table")

    def read_all(self) -> pl.DataFrame:
        """Read every row."""
        with self._one_at_a_time:
            return _read_frame(self.path, self._file, None, SCHEMA)

    @cached_property
    def _file(self) -> Any:
        return open_checked(self.path, self.sealed)

    @cached_property
    def _groups(self) -> pl.DataFrame:
        """Smallest and largest values of each row group; null where it has no statistics."""
        metadata = self._file.metadata
        records = [
            {"group": number, **_read_bounds(metadata.row_group(number))}
            for number in range(metadata.num_row_groups)
        ]
        return pl.DataFrame(records, schema=_GROUPS)

    @staticmethod
    def _may_hold(table: str, selection: Selection) -> pl.Expr:
        terms = [_may_contain("table", [table])]
        if selection.exchanges:
            terms.append(_may_contain("exchange", selection.exchanges))
        if selection.symbols:
            terms.append(_may_contain("symbol", selection.symbols))
        if selection.start is not None:
            terms.append((pl.col("last_max") + TIME_STEP > selection.start).fill_null(value=True))
        if selection.end is not None:
            terms.append((pl.col("first_min") < selection.end).fill_null(value=True))
        return pl.all_horizontal(terms)


_GROUPS = pl.Schema(
    {
        "group": pl.Int64(),
        **{
            f"{name}_{bound}": kind
            for name, kind in {
                "table": pl.String(),
                "exchange": pl.String(),
                "symbol": pl.String(),
                "first": TIMESTAMP,
                "last": TIMESTAMP,
            }.items()
            for bound in ("min", "max")
        },
    }
)


def _may_contain(name: str, values: Any) -> pl.Expr:
    """Whether one of the values lies between the smallest and the largest of a row group."""
    low, high = pl.col(f"{name}_min"), pl.col(f"{name}_max")
    hits = [((low <= value) & (high >= value)).fill_null(value=True) for value in values]
    return pl.any_horizontal(hits)


def _read_bounds(group: Any) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    for number in range(group.num_columns):
        column = group.column(number)
        statistics = column.statistics
        # A file without times may hold any time: its row group is never skipped.
        if statistics is None or not statistics.has_min_max or statistics.null_count:
            continue
        bounds[f"{column.path_in_schema}_min"] = statistics.min
        bounds[f"{column.path_in_schema}_max"] = statistics.max
    return {name: value for name, value in bounds.items() if name in _GROUPS}


def _read_tail(path: Path) -> bytes:
    """Read the footer of a Parquet file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _END_BYTES))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - _END_BYTES - length))
        return file.read()


def _read_frame(path: Path, file: Any, groups: list[int] | None, schema: pl.Schema) -> pl.DataFrame:
    import pyarrow as pa

    if groups == []:
        return pl.DataFrame(schema=schema)
    try:
        table = file.read() if groups is None else file.read_row_groups(groups)
    except (OSError, pa.ArrowException) as error:
        if find_reason(error) is not None:
            raise explain_os_error(error, str(path)) from error
        raise DamagedError(f"{path} is damaged: {error}", _HINT) from error
    return pl.DataFrame(table).cast(schema)
