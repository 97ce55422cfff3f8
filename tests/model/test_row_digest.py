"""The content digest, against a naive one written from its description alone."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

import polars as pl
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lake.model.digest import compute_digest
from tests.model.everything import EVERYTHING, VALUES, frames

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
KEPT_APART = ("exchange", "symbol", "date")


def naive_digest(frame: pl.DataFrame) -> str:
    """SHA-256 over the lines of market-days, as the docstring of `lake.model.digest` says."""

    def market_day(row: dict[str, Any]) -> tuple[str, str, date]:
        return row["exchange"], row["symbol"], row["timestamp"].date()

    lines = []
    for key, group in groupby(sorted(frame.to_dicts(), key=market_day), key=market_day):
        rows = sorted(group, key=lambda row: (row["timestamp"], row["id"]))
        content = struct.pack("<q", len(rows))
        for column in EVERYTHING.columns:
            if column.name not in KEPT_APART:
                content += column.name.encode() + b"\0" + column.type.encode() + b"\0"
                content += encoded(column.type, [row[column.name] for row in rows])
        lines.append("\t".join([*map(str, key), hashlib.sha256(content).hexdigest()]) + "\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def encoded(kind: str, values: Sequence[Any]) -> bytes:
    validity = bytes(value is not None for value in values)
    if kind.startswith("list"):
        lists = [value or [] for value in values]
        elements = [element for value in lists for element in value]
        return validity + lengths(lists) + encoded(kind[5:-1], elements)
    if kind == "string":
        texts = [(value or "").encode() for value in values]
        return validity + lengths(texts) + b"".join(texts)
    return validity + b"".join(fixed(kind, value) for value in values)


def lengths(values: Sequence[Sequence[Any]]) -> bytes:
    return b"".join(struct.pack("<q", len(value)) for value in values)


def fixed(kind: str, value: Any) -> bytes:
    if kind == "float64":
        return struct.pack("<d", value or 0.0 if value is None else value)
    if kind == "boolean":
        return bytes([bool(value)])
    if kind == "timestamp":
        return struct.pack("<q", 0 if value is None else (value - EPOCH) // MICROSECOND)
    if kind == "date":
        return struct.pack("<q", 0 if value is None else (value - EPOCH.date()).days)
    return struct.pack("<q", value or 0)


@given(frames())
def test_it_equals_a_naive_one_written_from_its_description(frame: pl.DataFrame) -> None:
    assert compute_digest(EVERYTHING, frame) == naive_digest(frame)


@given(frames(), st.randoms(use_true_random=False))
def test_order_and_chunks_do_not_matter(frame: pl.DataFrame, random: Any) -> None:
    pieces = [frame.slice(n, 1) for n in range(frame.height)]
    random.shuffle(pieces)
    shuffled = pl.concat([frame.clear(), *pieces], rechunk=False)
    columns = random.sample(frame.columns, len(frame.columns))
    assert compute_digest(EVERYTHING, shuffled.select(columns)) == compute_digest(EVERYTHING, frame)


@given(frames(min_size=1), st.data())
@settings(max_examples=80)
def test_any_other_value_gives_another_digest(frame: pl.DataFrame, data: st.DataObject) -> None:
    column = data.draw(st.sampled_from(sorted(VALUES)))
    row = data.draw(st.integers(0, frame.height - 1))
    value = data.draw(VALUES[column])
    values = frame[column].to_list()
    assume(repr(values[row]) != repr(value))
    values[row] = value
    changed = frame.with_columns(pl.Series(column, values, dtype=frame.schema[column]))
    assert compute_digest(EVERYTHING, changed) != compute_digest(EVERYTHING, frame)


@given(frames(min_size=1))
def test_a_row_less_gives_another_digest(frame: pl.DataFrame) -> None:
    assert compute_digest(EVERYTHING, frame.slice(1)) != compute_digest(EVERYTHING, frame)
