"""What the schema admits comes back exactly; what it does not is refused or kept with a reason."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.errors import SchemaError
from lake.model.digest import compute_digest
from lake.model.json_text import write_json
from lake.model.time import EPOCH
from tests.conftest import DAY, SECOND, T0, TIME, NewLake, trades, write
from tests.model.everything import EVERYTHING, TEXT, frames

few = settings(max_examples=15, suppress_health_check=[HealthCheck.filter_too_much])


@given(frames(min_size=1), frames(min_size=1))
@few
def test_any_row_comes_back_as_it_was_by_scan_sql_and_time_travel(
    new_lake: NewLake, frame: pl.DataFrame, later: pl.DataFrame
) -> None:
    lake = new_lake(schemas={"everything": TEXT})
    version = write(lake, "everything", frame).version
    write(lake, "everything", later.with_columns(exchange=pl.lit("c")))
    old = lake.scan("everything", version=version).collect()
    now = lake.scan("everything", exchange=("a", "b"), missing="empty").collect()
    sql = lake.sql("SELECT * EXCLUDE available_at FROM everything WHERE exchange <> 'c'").pl()
    dated = frame.with_columns(date=pl.col("timestamp").dt.date()).select(old.columns)
    for read in (old, now, sql):
        assert_frame_equal(read, dated, check_row_order=False, check_exact=True)
        assert compute_digest(EVERYTHING, read) == compute_digest(EVERYTHING, frame)


LAST = datetime(2200, 1, 1, tzinfo=UTC)
MICROSECONDS = (LAST - EPOCH) // SECOND * 1_000_000
any_time = st.integers(0, 3).map(lambda n: n * 10**12) | st.integers(-(2**63) + 1, 2**63 - 1)
row = st.fixed_dictionaries(
    {
        "exchange": st.just("binance"),
        "symbol": st.sampled_from(["BTC/USDT", "ETH/USDT"]),
        "timestamp": st.none() | any_time,
        "trade_id": st.sampled_from([None, "", "1", "2"]),
        "price": st.none() | st.sampled_from([1.0, 2.0]) | st.floats(),
        "amount": st.sampled_from([None, 0.0, 1.0]),
        "side": st.sampled_from([None, "buy", "BUY"]),
        "received_at": st.none() | any_time,
    }
)
good_row = st.fixed_dictionaries(
    {
        "exchange": st.just("binance"),
        "symbol": st.just("BTC/USDT"),
        "timestamp": st.integers(0, 2),
        "trade_id": st.sampled_from(["1", "2"]),
        "price": st.sampled_from([1.0, 2.0]),
        "amount": st.just(1.0),
        "side": st.none(),
        "received_at": st.sampled_from([None, 0, MICROSECONDS - 1]),
    }
)


def is_good(row: dict[str, Any]) -> bool:
    """What `trades.toml` and the rules of every dataset ask of a row."""
    time, price = row["timestamp"], row["price"]
    return (
        time is not None
        and 0 <= time < MICROSECONDS
        and row["trade_id"] not in (None, "")
        and price is not None
        and 0 < price < math.inf
        and row["amount"] == 1.0
        and row["side"] != "BUY"
    )


def find_or_add(stored: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the same id at most a second away, or the row itself as a new one."""
    for other in stored:
        same = all(row[name] == other[name] for name in ("symbol", "trade_id"))
        if same and abs(row["timestamp"] - other["timestamp"]) <= 1_000_000:
            return other
    stored.append(row)
    return row


def to_text(row: dict[str, Any]) -> str:
    """Write its values as quarantine does, in which a price that is not finite is a text."""
    return write_json([row[name] for name in ("symbol", "trade_id", "price", "amount", "side")])


