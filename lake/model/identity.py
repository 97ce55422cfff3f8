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
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from lake.model.dataset import Dataset
from lake.model.frames import find_varying
from lake.model.market import MARKET_COLUMNS
from lake.model.time import MICROSECOND

_ROW, _OTHER = "_row", "_other "


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


def settle_times(
    dataset: Dataset, rows: pl.DataFrame, stored: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Give each row the time of the row that it is: afterwards, equal keys and times are one row.

    Parameters
    ----------
    rows
        Rows without nulls in keys and times, in the order in which they came.
    stored
        The stored rows that they may be: key and time.
    """
    if dataset.has_time_in_key or rows.is_empty():
        return rows
    stored = rows.clear() if stored is None else stored
    key = _find_key(dataset, rows, stored)
    if stored.is_empty() and _count_unique(rows, key) == rows.height:
        return rows
    time = dataset.time_column
    marked = rows.select(*key, _time=pl.col(time)).with_row_index(_ROW)
    anchors = stored.select(*key, _anchor=pl.col(time))
    distinct = marked.unique([*key, "_time"], keep="first", maintain_order=True)
    several = distinct.filter(_is_repeated(key)).select(key).unique()
    single = distinct.join(several, on=key, how="anti") if several.height else distinct
    moved = [_move_to_closest(marked, single, anchors, key, dataset)]
    if several.height:
        moved.append(_walk_groups(marked.join(several, on=key, how="semi"), anchors, key, dataset))
    return _replace_times(rows, pl.concat(moved), time)


def resolve(dataset: Dataset, rows: pl.DataFrame, stored: pl.DataFrame) -> Resolved:
    """Find what becomes of rows that never change.

    Parameters
    ----------
    rows
        Rows that the dataset admits, in the order in which they came.
    stored
        The stored rows that they may be, with the same columns.
    """
    placed = settle_times(dataset, rows, stored)
    key = [*_find_key(dataset, rows, stored), *_own_time(dataset)]
    if stored.is_empty() and _count_unique(placed, key) == placed.height:
        nothing = rows.clear()
        return Resolved(placed, nothing, nothing, nothing, _select_place(dataset, placed))
    targets, pairs = _pair(placed, stored, key)
    differs = _differ(dataset)
    conflicts = pairs.filter(differs).sort(_ROW)
    same = pairs.filter(~differs)
    names = [name for name in dataset.fillable if same[name].null_count() < same.height]
    present = same.filter(pl.col(f"{_OTHER}{_ROW}").is_null()).unique(key, maintain_order=True)
    kept = [_select_place(dataset, part) for part in (targets, present)]
    return Resolved(
        new=_fill_new(names, targets, same),
        filled=_fill_stored(names, same, key),
        conflicting=rows[conflicts[_ROW]],
        opposed=conflicts.select(pl.col(f"{_OTHER}{name}").alias(name) for name in rows.columns),
        kept=pl.concat(kept),
    )


def _find_key(dataset: Dataset, *frames: pl.DataFrame) -> list[str]:
    """Return the key without columns of one value: joining by strings costs most."""
    ends = pl.concat(
        [rows.select(pl.col(dataset.full_key).min()) for rows in frames]
        + [rows.select(pl.col(dataset.full_key).max()) for rows in frames]
    ).drop_nulls()
    return find_varying(ends, dataset.full_key) or [dataset.key[0]]


def _own_time(dataset: Dataset) -> tuple[str, ...]:
    return () if dataset.has_time_in_key else (dataset.time_column,)


def _count_unique(rows: pl.DataFrame, key: Sequence[str]) -> int:
    keys = pl.struct(key) if len(key) > 1 else pl.col(key[0])
    return int(rows.select(keys.n_unique()).item())


def _is_repeated(key: Sequence[str]) -> pl.Expr:
    return (pl.struct(key) if len(key) > 1 else pl.col(key[0])).is_duplicated()


def _replace_times(rows: pl.DataFrame, moved: pl.DataFrame, time: str) -> pl.DataFrame:
    if moved.is_empty():
        return rows
    numbered = rows.with_row_index(_ROW)
    joined = numbered.join(moved, on=_ROW, how="left", maintain_order="left")
    settled = pl.coalesce("_settled", time).alias(time)
    return joined.with_columns(settled).select(rows.columns)


def _move_to_closest(
    marked: pl.DataFrame,
    single: pl.DataFrame,
    anchors: pl.DataFrame,
    key: list[str],
    dataset: Dataset,
) -> pl.DataFrame:
    """Find the stored time of rows whose key has one time: `_row`, `_settled`, if it differs."""
    gap = (pl.col("_time") - pl.col("_anchor")).abs().alias("_gap")
    close = single.drop(_ROW).join(anchors, on=key).with_columns(gap)
    close = close.filter(pl.col("_gap") <= dataset.time_tolerance)
    closest = close.sort("_gap", "_anchor").unique(key, keep="first", maintain_order=True)
    other = closest.filter(pl.col("_anchor") != pl.col("_time")).select(*key, _settled="_anchor")
    return marked.join(other, on=key).select(_ROW, "_settled")


def _walk_groups(
    repeated: pl.DataFrame, anchors: pl.DataFrame, key: list[str], dataset: Dataset
) -> pl.DataFrame:
    """Settle rows whose key comes several times, key by key: `_row`, `_settled`."""
    tolerance = dataset.time_tolerance // MICROSECOND
    groups = repeated.group_by(key).agg(_ROW, pl.col("_time").to_physical())
    present = anchors.group_by(key).agg(pl.col("_anchor").to_physical().sort())
    numbers: list[int] = []
    times: list[int] = []
    listed = groups.join(present, on=key, how="left").select(_ROW, "_time", "_anchor")
    for positions, own, known in listed.iter_rows():
        numbers.extend(positions)
        times.extend(_walk(own, known or [], tolerance))
    settled = pl.Series("_settled", times, dtype=pl.Int64).cast(repeated.schema["_time"])
    return pl.DataFrame([pl.Series(_ROW, numbers, dtype=repeated.schema[_ROW]), settled])


def _walk(times: list[int], anchors: list[int], tolerance: int) -> list[int]:
    """Settle the times of one key, one by one; `anchors` are sorted, and grow by new rows."""
    settled = []
    for time in times:
        at = bisect_left(anchors, time)
        around = anchors[max(0, at - 1) : at + 1]
        closest = min(around, key=lambda anchor: (abs(anchor - time), anchor), default=None)
        if closest is None or abs(closest - time) > tolerance:
            insort(anchors, time)
            closest = time
        settled.append(closest)
    return settled


def _pair(
    placed: pl.DataFrame, stored: pl.DataFrame, key: list[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pair rows with the row that came before: a stored one, or an earlier one of the batch.

    Returns
    -------
    targets
        The rows that are the first of their key and not stored: `placed`, with `_row`.
    pairs
        Each other row with the columns of the row before it, under `_other …`; `_other _row` is
        null where that one is stored.
    """
    marked = placed.with_row_index(_ROW)
    present = stored.select(placed.columns).unique(key, keep="first", maintain_order=True)
    fresh = marked.join(present, on=key, how="anti", maintain_order="left")
    targets = fresh.unique(key, keep="first", maintain_order=True)
    nowhere = pl.lit(None, dtype=marked.schema[_ROW]).alias(_ROW)
    before = pl.concat([present.select(nowhere, *placed.columns), targets])
    others = before.rename(lambda name: f"{_OTHER}{name}")
    later = marked.join(targets.select(_ROW), on=_ROW, how="anti", maintain_order="left")
    pairs = later.join(
        others, left_on=key, right_on=[f"{_OTHER}{name}" for name in key], coalesce=False
    )
    return targets, pairs


def _differ(dataset: Dataset) -> pl.Expr:
    """Whether the content of two rows of one key differs; null equals null."""
    terms = [pl.col(name).ne_missing(pl.col(f"{_OTHER}{name}")) for name in dataset.values]
    return pl.any_horizontal(terms) if terms else pl.lit(value=False)


def _fill_new(names: list[str], targets: pl.DataFrame, same: pl.DataFrame) -> pl.DataFrame:
    """Fill nulls of new rows by later rows of the batch that are the same."""
    before = f"{_OTHER}{_ROW}"
    later = same.filter(pl.col(before).is_not_null()).sort(_ROW)
    if not names or later.is_empty():
        return targets.drop(_ROW)
    values = later.group_by(before).agg(_first_values(names))
    filled = targets.join(values, left_on=_ROW, right_on=before, how="left", maintain_order="left")
    coalesced = [pl.coalesce(name, f"{name}_right").alias(name) for name in names]
    return filled.with_columns(coalesced).select(targets.columns).drop(_ROW)


def _fill_stored(names: list[str], same: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Find stored rows of which a null is to be filled, and fill it."""
    lacks = [pl.col(f"{_OTHER}{name}").is_null() & pl.col(name).is_not_null() for name in names]
    is_stored = pl.col(f"{_OTHER}{_ROW}").is_null()
    fills = same.filter(is_stored & pl.any_horizontal(lacks or [pl.lit(value=False)])).sort(_ROW)
    values = fills.group_by(key).agg(_first_values(names))
    stored = fills.unique(key, keep="first", maintain_order=True)
    columns = [name.removeprefix(_OTHER) for name in same.columns if name.startswith(_OTHER)]
    rows = stored.select(pl.col(f"{_OTHER}{name}").alias(name) for name in columns).drop(_ROW)
    joined = rows.join(values, on=key, how="left", maintain_order="left")
    coalesced = [pl.coalesce(name, f"{name}_right").alias(name) for name in names]
    return joined.with_columns(coalesced).select(rows.columns)


def _first_values(names: list[str]) -> list[pl.Expr]:
    return [pl.col(name).drop_nulls().first() for name in names]


def _select_place(dataset: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(*MARKET_COLUMNS, dataset.time_column)
