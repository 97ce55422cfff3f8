"""JSON that any reader accepts: numbers that are not finite are texts."""

from __future__ import annotations

import math
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.model.json_text import match_path, parse_json, write_json

VALUES = st.recursive(
    st.none() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(VALUES)
def test_a_strict_reader_reads_what_is_written(value: Any) -> None:
    orjson.loads(write_json(value))


def test_numbers_that_are_not_finite_are_named() -> None:
    row = {"price": math.nan, "levels": [1.5, -math.inf, (math.inf,)], "id": "NaN"}
    text = write_json(row, sort_keys=True)
    assert text == '{"id": "NaN", "levels": [1.5, "-Infinity", ["Infinity"]], "price": "NaN"}'
    assert write_json({"price": 1.5}, separators=(",", ":")) == '{"price":1.5}'


def test_values_beside_bare_numbers_are_read() -> None:
    texts = ['{"a": NaN, "id": "7"}', '{"a": [-Infinity], "id": "8"}', '{"a": ": NaN", "id": "9"}']
    frame = pl.DataFrame({"row": texts}).select(match_path(pl.col("row"), "$.id"))
    assert frame["row"].to_list() == ["7", "8", "9"]


@pytest.mark.parametrize("text", ["NaN", '{"a": -Infinity}', "<html>"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting"):
        parse_json(text)
