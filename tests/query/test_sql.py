"""SQL: every table is a read-only view, and errors are clear."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import UnknownNameError, UsageError
from lake.query.sql import fetch_batches
from tests.conftest import DAY, T0, bars, store_of, trades, write


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """A lake with three days of trades of two symbols, and bars."""
    store = store_of(lake)
    for symbol in ("BTC/USDT", "ETH/USDT"):
        write(store, "trades", trades(18, step=DAY / 6, symbol=symbol))
    write(store, "bars_1m", bars())
    return lake


def test_sql_equals_a_scan(filled: Lake) -> None:
    read = filled.sql("SELECT * FROM trades ORDER BY exchange, symbol, timestamp").pl()
    assert_frame_equal(read.drop("available_at"), filled.scan("trades").collect())
    assert read.columns[-1] == "available_at"


def test_times_are_in_utc_in_any_local_zone(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    query = "SELECT min(timestamp), CAST(max(timestamp) AS VARCHAR) FROM trades"
    first, last = filled.sql(query).fetchall()[0]
    assert first == T0
    assert first.utcoffset().total_seconds() == 0
    assert last == "2024-01-03 20:00:00+00"


def test_parameters_are_values_not_text(filled: Lake) -> None:
    query = "SELECT count(*) FROM trades WHERE symbol = ? AND timestamp >= ?"
    time = datetime(2024, 1, 3, tzinfo=UTC)
    assert filled.sql(query, ["ETH/USDT", time]).fetchall() == [(6,)]
    assert filled.sql(query, ["x' OR 'a' = 'a", time]).fetchall() == [(0,)]


def test_a_table_may_be_named_by_a_parameter(filled: Lake) -> None:
    query = "SELECT count(*) FROM query_table(?)"
    assert filled.sql(query, ["trades"]).fetchall() == [(36,)]
    assert filled.sql("SELECT * FROM query('SELECT 1 FROM ' || ?)", ["bars_1m"]).pl().height == 3


def test_a_table_without_rows_is_an_empty_view(lake: Lake) -> None:
    write(lake, "trades", trades(1))
    read = lake.sql("SELECT * FROM trades", at={"trades": 0}).pl()
    assert read.height == 0
    assert read.drop("available_at").schema == lake.scan("trades").collect_schema()


@pytest.mark.parametrize(
    "query",
    [
        "FROM trades",
        "TABLE trades",
        "SELECT * FROM Trades",
        'SELECT * FROM main."trades"',
        "WITH t AS (SELECT * FROM trades) SELECT * FROM t",
        "SELECT a.* FROM trades a JOIN bars_1m b ON a.timestamp = b.timestamp",
        "DESCRIBE trades",
        "SUMMARIZE trades",
        "SHOW TABLES",
        "PIVOT trades ON symbol USING count(*) GROUP BY date",
        "EXPLAIN SELECT * FROM trades",
        "EXPLAIN ANALYZE SELECT * FROM trades",
        "EXPLAIN (FORMAT JSON) SELECT * FROM trades",
        "-- note\n/* note */ EXPLAIN SELECT * FROM trades",
        "/* note */ SELECT * FROM trades -- note",
        "SELECT * FROM trades;",
    ],
)
def test_every_form_of_query_works(filled: Lake, query: str) -> None:
    assert filled.sql(query).pl().height > 0


WRITES = [
    "INSERT INTO trades SELECT * FROM trades",
    "UPDATE trades SET price = 1",
    "DELETE FROM trades",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "DROP VIEW trades",
    "ATTACH '{file}'",
    "COPY trades TO '{file}'",
    "COPY (SELECT 1) TO '{file}'",
    "EXPORT DATABASE '{file}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{file}'",
    "explain (analyze, format json) copy (select 1) to '{file}'",
    "/* explain */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
    "/*explain (*/ EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}' --) */ SELECT 1",
    "EXPLAIN (ANALYZE /* ) select 1 -- */ ) COPY (SELECT 1) TO '{file}'",
    "/* /* */ explain select 1 -- */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
    "--\rexplain select 1\n EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
    "SELECT 1; COPY (SELECT 1) TO '{file}'",
    "SELECT * FROM query('COPY (SELECT 1) TO ''{file}''')",
    "WITH t AS (SELECT 1) INSERT INTO trades SELECT * FROM t",
    "PREPARE p AS COPY trades TO '{file}'",
    "SET threads = 1",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "LOAD parquet",
    "INSTALL httpfs",
    "BEGIN",
    "VACUUM",
    "",
    ";",
    "-- nothing",
    "SELECT 1; SELECT 2",
]


@pytest.mark.parametrize("query", WRITES)
def test_statements_other_than_one_query_are_refused(
    filled: Lake, tmp_path: Path, query: str
) -> None:
    file = tmp_path / "out"
    with pytest.raises(UsageError, match=r"^SQL: "):
        filled.sql(query.format(file=file))
    assert not file.exists()
    assert filled.versions("trades").height == 3


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT nope FROM trades", 'Referenced column "nope" not found'),
        ("SELECT nope(1)", "nope"),
        ("SELECT * FROM trades WHERE price > ?", "parameters"),
    ],
)
def test_a_mistake_is_shown_where_it_is(filled: Lake, query: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        filled.sql(query)


def test_an_unknown_table_is_an_error_that_lists_tables(filled: Lake) -> None:
    with pytest.raises(UnknownNameError, match="nope does not exist") as caught:
        filled.sql("SELECT * FROM nope")
    assert caught.value.hint == "Tables: bars_1m, trades."


def test_a_version_of_an_unknown_table_is_refused(filled: Lake) -> None:
    with pytest.raises(UnknownNameError, match="there is no table 'nope'") as caught:
        filled.sql("SELECT 1", at={"nope": 1})
    assert caught.value.hint == "Tables: bars_1m, trades."
    with pytest.raises(UnknownNameError, match="table funding does not exist yet"):
        filled.sql("SELECT 1", at={"funding": 1})


@pytest.mark.parametrize(
    "condition",
    ["date = '2024-01-02'", "date = DATE '2024-01-02' AND exchange = 'binance'"],
)
def test_a_query_of_one_day_opens_only_its_files(filled: Lake, condition: str) -> None:
    ruin(filled, "date=2024-01-02")
    query = f"SELECT count(*), min(date), max(date) FROM trades WHERE {condition}"  # noqa: S608
    day = date(2024, 1, 2)
    assert filled.sql(query).fetchall() == [(12, day, day)]


def test_a_query_of_one_symbol_opens_only_its_files(filled: Lake) -> None:
    ruin(filled, "symbol=ETH")
    query = "SELECT count(price) FROM trades WHERE symbol = 'ETH/USDT'"
    assert filled.sql(query).fetchall() == [(18,)]


def ruin(lake: Lake, kept_table: str) -> None:
    """Damage the files of a table, except some, and the first, whose columns DuckDB reads."""
    paths = sorted((lake.root.tables / "trades").rglob("*.parquet"))
    ruined = [path for path in paths[1:] if kept_table not in str(path)]
    assert len(ruined) > 1
    for path in ruined:
        path.write_bytes(b"ruined" * 1000)


def test_a_damaged_table_does_not_hinder_queries_of_others(filled: Lake) -> None:
    for path in (filled.root.tables / "trades").rglob("*.parquet"):
        path.unlink()
    assert filled.sql("SELECT count(*) FROM bars_1m").fetchall() == [(3,)]


def test_a_result_comes_in_batches(filled: Lake) -> None:
    frames = list(fetch_batches(filled.sql("SELECT range AS n FROM range(10000)"), rows=3000))
    assert pl.concat(frames)["n"].to_list() == list(range(10000))
    empty = list(fetch_batches(filled.sql("SELECT price FROM trades WHERE price < 0"), rows=10))
    assert [frame.schema for frame in empty] == [pl.Schema({"price": pl.Float64()})]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("SELECT a.close, b.close FROM bars_1m a JOIN bars_1m b USING (timestamp)", ["close"] * 2),
        ("SELECT count(*), count(*) FROM bars_1m", ["count_star()"] * 2),
        ("SELECT 1 AS x, 2 AS x_1, 3 AS X", ["x", "x_1", "X"]),
        ("SELECT INTERVAL 1 DAY AS x, INTERVAL 2 DAY AS x", ["x"] * 2),
        ('SELECT INTERVAL 1 DAY AS "a""b"', ['a"b']),
    ],
)
def test_columns_of_equal_names_get_names_of_their_own(
    filled: Lake, query: str, names: list[str]
) -> None:
    relation = filled.sql(query)
    assert relation.columns == names
    read = pl.concat(fetch_batches(relation, rows=10))
    assert read.columns == relation.project("*").columns
    assert len(set(read.columns)) == len(names)
    assert read.rows() == [tuple(map(_text, row)) for row in relation.fetchall()]


def _text(value: object) -> object:
    return str(value).split(",")[0] if isinstance(value, timedelta) else value


def test_a_join_of_all_columns_can_be_fetched(filled: Lake) -> None:
    query = "SELECT * FROM bars_1m a JOIN bars_1m b ON a.timestamp = b.timestamp ORDER BY ALL"
    read = pl.concat(fetch_batches(filled.sql(query), rows=10))
    assert_frame_equal(read, filled.sql(query).pl())
    assert {"close", "close_1", "available_at_1"} <= set(read.columns)
