"""Dataset files: the product's own are documented, a malformed one says what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from lake.errors import SchemaError, UnknownNameError, UsageError
from lake.model.catalog import Catalog, builtin, builtin_files, parse_granularity
from lake.model.dataset import Column, Dataset
from tests.model.everything import EVERYTHING, TEXT

FAMILIES = builtin().families


def tables() -> list[str]:
    return [f + "_1m" if builtin().has_timeframes(f) else f for f in FAMILIES]


@pytest.mark.parametrize("name", tables())
def test_every_column_says_what_it_means_and_in_which_unit(name: str) -> None:
    def has_unit(column: Column) -> bool:
        return bool(column.unit) or column.type not in ("timestamp", "float64", "list<float64>")

    for column in builtin().dataset(name).columns:
        assert column.meaning.endswith("."), column.name
        assert has_unit(column), column.name


@pytest.mark.parametrize("name", tables())
def test_every_dataset_starts_with_its_partition_columns(name: str) -> None:
    columns = [column.name for column in builtin().dataset(name).columns]
    assert columns[:3] == ["exchange", "symbol", "date"]
    assert len(columns) == len(set(columns))


def test_months_and_minutes_are_different_tables() -> None:
    minutes, months = builtin().dataset("bars_1m"), builtin().dataset("bars_1mo")
    assert (str(minutes.timeframe), minutes.granularity) == ("1m", "day")
    assert (str(months.timeframe), months.granularity) == ("1M", "year")
    assert minutes.name != months.name


def test_the_exchanges_name_of_months_is_the_same_table() -> None:
    assert builtin().dataset("bars_1M") == builtin().dataset("bars_1mo")


@pytest.mark.parametrize(
    ("name", "granularity"), [("bars_30m", "day"), ("bars_1h", "year"), ("bars_1d", "year")]
)
def test_bars_of_an_hour_and_longer_are_kept_by_year(name: str, granularity: str) -> None:
    assert builtin().dataset(name).granularity == granularity


def test_the_granularity_of_single_tables_can_be_chosen() -> None:
    catalog = Catalog(builtin_files(), {"bars_1h": "day", "trades": "year"})
    assert catalog.dataset("bars_1h").granularity == "day"
    assert catalog.dataset("bars_2h").granularity == "year"
    assert catalog.dataset("trades").granularity == "year"


@pytest.mark.parametrize("name", ["bars", "bars_", "bars_1x", "bars_0m", "trades_1m", "Trades", ""])
def test_an_unknown_dataset_is_an_error(name: str) -> None:
    with pytest.raises(UnknownNameError, match="there is no dataset"):
        builtin().dataset(name)


def test_an_unknown_dataset_gets_the_closest_names_first() -> None:
    with pytest.raises(UnknownNameError) as caught:
        builtin().dataset("trade")
    assert caught.value.hint.startswith("Datasets: trades,")


@pytest.mark.parametrize("text", ["funding", "funding=", "=day", "funding=month", "funding=Day"])
def test_a_malformed_granularity_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not TABLE=day or TABLE=year"):
        parse_granularity(text)


def file(folder: Path, text: str, name: str = "everything") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


CHECK = '\n[rules]\npositive = "number > 0"\n'
MALFORMED = {
    "no name": ('name = "everything"\n', "", "name: Field required"),
    "a name in capitals": ('"everything"', '"Everything"', "name: String should match"),
    "another name than the file": ('"everything"', '"other"', "name: is 'other', but the file"),
    "an unknown key": ("date =", "dates =", "date: Field required"),
    "a key too many": ("date =", "colour = 1\ndate =", "colour: Extra inputs"),
    "an unknown kind of rows": ('"immutable"', '"mutable"', "rows: Input should be"),
    "an unknown granularity": ('"day"', '"month"', "date: Input should be"),
    "no key": ('key = ["id"]', "key = []", "key: List should have at least 1"),
    "a key that is no column": ('key = ["id"]', 'key = ["nope"]', "key: 'nope' is not among"),
    "a nullable key": ('key = ["id"]', 'key = ["count"]', "key: column 'count' must not be null"),
    "a time column that is none": (
        'time_column = "timestamp"',
        'time_column = "id"',
        "time_column: column 'id' is not a timestamp",
    ),
    "an availability that is no column": (
        'key = ["id"]',
        'key = ["id"]\navailable_at = "nope"',
        "available_at: 'nope' is not among the columns, nor 'end'",
    ),
    "an availability that is no time": (
        'key = ["id"]',
        'key = ["id"]\navailable_at = "count"',
        "available_at: column 'count' is not a timestamp",
    ),
    "an end without timeframes": (
        'key = ["id"]',
        'key = ["id"]\navailable_at = "end"',
        "available_at: 'end' needs date = 'by_timeframe'",
    ),
    "a sort column that is none": (
        'key = ["id"]',
        'key = ["id"]\nsort = ["nope"]',
        "sort: 'nope' is not among",
    ),
    "an unknown type": ('type = "int64"', 'type = "int8"', "columns.id.type: 'int8' is none of"),
    "no type": ('type = "int64", ', "", "columns.id.type: Field required"),
    "no meaning": (', meaning = "Which."', "", "columns.id.meaning: Field required"),
    "an empty meaning": ('"Which."', '""', "columns.id.meaning: String should have at least 1"),
    "a partition column": ("flag =", "date =", "columns.date: every dataset has it already"),
    "a column in capitals": ("flag =", "Flag =", "columns.Flag: String should match"),
    "a rule over no column": ("number > 0", "nope > 0", "rules.positive: 'nope > 0' does"),
    "a rule that is no SQL": ("number > 0", "number >", "rules.positive: 'number >' does"),
    "a rule that is no condition": ("number > 0", "number + 1", "rules.positive: 'number +"),
    "not TOML": ("[columns]", "[columns", "not TOML"),
    "a condition over no column": (
        'rows = "immutable"',
        'rows = "revisable"\nkeep_when = "t.nope"',
        "keep_when: 't.nope' does not work",
    ),
    "a condition that is none": (
        'rows = "immutable"',
        'rows = "revisable"\nkeep_when = "t.number"',
        "keep_when: 't.number' does not work: it gives Float64",
    ),
    "a condition for rows that never change": (
        'rows = "immutable"',
        'rows = "immutable"\nkeep_when = "t.flag"',
        "keep_when: immutable rows are always kept",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_says_file_key_and_reason(tmp_path: Path, case: str) -> None:
    old, new, said = MALFORMED[case]
    text = TEXT + CHECK
    assert old in text
    path = file(tmp_path, text.replace(old, new, 1))
    with pytest.raises(SchemaError) as caught:
        Catalog([path])
    assert caught.value.message.startswith(f"{path}: {said}")


def test_a_list_cannot_be_a_key(tmp_path: Path) -> None:
    text = TEXT.replace('"list<string>", nullable = true', '"list<string>"')
    path = file(tmp_path, text.replace('key = ["id"]', 'key = ["texts"]'))
    with pytest.raises(SchemaError, match="key: column 'texts' is a list"):
        Catalog([path])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "everything.toml"
    with pytest.raises(SchemaError, match=r"everything\.toml: cannot be read: No such file"):
        Catalog([path])
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SchemaError, match=r"everything\.toml: not TOML"):
        Catalog([path])


@pytest.mark.parametrize("name", ["trades", "bars", "bars_1m", "bars_2h"])
def test_a_dataset_of_the_product_cannot_be_replaced(tmp_path: Path, name: str) -> None:
    path = file(tmp_path, TEXT.replace("everything", name), name)
    with pytest.raises(SchemaError, match=f"{name}.toml: name: "):
        Catalog([*builtin_files(), path])


def available(dataset: Dataset, **columns: list[datetime | None]) -> list[datetime]:
    schema = {name: dataset.polars_schema[name] for name in columns}
    known: list[datetime] = (
        pl.DataFrame(columns, schema=schema)
        .select(dataset.availability())["available_at"]
        .to_list()
    )
    return known


@pytest.mark.parametrize(
    ("name", "opens", "known"),
    [
        ("bars_1m", datetime(2024, 1, 1, 23, 59, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)),
        ("bars_12h", datetime(2024, 1, 1, 12, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)),
        ("bars_1w", datetime(2024, 1, 29, tzinfo=UTC), datetime(2024, 2, 5, tzinfo=UTC)),
        ("bars_1mo", datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("bars_3mo", datetime(2023, 10, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_bar_is_known_at_its_end(name: str, opens: datetime, known: datetime) -> None:
    dataset = builtin().dataset(name)
    assert available(dataset, timestamp=[opens]) == [known]
    assert dataset.timeframe is not None
    assert dataset.timeframe.after(opens) == known


@pytest.mark.parametrize("name", ["trades", "orderbooks"])
def test_a_row_is_known_when_it_was_received_or_else_at_its_time(name: str) -> None:
    happened = datetime(2024, 1, 1, tzinfo=UTC)
    received = happened.replace(microsecond=7)
    times: list[datetime | None] = [happened, happened]
    known = available(builtin().dataset(name), timestamp=times, received_at=[received, None])
    assert known == [received, happened]


def test_a_row_of_another_dataset_is_known_at_its_time() -> None:
    time = datetime(2024, 1, 1, tzinfo=UTC)
    assert builtin().dataset("instruments").available_at is None
    assert available(builtin().dataset("instruments"), valid_from=[time]) == [time]


@pytest.mark.parametrize("name", tables())
def test_times_of_availability_are_microseconds_of_utc(name: str) -> None:
    dataset = builtin().dataset(name)
    known = dataset.empty().select(dataset.availability())
    assert known.schema == {"available_at": pl.Datetime("us", "UTC")}


def test_availability_is_no_part_of_the_fingerprint() -> None:
    other = replace(EVERYTHING, available_at="later")
    assert other != EVERYTHING
    assert other.fingerprint == EVERYTHING.fingerprint
