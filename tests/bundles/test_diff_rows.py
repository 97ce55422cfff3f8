"""The difference between two bundles: every row and value equals a naive comparison."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.bundles import diff
from lake.bundles.diff import diff_days, diff_rows, list_reshaped_tables
from tests.bundles.pairs import BTC, ETH, all_rows, days_of, moment, write_as
from tests.conftest import MINUTE, SECOND, T0, TIME, NewLake, bars, trades, write
from tests.model.everything import own_copy


def without_column(text: str, name: str) -> str:
    lines = text.splitlines(keepends=True)
    remaining = [line for line in lines if not line.startswith(f"{name} = ")]
    assert len(remaining) == len(lines) - 1
    tomllib.loads("".join(remaining))
    return "".join(remaining)


def test_changed_columns_change_each_day_and_its_values(new_lake: NewLake) -> None:
    whole = own_copy("bars", "candles")
    text = without_column(whole, "keep_when")  # it requires the column that is removed here
    lake = new_lake(schemas={"candles": text})
    write(lake, "candles_1m", bars(2, fill=[None, "flat"]))
    before = lake.bundles.pin("a", table="candles_1m").contents
    schema = lake.root.path / "schemas" / "candles.toml"
    schema.write_text(without_column(text, "fill"), encoding="utf-8")
    after = Lake(lake.settings).bundles.pin("b", table="candles_1m").contents
    assert list_reshaped_tables(before, after) == ["candles_1m"]
    for pair, texts in [((before, after), ("flat", None)), ((after, before), (None, "flat"))]:
        assert diff_days(*pair)["change"].to_list() == ["changed"]
        [_, rows] = diff_rows(*pair)
        assert rows.select("time", "column", "old", "new").rows() == [(T0 + MINUTE, "fill", *texts)]


def test_under_another_key_no_row_is_the_same(new_lake: NewLake) -> None:
    text = own_copy("bars", "candles")
    lake = new_lake(schemas={"candles": text})
    write(lake, "candles_1m", bars(2, volume=[1.0, 1.0]))
    lake.bundles.pin("a", table="candles_1m")
    other = text.replace('key = ["timestamp"]', 'key = ["timestamp", "volume"]')
    (lake.root.path / "schemas" / "candles.toml").write_text(other, encoding="utf-8")
    lake = Lake(lake.settings)
    lake.bundles.pin("b", table="candles_1m")
    rows = all_rows(lake, "a", "b")
    assert rows["change"].to_list() == ["removed"] * 2 + ["added"] * 2
    assert rows["key"].to_list() == [None, None, '{"volume":1.0}', '{"volume":1.0}']


def test_whole_rows_are_json_with_all_digits(lake: Lake) -> None:
    write(lake, "trades", trades(1))
    lake.bundles.pin("a", table="trades")
    more = trades(
        1, first=7, start=T0 - 7 * SECOND, price=[0.1 + 0.2], received_at=[T0 + MINUTE / 8]
    )
    write(lake, "trades", more.with_columns(pl.col("received_at").cast(TIME)))
    lake.bundles.pin("b", table="trades")
    rows = all_rows(lake, "a", "b")
    assert rows.drop("new").rows() == [
        ("trades", "binance", BTC, T0, '{"trade_id":"7"}', "added", None, None)
    ]
    new_row = json.loads(rows["new"][0])
    assert list(new_row) == list(lake.dataset("trades").polars_schema)[3:]
    assert (new_row["price"], new_row["trade_id"]) == (0.1 + 0.2, "7")
    assert new_row["timestamp"] == "2024-01-01T00:00:00Z"
    assert new_row["received_at"] == "2024-01-01T00:00:07.500Z"
    assert new_row["side"] is None
    assert all_rows(lake, "b", "a")["old"].to_list() == rows["new"].to_list()


def test_two_rows_of_one_id_are_compared_each_with_its_own(lake: Lake) -> None:
    write(lake, "trades", trades(1, start=T0 + MINUTE))
    lake.bundles.pin("a", table="trades")
    write(lake, "trades", trades(1))
    lake.bundles.pin("b", table="trades")
    assert all_rows(lake, "a", "b").select("time", "change").rows() == [(T0, "added")]
    assert all_rows(lake, "b", "a").select("time", "change").rows() == [(T0, "removed")]


FINITE = [0.0, -0.0, 0.1 + 0.2, 0.3, 5e-324, 1e-323, 1e22]
NOTES = """
name = "notes"
title = "Values of every type"
description = "For tests."
rows = "revisable"
date = "{date}"
time_column = "timestamp"
key = ["timestamp", "number"]

