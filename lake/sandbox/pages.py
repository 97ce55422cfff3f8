"""Pages of rendered JSON rows, built from blocks that are computed once and cached."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from lake.sandbox.intervals import Interval


@dataclass(frozen=True, slots=True)
class Rows:
    """JSON rows in ascending order of a number (a time or a position), joined by commas."""

    at: NDArray[np.int64]
    text: bytes
    starts: list[int]  # offset of each row in `text`, and of one past the last

    @classmethod
    def join(cls, at: list[int], rows: list[bytes]) -> "Rows":
        """Join rendered rows; `at` holds the number of each."""
        starts = list(accumulate((len(row) + 1 for row in rows), initial=0))
        return cls(np.array(at, dtype=np.int64), b",".join(rows), starts)

    def find_range(self, low: int, high: int) -> tuple[int, int]:
        """Return the half-open range of indices of the rows with numbers in `[low, high)`."""
        first, last = np.searchsorted(self.at, (low, high)).tolist()
        return first, max(first, last)

    def slice_text(self, first: int, last: int) -> bytes:
        """Return the text of the rows `[first, last)`, which must not be empty."""
        return self.text[self.starts[first] : self.starts[last] - 1]


@dataclass(frozen=True, slots=True)
class Span:
    """The requested rows: numbers in `[start, end)`, the first `limit`, or the last if `latest`."""

    start: int
    end: int
    limit: int
    latest: bool = False

    def clip(self, low: int, high: int) -> "Span":
        """Return the part of the span inside `[low, high)`."""
        return replace(self, start=max(self.start, low), end=min(self.end, high))


@dataclass(frozen=True, slots=True)
class Page:
    """A number of rows, rendered in pieces that commas join."""

    count: int
    pieces: list[bytes]


Load = Callable[[int, int], Rows]


class Pages:
    """Builds pages from cached blocks of rows.

    Parameters
    ----------
    capacity_bytes : int
        Most bytes of text to keep; the least recently used blocks are dropped first.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._size = 0
        self._blocks: OrderedDict[tuple[Hashable, int], Rows] = OrderedDict()

    def build_page(self, key: Hashable, blocks: Interval, load: Load, span: Span) -> Page:
        """Build a page of rows in ascending order.

        Parameters
        ----------
        key : hashable
            Identifies the rows; one key always goes with the same `blocks` and `load`.
        blocks : Interval
            Where blocks begin and end.
        load : callable
            Returns all rows of `[start, end)`, the range of one block.
        span : Span
            The requested rows.
        """
        left = span.limit
        pieces: list[bytes] = []
        for block in _list_blocks(blocks, span):
            if left <= 0:
                break
            rows = self._load_block(key, blocks, load, block)
            first, last = rows.find_range(span.start, span.end)
            if span.latest:
                first = max(first, last - left)
            else:
                last = min(last, first + left)
            if first < last:
                left -= last - first
                pieces.append(rows.slice_text(first, last))
        return Page(span.limit - left, pieces[::-1] if span.latest else pieces)

    def forget(self, key: Hashable, block: int) -> None:
        """Drop a block whose rows have changed."""
        rows = self._blocks.pop((key, block), None)
        if rows is not None:
            self._size -= len(rows.text)

    def _load_block(self, key: Hashable, blocks: Interval, load: Load, block: int) -> Rows:
        rows = self._blocks.get((key, block))
        if rows is not None:
            self._blocks.move_to_end((key, block))
            return rows
        rows = load(blocks.block_opens(block), blocks.block_opens(block + 1))
        self._blocks[key, block] = rows
        self._size += len(rows.text)
        while self._size > self._capacity and len(self._blocks) > 1:
            _, dropped = self._blocks.popitem(last=False)
            self._size -= len(dropped.text)
        return rows


def _list_blocks(blocks: Interval, span: Span) -> range:
    if span.start >= span.end:
        return range(0)
    ascending = range(blocks.block(span.start), blocks.block(span.end - 1) + 1)
    return ascending[::-1] if span.latest else ascending