@given(st.lists(row | good_row, min_size=1, max_size=12))
@settings(max_examples=40)
def test_every_row_is_stored_or_quarantined_or_a_duplicate(
    new_lake: NewLake, rows: list[dict[str, Any]]
) -> None:
    stored: list[dict[str, Any]] = []
    refused: dict[str, dict[str, Any]] = {}
    for raw in rows:
        first = find_or_add(stored, raw) if is_good(raw) else None
        if first is None or raw["price"] != first["price"]:
            refused.setdefault(repr(sorted({**raw, "received_at": None}.items())), raw)

    lake = new_lake()
    frame = pl.DataFrame(
        rows, schema_overrides=dict.fromkeys(("timestamp", "received_at"), pl.Int64)
    )
    frame = frame.with_columns(
        pl.col("timestamp", "received_at").cast(TIME),
        pl.col("trade_id", "side").cast(pl.String),
        pl.col("price", "amount").cast(pl.Float64),
    )
    written = write(lake, "trades", frame)

    assert written.inserted == len(stored)
    if stored:
        stored_rows = lake.scan("trades").collect().to_dicts()
        assert sorted(map(to_text, stored_rows)) == sorted(map(to_text, stored))
    if refused:
        quarantined = lake.scan("quarantine").collect()
        stored_rows = [json.loads(text) for text in quarantined["row"]]
        assert sorted(map(to_text, stored_rows)) == sorted(map(to_text, refused.values()))
        assert (quarantined["reason"] != "").all()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"price": [None]}, "price_null"),
        ({"price": [float("nan")]}, "price_not_finite"),
        ({"price": [float("inf")]}, "price_not_finite"),
        ({"price": [-1.0]}, "price_positive"),
        ({"trade_id": [""]}, "trade_id_empty"),
        ({"timestamp": [EPOCH - SECOND]}, "timestamp_out_of_range"),
        ({"timestamp": [LAST]}, "timestamp_out_of_range"),
        ({"side": ["none"]}, "side_known"),
        ({"price": [0.0], "amount": [0.0]}, "price_positive,amount_positive"),
    ],
)
def test_a_refused_row_says_which_rules_it_breaks(
    lake: Lake, values: dict[str, Any], reason: str
) -> None:
    numbers = {"price": pl.Float64(), "amount": pl.Float64()}
    columns = [pl.Series(name, value, dtype=numbers.get(name)) for name, value in values.items()]
    assert write(lake, "trades", trades(1).with_columns(columns)).rejected == 1
    refused = lake.scan("quarantine").collect().row(0, named=True)
    assert (refused["dataset"], refused["reason"], refused["job_id"]) == ("trades", reason, "job")


OUT_OF_RANGE = [2**63 - 1, -(2**63) + 1, -1, MICROSECONDS]


@pytest.mark.parametrize("time", OUT_OF_RANGE)
def test_another_time_out_of_range_becomes_null_and_does_not_cost_the_row(
    lake: Lake, time: int, caplog: pytest.LogCaptureFixture
) -> None:
    received = pl.Series([time, 0, None, time, MICROSECONDS - 1]).cast(TIME)
    written = write(lake, "trades", trades(5).with_columns(received_at=received))
    assert (written.inserted, written.rejected, written.cleared) == (5, 0, 2)
    assert lake.scan("trades").collect()["received_at"].to_list() == [
        *(None, EPOCH, None, None),
        LAST - timedelta(microseconds=1),
    ]
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    for part in ("trades", "received_at", "binance BTC/USDT", str(time)):
        assert part in record.getMessage()


def test_a_row_that_is_refused_for_another_reason_shows_its_time_as_it_came(lake: Lake) -> None:
    bad = trades(1).with_columns(price=-1.0, received_at=pl.Series([LAST], dtype=TIME))
    assert write(lake, "trades", bad).rejected == 1
    refused = lake.scan("quarantine").collect().row(0, named=True)
    assert refused["reason"] == "price_positive"
    assert json.loads(refused["row"])["received_at"] == "2200-01-01T00:00:00Z"


def test_a_time_that_must_not_be_null_costs_the_row(lake: Lake) -> None:
    columns = {"exchange": "a", "symbol": "X", "timestamp": [T0], "sequence": 1}
    lists = {f"{side}_{what}": [[1.0]] for side in ("bid", "ask") for what in ("prices", "amounts")}
    book = pl.DataFrame({**columns, **lists, "received_at": [LAST]})
    rows = book.cast({pl.Datetime: TIME, pl.Int32: pl.Int64})
    assert write(lake, "orderbooks", rows).rejected == 1
    assert lake.scan("quarantine").collect()["reason"].item() == "received_at_out_of_range"


@pytest.mark.parametrize(
    "time", [2**63 - 1, -(2**63) + 1, 253402300800_000000, -62135596800_000001]
)
def test_a_time_that_python_cannot_hold_is_quarantined(lake: Lake, time: int) -> None:
    bad = trades(1).with_columns(timestamp=pl.Series([time]).cast(TIME))
    assert write(lake, "trades", bad).rejected == 1
    row = json.loads(lake.scan("quarantine").collect()["row"].item())
    assert row["timestamp"] == time