[columns]
timestamp = {{ type = "timestamp", unit = "UTC", meaning = "When." }}
number = {{ type = "int64", meaning = "Which." }}
value = {{ type = "float64", nullable = true, meaning = "A value." }}
text = {{ type = "string", nullable = true, meaning = "A text." }}
flag = {{ type = "boolean", nullable = true, meaning = "A flag." }}
seen = {{ type = "timestamp", nullable = true, meaning = "Another time." }}
levels = {{ type = "list<float64>", nullable = true, meaning = "Levels." }}
tags = {{ type = "list<string>", nullable = true, meaning = "Tags." }}
"""
KEY = st.tuples(st.sampled_from([BTC, ETH]), st.integers(0, 7), st.integers(0, 2))
VALUES = st.fixed_dictionaries(
    {
        "value": st.sampled_from([None, *FINITE]),
        "text": st.sampled_from([None, "", "a", 'ü"\n', "null"]),
        "flag": st.sampled_from([None, True, False]),
        "seen": st.sampled_from([None, T0, T0 + timedelta(microseconds=1)]),
        "levels": st.none() | st.lists(st.sampled_from(FINITE), max_size=3),
        "tags": st.none() | st.lists(st.sampled_from([None, "", "x,y"]), max_size=2),
    }
)
Table = dict[tuple[str, int, int], dict[str, Any]]
TABLE = st.dictionaries(KEY, VALUES, min_size=1, max_size=12)


def notes(table: Table) -> pl.DataFrame:
    rows = [
        {"exchange": "e", "symbol": symbol, "timestamp": moment(n), "number": number, **values}
        for (symbol, n, number), values in table.items()
    ]
    kinds = {
        "value": pl.Float64(),
        "text": pl.String(),
        "flag": pl.Boolean(),
        "levels": pl.List(pl.Float64()),
        "tags": pl.List(pl.String()),
        **dict.fromkeys(("timestamp", "seen"), TIME),
    }
    return pl.DataFrame(rows, schema_overrides=kinds)


def exact(value: Any) -> str:
    """Return a text that is distinct for distinct values: the repr of a float has all digits."""
    return repr(value)


def naive(before: Table, after: Table) -> list[tuple[Any, ...]]:
    """Compute the difference naively: key, change, column, old, new."""
    changes: list[tuple[Any, ...]] = []
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            changes.append((key, "removed", None, before[key], None))
        elif key not in before:
            changes.append((key, "added", None, None, after[key]))
        else:
            for name in ("value", "text", "flag", "seen", "levels", "tags"):
                old, new = before[key][name], after[key][name]
                if exact(old) != exact(new):
                    changes.append((key, "changed", name, old, new))
    return changes


def parsed(name: str | None, text: str | None) -> Any:
    """Parse a value in a line of the difference."""
    if text is None or name == "text":
        return text
    if name is None:
        row = json.loads(text)
        values = {column: row[column] for column in ("value", "text", "flag", "levels", "tags")}
        return {**values, "seen": parsed("seen", row["seen"])}
    if name == "seen":
        return datetime.fromisoformat(text)
    if name == "flag":
        return {"true": True, "false": False}[text]
    return float(text) if name == "value" else json.loads(text)


def said(frames: Iterable[pl.DataFrame]) -> list[tuple[Any, ...]]:
    """Convert lines to the form of `naive`."""
    numbers = {moment(n): n for n in range(8)}
    lines = []
    for _, _, symbol, time, key, change, column, old, new in pl.concat(list(frames)).iter_rows():
        place = (symbol, numbers[time], json.loads(key)["number"])
        lines.append((place, change, column, parsed(column, old), parsed(column, new)))
    return lines


def comparable(lines: list[tuple[Any, ...]]) -> list[str]:
    ordered = [
        tuple(dict(sorted(v.items())) if isinstance(v, dict) else v for v in line) for line in lines
    ]
    return [repr(line) for line in ordered]


@pytest.mark.slow
@pytest.mark.parametrize("date_is", ["day", "month", "year"])
def test_every_row_and_value_equals_a_naive_comparison(
    new_lake: NewLake, monkeypatch: pytest.MonkeyPatch, date_is: str
) -> None:
    """Parts and slices are tiny here, so that rows cross their borders."""
    monkeypatch.setattr(diff, "_PART_ROWS", 3)
    monkeypatch.setattr(diff, "_SLICE_ROWS", 2)
    text = NOTES.format(date=date_is)

    @settings(max_examples=12, phases=[Phase.explicit, Phase.generate])
    @given(before=TABLE, revisions=st.dictionaries(KEY, VALUES, max_size=8), data=st.data())
    def compare(before: Table, revisions: Table, data: st.DataObject) -> None:
        lake = new_lake(schemas={"notes": text})
        write_as(lake, "first", "notes", notes(before))
        first = data.draw(st.sampled_from([None, *{moment(n) for _, n, _ in before}]))
        lake.bundles.pin("a", table="notes", since=first, check=False)
        a = {key: row for key, row in before.items() if first is None or moment(key[1]) >= first}
        b = {**before, **revisions}
        if revisions:
            write_as(lake, "second", "notes", notes(revisions))
        symbol = data.draw(st.sampled_from([None, *{symbol for symbol, _, _ in b}]))
        lake.bundles.pin("b", table="notes", symbol=symbol or (), check=False)
        b = {key: row for key, row in b.items() if symbol in (None, key[0])}
        expected = naive(a, b)
        assert comparable(said(lake.bundles.diff("a", "b", rows=True))) == comparable(expected)
        days = lake.bundles.diff("a", "b")
        assert set(days.select("symbol", "date").rows()) == {days_of(key) for key, *_ in expected}
        touched = {days_of(key) for key in revisions}
        for key, jobs in zip(days.select("symbol", "date").rows(), days["jobs"], strict=True):
            assert set(jobs) <= {"second"}
            if date_is == "day" and list(jobs):
                assert key in touched
        assert comparable(said(lake.bundles.diff("b", "a", rows=True))) == comparable(naive(b, a))

    compare()


def test_nan_is_equal_to_nan_and_zero_not_to_minus_zero(new_lake: NewLake) -> None:
    """The store refuses NaN, but a bundle of another version may have it."""
    dataset = new_lake(schemas={"notes": NOTES.format(date="day")}).dataset("notes")
    values = [(math.nan, math.nan), (None, math.nan), (math.inf, math.nan), (0.0, -0.0)]
    sides = []
    for number in (0, 1):
        floats = [pair[number] for pair in values]
        row = {"timestamp": [T0] * 4, "number": range(4), "value": floats}
        row["levels"] = [[value] for value in floats]
        frame = pl.DataFrame(row, schema_overrides={"timestamp": TIME}, strict=False)
        named = frame.with_columns(exchange=pl.lit("e"), symbol=pl.lit(BTC))
        sides.append(diff._Side(dataset, pl.concat([dataset.empty(), named], how="diagonal")))
    [lines] = diff._compare(*sides)
    assert lines.select("key", "column", "old", "new").rows() == [
        ('{"number":1}', "value", None, "NaN"),
        ('{"number":1}', "levels", "[null]", '["NaN"]'),
        ('{"number":2}', "value", "inf", "NaN"),
        ('{"number":2}', "levels", '["Infinity"]', '["NaN"]'),
        ('{"number":3}', "value", "0.0", "-0.0"),
        ('{"number":3}', "levels", "[0.0]", "[-0.0]"),
    ]
    [whole] = diff._compare(sides[0].empty(), sides[1])
    assert all('"value":"NaN"' in text for text in whole["new"][:3])
