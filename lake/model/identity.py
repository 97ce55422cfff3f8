"""The rule by which rows are told apart: which are one, which are two, and which contradict.

Rows are one if their keys are equal and, where the time column is not part of the key, their times
differ by at most the dataset's `time_tolerance`. Farther apart, rows of one key are two rows.

Being close is not transitive: of three times, the first and the last may be too far apart, and both
be close to the one between. So rows are taken one by one, in the order in which they come. A row
that is close to a row that is there is that row (the closest, of two the earlier), and has its
time; another becomes a row. Hence it does not matter how rows are cut into batches, and two rows
of one key are always farther apart than the tolerance. The order in which rows come decides which
of close times is stored, and, only where times are close in a chain, how many rows there are.

The first values of an immutable row stay: a later row that differs in its content contradicts it.
Columns that are not content (`digest = false`) contradict nothing; a null in them may be filled by
a later row of equal content.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from lake.model.dataset import Dataset
from lake.model.frames import find_varying
from lake.model.market import MARKET_COLUMNS
from lake.model.time import MICROSECOND

ReadStored = Callable[[pl.Series, Sequence[str]], pl.DataFrame]
"""Takes numbers of stored rows, and reads columns of these rows, in the order of the numbers."""

CONTRADICTS = "contradicts_earlier_row"
"""The reason of rows in quarantine that contradict a row that came before."""
_ROW, _STORED, _FIRST, _TARGET = "_row", "_stored", "_first", "_target"
_NUMBER = pl.UInt32()


@dataclass(frozen=True)
class Matches:
    """Which row each row of a batch is.

    Attributes
    ----------
    stored
        The number of the stored row; null if it is not stored.
    first
        The number of the first row of the batch that is the same row: its own if it comes first.
    """

    stored: pl.Series
    first: pl.Series

    @classmethod
    def of_new_rows(cls, count: int) -> Matches:
        """Return the matches of rows that are all new."""
        stored = pl.repeat(None, count, dtype=_NUMBER, eager=True)
        return cls(stored, pl.int_range(count, dtype=_NUMBER, eager=True))

    @property
    def is_new(self) -> pl.Series:
        """Whether a row is not stored, and the first of its batch."""
        numbers = pl.int_range(len(self.first), dtype=_NUMBER, eager=True)
        return self.stored.is_null() & (self.first == numbers)


@dataclass(frozen=True)
class Resolved:
    """What becomes of rows that never change, given the stored rows that they may be.

    Attributes
    ----------
    new
        Rows to be inserted.
    filled
        Stored rows of which a null is to be filled, with the values that they will have.
    conflicting
        Rows that contradict a row that came before, as they came.
    opposed
        The rows that these contradict, line by line.
    kept
        Market and time of the rows of the table that the others now are, each once.
    """

    new: pl.DataFrame
    filled: pl.DataFrame
    conflicting: pl.DataFrame
    opposed: pl.DataFrame
    kept: pl.DataFrame


def match_rows(dataset: Dataset, rows: pl.DataFrame, places: pl.DataFrame) -> Matches:
    """Find which row each row of a batch is.

    Parameters
    ----------
    rows
        Rows without nulls in keys and times, in the order in which they came.
    places
        Market, key and time of the stored rows that they may be.
    """
    key = find_key(dataset, rows, places)
    if places.is_empty() and len(key) == 1 and rows[key[0]].n_unique() == rows.height:
        return Matches.of_new_rows(rows.height)
    time = pl.col(dataset.time_column)
    marked = rows.select(*key, _time=time).with_row_index(_ROW)
    anchors = places.select(*key, _anchor=time).with_row_index(_STORED)
    keys = pl.struct(key) if len(key) > 1 else pl.col(key[0])
    if marked.select(keys.n_unique()).item() == marked.height:
        found = _find_closest(dataset, marked, anchors, key)
        return _collect(marked, found, None)
    distinct = marked.unique([*key, "_time"], keep="first", maintain_order=True)
    several = distinct.filter(keys.is_duplicated()).select(key).unique()
    single = distinct.join(several, on=key, how="anti", maintain_order="left")
    first = single.select(*key, pl.col(_ROW).alias(_FIRST))
    same = marked.join(first, on=key).select(_ROW, _FIRST)
    found = _find_closest(dataset, single, anchors, key)
    found = same.join(found, left_on=_FIRST, right_on=_ROW).select(_ROW, _STORED)
    walked = _walk_keys(dataset, marked.join(several, on=key, how="semi"), anchors, key)
    return _collect(
        marked,
        pl.concat([found, walked.select(_ROW, _STORED).drop_nulls()]),
        pl.concat([same, walked.select(_ROW, _FIRST)]),
    )


def settle_times(dataset: Dataset, rows: pl.DataFrame, places: pl.DataFrame) -> pl.DataFrame:
    """Give each row the time of the row that it is: afterwards, equal keys and times are one row.

    Parameters: as of `match_rows`.
    """
    if dataset.has_time_in_key:
        return rows
    matches, time = match_rows(dataset, rows, places), dataset.time_column
    stored = places[time].gather(matches.stored)
    first = rows[time].gather(matches.first)
    return rows.with_columns(pl.select(pl.coalesce(stored, first).alias(time)).to_series())


def resolve(
    dataset: Dataset, rows: pl.DataFrame, places: pl.DataFrame, read: ReadStored
) -> Resolved:
    """Find what becomes of rows that never change.

    Parameters
    ----------
    rows
        Rows that the dataset admits, in the order in which they came.
    places
        Market, key and time of the stored rows that they may be.
    read
        Reads these stored rows; it is called only if one of them is among `rows`.
    """
    matches = match_rows(dataset, rows, places)
    is_new = matches.is_new
    if is_new.all():
        nothing = rows.clear()
        return Resolved(rows, nothing, nothing, nothing, select_place(dataset, rows))
    stored = matches.stored.drop_nulls().unique().sort()
    pairs = _pair(matches, stored).filter(~is_new)
    compared = [*dataset.values, *dataset.fillable]
    targets = pl.concat([read(stored, compared), rows.select(compared)])
    mine, other = rows.select(compared)[pairs[_ROW]], targets[pairs[_TARGET]]
    differs = _differ(dataset, mine, other)
    fills = _find_fills(dataset, *(part.filter(~differs) for part in (pairs, mine, other)))
    of_stored = pl.col(_TARGET) < len(stored)
    fills_new = fills.filter(~of_stored).with_columns(pl.col(_TARGET) - len(stored))
    fills_stored = fills.filter(of_stored)
    changed = read(stored[fills_stored[_TARGET]], rows.columns)
    in_turn = pl.int_range(pl.len(), dtype=_NUMBER).alias(_TARGET)
    conflicts = pairs.filter(differs)
    is_kept = pairs.filter(~differs & (pairs[_TARGET] < len(stored)))[_TARGET].unique().sort()
    kept = (rows.filter(is_new), places[stored[is_kept]])
    return Resolved(
        new=_apply_fills(rows, fills_new).filter(is_new),
        filled=_apply_fills(changed, fills_stored.with_columns(in_turn)),
        conflicting=rows[conflicts[_ROW]],
        opposed=_read_opposed(rows, stored, conflicts[_TARGET], read),
        kept=pl.concat(select_place(dataset, part) for part in kept),
    )


def find_key(dataset: Dataset, *frames: pl.DataFrame) -> list[str]:
    """Return the key without columns of one value: joining by strings costs most."""
    names = dataset.full_key
    filled = [rows for rows in frames if rows.height]
    if len(filled) < 2:
        return find_varying((*filled, frames[0])[0], names) or [dataset.key[0]]
    ends = [rows.select(end(n) for n in names) for rows in filled for end in (pl.min, pl.max)]
    return find_varying(pl.concat(ends), names) or [dataset.key[0]]


def select_place(dataset: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
    """Select market and time."""
    return rows.select(*MARKET_COLUMNS, dataset.time_column)


def _collect(marked: pl.DataFrame, found: pl.DataFrame, first: pl.DataFrame | None) -> Matches:
    """Order matches by row: `found` has rows that are stored, `first` all rows or is None."""
    numbers = marked[_ROW]
    stored = marked.select(_ROW).join(found, on=_ROW, how="left", maintain_order="left")[_STORED]
    return Matches(stored, numbers if first is None else first.sort(_ROW)[_FIRST])


def _find_closest(
    dataset: Dataset, single: pl.DataFrame, anchors: pl.DataFrame, key: list[str]
) -> pl.DataFrame:
    """Find the stored rows of rows whose key has one time: `_row`, `_stored`."""
    close = single.join(anchors, on=key)
    gap = (pl.col("_time") - pl.col("_anchor")).abs()
    if not dataset.has_time_in_key:
        close = close.filter(gap <= dataset.time_tolerance)
    if close[_ROW].n_unique() < close.height:
        close = close.sort(gap, "_anchor", _STORED).unique(_ROW, keep="first", maintain_order=True)
    return close.select(_ROW, _STORED)


def _walk_keys(
    dataset: Dataset, repeated: pl.DataFrame, anchors: pl.DataFrame, key: list[str]
) -> pl.DataFrame:
    """Match rows whose key has several times, key by key: `_row`, `_stored`, `_first`."""
    tolerance = dataset.time_tolerance // MICROSECOND
    groups = repeated.group_by(key).agg(_ROW, pl.col("_time").to_physical())
    present = anchors.sort("_anchor").group_by(key).agg(pl.col("_anchor").to_physical(), _STORED)
    walked: list[tuple[int, int | None, int]] = []
    columns = (_ROW, "_time", "_anchor", _STORED)
    for rows, times, known, stored in (
        groups.join(present, on=key, how="left").select(columns).iter_rows()
    ):
        walked.extend(_walk(rows, times, known or [], stored or [], tolerance))
    schema = {_ROW: _NUMBER, _STORED: _NUMBER, _FIRST: _NUMBER}
    return pl.DataFrame(walked, schema=schema, orient="row")


def _walk(
    rows: list[int], times: list[int], anchors: list[int], stored: list[int], tolerance: int
) -> Iterator[tuple[int, int | None, int]]:
    """Match the rows of one key, one by one; `anchors` are sorted, and grow by new rows."""
    known: dict[int, tuple[int | None, int]] = {}
    for time, number in zip(anchors, stored, strict=True):
        known.setdefault(time, (number, 0))
    for row, time in zip(rows, times, strict=True):
        at = bisect_left(anchors, time)
        around = anchors[max(0, at - 1) : at + 1]
        closest = min(around, key=lambda anchor: (abs(anchor - time), anchor), default=None)
        if closest is None or abs(closest - time) > tolerance:
            insort(anchors, time)
            known[time] = (None, row)
            closest = time
        which, first = known[closest]
        yield row, which, first if which is None else row


def _pair(matches: Matches, stored: pl.Series) -> pl.DataFrame:
    """Pair each row with its target: its stored row, by its place in `stored`, or one of the batch.

    Rows of the batch are numbered after those.
    """
    of_stored = stored.search_sorted(matches.stored.fill_null(0)).cast(_NUMBER)
    of_batch = matches.first + pl.lit(len(stored), _NUMBER)
    target = pl.when(matches.stored.is_not_null()).then(of_stored).otherwise(of_batch)
    numbers = pl.int_range(len(matches.first), dtype=_NUMBER)
    return pl.select(numbers.alias(_ROW), target.alias(_TARGET))


def _differ(dataset: Dataset, mine: pl.DataFrame, other: pl.DataFrame) -> pl.Series:
    """Whether the content of rows differs, line by line; null equals null."""
    differs = pl.repeat(value=False, n=mine.height, eager=True)
    for name in dataset.values:
        differs |= mine[name].ne_missing(other[name])
    return differs


def _find_fills(
    dataset: Dataset, same: pl.DataFrame, mine: pl.DataFrame, other: pl.DataFrame
) -> pl.DataFrame:
    """Find nulls of rows that later rows fill: the number of the target, and its new values."""
    names = dataset.fillable
    lacking = pl.repeat(value=False, n=mine.height, eager=True)
    for name in names:
        lacking |= other[name].is_null() & mine[name].is_not_null()
    lines = same.hstack(mine.select(names)).filter(lacking)
    values = [pl.col(name).drop_nulls().first() for name in names]
    return lines.group_by(_TARGET).agg(values).sort(_TARGET)


def _apply_fills(rows: pl.DataFrame, fills: pl.DataFrame) -> pl.DataFrame:
    """Fill nulls of rows; `_target` is the number of the row."""
    if fills.is_empty():
        return rows
    names = [name for name in fills.columns if name != _TARGET]
    joined = rows.with_row_index(_TARGET).join(fills, on=_TARGET, how="left", maintain_order="left")
    filled = [pl.coalesce(name, f"{name}_right").alias(name) for name in names]
    return joined.with_columns(filled).select(rows.columns)


def _read_opposed(
    rows: pl.DataFrame, stored: pl.Series, targets: pl.Series, read: ReadStored
) -> pl.DataFrame:
    """Read the rows with these numbers: stored ones, or those of the batch."""
    is_stored = targets < len(stored)
    needed = targets.filter(is_stored).unique().sort()
    place = needed.search_sorted(targets)
    of_batch = targets.cast(pl.Int64) - len(stored) + len(needed)
    at = place.cast(pl.Int64).zip_with(is_stored, of_batch)
    return pl.concat([read(stored[needed], rows.columns), rows])[at]
