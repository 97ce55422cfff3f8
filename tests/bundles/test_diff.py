"""The difference between two bundles: days, the jobs behind them, and every row and value."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.bundles import diff
from lake.bundles.contents import Contents
from lake.bundles.diff import DAYS_APART, ROWS_APART, diff_days, diff_rows, reshaped
from lake.errors import DamagedError, UnknownNameError
from lake.jobs.maintain import Maintenance
from lake.model.catalog import builtin_files
from lake.store.store import Origin
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, NewLake, bars, store_of, trades, write

HOUR = timedelta(hours=1)
BTC, ETH = "BTC/USDT", "ETH/USDT"


def write_as(lake: Lake, job: str, table: str, frame: pl.DataFrame, source: str = "") -> None:
    """Write rows as a job of its own."""
    store = store_of(lake)
    store.write(store.catalog.dataset(table), frame, Origin(job, source or f"source of {job}"))


def jobs_by_day(days: pl.DataFrame) -> dict[str, list[str]]:
    return {str(day): jobs for day, jobs in days.select("date", "jobs").iter_rows()}


def all_rows(lake: Lake, before: str, after: str, tables: Iterable[str] = ()) -> pl.DataFrame:
    return pl.concat(list(lake.diff_rows(before, after, tuple(tables))))


def bar(day: int, **columns: Any) -> pl.DataFrame:
    """One bar at noon of a day."""
    return bars(1, start=T0 + day * DAY + 12 * HOUR, **columns)


def changed(volume: float, days: Iterable[int]) -> pl.DataFrame:
    return pl.concat([bar(day, volume=[volume]) for day in days])


def test_days_that_were_added_removed_and_changed_are_told_with_their_rows(lake: Lake) -> None:
    for symbol in (BTC, ETH):
        write(lake, "trades", trades(6, step=DAY / 2, symbol=symbol))
    lake.pin("a", "trades", until=T0 + 2 * DAY)
    write(lake, "trades", trades(1, first=9, start=T0 + DAY - 9 * SECOND))
    lake.pin("b", "trades", symbol=BTC, since=T0 + DAY)
    days = lake.diff("a", "b")
    assert days.schema == DAYS_APART
    key = [pl.col("symbol"), pl.col("date").dt.day() - 1]
    assert days.select(*key, "change", "rows_before", "rows_after").rows() == [
        (BTC, 0, "removed", 2, 0),
        (BTC, 1, "changed", 2, 3),
        (BTC, 2, "added", 0, 2),
        (ETH, 0, "removed", 2, 0),
        (ETH, 1, "removed", 2, 0),
    ]
    assert days["table"].unique().to_list() == ["trades"]
    assert days["exchange"].unique().to_list() == ["binance"]


def test_the_same_rows_have_no_difference(lake: Lake) -> None:
    write(lake, "bars_1m", bars(5))
    lake.pin("a", "bars_1m")
    write(lake, "bars_1m", bars(9, start=T0 + DAY))
    lake.pin("b", "bars_1m", until=T0 + DAY)
    assert lake.bundle("a").id != lake.bundle("b").id
    for one, other in (("a", "b"), ("a", "a")):
        assert lake.diff(one, other).equals(pl.DataFrame(schema=DAYS_APART))
        [nothing] = lake.diff_rows(one, other)
        assert nothing.equals(pl.DataFrame(schema=ROWS_APART))


def test_days_are_compared_without_any_data_file(lake: Lake) -> None:
    write(lake, "bars_1m", changed(1.0, range(3)))
    lake.pin("a", "bars_1m")
    write_as(lake, "revision", "bars_1m", changed(2.0, [1]))
    lake.pin("b", "bars_1m")
    files = list((lake.root.tables / "bars_1m").glob("exchange=*"))
    assert files
    for folder in files:
        shutil.rmtree(folder)
    assert jobs_by_day(lake.diff("a", "b")) == {"2024-01-02": ["revision"]}
    with pytest.raises(DamagedError, match="missing"):
        list(lake.diff_rows("a", "b"))


def test_tables_of_one_bundle_only_are_added_or_removed(lake: Lake) -> None:
    write(lake, "bars_1m", changed(1.0, range(2)))
    write(lake, "trades", trades(3))
    lake.pin("a", "bars_1m")
    lake.pin("b", "trades")
    days = lake.diff("a", "b")
    assert days.select("table", "change").rows() == [("bars_1m", "removed")] * 2 + [
        ("trades", "added")
    ]
    assert days["jobs"].to_list() == [[]] * 3
    rows = all_rows(lake, "a", "b")
    assert rows.group_by("table", "change").len().sort("table").rows() == [
        ("bars_1m", "removed", 2),
        ("trades", "added", 3),
    ]
    assert lake.diff("a", "b", "trades")["table"].to_list() == ["trades"]
    assert all_rows(lake, "a", "b", ["trades"])["table"].unique().to_list() == ["trades"]


def test_a_table_in_neither_bundle_is_an_error_at_once(lake: Lake) -> None:
    write(lake, "trades", trades(3))
    lake.pin("a", "trades")
    for compare in (lake.diff, lake.diff_rows):
        with pytest.raises(UnknownNameError, match=r"'bars_1m' is in neither bundle\n.*trades"):
            compare("a", "a", "bars_1m")
        with pytest.raises(UnknownNameError, match="there is no bundle 'c'"):
            compare("a", "c")


def test_each_day_names_the_jobs_that_wrote_into_it(lake: Lake) -> None:
    write_as(lake, "first", "bars_1m", changed(1.0, range(6)))
    lake.pin("a", "bars_1m")
    write_as(lake, "one", "bars_1m", changed(2.0, [1, 3]))
    write_as(lake, "two", "bars_1m", changed(3.0, [3, 4]))
    write_as(lake, "two", "bars_1m", changed(4.0, [4]), source="another")
    write_as(lake, "elsewhere", "bars_1m", changed(2.0, [2]).with_columns(symbol=pl.lit(ETH)))
    lake.pin("b", "bars_1m", symbol=BTC)
    write_as(lake, "later", "bars_1m", changed(9.0, [1]))
    expected = {"2024-01-02": ["one"], "2024-01-04": ["one", "two"], "2024-01-05": ["two"]}
    for days in (lake.diff("a", "b"), lake.diff("b", "a")):
        assert jobs_by_day(days) == expected
        assert days["sources"].to_list() == [
            ["source of one"],
            ["source of one", "source of two"],
            ["source of two", "another"],
        ]
        assert days["change"].unique().to_list() == ["changed"]


def test_compaction_is_nobodys_change(lake: Lake) -> None:
    for minute in range(3):
        write_as(lake, "first", "bars_1m", bars(1, start=T0 + minute * MINUTE))
    lake.pin("a", "bars_1m")
    compacted = Maintenance(store_of(lake), lambda: ()).optimize(["bars_1m"])
    assert compacted["commits"].to_list() == [1]
    lake.pin("compacted", "bars_1m")
    write_as(lake, "revision", "bars_1m", bars(1, volume=[5.0]))
    lake.pin("b", "bars_1m")
    assert lake.diff("a", "compacted").is_empty()
    assert jobs_by_day(lake.diff("a", "b")) == {"2024-01-01": ["revision"]}
    assert lake.diff("a", "b")["sources"].to_list() == [["source of revision"]]


def test_the_lakes_own_rows_have_jobs_too(lake: Lake) -> None:
    ledger = Maintenance(store_of(lake), lambda: ())
    write(lake, "trades", trades(1))
    ledger.checkpoint()
    lake.pin("a", "jobs")
    ledger.checkpoint()
    lake.pin("b", "jobs")
    [jobs] = lake.diff("a", "b")["jobs"].to_list()
    assert len(jobs) == 1
    assert lake.diff("a", "b")["sources"].to_list() == [["lake"]]


def test_a_partition_of_a_year_tells_its_jobs_by_their_days(lake: Lake) -> None:
    """A revision rewrites the file of the year, with rows that it did not touch."""
    times = range(0, 60, 10)
    write_as(lake, "first", "bars_1h", changed(1.0, times))
    lake.pin("a", "bars_1h")
    write_as(lake, "early", "bars_1h", changed(2.0, [10]))
    write_as(lake, "late", "bars_1h", changed(3.0, [40, 50]))
    write_as(lake, "new", "bars_1h", changed(3.0, [45]))
    lake.pin("b", "bars_1h")
    expected = {
        "2024-01-11": ["early"],
        "2024-02-10": ["late"],
        "2024-02-15": ["late", "new"],  # between the first and the last row of `late`
        "2024-02-20": ["late"],
    }
    assert jobs_by_day(lake.diff("a", "b")) == expected
    assert jobs_by_day(lake.diff("b", "a")) == expected
    assert lake.diff("a", "b")["change"].to_list() == ["changed", "changed", "added", "changed"]
    rows = all_rows(lake, "a", "b")
    assert rows.select("change", "old", "new").rows()[0] == ("changed", "1.0", "2.0")
    assert rows["change"].to_list() == ["changed", "changed", "added", "changed"]


def test_a_batch_over_the_turn_of_the_year_counts_for_its_days(lake: Lake) -> None:
    times = [T0 + day * DAY for day in (-2, -1, 0, 1)]
    rates = {"timestamp": times, "funding_rate": [0.1] * 4}
    frame = pl.DataFrame(rates, schema_overrides={"timestamp": TIME})
    frame = frame.with_columns(exchange=pl.lit("binance"), symbol=pl.lit("BTC/USDT:USDT"))
    write_as(lake, "first", "funding", frame[:1])
    lake.pin("a", "funding")
    write_as(lake, "turn", "funding", frame[1:3])
    write_as(lake, "after", "funding", frame[3:])
    lake.pin("b", "funding")
    assert jobs_by_day(lake.diff("a", "b")) == {
        "2023-12-31": ["turn"],
        "2024-01-01": ["turn"],
        "2024-01-02": ["after"],
    }


def test_a_wider_selection_is_nobodys_change(lake: Lake) -> None:
    write(lake, "bars_1m", changed(1.0, range(3)))
    lake.pin("a", "bars_1m", until=T0 + DAY)
    lake.pin("wider", "bars_1m")
    write_as(lake, "revision", "bars_1m", changed(2.0, [2]))
    lake.pin("b", "bars_1m")
    assert jobs_by_day(lake.diff("a", "wider")) == {"2024-01-02": [], "2024-01-03": []}
    assert jobs_by_day(lake.diff("a", "b")) == {"2024-01-02": [], "2024-01-03": ["revision"]}


def pinned_before_and_after_a_revision(lake: Lake) -> tuple[Contents, Contents]:
    write(lake, "bars_1m", bars(3))
    before = lake.pin("a", "bars_1m").contents
    write_as(lake, "revision", "bars_1m", bars(1, volume=[2.0]))
    return before, lake.pin("b", "bars_1m").contents


def with_its_data(contents: Contents, folder: Path) -> Contents:
    """The bundle as an export has it: with its data files."""
    shutil.copytree(contents.folder, folder)
    shutil.copytree(contents.tables, folder / "data", ignore=shutil.ignore_patterns("_delta_log"))
    return Contents.open(folder)


def test_bundles_that_bring_their_data_are_compared_too(lake: Lake, tmp_path: Path) -> None:
    before, after = pinned_before_and_after_a_revision(lake)
    own = with_its_data(before, tmp_path / "a"), with_its_data(after, tmp_path / "b")
    told = [(before, after), (own[0], after), (before, own[1])]
    for pair in (*told, own):
        expected = [] if pair == own else ["revision"]
        assert jobs_by_day(diff_days(*pair)) == {"2024-01-01": expected}
        [_, rows] = diff_rows(*pair)
        assert rows.select("column", "old", "new").rows() == [("volume", "1.0", "2.0")]


def test_a_table_that_was_made_anew_tells_no_jobs(lake: Lake, tmp_path: Path) -> None:
    before, after = pinned_before_and_after_a_revision(lake)
    own = with_its_data(before, tmp_path / "a")
    shutil.rmtree(lake.root.tables / "bars_1m")
    assert jobs_by_day(diff_days(own, after)) == {"2024-01-01": []}
    for volume in (1.0, 2.0, 3.0):
        write_as(lake, "anew", "bars_1m", bars(3, volume=[volume] * 3))
    assert jobs_by_day(diff_days(own, after)) == {"2024-01-01": []}
    anew = lake.pin("anew", "bars_1m").contents
    assert jobs_by_day(diff_days(own, anew)) == {"2024-01-01": []}


def test_a_log_that_lost_a_commit_between_the_versions_is_an_error(lake: Lake) -> None:
    pinned_before_and_after_a_revision(lake)
    log = lake.root.tables / "bars_1m" / "_delta_log"
    (log / f"{2:020}.json").write_text("{")
    with pytest.raises(DamagedError, match="table bars_1m: commit 2 cannot be read"):
        lake.diff("a", "b")


def test_commits_of_others_have_no_job(lake: Lake) -> None:
    pinned_before_and_after_a_revision(lake)
    commit = lake.root.tables / "bars_1m" / "_delta_log" / f"{2:020}.json"
    actions = [json.loads(line) for line in commit.read_text().splitlines()]
    info = next(action["commitInfo"] for action in actions if "commitInfo" in action)
    for said in ("by hand", "[1]", None):
        info["userMetadata"] = said
        commit.write_text("\n".join(json.dumps(action) for action in actions))
        assert jobs_by_day(lake.diff("a", "b")) == {"2024-01-01": []}


BARS = next(file for file in builtin_files() if file.name == "bars.toml")


def without_column(text: str, name: str) -> str:
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f"{name} = ")]
    assert len(kept) == len(lines) - 1
    tomllib.loads("".join(kept))
    return "".join(kept)


def test_other_columns_change_each_day_and_values_that_are_there(new_lake: NewLake) -> None:
    whole = BARS.read_text(encoding="utf-8").replace('"bars"', '"candles"', 1)
    text = without_column(whole, "keep_when")  # which asks for the column that will be missing
    lake = new_lake(schemas={"candles": text})
    write(lake, "candles_1m", bars(2, fill=[None, "flat"]))
    before = lake.pin("a", "candles_1m").contents
    schema = lake.root.path / "schemas" / "candles.toml"
    schema.write_text(without_column(text, "fill"), encoding="utf-8")
    after = Lake(lake.settings).pin("b", "candles_1m").contents
    assert reshaped(before, after) == ["candles_1m"]
    for pair, texts in [((before, after), ("flat", None)), ((after, before), (None, "flat"))]:
        assert diff_days(*pair)["change"].to_list() == ["changed"]
        [_, rows] = diff_rows(*pair)
        assert rows.select("time", "column", "old", "new").rows() == [(T0 + MINUTE, "fill", *texts)]


def test_under_another_key_no_row_is_the_same(new_lake: NewLake) -> None:
    text = BARS.read_text(encoding="utf-8").replace('"bars"', '"candles"', 1)
    lake = new_lake(schemas={"candles": text})
    write(lake, "candles_1m", bars(2))
    lake.pin("a", "candles_1m")
    other = text.replace('key = ["timestamp"]', 'key = ["timestamp", "volume"]')
    (lake.root.path / "schemas" / "candles.toml").write_text(other, encoding="utf-8")
    lake = Lake(lake.settings)
    lake.pin("b", "candles_1m")
    rows = all_rows(lake, "a", "b")
    assert rows["change"].to_list() == ["removed"] * 2 + ["added"] * 2
    assert rows["key"].to_list() == [None, None, '{"volume":1.0}', '{"volume":1.0}']


def test_whole_rows_are_told_as_json_with_all_digits(lake: Lake) -> None:
    write(lake, "trades", trades(1))
    lake.pin("a", "trades")
    more = trades(
        1, first=7, start=T0 - 7 * SECOND, price=[0.1 + 0.2], received_at=[T0 + MINUTE / 8]
    )
    write(lake, "trades", more.with_columns(pl.col("received_at").cast(TIME)))
    lake.pin("b", "trades")
    rows = all_rows(lake, "a", "b")
    assert rows.drop("new").rows() == [
        ("trades", "binance", BTC, T0, '{"trade_id":"7"}', "added", None, None)
    ]
    told = json.loads(rows["new"][0])
    assert list(told) == list(lake.dataset("trades").polars_schema)[3:]
    assert (told["price"], told["trade_id"]) == (0.1 + 0.2, "7")
    assert told["timestamp"] == "2024-01-01T00:00:00Z"
    assert told["received_at"] == "2024-01-01T00:00:07.500Z"
    assert told["side"] is None
    assert all_rows(lake, "b", "a")["old"].to_list() == rows["new"].to_list()


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


def moment(number: int) -> Any:
    """Times on four days of two years, two a day."""
    return T0 + (number // 2 - 2) * DAY + number % 2 * HOUR


def exact(value: Any) -> str:
    """Distinct for distinct values: repr of a float tells its sign and all its digits."""
    return repr(value)


def naive(before: Table, after: Table) -> list[tuple[Any, ...]]:
    """The difference as anybody would write it down: key, change, column, old, new."""
    found: list[tuple[Any, ...]] = []
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            found.append((key, "removed", None, before[key], None))
        elif key not in before:
            found.append((key, "added", None, None, after[key]))
        else:
            for name in ("value", "text", "flag", "seen", "levels", "tags"):
                old, new = before[key][name], after[key][name]
                if exact(old) != exact(new):
                    found.append((key, "changed", name, old, new))
    return found


def parsed(name: str | None, text: str | None) -> Any:
    """What a line of the difference says, as a value again."""
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
    """Lines in the form of `naive`."""
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


@pytest.mark.parametrize("date_is", ["day", "year"])
def test_every_row_and_value_is_told_as_a_naive_comparison_tells_it(
    new_lake: NewLake, monkeypatch: pytest.MonkeyPatch, date_is: str
) -> None:
    """Parts and slices are tiny here, so that their borders are crossed."""
    monkeypatch.setattr(diff, "_PART_ROWS", 3)
    monkeypatch.setattr(diff, "_SLICE_ROWS", 2)
    text = NOTES.format(date=date_is)

    @settings(max_examples=12, phases=[Phase.explicit, Phase.generate])
    @given(before=TABLE, revisions=st.dictionaries(KEY, VALUES, max_size=8), data=st.data())
    def compare(before: Table, revisions: Table, data: st.DataObject) -> None:
        lake = new_lake(schemas={"notes": text})
        write_as(lake, "first", "notes", notes(before))
        first = data.draw(st.sampled_from([None, *{moment(n) for _, n, _ in before}]))
        lake.pin("a", "notes", since=first)
        a = {key: row for key, row in before.items() if first is None or moment(key[1]) >= first}
        b = {**before, **revisions}
        if revisions:
            write_as(lake, "second", "notes", notes(revisions))
        symbol = data.draw(st.sampled_from([None, *{symbol for symbol, _, _ in b}]))
        lake.pin("b", "notes", symbol=symbol or ())
        b = {key: row for key, row in b.items() if symbol in (None, key[0])}
        expected = naive(a, b)
        assert comparable(said(lake.diff_rows("a", "b"))) == comparable(expected)
        days = lake.diff("a", "b")
        assert set(days.select("symbol", "date").rows()) == {days_of(key) for key, *_ in expected}
        touched = {days_of(key) for key in revisions}
        for key, jobs in zip(days.select("symbol", "date").rows(), days["jobs"], strict=True):
            assert set(jobs) <= {"second"}
            if date_is == "day" and list(jobs):
                assert key in touched
        assert comparable(said(lake.diff_rows("b", "a"))) == comparable(naive(b, a))

    compare()


def test_nan_is_equal_to_nan_and_zero_not_to_minus_zero(new_lake: NewLake) -> None:
    """The store refuses NaN; a bundle that another version wrote may have it."""
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
    [lines] = diff._compared(*sides)
    assert lines.select("key", "column", "old", "new").rows() == [
        ('{"number":1}', "value", None, "NaN"),
        ('{"number":1}', "levels", "[null]", "[NaN]"),
        ('{"number":2}', "value", "inf", "NaN"),
        ('{"number":2}', "levels", "[Infinity]", "[NaN]"),
        ('{"number":3}', "value", "0.0", "-0.0"),
        ('{"number":3}', "levels", "[0.0]", "[-0.0]"),
    ]
    [whole] = diff._compared(sides[0].without_rows(), sides[1])
    assert all('"value":NaN' in text for text in whole["new"][:3])


def days_of(key: tuple[str, int, int]) -> tuple[str, date]:
    return key[0], moment(key[1]).date()
