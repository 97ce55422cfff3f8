"""Content digests: a property of rows, whatever their order, files, compression or library.

The digest of the rows of one market-day is SHA-256 over, in this order:

1. the number of rows, as 8 bytes little-endian;
2. for each column of the dataset but `exchange`, `symbol`, `date` and those with `digest = false`
   in its dataset file, in the dataset's order, its name and type in UTF-8, each followed by a zero
   byte, and then its values of the rows sorted by the dataset's time column and then by its key
   (strings by code point):

   - validity: a byte a row, 1 for a value, 0 for null;
   - timestamp, int64: 8 bytes little-endian a row (timestamps: microseconds since 1970 UTC);
     float64: its IEEE 754 bits, 8 bytes little-endian; boolean: one byte; date: days since 1970,
     8 bytes little-endian; null counts as 0;
   - string: the length of each in bytes, 8 bytes little-endian a row, then all of them in UTF-8,
     joined; null counts as empty;
   - list: the length of each, 8 bytes little-endian a row, then validity and values of all
     elements as a column of their own.

The digest of many rows is SHA-256 over one line a market-day, sorted,
`exchange TAB symbol TAB date TAB digest LF` in UTF-8, with `date` the calendar day as 2026-01-31
and `digest` in lower-case hex.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import polars as pl

from lake.model.dataset import Dataset
from lake.model.frames import sort_by
from lake.model.partitions import MARKET_DAY

if TYPE_CHECKING:
    import numpy as np


def compute_digest(dataset: Dataset, frame: pl.DataFrame) -> str:
    """Compute the digest of rows of a dataset: 64 hex digits. Columns are in any order."""
    return combine_digests(digest_market_days(dataset, frame))


def digest_market_days(dataset: Dataset, frame: pl.DataFrame) -> pl.DataFrame:
    """Compute the digest of each market-day of rows: exchange, symbol, date, digest."""
    day = pl.col(dataset.time_column).dt.date().alias("date")
    order = dict.fromkeys([*MARKET_DAY, dataset.time_column, *dataset.key])
    rows = sort_by(frame.with_columns(day), order)
    runs = rows.select(MARKET_DAY).with_row_index("start").unique(MARKET_DAY, keep="first")
    runs = runs.sort("start")
    starts = [*runs["start"], rows.height]
    columns = [
        (f"{c.name}\0{c.type}\0".encode(), _EncodedColumn.encode(rows[c.name]))
        for c in dataset.content
    ]
    digests = []
    for start, end in pairwise(starts):
        pieces: list[bytes | memoryview] = [(end - start).to_bytes(8, "little")]
        for head, encoded in columns:
            pieces.append(head)
            pieces.extend(encoded.slice_rows(start, end))
        # Hashed in one call: each long update would pass the interpreter to another thread.
        digests.append(hashlib.sha256(b"".join(pieces)).hexdigest())
    return runs.select(MARKET_DAY).with_columns(digest=pl.Series(digests, dtype=pl.String))


def combine_digests(days: pl.DataFrame) -> str:
    """Combine digests of market-days, as `digest_market_days` returns them, to one."""
    line = pl.format("{}\t{}\t{}\t{}\n", *MARKET_DAY, "digest").alias("line")
    lines = days.select(line.sort().str.join(""))["line"].item() if days.height else ""
    return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class _EncodedColumn:
    """A column as bytes, from which any range of rows can be cut.

    Attributes
    ----------
    validity
        One byte per row.
    fixed
        The values, `width` bytes per row; of strings and lists their lengths.
    starts
        Of strings and lists: where the content of each row starts, and where the last one ends.
    content
        Of strings: all of them in UTF-8. Of lists: their elements.
    """

    validity: bytes
    fixed: bytes
    width: int
    starts: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None
    content: bytes | _EncodedColumn = b""

    @classmethod
    def encode(cls, values: pl.Series) -> _EncodedColumn:
        validity = values.is_not_null().cast(pl.UInt8).to_numpy().tobytes()
        if isinstance(values.dtype, pl.List):
            lengths = values.list.len().fill_null(0)
            elements = values.drop_nulls().list.explode(empty_as_null=False)
            return cls(validity, _to_words(lengths), 8, _find_starts(lengths), cls.encode(elements))
        if values.dtype == pl.String:
            texts = values.fill_null("")
            lengths = texts.str.len_bytes()
            return cls(validity, _to_words(lengths), 8, _find_starts(lengths), _join_texts(texts))
        if values.dtype == pl.Boolean:
            flags = values.fill_null(value=False).cast(pl.UInt8)
            return cls(validity, flags.to_numpy().tobytes(), 1)
        if values.dtype == pl.Float64:
            bits = values.fill_null(0.0).to_numpy().astype("<f8", copy=False)
            return cls(validity, bits.tobytes(), 8)
        return cls(validity, _to_words(values.to_physical()), 8)

    def slice_rows(self, start: int, end: int) -> Iterator[memoryview]:
        """Cut the rows `[start, end)`: parts to be hashed one after the other."""
        yield memoryview(self.validity)[start:end]
        yield memoryview(self.fixed)[start * self.width : end * self.width]
        if self.starts is None:
            return
        first, last = int(self.starts[start]), int(self.starts[end])
        if isinstance(self.content, _EncodedColumn):
            yield from self.content.slice_rows(first, last)
        else:
            yield memoryview(self.content)[first:last]


def _to_words(values: pl.Series) -> bytes:
    return values.cast(pl.Int64).fill_null(0).to_numpy().astype("<i8", copy=False).tobytes()


def _find_starts(lengths: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    import numpy as np

    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths.to_numpy(), out=starts[1:])
    return starts


def _join_texts(texts: pl.Series) -> bytes:
    """Join all texts in UTF-8, as Arrow's large strings are in memory."""
    import numpy as np

    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    offsets, data = array.buffers()[1:]
    if data is None:
        return b""
    ends = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    return bytes(memoryview(data)[ends[0] : ends[-1]])
