"""The lake's folder: created once, opened again, and clear about what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import lake
from lake.api import Lake
from lake.errors import ConfigError, DamagedError, SchemaError, UnknownNameError, UsageError
from lake.model.catalog import builtin
from lake.settings import Settings
from tests.conftest import NewLake, bars, trades, write
from tests.model.everything import TEXT


def create(path: Path | str, **granularity: Any) -> Lake:
    return Lake.create(Settings(uri=str(path)), granularity or None)


def marker(folder: Path, **changes: Any) -> None:
    """Change the marker of a lake."""
    path = folder / "lake.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, **changes}), encoding="utf-8")


def test_a_lake_is_found_again_with_its_id(tmp_path: Path) -> None:
    created = create(tmp_path / "deep" / "lake")
    assert lake.open(created.root.path).root == created.root
    assert create(tmp_path / "other").root.id != created.root.id


def test_a_folder_that_is_not_a_lake_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(ConfigError, match=f"{path} is not a lake: it has no lake.json"):
            lake.open(path)


def test_a_lake_is_made_once_only(tmp_path: Path) -> None:
    created = create(tmp_path)
    with pytest.raises(ConfigError, match="is a lake already"):
        create(tmp_path)
    assert lake.open(tmp_path).root.id == created.root.id


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.touch()
    for path in (tmp_path, thesis):
        with pytest.raises(ConfigError, match="exists and is not an empty folder"):
            create(path)
    assert list(tmp_path.iterdir()) == [thesis]


def test_a_lake_is_made_where_its_creation_was_killed(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / ".lake.json.0123456789abcdef.tmp").write_text('{"form')
    assert create(tmp_path).tables().is_empty()


def test_folders_of_a_lake_that_hold_something_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tables" / "mine").mkdir(parents=True)
    with pytest.raises(ConfigError, match="exists and is not an empty folder"):
        create(tmp_path)


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match="a lake on s3:// is not supported yet"):
        lake.open("s3://bucket/lake")


def test_a_file_uri_is_a_folder(tmp_path: Path) -> None:
    created = create(f"file://{tmp_path}/my%20lake")
    assert created.root.path == tmp_path / "my lake"


@pytest.mark.parametrize(
    "name", ["my lake", "Jürgen", "日本", "a#b", "a?b", "[a]", "a*b", "a'b", "{a}", "100%"]
)
def test_a_lake_can_be_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    created = create(tmp_path / name)
    write(created, "trades", trades(2))
    write(created, "trades", trades(3))
    assert created.scan("trades").collect().height == 3
    assert created.sql("SELECT count(*) FROM trades").fetchall() == [(3,)]
    assert created.bundles.pin("odd", table="trades").verify() == []
    assert (tmp_path / name / "tables" / "trades" / "_delta_log").is_dir()


@pytest.mark.parametrize("name", ["a%20b", "a\\b", "a\tb"])
def test_a_folder_that_delta_would_mistake_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot hold a lake"):
        create(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_lake_of_a_newer_format_is_not_touched(tmp_path: Path) -> None:
    create(tmp_path)
    marker(tmp_path, format=3)
    with pytest.raises(ConfigError, match="has lake format 3; this version reads 2"):
        lake.open(tmp_path)
    marker(tmp_path, format=1)
    with pytest.raises(ConfigError, match="has lake format 1, of a version before the first"):
        lake.open(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"id": "x"}',
        b'{"format": "1", "id": "x"}',
        b'{"format": 2}',
        b'{"format": 2, "id": "x", "granularity": ["day"]}',
    ],
)
def test_a_damaged_marker_is_named(tmp_path: Path, content: bytes) -> None:
    create(tmp_path)
    (tmp_path / "lake.json").write_bytes(content)
    with pytest.raises(DamagedError, match=r"lake\.json is damaged"):
        lake.open(tmp_path)


def test_a_granularity_holds_for_the_life_of_the_lake(tmp_path: Path) -> None:
    create(tmp_path, bars_1h="day", bars_1M="day", trades="year")
    again = lake.open(tmp_path)
    for name, granularity in (("bars_1h", "day"), ("bars_1mo", "day"), ("trades", "year")):
        assert again.dataset(name).granularity == granularity
    write(again, "trades", trades())
    assert (tmp_path / "tables/trades/exchange=binance/symbol=BTC%2FUSDT/year=2024").is_dir()


@pytest.mark.parametrize(
    ("granularity", "error"),
    [({"nope": "day"}, UnknownNameError), ({"trades": "week"}, UsageError)],
)
def test_a_granularity_that_cannot_be_makes_no_lake(
    tmp_path: Path, granularity: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        create(tmp_path / "lake", **granularity)
    assert not (tmp_path / "lake").exists()


def of_own(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows for the dataset `everything`."""
    return frame.select("exchange", "symbol", "timestamp", id=pl.col("trade_id").cast(pl.Int64))


def test_a_dataset_of_the_users_own_works_like_any_other(new_lake: NewLake) -> None:
    own = new_lake(schemas={"everything": TEXT})
    write(own, "everything", of_own(trades(1)))
    assert own.scan("everything").collect()["id"].to_list() == [0]
    assert own.sql("SELECT id, texts FROM everything").fetchall() == [(0, None)]
    assert own.describe("everything").filter(pl.col("column") == "later")["meaning"].to_list() == [
        "A time."
    ]
    assert own.bundles.pin("own", table="everything").manifest.other["everything"].rows == 1


def test_a_malformed_dataset_of_the_users_own_is_named(new_lake: NewLake) -> None:
    with pytest.raises(SchemaError, match=r"schemas/everything\.toml: key: 'nope' is not among"):
        new_lake(schemas={"everything": TEXT.replace('["id"]', '["nope"]')})


def test_a_dataset_file_that_no_longer_fits_its_table_is_named(new_lake: NewLake) -> None:
    own = new_lake(schemas={"everything": TEXT})
    path = own.root.path / "schemas" / "everything.toml"
    write(own, "everything", of_own(trades(1)))
    required = TEXT.replace('count = { type = "int64", nullable = true', 'tally = { type = "int64"')
    path.write_text(required, encoding="utf-8")
    with pytest.raises(SchemaError, match="table everything has no column 'tally'"):
        lake.open(own.root.path).scan("everything")
    path.write_text(
        TEXT.replace('count = { type = "int64"', 'count = { type = "string"'), encoding="utf-8"
    )
    with pytest.raises(SchemaError, match="column 'count' has another type"):
        lake.open(own.root.path).scan("everything")


def test_describe_lists_every_column_with_its_unit(new_lake: NewLake) -> None:
    described = new_lake().describe("bars_1m")
    assert described["column"].to_list() == list(builtin().dataset("bars_1m").polars_schema)
    close = next(row for row in described.iter_rows(named=True) if row["column"] == "close")
    assert (close["type"], close["unit"], close["nullable"], close["key"]) == (
        "float64",
        "quote",
        False,
        False,
    )
    keys = described.filter("key")["column"].to_list()
    assert keys == ["exchange", "symbol", "timestamp"]


def test_minutes_and_months_do_not_mix(new_lake: NewLake) -> None:
    lake = new_lake()
    write(lake, "bars_1m", bars(2))
    write(lake, "bars_1mo", bars(1))
    assert lake.sql("SELECT count(*) FROM bars_1m").fetchall() == [(2,)]
    assert lake.sql("SELECT count(*) FROM bars_1mo").fetchall() == [(1,)]
