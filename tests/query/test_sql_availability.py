"""`available_at` in SQL: the same as everywhere, and joins on it do not look ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lake.api import Lake
from lake.cli.app import run
from lake.model.dataset import Dataset
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, NewLake, bars, funding, trades, write
from tests.query.test_availability import UNLOCKS

HOUR = timedelta(hours=1)
ORDER = "exchange, symbol, timestamp"
STEPS = {"1m": MINUTE, "1h": HOUR, "1d": DAY, "1w": 7 * DAY}


def received(times: list[datetime]) -> pl.Series:
    """Not recorded, late, or by a clock that is behind."""
    late = [None, times[1] + 40 * DAY, times[2] - SECOND]
    return pl.Series([*late, *[None] * (len(times) - 3)], dtype=TIME)


def put(lake: Lake, table: str) -> None:
    if table == "trades":
        times = [T0 + n * SECOND for n in range(3)]
        write(lake, table, trades(3, received_at=received(times)))
    elif table == "funding":
        times = [T0 + n * HOUR for n in range(3)]
        write(lake, table, funding(times).with_columns(received_at=received(times)))
    else:
        opens = [T0 + n * STEPS[table[5:]] for n in range(3)]
        write(lake, table, bars(3, timestamp=opens, received_at=received(opens)))


def assert_same(lake: Lake, table: str) -> None:
    known = lake.available(table).select("available_at").collect()
    query = f"SELECT available_at FROM {table} ORDER BY {ORDER}"  # noqa: S608
    bundle = lake.bundles.pin(table, table=table, check=False)
    for reader in (lake, bundle):
        assert_frame_equal(reader.sql(query).pl(), known)
        types = dict(
            reader.sql(f"DESCRIBE {table}").pl().select("column_name", "column_type").rows()
        )
        assert types["available_at"] == "TIMESTAMP WITH TIME ZONE"


@pytest.mark.parametrize("table", ["trades", "funding", *(f"bars_{name}" for name in STEPS)])
def test_it_is_that_of_the_dataset(lake: Lake, table: str) -> None:
    put(lake, table)
    assert_same(lake, table)


@pytest.mark.parametrize("shift", [timedelta(0), 16 * HOUR, -8 * HOUR])
@pytest.mark.parametrize("table", ["bars_1mo", "bars_3mo"])
def test_months_are_those_of_the_calendar(new_lake: NewLake, table: str, shift: timedelta) -> None:
    lake = new_lake()
    months = (1, 4, 7, 10) if table == "bars_3mo" else (1, 2, 3, 12)
    opens = [datetime(2024, month, 1, tzinfo=UTC) + shift for month in months]
    write(lake, table, bars(4, timestamp=opens))
    assert_same(lake, table)


def test_announcements_are_known_from_their_publication_on(new_lake: NewLake) -> None:
    lake = new_lake(schemas={"unlocks": UNLOCKS})
    frame = pl.DataFrame(
        {
            "exchange": "x",
            "symbol": "A/USDT",
            "timestamp": pl.Series([T0 + 60 * DAY, T0 + 90 * DAY], dtype=TIME),
            "announced_at": pl.Series([T0, T0 + 100 * DAY], dtype=TIME),
            "amount": [1.0, 2.0],
        }
    )
    write(lake, "unlocks", frame)
    assert_same(lake, "unlocks")


def test_a_join_on_it_sees_no_bar_before_its_end(lake: Lake) -> None:
    write(lake, "bars_1h", bars(3, step=HOUR, close=[100.0, 99.0, 98.0], low=[90.0] * 3))
    write(lake, "trades", trades(6, step=HOUR / 2))
    query = """
        SELECT t.timestamp, b.timestamp AS bar FROM trades t ASOF LEFT JOIN bars_1h b
        ON t.exchange = b.exchange AND t.symbol = b.symbol AND t.timestamp >= b.available_at
        ORDER BY ALL
    """
    bar = [None if n is None else T0 + n * HOUR for n in (None, None, 0, 0, 1, 1)]
    assert lake.sql(query).pl()["bar"].to_list() == bar


def test_a_dataset_with_an_own_column_of_this_name_keeps_it(new_lake: NewLake) -> None:
    text = UNLOCKS.replace("announced_at", "available_at").replace("unlocks", "own")
    lake = new_lake(schemas={"own": text})
    row: dict[str, Any] = {"exchange": "x", "symbol": "A/USDT", "amount": [1.0]}
    times = {
        "timestamp": pl.Series([T0 + DAY], dtype=TIME),
        "available_at": pl.Series([T0], dtype=TIME),
    }
    write(lake, "own", pl.DataFrame({**row, **times}))
    read = lake.sql("SELECT * FROM own").pl()
    assert read.columns == lake.scan("own").collect_schema().names()
    assert read["available_at"].to_list() == [T0]


def test_records_of_the_lake_have_none(lake: Lake) -> None:
    write(lake, "trades", trades())
    dataset: Dataset = lake.dataset("trades")
    lake.write("trades", trades(1, first=9))
    assert dataset.kind == "data"
    assert "available_at" not in lake.sql("SELECT * FROM jobs").columns


def test_the_command_describe_says_when_a_row_is_available(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--lake", str(lake.root.path), "describe", "bars_1h"]) == 0
    assert "available at its end, or at received_at if that is later" in capsys.readouterr().err


def test_an_open_bar_is_available_to_no_reader(lake: Lake) -> None:
    """Its values are not those that it will have at its end."""
    write(lake, "bars_1m", bars(3, closed=[True, True, False]))
    late = T0 + HOUR
    assert lake.sql(f"SELECT available_at IS NULL FROM bars_1m ORDER BY {ORDER}").fetchall() == [  # noqa: S608
        (False,), (False,), (True,)
    ]  # fmt: skip
    assert lake.available("bars_1m").collect()["timestamp"].to_list() == [T0, T0 + MINUTE]
    newest = lake.at("bars_1m", exchange="binance", symbol="BTC/USDT", time=late)
    assert newest["timestamp"].to_list() == [T0 + MINUTE]
    joined = "SELECT b.timestamp FROM (SELECT ? AS t) ASOF JOIN bars_1m b ON t >= b.available_at"
    assert lake.sql(joined, [late]).fetchall() == [(T0 + MINUTE,)]
    write(lake, "bars_1m", bars(3))
    assert lake.sql(joined, [late]).fetchall() == [(T0 + 2 * MINUTE,)]
