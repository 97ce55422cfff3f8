"""A name that cannot be the name of a folder goes to quarantine; the other rows are stored."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.model.market import is_storable, make_storable
from tests.conftest import NewLake, bars, store_of


@pytest.mark.parametrize("column", ["exchange", "symbol"])
@pytest.mark.parametrize("name", ["A" * 300, "Ä" * 60, "🙂" * 30, "__HIVE_DEFAULT_PARTITION__"])
def test_rows_with_a_name_that_cannot_be_stored_are_quarantined(
    lake: Lake, column: str, name: str
) -> None:
    rows = pl.concat([bars(3), bars(2).with_columns(pl.lit(name).alias(column))])
    result = lake.write("bars_1m", rows)
    assert (result.inserted, result.rejected) == (3, 2)
    assert lake.scan("bars_1m").collect().height == 3
    kept = store_of(lake).read(store_of(lake).catalog.dataset("quarantine"))
    assert set(kept["reason"]) == {f"{column}_unstorable"}
    assert set(kept[column]) == {make_storable(name)}
    assert all(name in row for row in kept["row"].str.json_decode(pl.Struct({column: pl.String}))
               .struct.field(column))  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(name=st.text(min_size=1, max_size=90))
@example("x" * 246)
@example("ä" * 41)
@example(".")
@example("..")
@example("a/../b")
def test_a_name_is_stored_as_it_is_or_quarantined(new_lake: NewLake, name: str) -> None:
    lake = new_lake()
    result = lake.write("bars_1m", bars(2, symbol=name))
    if is_storable(name):
        assert lake.scan("bars_1m").collect()["symbol"].to_list() == [name] * 2
    else:
        assert result.rejected == 2


@given(name=st.text())
def test_a_make_storableed_name_can_be_stored(name: str) -> None:
    assert is_storable(make_storable(name))
