"""A dataset with a column of every type, and frames that fit it."""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, date
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import strategies as st

from lake.model.catalog import Catalog, builtin_files
from lake.model.dataset import Dataset
from lake.model.time import EPOCH

TEXT = """
name = "everything"
title = "Everything"
description = "A column of every type."
rows = "immutable"
date = "day"
time_column = "timestamp"
key = ["id"]

[columns]
timestamp = { type = "timestamp", unit = "UTC", meaning = "When." }
id = { type = "int64", meaning = "Which." }
number = { type = "float64", nullable = true, meaning = "A number." }
count = { type = "int64", nullable = true, meaning = "A count." }
flag = { type = "boolean", nullable = true, meaning = "A flag." }
text = { type = "string", nullable = true, meaning = "A text." }
day = { type = "date", nullable = true, meaning = "A day." }
later = { type = "timestamp", unit = "UTC", nullable = true, meaning = "A time." }
numbers = { type = "list<float64>", nullable = true, meaning = "Numbers." }
texts = { type = "list<string>", nullable = true, meaning = "Texts." }
"""


def _dataset() -> Dataset:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "everything.toml"
        path.write_text(TEXT, encoding="utf-8")
        return Catalog([path]).dataset("everything")


def own_copy(family: str, name: str) -> str:
    """The product's dataset file of a family as one of a user's own, who writes the rows."""
    text = next(path for path in builtin_files() if path.stem == family).read_text("utf-8")
    text = re.sub(r"^(from|section|event|margin) = .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\[(fetch|repair)\]\n[^\[]*", "", text, flags=re.MULTILINE)
    return text.replace(f'"{family}"', f'"{name}"', 1)


EVERYTHING = _dataset()

_numbers = st.floats(allow_nan=False, allow_infinity=False)
_integers = st.integers(-(2**63), 2**63 - 1)
_texts = st.text(max_size=8)
times = st.datetimes(
    EPOCH.replace(tzinfo=None), EPOCH.replace(year=2199, tzinfo=None), timezones=st.just(UTC)
)
symbols = st.text(min_size=1, max_size=8).filter(lambda text: text.strip() and text.isprintable())

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "number": st.none() | _numbers,
    "count": st.none() | _integers,
    "flag": st.none() | st.booleans(),
    "text": st.none() | _texts,
    "day": st.none() | st.dates(date(1, 1, 1), date(9999, 12, 31)),
    "later": st.none() | times,
    "numbers": st.none() | st.lists(_numbers, max_size=3),
    "texts": st.none() | st.lists(st.none() | _texts, max_size=3),
}
"""Strategies of the nullable columns."""


@st.composite
def frames(draw: st.DrawFn, min_size: int = 0) -> pl.DataFrame:
    """Rows that the dataset admits, of few markets and days, with distinct ids."""
    markets = draw(
        st.lists(st.tuples(st.sampled_from(["a", "b"]), symbols), min_size=1, max_size=2)
    )
    days = draw(st.lists(times, min_size=1, max_size=2))
    row = st.fixed_dictionaries(
        {
            "market": st.sampled_from(markets),
            "timestamp": st.sampled_from(days) | times,
            "id": _integers,
            **VALUES,
        }
    )
    rows = draw(st.lists(row, min_size=min_size, max_size=6, unique_by=lambda values: values["id"]))
    for values in rows:
        values["exchange"], values["symbol"] = values.pop("market")
    schema = {name: kind for name, kind in EVERYTHING.polars_schema.items() if name != "date"}
    return pl.DataFrame(rows, schema=schema)
