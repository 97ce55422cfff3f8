"""A dataset file gets a nullable column that the stored table lacks: all goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import SchemaError
from lake.model.market import Market
from lake.model.time import TimeRange
from lake.store.log import read_actions, read_latest_version
from tests.conftest import (
    DAY,
    MINUTE,
    ORIGIN,
    SECOND,
    T0,
    TIME,
    NewLake,
    bars,
    funding,
    store_of,
    write,
)
from tests.model.everything import own_copy

BTC = Market("binance", "BTC/USDT")
RECEIVED = T0 + 90 * SECOND
TABLES = ("bars_1m", "bars_1h", "funding")


def received(count: int) -> pl.Series:
    return pl.Series([RECEIVED] * count, dtype=TIME)


def columns_of(lake: Lake, table: str) -> list[str]:
    return [f.name for f in store_of(lake).open(lake.dataset(table)).schema().fields]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_before_is_read_with_nulls(lake_before: Lake, table: str) -> None:
    assert "received_at" not in columns_of(lake_before, table)
    rows = lake_before.scan(table).collect()
    assert rows.schema == lake_before.dataset(table).polars_schema
    assert rows["received_at"].null_count() == rows.height > 0
    unordered = lake_before.scan(table, ordered=False).collect()
    assert_frame_equal(unordered.sort(rows.columns), rows.sort(rows.columns))
    assert lake_before.scan(table).filter(pl.col("received_at").is_not_null()).collect().is_empty()
    assert lake_before.scan(table, columns=["received_at"]).collect().height == rows.height
    assert_frame_equal(
        lake_before.sql(f"FROM {table} ORDER BY ALL").pl().drop("available_at"), rows
    )
    assert "received_at" not in columns_of(lake_before, table)


def test_the_first_write_adds_the_column_in_one_commit_without_rows(lake_before: Lake) -> None:
    before = lake_before.scan("bars_1m").collect()
    version = store_of(lake_before).version(lake_before.dataset("bars_1m"))
    new = bars(2, start=T0 + 10 * MINUTE * 6, received_at=received(2))
    written = write(lake_before, "bars_1m", new)
    assert (written.inserted, written.updated, written.version) == (2, 0, version + 2)
    folder = lake_before.root.tables / "bars_1m"
    kinds = [next(iter(action)) for action in read_actions(folder, version + 1)]
    assert sorted(kinds) == ["commitInfo", "metaData"]
    info = next(a["commitInfo"] for a in read_actions(folder, version + 1) if "commitInfo" in a)
    metadata = json.loads(info["userMetadata"])
    assert metadata["added_columns"] == ["received_at"]
    assert (metadata["job"], metadata["source"]) == (ORIGIN.job_id, "lake")
    rows = lake_before.scan("bars_1m").collect()
    assert rows.height == before.height + 2
    assert rows["received_at"].drop_nulls().to_list() == [RECEIVED] * 2
    again = bars(1, start=T0 + 2 * 60 * MINUTE)
    assert write(lake_before, "bars_1m", again).version == version + 3
    assert_frame_equal(lake_before.scan("bars_1m", version=version).collect(), before)
    assert_frame_equal(
        lake_before.sql("SELECT * FROM bars_1m ORDER BY exchange, symbol, timestamp").pl(),
        lake_before.available("bars_1m").select(*rows.columns, "available_at").collect(),
    )


def test_sql_reads_an_old_version_and_files_of_both_kinds(lake_before: Lake) -> None:
    version = store_of(lake_before).version(lake_before.dataset("funding"))
    assert write(lake_before, "funding", funding([T0 + 9 * DAY])).inserted == 1
    query = "SELECT count(*), count(received_at) FROM funding"
    assert lake_before.sql(query).fetchall() == [(5, 0)]
    assert lake_before.sql(query, at={"funding": version}).fetchall() == [(4, 0)]
    row = lake_before.sql("SELECT * FROM funding WHERE received_at IS NULL AND symbol LIKE 'BTC%'")
    assert len(row.fetchall()) == 5


def test_an_open_reader_follows_the_table_through_the_change(lake_before: Lake) -> None:
    names: Any = {"exchange": "binance", "symbol": "BTC/USDT"}
    assert lake_before.latest("bars_1m", **names)["received_at"].to_list() == [None]
    write(lake_before, "bars_1m", bars(1, start=T0 + DAY, received_at=received(1)))
    newest = lake_before.latest("bars_1m", **names, n=2)
    assert newest["received_at"].to_list() == [None, RECEIVED]
    assert lake_before.at("bars_1m", **names, time=T0 + 2 * DAY)["timestamp"].item() == T0 + DAY


def test_a_bar_that_was_there_before_can_be_revised(lake_before: Lake) -> None:
    changed = bars(1, volume=[7.0], received_at=received(1))
    assert write(lake_before, "bars_1m", changed).updated == 1
    first = lake_before.scan("bars_1m", symbol="BTC/USDT").collect().row(0, named=True)
    assert (first["volume"], first["received_at"]) == (7.0, RECEIVED)
    assert lake_before.scan("bars_1m").collect()["received_at"].null_count() == 34


def test_compaction_keeps_all_rows(lake_before: Lake) -> None:
    write(lake_before, "bars_1m", bars(5, start=T0 + 60 * MINUTE, received_at=received(5)))
    before = {name: lake_before.scan(name).collect() for name in TABLES}
    assert store_of(lake_before).snapshot(lake_before.dataset("bars_1m")).files().height == 4
    lake_before.maintenance.optimize()
    assert store_of(lake_before).snapshot(lake_before.dataset("bars_1m")).files().height == 2
    for name, rows in before.items():
        assert_frame_equal(lake_before.scan(name).collect(), rows)
    assert lake_before.sql("SELECT count(received_at) FROM bars_1m").fetchall() == [(5,)]


def test_compaction_alone_adds_the_column(lake_before: Lake) -> None:
    before = lake_before.scan("bars_1m").collect()
    lake_before.maintenance.optimize()
    assert "received_at" in columns_of(lake_before, "bars_1m")
    assert_frame_equal(lake_before.scan("bars_1m").collect(), before)


def test_rows_are_replaced_and_deleted(lake_before: Lake) -> None:
    store, dataset = store_of(lake_before), lake_before.dataset("bars_1m")
    window = TimeRange(T0, T0 + 5 * MINUTE)
    keep_last: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows.tail(1)  # noqa: E731
    result = store.replace(dataset, BTC, window, keep_last, ORIGIN)
    assert (result.before.height, result.after.height) == (5, 1)
    assert lake_before.scan("bars_1m").collect().height == 31


def test_bundles_of_before_and_after_hold_the_same_rows_under_one_id(lake_before: Lake) -> None:
    tables = ("bars_1m", "bars_1h", "funding")
    old = lake_before.bundles.open("before")
    unchanged = lake_before.bundles.pin("unchanged", table=tables, check=False)
    digests = {ref.table: ref.digest for _, ref in old.manifest.refs()}
    assert {r.table: r.digest for _, r in unchanged.manifest.refs()} == {
        table: digests[table] for table in tables
    }
    write(lake_before, "bars_1m", bars(1, start=T0 + DAY, received_at=received(1)))
    lake_before.bundles.pin("evolved", table="bars_1m", check=False, until=T0 + DAY)
    assert lake_before.bundles.diff("unchanged", "evolved", table="bars_1m").height <= 1
    assert old.verify(deep=True) == unchanged.verify(deep=True) == []


def test_a_bundle_reads_files_of_both_kinds(lake_before: Lake, tmp_path: Path) -> None:
    write(lake_before, "bars_1m", bars(2, start=T0 + DAY, received_at=received(2)))
    bundle = lake_before.bundles.pin("mixed", table="bars_1m", check=False)
    rows = lake_before.scan("bars_1m").collect()
    assert bundle.manifest.data_dictionary["bars_1m"].added_columns == ("received_at",)
    exported = bundle.export(tmp_path / "mixed")
    for reader in (bundle, _open(exported)):
        assert_frame_equal(reader.scan("bars_1m").collect(), rows)
        assert reader.sql("SELECT count(*), count(received_at) FROM bars_1m").fetchall() == [
            (rows.height, 2)
        ]
        assert len(list(reader.replay())) == rows.height
        assert reader.verify(deep=True) == []


def _open(path: Path) -> Any:
    from lake import open_bundle

    return open_bundle(path, cache=False)


EXTRA = 'extra = { type = "float64", unit = "quote", nullable = true, meaning = "Added." }\n'


@pytest.fixture
def own(new_lake: NewLake) -> tuple[Lake, Path]:
    """A lake with a dataset of its own and two rows, and the path of the dataset file."""
    text = own_copy("funding", "rates")
    lake = new_lake(schemas={"rates": text})
    assert write(lake, "rates", funding([T0, T0 + DAY])).inserted == 2
    return lake, lake.root.path / "schemas" / "rates.toml"


def test_a_user_adds_a_column_to_a_dataset_file(own: tuple[Lake, Path]) -> None:
    lake, file = own
    lake.bundles.pin("before", table="rates", check=False)
    file.write_text(file.read_text().replace("\n[rules]", EXTRA + "\n[rules]", 1))
    lake = Lake(lake.settings)
    assert lake.scan("rates").collect()["extra"].to_list() == [None, None]
    new = funding([T0 + 2 * DAY]).with_columns(extra=pl.lit(2.5))
    assert write(lake, "rates", new).inserted == 1
    assert lake.scan("rates").collect()["extra"].to_list() == [None, None, 2.5]
    assert lake.bundles.open("before").verify(deep=True) == []
    assert "extra" not in lake.bundles.open("before").scan("rates").collect().columns
    write(lake, "bars_1m", bars(2))
    lake.maintenance.optimize()
    assert lake.scan("rates").collect()["extra"].to_list() == [None, None, 2.5]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("nullable = true", "nullable = false", "has no column 'extra'.*Make the column nullable"),
        ('"float64"', '"int64"', "column 'extra' has another type"),
        (
            "nullable = true",
            "nullable = false",
            "column 'extra' may be null in stored rows.*Make the column nullable",
        ),
    ],
)
def test_what_cannot_be_is_refused(own: tuple[Lake, Path], old: str, new: str, reason: str) -> None:
    lake, file = own
    text = file.read_text()
    if "has no column" not in reason:
        file.write_text(text.replace("\n[rules]", EXTRA + "\n[rules]", 1))
        write(Lake(lake.settings), "rates", funding([T0 + 3 * DAY]))
    file.write_text(text.replace("\n[rules]", EXTRA.replace(old, new) + "\n[rules]", 1))
    with pytest.raises(SchemaError) as caught:
        Lake(lake.settings).scan("rates").collect()
    assert caught.match("(?s)" + reason)


def test_a_column_of_the_first_version_cannot_become_required(new_lake: NewLake) -> None:
    text = own_copy("funding", "rates").replace("\n[rules]", EXTRA + "\n[rules]", 1)
    lake = new_lake(schemas={"rates": text})
    write(lake, "rates", funding([T0]))
    file = lake.root.path / "schemas" / "rates.toml"
    file.write_text(text.replace(EXTRA, EXTRA.replace("true", "false")))
    later = Lake(lake.settings)
    row = funding([T0 + DAY]).with_columns(extra=pl.lit(1.0))
    for attempt in (lambda: later.scan("rates").collect(), lambda: write(later, "rates", row)):
        with pytest.raises(SchemaError, match="table rates: column 'extra' may be null") as caught:
            attempt()
        assert "schemas/rates.toml" in caught.value.hint
    file.write_text(text)
    assert Lake(lake.settings).scan("rates").collect()["extra"].to_list() == [None]


def test_a_required_column_that_was_made_nullable_still_takes_no_null(new_lake: NewLake) -> None:
    text = own_copy("funding", "rates")
    required = EXTRA.replace("true", "false")
    lake = new_lake(schemas={"rates": text.replace("\n[rules]", required + "\n[rules]", 1)})
    write(lake, "rates", funding([T0]).with_columns(extra=pl.lit(1.0)))
    file = lake.root.path / "schemas" / "rates.toml"
    file.write_text(text.replace("\n[rules]", EXTRA + "\n[rules]", 1))
    later = Lake(lake.settings)
    assert write(later, "rates", funding([T0 + DAY]).with_columns(extra=pl.lit(2.0))).inserted == 1
    version = read_latest_version(lake.root.tables / "rates")
    with pytest.raises(SchemaError, match="column 'extra' is null in a row") as caught:
        write(later, "rates", funding([T0 + 2 * DAY]))
    assert "set nullable = false in schemas/rates.toml again" in caught.value.hint
    assert read_latest_version(lake.root.tables / "rates") == version


def test_writers_add_the_same_column_once(own: tuple[Lake, Path]) -> None:
    lake, file = own
    file.write_text(file.read_text().replace("\n[rules]", EXTRA + "\n[rules]", 1))

    def write_one(number: int) -> int:
        row = funding([T0 + (5 + number) * DAY]).with_columns(extra=pl.lit(float(number)))
        return write(Lake(lake.settings), "rates", row).inserted

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(write_one, range(4))) == [1] * 4
    rows = Lake(lake.settings).scan("rates").collect()
    assert rows["extra"].to_list() == [None, None, 0.0, 1.0, 2.0, 3.0]
    table = lake.root.tables / "rates"
    changes = [
        version
        for version in range(read_latest_version(table) + 1)
        if any("metaData" in action for action in read_actions(table, version))
    ]
    assert changes == [0, 2]
