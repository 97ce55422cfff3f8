"""Report stored rows that the source contradicted: one of the two rows is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from lake.model.dataset import TIMESTAMP, Dataset
from lake.model.identity import CONTRADICTS
from lake.model.json_text import parse_json
from lake.model.revision import CONFLICTS
from lake.model.schedule import scheduled_at
from lake.model.time import iso
from lake.quality.check import CHECK_COLUMNS, BuiltinCheck, count_phrase
from lake.quality.checks.quarantined import KEY, SEPARATOR
from lake.quality.slice import Slice

CONTENT = "row"
"""Column of rejected rows with the row as JSON; null unless it contradicts another one."""
OPPOSED = "opposed"
"""Column of rejected rows with the row that stayed of the same answer as JSON; else null."""
_LONGEST = 60  # characters of a value in a message: a book has hundreds of levels
_Row = Mapping[str, Any]
_Difference = tuple[datetime, float | None, float | None, str]
_BOTH = "the table quarantine has both (columns row, stored). Find out which is right: "
_MESSAGES = {
    CONTRADICTS: (
        "contradicted by later rows of the same key",
        _BOTH
        + "a stored row stays until it is deleted from the table, or the repair that wrote it is "
        + "undone",
    ),
    CONFLICTS: (
        "contradicted by other rows of the same answer",
        f"{_BOTH}the last one of an answer is stored, and a later answer revises it",
    ),
}
_DIFFERENCE = {
    "start": TIMESTAMP,
    "measured": pl.Float64(),
    "expected": pl.Float64(),
    "_text": pl.String(),
}


def contradicted(data: Slice) -> pl.LazyFrame:
    """Report stored rows whose source gave another row of the same key: one finding per day.

    Rows that never change are contradicted by later ones, others by rows of the same answer. Rows
    of one key are compared with the one that was rejected last. A stored row that was deleted,
    revised, or replaced by that one, is contradicted no more. `measured` and `expected`: the first
    number that differs, as stored and as it was rejected.
    """
    reason = CONTRADICTS if data.dataset.rows == "immutable" else CONFLICTS
    what, advice = _MESSAGES[reason]
    pairs = _pair_rows(data)
    if pairs.is_empty():
        return pl.LazyFrame(schema=CHECK_COLUMNS)
    differences = pl.DataFrame(
        _find_differences(data.dataset, pairs), schema=_DIFFERENCE, orient="row"
    )
    return (
        differences.lazy()
        .sort("start", maintain_order=True)
        .group_by(pl.col("start").dt.date().alias("_day"), maintain_order=True)
        .agg(
            pl.col("start", "measured", "expected").first(),
            end=pl.col("start").last().dt.offset_by("1us"),
            rows=pl.len().cast(pl.Int64),
            _text=pl.col("_text").first(),
        )
        .with_columns(
            reason=pl.lit(reason),
            message=pl.format(
                "{} {}: {}; {}",
                count_phrase(pl.col("rows"), "stored row is", "stored rows are"),
                pl.lit(what),
                "_text",
                pl.lit(advice),
            ),
        )
        .drop("_day", "_text")
    )


def _pair_rows(data: Slice) -> pl.DataFrame:
    """Pair contradicting rows (`_came`, `_at`, `_refused`) with stored rows that they may be."""
    rejected = data.quarantine
    if rejected is None or CONTENT not in rejected.columns:
        return pl.DataFrame()
    is_pair = pl.col("reason").is_in(list(_MESSAGES)) & pl.col(CONTENT).is_not_null()
    came = rejected.filter(is_pair)
    if came.is_empty():
        return pl.DataFrame()
    later = came.lazy().select(
        KEY,
        _at=pl.col("timestamp"),
        _came=pl.col(CONTENT),
        _refused=pl.col("refused_at"),
        _opposed=pl.col(OPPOSED) if OPPOSED in came.columns else pl.lit(None, pl.String),
    )
    if data.dataset.has_time_in_key:
        later = later.with_columns(scheduled_at(data.dataset, pl.col("_at")).alias("_place"))
        placed = data.frame.with_columns(scheduled_at(data.dataset, data.time).alias("_place"))
        return placed.join(later, on="_place").collect()
    parts = [pl.col(name).cast(pl.String) for name in data.dataset.key]
    keyed = data.frame.with_columns(pl.concat_str(parts, separator=SEPARATOR).alias("_key"))
    return keyed.join(later, left_on="_key", right_on=KEY).collect()


def _find_differences(dataset: Dataset, pairs: pl.DataFrame) -> Iterator[_Difference]:
    """Yield what differs in each stored row from the row of its key that was rejected last.

    Of rows that were rejected at once, it may be any.
    """
    last: dict[tuple[Any, ...], datetime] = {}
    found: dict[tuple[Any, ...], _Difference | None] = {}
    for row in pairs.sort("_refused", descending=True, maintain_order=True).iter_rows(named=True):
        came = parse_json(row["_came"])
        place = tuple(row[name] for name in dataset.row_key)
        if last.get(place, row["_refused"]) != row["_refused"] or not _is_same(dataset, row, came):
            continue
        if row["_opposed"] is not None and _is_revised(dataset, row, parse_json(row["_opposed"])):
            continue
        difference = _describe_difference(dataset, row, came)
        if place not in last or difference is None:
            found[place] = difference
        last[place] = row["_refused"]
    yield from filter(None, found.values())


def _is_same(dataset: Dataset, stored: _Row, came: _Row) -> bool:
    """Whether two rows have one key and close times."""
    if abs(stored[dataset.time_column] - stored["_at"]) > dataset.reach:
        return False
    key = dataset.key if dataset.schedule is None else ()
    return all(_to_json(stored[name]) == came.get(name) for name in key)


def _is_revised(dataset: Dataset, stored: _Row, opposed: _Row) -> bool:
    """Whether a stored row is no longer the one that was opposed to a rejected one."""
    return _describe_difference(dataset, stored, opposed) is not None


def _describe_difference(dataset: Dataset, stored: _Row, came: _Row) -> _Difference | None:
    """Describe the first column that differs; None if the rows are equal."""
    for name in dataset.values:
        if name not in stored or name not in came:
            continue
        here, there = _to_json(stored[name]), came[name]
        if here != there:
            key = ", ".join(f"{part} {_to_json(stored[part])}" for part in dataset.key)
            order = "later" if dataset.rows == "immutable" else "rejected"
            text = f"{key} has {name} {_shorten(here)}, {order} {_shorten(there)}"
            return stored[dataset.time_column], _to_number(here), _to_number(there), text
    return None


def _to_json(value: object) -> object:
    """Convert a stored value to what the JSON of a rejected row holds."""
    if isinstance(value, datetime):
        return iso(value.astimezone(UTC))
    return value if value is None or isinstance(value, str | int | float | list) else str(value)


def _to_number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


CHECKS: Mapping[str, BuiltinCheck] = {"contradicted": BuiltinCheck(contradicted, "consistency")}