def test_a_refused_row_is_quarantined_once(lake: Lake) -> None:
    bad = trades(2, price=[-1.0, -1.0])
    for _ in range(2):
        assert write(lake, "trades", bad).rejected == 2
    assert lake.scan("quarantine").collect().height == 2
    assert lake.tables()["table"].to_list() == ["quarantine", "trades"]


def test_a_column_called_reason_is_kept_apart_from_the_reason(new_lake: NewLake) -> None:
    text = TEXT.replace("text =", "reason =") + '[rules]\nnever = "number > 0"\n'
    lake = new_lake(schemas={"everything": text})
    row = trades(1).select(
        "exchange", "symbol", "timestamp", id=1, number=-1.0, reason=pl.lit("mine")
    )
    write(lake, "everything", row.cast({"id": pl.Int64}))
    refused = lake.scan("quarantine").collect().row(0, named=True)
    assert refused["reason"] == "never"
    assert json.loads(refused["row"])["reason"] == "mine"


@pytest.mark.parametrize(
    "dtype", [pl.Int64(), pl.Datetime("ns", "UTC"), pl.Datetime("ms", "UTC"), pl.Datetime("us")]
)
def test_another_kind_of_time_is_refused(lake: Lake, dtype: pl.DataType) -> None:
    frame = trades().with_columns(pl.col("timestamp").cast(pl.Int64).cast(dtype))
    with pytest.raises(SchemaError, match="rows for trades: column 'timestamp' is "):
        write(lake, "trades", frame)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [("price", pl.Float32()), ("trade_id", pl.Categorical()), ("first_id", pl.Int32())],
)
def test_another_type_is_refused_not_cast(lake: Lake, column: str, dtype: pl.DataType) -> None:
    frame = trades(first_id=[1, 2, 3]).with_columns(pl.col(column).cast(dtype))
    with pytest.raises(SchemaError, match=f"column '{column}' is "):
        write(lake, "trades", frame)


@pytest.mark.parametrize("column", ["timestamp", "trade_id", "price", "exchange", "symbol"])
def test_a_missing_column_is_named(lake: Lake, column: str) -> None:
    with pytest.raises(SchemaError, match=f"column '{column}' is missing"):
        write(lake, "trades", trades().drop(column))


def test_a_column_too_many_is_named(lake: Lake) -> None:
    with pytest.raises(SchemaError, match="unknown column colour"):
        write(lake, "trades", trades(colour=["red"] * 3))


@pytest.mark.parametrize("value", ["", None])
@pytest.mark.parametrize("column", ["exchange", "symbol"])
def test_a_row_without_a_market_is_refused(lake: Lake, column: str, value: str | None) -> None:
    with pytest.raises(SchemaError, match="a row has no exchange or no symbol"):
        write(lake, "trades", trades().with_columns(pl.lit(value, pl.String).alias(column)))


def test_a_refused_frame_leaves_no_trace(lake: Lake) -> None:
    with pytest.raises(SchemaError):
        write(lake, "trades", trades().drop("price"))
    assert lake.tables().is_empty()


def test_no_rows_are_no_commit(lake: Lake) -> None:
    written = write(lake, "trades", trades(0))
    assert (written.rows, written.version) == (0, None)
    assert lake.tables().is_empty()


def test_date_is_made_from_the_time_whatever_the_frame_says(lake: Lake) -> None:
    write(lake, "trades", trades(2, step=DAY).with_columns(date=pl.lit("nonsense")))
    assert lake.scan("trades").collect()["date"].to_list() == [T0.date(), (T0 + DAY).date()]


@pytest.mark.parametrize(
    "symbol", ["*", "a%2Fb", "a[b]", "a?b", "a'b", 'a"b', "a b", ".", "..", "日本", "a=b", "a#b"]
)
def test_a_symbol_may_hold_what_paths_and_globs_do_not_like(lake: Lake, symbol: str) -> None:
    write(lake, "trades", trades(symbol=symbol))
    assert write(lake, "trades", trades(symbol=symbol)).inserted == 0
    assert lake.scan("trades", symbol=symbol).collect().height == 3
    read = lake.sql("SELECT DISTINCT symbol FROM trades WHERE symbol = ?", [symbol])
    assert read.fetchall() == [(symbol,)]
    assert lake.bundles.pin("odd", table="trades", symbol=symbol).verify() == []
