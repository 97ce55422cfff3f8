# ruff: noqa: S608 - the queries are those of the tests
"""SQL opens only the files that can hold rows of a query, and never loses a row by that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.api import Lake
from lake.errors import DamagedError
from tests.conftest import DAY, T0, NewLake, bars, store_of, trades, write

SYMBOLS = ("BTC/USDT", "ETH/USDT", "it's")
DAYS = 4


@pytest.fixture(scope="module")
def filled(new_lake: NewLake) -> Lake:
    """Four days of trades of five markets, and bars of two tables, one with a file a year."""
    lake = new_lake()
    store = store_of(lake)
    for exchange, symbol in [("binance", s) for s in SYMBOLS] + [("okx", s) for s in SYMBOLS[:2]]:
        rows = trades(4 * DAYS, step=DAY / 4, exchange=exchange, symbol=symbol)
        write(store, "trades", rows)
        write(store, "bars_1h", bars(DAYS, step=DAY, exchange=exchange, symbol=symbol))
    return lake


@contextmanager
def without(files: Sequence[Path]) -> Iterator[None]:
    """Take files away in the block."""
    for file in files:
        file.rename(file.with_suffix(".away"))
    try:
        yield
    finally:
        for file in files:
            file.with_suffix(".away").rename(file)


def list_files(lake: Lake, table: str, *parts: str) -> list[Path]:
    """List the data files of a table whose path has none of some parts."""
    paths = sorted((lake.root.tables / table).rglob("*.parquet"))
    return [path for path in paths if not any(part in str(path) for part in parts)]


ONE = "exchange = 'okx' AND symbol = 'ETH/USDT'"
DAY_2 = "date=2024-01-02"
# Each query, its parameters, and the parts of paths without which no file is needed.
NARROW: list[tuple[str, list[Any] | None, str]] = [
    (f"SELECT * FROM trades WHERE {ONE}", None, "exchange=okx/symbol=ETH"),
    (f"FROM trades WHERE {ONE} ORDER BY timestamp DESC LIMIT 2", None, "exchange=okx/symbol=ETH"),
    (f"WITH t AS (SELECT * FROM trades) SELECT * FROM t WHERE {ONE}", None, "okx/symbol=ETH"),
    (f"-- where\nWITH RECURSIVE t AS (FROM trades) SELECT * FROM t WHERE {ONE}", None, "okx/symb"),
    ("SELECT * FROM trades WHERE exchange = ? AND symbol = ?", ["okx", "ETH/USDT"], "okx/symb"),
    ("SELECT * FROM trades WHERE symbol = 'it''s'", None, "symbol=it"),
    ("SELECT * FROM trades WHERE symbol IN ('it''s', 'none')", None, "symbol=it"),
    ("SELECT * FROM trades WHERE date = '2024-01-02'", None, DAY_2),
    ("SELECT * FROM trades WHERE date = ?", [datetime(2024, 1, 2, tzinfo=UTC).date()], DAY_2),
    ("SELECT * FROM trades WHERE '2024-01-02' = date", None, DAY_2),
    (
        "SELECT * FROM trades WHERE timestamp >= '2024-01-02' AND timestamp < '2024-01-03'",
        None,
        DAY_2,
    ),
    (
        "SELECT * FROM trades WHERE timestamp BETWEEN '2024-01-02' AND '2024-01-02 23:00'",
        None,
        DAY_2,
    ),
    (
        "SELECT * FROM trades WHERE timestamp >= ? AND timestamp < ?",
        [datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC)],
        DAY_2,
    ),
    ("SELECT * FROM trades WHERE date_trunc('day', timestamp) = '2024-01-02'", None, DAY_2),
    ("SELECT * FROM trades WHERE date = DATE '2024-01-03' - INTERVAL 1 DAY", None, DAY_2),
    (
        (
            "SELECT * FROM trades WHERE timestamp >= '2024-01-02 01:00+01' "
            "AND timestamp < '2024-01-02 20:00-04'"
        ),
        None,
        DAY_2,
    ),
    ("SELECT * FROM trades WHERE NOT (date < '2024-01-02' OR date > '2024-01-02')", None, DAY_2),
    (
        (
            "SELECT * FROM trades a JOIN trades b USING (exchange, symbol, date, timestamp) "
            "WHERE a.date = '2024-01-02'"
        ),
        None,
        DAY_2,
    ),
    ("SELECT count(*) FROM trades GROUP BY date HAVING date = '2024-01-02'", None, DAY_2),
    ("EXPLAIN ANALYZE SELECT * FROM trades WHERE date = '2024-01-02'", None, DAY_2),
    (
        "SELECT * FROM trades WHERE timestamp > '2024-01-01 19:00' AND available_at < '2024-01-03'",
        None,
        DAY_2,
    ),
    (f"SELECT (SELECT max(price) FROM trades WHERE {ONE})", None, "okx/symbol=ETH"),
    (f"SELECT 1 WHERE EXISTS (FROM trades WHERE {ONE})", None, "okx/symbol=ETH"),
]


@pytest.mark.parametrize(("query", "parameters", "needed"), NARROW)
def test_files_that_a_query_does_not_need_may_be_gone(
    filled: Lake, query: str, parameters: list[Any] | None, needed: str
) -> None:
    expected = filled.sql(query, parameters).fetchall()
    away = list_files(filled, "trades", needed)
    assert away
    with without(away):
        read = filled.sql(query, parameters).fetchall()
    assert expected
    if not query.startswith("EXPLAIN"):
        assert sorted(map(str, read)) == sorted(map(str, expected))


def test_a_query_of_a_bundle_opens_only_its_files(filled: Lake) -> None:
    filled.bundles.pin("pruned", table="trades", exchange="okx")
    with without(list_files(filled, "trades", "exchange=okx/symbol=ETH")):
        bundle = filled.bundles.open("pruned")
        assert bundle.sql(f"SELECT count(*) FROM trades WHERE {ONE}").fetchall() == [(16,)]
        other = "SELECT count(*) FROM trades WHERE exchange = 'binance'"
        assert bundle.sql(other).fetchall() == [(0,)]
        with pytest.raises(DamagedError, match="missing"):
            bundle.sql("SELECT count(*) FROM trades WHERE symbol = 'BTC/USDT'")


def test_a_file_that_a_query_needs_is_missed(filled: Lake) -> None:
    away = list_files(filled, "trades", "exchange=binance", "symbol=BTC")
    with without(away), pytest.raises(DamagedError, match="lake verify table trades"):
        filled.sql(f"SELECT count(*) FROM trades WHERE {ONE}").fetchall()


def test_a_table_with_a_file_a_year_keeps_its_days(filled: Lake) -> None:
    query = "SELECT count(*), min(date)::VARCHAR FROM bars_1h WHERE date = '2024-01-03'"
    assert filled.sql(query).fetchall() == [(5, "2024-01-03")]


def test_two_scans_of_one_table_need_the_files_of_both(filled: Lake) -> None:
    query = (
        "SELECT count(*) FROM trades WHERE date = '2024-01-01' UNION ALL "
        "SELECT count(*) FROM trades WHERE date = '2024-01-04'"
    )
    away = list_files(filled, "trades", "date=2024-01-01", "date=2024-01-04")
    with without(away):
        assert filled.sql(query).fetchall() == [(20,), (20,)]
    both = "SELECT count(*) FROM trades a, trades b WHERE a.date = '2024-01-01'"
    assert filled.sql(both).fetchall() == [(20 * 80,)]


def test_now_is_the_time_of_the_call(lake: Lake) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    write(lake, "trades", trades(240, start=now - 239 * timedelta(hours=1), step=DAY / 24))
    query = "SELECT count(*) FROM trades WHERE timestamp {} now() - INTERVAL 36 HOUR"
    late = lake.sql(query.format(">="))
    old = lake.sql(query.format("<"))
    with without(list_files(lake, "trades", *(f"date={now - n * DAY:%F}" for n in range(3)))):
        assert late.fetchall() == [(36,)]
    assert old.fetchall() == [(240 - 36,)]
    same = lake.sql("SELECT now(), current_timestamp, current_date, now() AS x")
    seen = datetime.now(UTC)
    first, second, day, third = same.fetchall()[0]
    assert first == second == third < seen
    assert day in {now.date(), seen.date()}
    assert same.columns[:3] == ["now()", "current_timestamp", "current_date"]


def test_what_is_derived_from_a_result_never_sees_a_part_of_a_table(filled: Lake) -> None:
    relation = filled.sql(f"SELECT * FROM trades WHERE {ONE}")
    assert relation.filter("date = '2024-01-02'").aggregate("count(*)").fetchall() == [(4,)]
    with pytest.raises(duckdb.CatalogException):
        relation.filter("price <= (SELECT count(*) FROM trades)").fetchall()
    whole = filled.sql("SELECT * FROM trades")
    counted = whole.query("r", "SELECT count(*) FROM trades")
    assert counted is not None
    assert counted.fetchall() == [(80,)]


@pytest.mark.parametrize(
    "query",
    [
        "WITH trades AS (FROM trades WHERE date = '2024-01-01') SELECT count(*) FROM trades",
        "SELECT count(*) FROM main.trades WHERE date = '2024-01-01'",
        "SELECT count(*) FROM query_table('trades') WHERE date = '2024-01-01'",
        "SELECT count(main.trades.price) FROM trades WHERE date = '2024-01-01'",
        "SELECT count(*) FROM TRADES t WHERE t.Date = '2024-01-01'",
        "SELECT n FROM (SELECT date, count(*) n FROM trades GROUP BY 1) WHERE date = '2024-01-01'",
        (
            "SELECT count(*) FROM (SELECT symbol exchange, exchange symbol, date FROM trades) "
            "WHERE symbol IN ('okx', 'binance') AND date = '2024-01-01'"
        ),
        "SELECT sum(1) FILTER (WHERE date = '2024-01-01') FROM trades",
        "SELECT count(*) FROM (SELECT *, rank() OVER () FROM trades) WHERE date = '2024-01-01'",
        "SELECT count(*) FROM trades WHERE date = '2024-01-01' AND symbol <> E'\\n(price = 3)\\n'",
    ],
)
def test_every_form_of_query_finds_its_rows(filled: Lake, query: str) -> None:
    assert filled.sql(query).fetchall() == [(20,)]


TIMES = st.integers(-1, 4 * DAYS + 1).map(lambda n: f"{T0 + n * DAY / 4:%Y-%m-%d %H:%M}")
ZONES = st.sampled_from(["", "+00", "+05:30", "-08"])
COMPARE = st.sampled_from(["=", "<", "<=", ">", ">=", "<>", "IS NOT DISTINCT FROM"])
NAMES = st.sampled_from([*SYMBOLS, "none", "B%"]).map(lambda name: name.replace("'", "''"))
DATES = st.integers(-1, DAYS).map(lambda n: f"{T0 + n * DAY:%Y-%m-%d}")
LEAVES = st.one_of(
    st.builds("symbol {} '{}'".format, st.one_of(COMPARE, st.just("LIKE")), NAMES),
    st.builds("'{1}' {0} symbol".format, COMPARE, NAMES),
    st.builds("symbol IN ('{}', '{}')".format, NAMES, NAMES),
    st.builds("exchange {} '{}'".format, COMPARE, st.sampled_from(["okx", "binance", "x"])),
    st.builds("date {} '{}'".format, COMPARE, DATES),
    st.builds("date IN ('{}', '{}')".format, DATES, DATES),
    st.builds("date - INTERVAL 1 DAY {} '{}'".format, COMPARE, DATES),
    st.builds("timestamp {} '{}{}'".format, COMPARE, TIMES, ZONES),
    st.builds("timestamp {} TIMESTAMP '{}'".format, COMPARE, TIMES),
    st.builds("timestamp::DATE {} '{}'".format, COMPARE, DATES),
    st.builds("timestamp BETWEEN '{}{}' AND '{}'".format, TIMES, ZONES, TIMES),
    st.builds("timestamp AT TIME ZONE 'Asia/Tokyo' {} '{}'".format, COMPARE, TIMES),
    st.builds("available_at {} '{}'".format, COMPARE, TIMES),
    st.builds("price {} {}".format, COMPARE, st.integers(99, 118)),
    st.sampled_from(["symbol IS NULL", "exchange IS NOT NULL", "side IS NULL", "NULL", "true"]),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
        st.builds("CASE WHEN {} THEN {} ELSE {} END".format, inner, inner, inner),
    ),
    max_leaves=6,
)
FORMS = st.sampled_from(
    [
        "SELECT * FROM trades WHERE {0}",
        "SELECT * FROM trades WHERE {0} UNION ALL SELECT * FROM trades WHERE {1}",
        "WITH t AS (SELECT * FROM trades WHERE {0}) SELECT * FROM t WHERE {1}",
        "SELECT b.* FROM (FROM trades WHERE {0}) a JOIN trades b USING (symbol, timestamp)",
        (
            "SELECT b.* FROM (FROM trades WHERE {0}) a LEFT JOIN (FROM trades WHERE {1}) b "
            "USING (exchange, symbol, date, timestamp)"
        ),
        "SELECT * FROM trades WHERE symbol IN (SELECT symbol FROM trades WHERE {0}) AND {1}",
        (
            "SELECT * FROM trades o WHERE NOT EXISTS (SELECT 1 FROM trades WHERE {0} "
            "AND symbol = o.symbol AND date = o.date)"
        ),
        "SELECT date, count(*) FROM trades WHERE {0} GROUP BY ALL",
        "SELECT * FROM trades WHERE {0} ORDER BY timestamp, exchange, symbol LIMIT 7",
    ]
)


@settings(max_examples=150)
@given(FORMS, CONDITIONS, CONDITIONS)
def test_random_queries_give_the_same_rows_with_all_files(
    filled: Lake, form: str, first: str, second: str
) -> None:
    query = form.format(first, second)
    pruned = filled.sql(query).fetchall()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lake.query.sql.find_scans", lambda *_: {})
        whole = filled.sql(query).fetchall()
    assert sorted(map(str, pruned)) == sorted(map(str, whole))
