"""The format of dataset files: a malformed file is refused with file, key and reason."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from lake.errors import SchemaError
from lake.model.catalog import Catalog, builtin_files
from lake.model.dataset_validation import read_dataset_file
from tests.model.everything import TEXT, own_copy


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
    "an unknown granularity": ('"day"', '"week"', "date: Input should be"),
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
    "a tolerance of a time in the key": (
        'key = ["id"]',
        'key = ["timestamp"]\ntime_tolerance = "1s"',
        "time_tolerance: the key has the time column 'timestamp'; remove it",
    ),
    "a schedule of rows that never change": (
        'key = ["id"]',
        'key = ["timestamp"]\nschedule = "1h"\ntime_tolerance = "1m"',
        "schedule: needs key = [time_column], rows = 'revisable' and no timeframes",
    ),
    "a schedule without a tolerance": (
        'rows = "immutable"\n',
        'rows = "revisable"\nschedule = "1h"\n',
        "schedule: needs ",
    ),
    "a value that is kept although it is never null": (
        'type = "int64"',
        'type = "int64", keep_value = true',
        "columns.id.keep_value: only a nullable column of the content has it",
    ),
    "a key out of the digest": (
        'type = "int64"',
        'type = "int64", digest = false',
        "columns.id.digest: the time column and the key are always content",
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
    "a column by which files are kept": ("flag =", "year =", "columns.year: lake keeps files by"),
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
    **{
        f"{key} = {value}": (
            'rows = "immutable"',
            f'rows = "immutable"\n{key} = {value}',
            f"{key}: {reason}",
        )
        for key, value, reason in (
            ("kind", '"rows"', "Input should be 'data', 'reference' or 'record'"),
            ("from", '"venue"', "Input should be 'exchange', 'chain', 'file' or 'lake'"),
            ("section", '"mine"', "Input should be 'bars'"),
            ("event", '"tick"', "Input should be 'bar', 'trade'"),
            ("rank", "-1", "Input should be greater than or equal to 0"),
            ("rank", '"1"', "Input should be a valid integer"),
            ("margin", "3600", "Input should be a valid string"),
            ("margin", '"1 fortnight"', "'1 fortnight' is not a length of time. Write 90s,"),
            ("margin", '"10 slots"', "slots need date = 'by_timeframe'"),
            ("time_tolerance", "1", "Input should be a valid string"),
            ("time_tolerance", '"2 slots"', "must be one day at most; write 0s, 1s or 1h"),
            ("time_tolerance", '"2d"', "must be one day at most; write 0s, 1s or 1h"),
            ("section", '"bars"', "'bars' needs date = 'by_timeframe'"),
            ("event", '"trade"', "'trade' has these columns in this order: timestamp (timest"),
        )
    },
    "a record that is not the lake's": (
        'rows = "immutable"',
        'kind = "record"\nrows = "immutable"',
        "from: 'lake' requires kind = 'record'",
    ),
    "rows of an exchange that nobody fetches": (
        'rows = "immutable"',
        'from = "exchange"\nrows = "immutable"',
        "from: 'exchange' requires [fetch]",
    ),
    "rows of a file that are fetched": (
        "[columns]",
        '[fetch]\nmethod = "fetchMarkets"\n[columns]',
        "from: 'exchange' requires [fetch]",
    ),
    "checks of a reference": (
        "[columns]",
        'kind = "reference"\n[checks.order]\n[columns]',
        "checks: rows of kind 'reference' are not checked",
    ),
    "a section of one table by timeframe": (
        'date = "day"',
        'date = "by_timeframe"\nsection = "trades"',
        "section: 'trades' holds one table; it cannot have date = 'by_timeframe'",
    ),
    **{
        f"repair.{key} = {value}": (
            "[columns]",
            f"[repair]\n{key} = {value}\n\n[columns]",
            f"repair.{key}: {reason}",
        )
        for key, value, reason in (
            ("interpolate", '"cubic"', "Input should be 'flat', 'linear' or 'last'"),
            ("interpolate", '"flat"', "'flat' needs event = 'bar'"),
            ("margin", '"2 slots"', "slots need date = 'by_timeframe'"),
            ("join_within", '"2 slots"', "slots need date = 'by_timeframe'"),
            ("join_within", '"1M"', "'1M' is not a length of time"),
            ("every", '"1h"', "Extra inputs are not permitted"),
        )
    },
    "rows between others by timeframe": (
        'date = "day"',
        'date = "by_timeframe"\nrepair = { interpolate = "last" }',
        "repair.interpolate: 'last' cannot be used with date = 'by_timeframe'",
    ),
    "a method that nobody can read": (
        "[columns]",
        'from = "exchange"\n[fetch]\nmethod = "fetchTickers"\n[columns]',
        "fetch.method: Input should be 'fetchOHLCV'",
    ),
    "a method that gives other rows": (
        "[columns]",
        'from = "exchange"\n[fetch]\nmethod = "fetchTrades"\nwindow = "1h"\n[columns]',
        "fetch.method: 'fetchTrades' needs event = 'trade'",
    ),
    "a window of the present": (
        "[columns]",
        'from = "exchange"\n[fetch]\nmethod = "fetchMarkets"\nwindow = "1h"\n[columns]',
        "fetch.window: 'fetchMarkets' fetches only the present",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_says_file_key_and_reason(tmp_path: Path, case: str) -> None:
    old, new, message = MALFORMED[case]
    text = TEXT + CHECK
    assert old in text
    path = file(tmp_path, text.replace(old, new, 1))
    with pytest.raises(SchemaError) as caught:
        Catalog([path])
    assert caught.value.message.startswith(f"{path}: {message}")


def variant(folder: Path, family: str, name: str, *changes: tuple[str, str]) -> Path:
    """A dataset file of the product under another name, changed."""
    text = next(path for path in builtin_files() if path.stem == family).read_text("utf-8")
    for old, new in ((f'name = "{family}"', f'name = "{name}"'), *changes):
        assert old in text
        text = text.replace(old, new, 1)
    return file(folder, text, name)


OTHER_SECTION = ('section = "trades"', 'section = "other"')


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('window = "6h"', "", "fetch.window: 'fetchTrades' needs one"),
        ('window = "6h"', 'window = "0s"', "fetch.window: must be longer than zero"),
        ('window = "6h"', 'window = "9 slots"', "fetch.window: slots need date = 'by_timeframe'"),
        ('price = { type = "float64"', 'price = { type = "int64"', "event: 'trade' has these"),
    ],
)
def test_a_table_of_trades_needs_a_window_and_the_columns_of_trades(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    path = variant(tmp_path, "trades", "fills", OTHER_SECTION, (old, new))
    with pytest.raises(SchemaError) as caught:
        Catalog([*builtin_files(), path])
    assert caught.value.message.startswith(f"{path}: {reason}")


@pytest.mark.parametrize(("family", "own"), [("bars", "candles"), ("funding", "rates")])
def test_a_users_own_bars_and_rates_may_lack_the_time_of_receipt(
    tmp_path: Path, family: str, own: str
) -> None:
    text = own_copy(family, own)
    text = re.sub(r"^received_at = .*\n", "", text, flags=re.MULTILINE)
    text = text.replace("[columns]", f'event = "{family.removesuffix("s")}"\n\n[columns]', 1)
    spec = read_dataset_file(file(tmp_path, text, own))
    assert "received_at" not in spec.columns
    text = re.sub(r"^(fill|keep_when) = .*\n", "", text, flags=re.MULTILINE)
    with pytest.raises(SchemaError, match="has these columns in this order"):
        read_dataset_file(file(tmp_path, text, own))


def test_events_need_timestamp_as_time_column(tmp_path: Path) -> None:
    change = ('time_column = "timestamp"', 'time_column = "received_at"')
    path = variant(tmp_path, "orderbooks", "books", change, (", digest = false", ""))
    with pytest.raises(SchemaError, match="event: 'order_book' needs time_column = 'timestamp'"):
        Catalog([path])


def test_a_section_of_another_dataset_is_refused(tmp_path: Path) -> None:
    path = variant(tmp_path, "trades", "fills")
    with pytest.raises(SchemaError, match="section: 'trades' is the section of dataset 'trades'"):
        Catalog([*builtin_files(), path])


def test_bars_without_timeframes_are_refused(tmp_path: Path) -> None:
    changes = [
        ('date = "by_timeframe"', 'date = "day"'),
        ('available_at = "end"', ""),
        ('section = "bars"', ""),
    ]
    path = variant(tmp_path, "bars", "candles", *changes)
    with pytest.raises(SchemaError, match="event: 'bar' requires date = 'by_timeframe'"):
        Catalog([*builtin_files(), path])


def test_a_second_dataset_of_the_present_is_refused(tmp_path: Path) -> None:
    path = variant(tmp_path, "orderbooks", "books", ('section = "orderbooks"', ""))
    reason = "fetch.method: 'fetchOrderBook' is the method of dataset 'orderbooks'"
    with pytest.raises(SchemaError, match=reason):
        Catalog([*builtin_files(), path])


def test_a_users_own_dataset_can_be_fetched_like_trades(tmp_path: Path) -> None:
    catalog = Catalog([*builtin_files(), variant(tmp_path, "trades", "fills", OTHER_SECTION)])
    assert catalog.dataset("fills").fetch == catalog.dataset("trades").fetch
    assert catalog.fetched_by_range == ("bars", "funding", "fills", "trades")
    assert catalog.fetched_as_present == ("orderbooks", "instruments")


@pytest.mark.parametrize(
    ("key", "line", "tolerance"),
    [
        ("id", "", timedelta(seconds=1)),
        ("id", 'time_tolerance = "0s"', timedelta(0)),
        ("id", 'time_tolerance = "5m"', timedelta(minutes=5)),
        ("timestamp", "", timedelta(0)),
    ],
)
def test_rows_with_an_id_have_a_tolerance_in_time(
    tmp_path: Path, key: str, line: str, tolerance: timedelta
) -> None:
    text = TEXT.replace('key = ["id"]', f'key = ["{key}"]\n{line}')
    assert Catalog([file(tmp_path, text)]).dataset("everything").time_tolerance == tolerance


def test_a_column_can_be_left_out_of_digests(tmp_path: Path) -> None:
    plain = Catalog([file(tmp_path, TEXT)]).dataset("everything")
    text = TEXT.replace("later = {", "later = { digest = false,")
    dataset = Catalog([file(tmp_path, text)]).dataset("everything")
    assert [c.name for c in dataset.columns if not c.digest] == ["later"]
    assert {c.name for c in plain.content} - {c.name for c in dataset.content} == {"later"}
    assert dataset.fingerprint != plain.fingerprint


def test_keys_that_a_file_leaves_out_have_defaults(tmp_path: Path) -> None:
    by_day = file(tmp_path, TEXT)
    text = TEXT.replace('"everything"', '"each"').replace('date = "day"', 'date = "by_timeframe"')
    catalog = Catalog([by_day, file(tmp_path, text, "each")])
    for name, rank, margin in (
        ("everything", 100, timedelta(hours=1)),
        ("each_1m", 10, timedelta(minutes=500)),
        ("each_1h", 10, timedelta(hours=500)),
    ):
        dataset = catalog.dataset(name)
        assert (dataset.rank, dataset.margin) == (rank, margin)
        assert (dataset.kind, dataset.source_kind, dataset.section) == ("data", "file", "other")
        assert (dataset.event, dataset.repair.interpolate) == (None, None)
        assert dataset.repair.margin == timedelta(0)
        assert not dataset.is_fetched_by_range
        assert not dataset.is_fetched_as_present


def test_keys_of_a_file_reach_the_dataset(tmp_path: Path) -> None:
    keys = 'kind = "reference"\nfrom = "chain"\nsection = "chain"\nrank = 7\nmargin = "36h"\n\n'
    dataset = Catalog([file(tmp_path, TEXT.replace("[columns]", keys + "[columns]"))]).dataset(
        "everything"
    )
    assert (dataset.kind, dataset.source_kind, dataset.section) == ("reference", "chain", "chain")
    assert (dataset.rank, dataset.margin) == (7, timedelta(hours=36))


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


@pytest.mark.parametrize("line", ["", 'available_at = "received_at"\n'])
def test_a_column_of_receipt_counts_whether_the_file_names_it_or_not(
    tmp_path: Path, line: str
) -> None:
    text = own_copy("trades", "fills").replace('available_at = "received_at"\n', line)
    dataset = Catalog([file(tmp_path, text, "fills")]).dataset("fills")
    assert (dataset.records_receipt, dataset.announcement_column) == (True, None)
    time = datetime(2024, 1, 1, tzinfo=UTC)
    received = [None, time - timedelta(seconds=1), time + timedelta(seconds=1)]
    frame = dataset.empty().select("timestamp", "received_at")
    rows = pl.DataFrame({"timestamp": [time] * 3, "received_at": received}, schema=frame.schema)
    assert rows.select(dataset.availability()).to_series().to_list() == [time, time, received[2]]
