"""Replay: one order for all tables and markets, and no row before it could be known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lake.align.asof import as_of_join, grid
from lake.errors import DamagedError, SchemaError, UnknownNameError, UsageError
from lake.model.selection import Selection
from lake.replay.merge import Order, replay
from tests.conftest import DAY, MINUTE, SECOND, T0, TIME, bars, funding, trades
from tests.model.everything import TEXT
from tests.replay.memory import CATALOG, Memory, catalog_with, list_rows, naive_replay, whole

MICROSECOND = timedelta(microseconds=1)
EVERYTHING = Selection()
TABLES = ("bars_5m", "bars_1m", "bars_1mo", "funding", "trades", "orderbooks", "everything")
ORDERS: tuple[Order, ...] = ("available_at", "timestamp")

# Few instants over few days, so that many rows have equal times.
instants = st.sampled_from([T0 + n * 30 * SECOND for n in (0, 1, 2, 8, 10, 2880, 2881, 5761)])
delays = st.sampled_from([None, -90 * SECOND, -MICROSECOND, 0 * SECOND, MICROSECOND, MINUTE, DAY])
markets = st.sampled_from([("a", "X/Y"), ("a", "X"), ("b", "X"), ("b", "XY")])
ids = st.sampled_from(["9", "10", "99", "100", "a", "é", "zz", "0010"])
numbers = st.integers(0, 9)


@st.composite
def contents(draw: st.DrawFn) -> dict[str, pl.DataFrame]:
    """Draw rows of all tables."""
    return {table: draw(frames(table)) for table in TABLES}


@st.composite
def frames(draw: st.DrawFn, table: str) -> pl.DataFrame:
    """Draw rows of one table in any order, with distinct keys in each market."""
    dataset = CATALOG.dataset(table)
    facts = draw(st.lists(st.tuples(markets, instants, delays, ids, numbers), max_size=8))
    rows = [
        {
            "exchange": exchange,
            "symbol": symbol,
            "timestamp": time,
            "trade_id": text,
            "sequence": place,
            "id": place,
            "open": float(place),
            "price": float(place),
            "funding_rate": float(place),
            "text": text if number % 2 else None,
            "number": float(number) if number % 3 else None,
            "received_at": None if delay is None else time + delay,
        }
        for place, ((exchange, symbol), time, delay, text, number) in enumerate(facts)
    ]
    names = {name for row in rows for name in row}
    schema = {name: kind for name, kind in dataset.polars_schema.items() if name in names}
    frame = pl.DataFrame(rows, schema=schema or dataset.polars_schema)
    return frame.unique(dataset.full_key, keep="first", maintain_order=True)


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    bounds = st.none() | instants | instants.map(lambda time: time + MICROSECOND)
    start, end = draw(bounds), draw(bounds)
    assume(start is None or end is None or start < end)
    return Selection(start=start, end=end)


sizes = st.integers(1, 12)


@given(contents(), selections(), st.permutations(TABLES), st.sampled_from(ORDERS), sizes, sizes)
def test_the_order_is_the_documented_one_for_all_sizes(
    rows: dict[str, pl.DataFrame],
    selection: Selection,
    tables: list[str],
    by: Order,
    batch_rows: int,
    window_rows: int,
) -> None:
    source = Memory(rows)
    result = replay(
        source, tables, selection, by=by, batch_rows=batch_rows, window_rows=window_rows
    )
    batches = list(result)
    assert list_rows(batches) == naive_replay(source, tables, selection, by)
    assert all(batch.rows == batch_rows for batch in batches[:-1])
    assert all(sum(f.height for f in batch.frames.values()) == batch.rows for batch in batches)


@given(
    contents(),
    contents(),
    instants,
    st.sampled_from([-MICROSECOND, timedelta(0)]),
    sizes,
    st.sampled_from(TABLES),
    st.sampled_from([None, MINUTE]),
)
@settings(max_examples=50)
def test_changes_of_later_rows_do_not_change_earlier_events(
    rows: dict[str, pl.DataFrame],
    others: dict[str, pl.DataFrame],
    instant: datetime,
    shift: timedelta,
    size: int,
    table: str,
    staleness: timedelta | None,
) -> None:
    limit = instant + shift
    changed = {
        table: with_another_future(table, frame, others[table], limit)
        for table, frame in rows.items()
    }
    assert until(Memory(rows), limit, 100, 100) == until(Memory(changed), limit, size, size)
    times = grid(30 * SECOND, since=T0 - MINUTE, until=limit + MICROSECOND)
    before, after = Memory(rows).known(table), Memory(changed).known(table)
    joined = as_of_join(times, before, staleness=staleness)
    assert joined.equals(as_of_join(times, after, staleness=staleness))


def with_another_future(
    table: str, frame: pl.DataFrame, other: pl.DataFrame, limit: datetime
) -> pl.DataFrame:
    """Keep the rows known up to a time; after it, replace some rows by those of another frame."""
    dataset = CATALOG.dataset(table)
    frame, other = whole(dataset, frame), whole(dataset, other)
    is_available = dataset.availability() <= limit
    parts = [
        frame.filter(is_available),
        other.filter(~is_available),
        frame.filter(~is_available)[::2],
    ]
    return pl.concat(parts).unique(dataset.full_key, keep="first", maintain_order=True)


def until(
    source: Memory, limit: datetime, batch_rows: int, window_rows: int
) -> list[tuple[str, dict[str, Any]]]:
    """Return the rows of a replay up to a time."""
    result = replay(source, TABLES, EVERYTHING, batch_rows=batch_rows, window_rows=window_rows)
    return [item for item in list_rows(result) if item[1]["available_at"] <= limit]


def order_of(source: Memory, *tables: str, **choice: Any) -> list[tuple[str, datetime]]:
    result = list_rows(replay(source, tables, choice.pop("selection", EVERYTHING), **choice))
    return [(table, row["available_at"]) for table, row in result]


def test_rows_of_one_instant_come_in_the_order_of_the_tie_rule() -> None:
    noon = T0 + timedelta(hours=12)
    books = pl.DataFrame(
        {"exchange": "binance", "symbol": "BTC/USDT", "timestamp": [noon], "sequence": [1]},
        schema_overrides={"timestamp": TIME},
    )
    everything = books.rename({"sequence": "id"})
    ids = ["1000", "999", "b", "a"]
    source = Memory(
        {
            "everything": everything,
            "orderbooks": books.with_columns(received_at="timestamp"),
            "trades": pl.concat(
                [
                    trades(4, start=noon, step=0 * SECOND, trade_id=ids),
                    trades(1, start=noon, exchange="ant", symbol="Z"),
                    trades(1, start=noon, symbol="A"),
                ]
            ),
            "funding": funding([noon]),
            "bars_1h": bars(1, start=noon - timedelta(hours=1)),
            "bars_1m": bars(1, start=noon - MINUTE),
        }
    )
    tables = ("everything", "orderbooks", "trades", "funding", "bars_1h", "bars_1m")
    result = list_rows(replay(source, tables, EVERYTHING))
    assert [table for table, _ in result] == [
        *("bars_1m", "bars_1h", "funding"),
        *["trades"] * 6,
        *("orderbooks", "everything"),
    ]
    chosen = [(row["exchange"], row["symbol"], row["trade_id"]) for _, row in result[3:9]]
    market = ("binance", "BTC/USDT")
    assert chosen == [
        ("ant", "Z", "0"),
        ("binance", "A", "0"),
        *((*market, text) for text in ("a", "b", "999", "1000")),
    ]


@pytest.mark.parametrize(
    ("rank", "place"), [("rank = 9", 0), ("rank = 30", 1), ("rank = 31", 2), ("", 2)]
)
def test_a_dataset_file_sets_the_rank_of_its_rows(rank: str, place: int) -> None:
    rows = trades(1).select("exchange", "symbol", "timestamp", id=pl.lit(1))
    catalog = catalog_with(TEXT.replace("[columns]", f"{rank}\n\n[columns]"))
    frames = {"everything": rows, "trades": trades(1), "bars_1m": bars(1, start=T0 - MINUTE)}
    result = order_of(Memory(frames, catalog), *frames)
    assert [table for table, _ in result].index("everything") == place


def test_a_bar_comes_at_its_end_and_before_the_trades_of_that_instant() -> None:
    source = Memory({"bars_1m": bars(1), "trades": trades(3, step=30 * SECOND)})
    assert order_of(source, "trades", "bars_1m") == [
        ("trades", T0),
        ("trades", T0 + 30 * SECOND),
        ("bars_1m", T0 + MINUTE),
        ("trades", T0 + MINUTE),
    ]


def test_by_timestamp_a_bar_comes_at_its_open() -> None:
    source = Memory({"bars_1m": bars(1), "trades": trades(1)})
    result = order_of(source, "trades", "bars_1m", by="timestamp")
    assert [table for table, _ in result] == ["bars_1m", "trades"]


def test_a_trade_comes_when_it_was_received() -> None:
    received = [T0 + 5 * SECOND, None, T0 + 2 * SECOND]
    source = Memory({"trades": trades(3, received_at=pl.Series(received, dtype=TIME))})
    result = list_rows(replay(source, ["trades"], EVERYTHING))
    assert [row["trade_id"] for _, row in result] == ["1", "2", "0"]


def test_a_month_that_opened_before_the_range_is_known_in_it() -> None:
    opens = [datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3)]
    months = bars(3).with_columns(timestamp=pl.Series(opens, dtype=TIME))
    source = Memory({"bars_1mo": months})
    february, march = opens[1:]
    range_ = Selection(start=february, end=march)
    assert order_of(source, "bars_1mo", selection=range_) == [("bars_1mo", february)]
    later = Selection(start=march)
    april = datetime(2024, 4, 1, tzinfo=UTC)
    assert order_of(source, "bars_1mo", selection=later) == [
        ("bars_1mo", march),
        ("bars_1mo", april),
    ]


def test_only_the_selected_markets_are_replayed() -> None:
    source = Memory({"trades": pl.concat([trades(2), trades(3, symbol="ETH/USDT")])})
    chosen = Selection(symbols=("ETH/USDT",))
    result = list_rows(replay(source, ["trades"], chosen))
    assert {row["symbol"] for _, row in result} == {"ETH/USDT"}
    assert len(result) == 3


def test_a_batch_describes_its_rows() -> None:
    source = Memory({"trades": trades(3), "bars_1m": bars(1)})
    first, second = replay(source, ["bars_1m", "trades", "trades"], EVERYTHING, batch_rows=3)
    assert (first.first, first.rows, list(first.frames)) == (0, 3, ["trades"])
    assert (second.first, second.rows, list(second.frames)) == (3, 1, ["bars_1m"])
    frame = second.frames["bars_1m"]
    kinds = CATALOG.dataset("bars_1m").polars_schema
    assert list(frame.schema.items()) == [
        ("position", pl.Int64()),
        ("available_at", TIME),
        *kinds.items(),
    ]
    assert second.datasets == {"bars_1m": CATALOG.dataset("bars_1m")}
    start = int(T0.timestamp()) * 1_000_000
    assert (first.first_us, first.last_us) == (start, start + 2_000_000)
    assert second.first_us == second.last_us == start + 60_000_000


def test_times_of_a_batch_are_those_of_the_order() -> None:
    source = Memory({"bars_1m": bars(2)})
    [batch] = replay(source, ["bars_1m"], EVERYTHING, by="timestamp")
    start = int(T0.timestamp()) * 1_000_000
    assert (batch.first_us, batch.last_us) == (start, start + 60_000_000)


def test_no_rows_are_no_batches() -> None:
    source = Memory({"trades": trades(3)})
    assert list(replay(source, ["bars_1m"], EVERYTHING)) == []
    assert list(replay(source, ["trades"], Selection(end=T0))) == []
    assert list(replay(source, ["trades"], Selection(start=T0 + DAY))) == []


def month_of_trades(**columns: Any) -> Mapping[str, pl.DataFrame]:
    count = 30 * 1440
    rows = trades(count, step=MINUTE, **columns)
    return {"trades": pl.concat([rows, rows.with_columns(symbol=pl.lit("ETH/USDT"))])}


@pytest.mark.parametrize("by", ORDERS)
def test_a_long_range_is_read_in_small_parts_and_each_row_once(by: Order) -> None:
    late = pl.Series([T0 + 10 * DAY, *[None] * (30 * 1440 - 1)], dtype=TIME)
    source = Memory(month_of_trades(received_at=late))
    rows = sum(
        batch.rows
        for batch in replay(source, ["trades"], EVERYTHING, by=by, batch_rows=700, window_rows=1000)
    )
    assert rows == 2 * 30 * 1440
    assert sum(read.rows for read in source.reads) == rows
    assert max(read.rows for read in source.reads) <= 501
    for symbol in ("BTC/USDT", "ETH/USDT"):
        reads = [read for read in source.reads if read.market[2] == symbol]
        ends = [read.end for read in reads]
        assert [read.start for read in reads[1:]] == ends[:-1]


def test_nothing_is_read_before_the_first_batch() -> None:
    source = Memory(month_of_trades())
    batches = replay(source, ["trades"], EVERYTHING, batch_rows=100, window_rows=1000)
    assert source.reads == []
    next(batches)
    assert len(source.reads) == 2


def test_only_the_range_is_read() -> None:
    source = Memory(month_of_trades())
    chosen = Selection(start=T0 + 10.5 * DAY, end=T0 + 11.5 * DAY)
    rows = sum(batch.rows for batch in replay(source, ["trades"], chosen))
    assert rows == sum(read.rows for read in source.reads) == 2 * 1440


def test_rows_with_lists_are_read_fewer_at_a_time() -> None:
    times = [T0 + n * SECOND for n in range(3300)]
    books = pl.DataFrame(
        {"exchange": "a", "symbol": "X", "timestamp": times, "received_at": times},
        schema_overrides={"timestamp": TIME, "received_at": TIME},
    ).with_row_index("sequence")
    source = Memory({"orderbooks": books.with_columns(pl.col("sequence").cast(pl.Int64))})
    list(replay(source, ["orderbooks"], EVERYTHING, window_rows=3300))
    assert max(read.rows for read in source.reads) <= 101


class Hasty(Memory):
    """A source that wrongly claims that every trade is known one second after it happened."""

    def days(self, tables: Any, selection: Selection) -> pl.DataFrame:
        return (
            super()
            .days(tables, selection)
            .with_columns(min_delay_us=pl.lit(10**6), max_delay_us=pl.lit(10**6))
        )


def test_a_row_known_earlier_than_the_source_claims_is_an_error() -> None:
    with pytest.raises(DamagedError, match="table trades, binance BTC/USDT: a row was known at"):
        list(replay(Hasty({"trades": trades(100)}), ["trades"], EVERYTHING, window_rows=10))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"tables": []}, "no tables to replay"),
        ({"by": "received_at"}, "by is 'received_at'"),
        ({"batch_rows": 0}, "batch_rows is 0"),
        ({"window_rows": -1}, "window_rows is -1"),
    ],
)
def test_invalid_replays_are_refused_at_once(choice: dict[str, Any], message: str) -> None:
    source = Memory({"trades": trades()})
    with pytest.raises(UsageError, match=message):
        replay(source, **{"tables": ["trades"], "selection": EVERYTHING, **choice})


def test_an_unknown_table_is_refused_at_once() -> None:
    with pytest.raises(UnknownNameError, match="there is no dataset 'tradez'"):
        replay(Memory({}), ["tradez"], EVERYTHING)


@pytest.mark.parametrize("name", ["position", "available_at"])
def test_a_column_that_a_replay_would_hide_is_refused(name: str) -> None:
    text = TEXT.replace("later =", f"{name} =")
    source = Memory({}, catalog_with(text))
    with pytest.raises(SchemaError, match=f"it has a column '{name}'"):
        replay(source, ["everything"], EVERYTHING)


def test_a_dataset_may_hold_its_availability_itself() -> None:
    text = TEXT.replace("later =", "available_at =").replace(
        'key = ["id"]', 'key = ["id"]\navailable_at = "available_at"'
    )
    rows = pl.DataFrame(
        {
            "exchange": "a",
            "symbol": "X",
            "id": [1, 2],
            "timestamp": [T0, T0],
            "available_at": [T0 + SECOND, None],
        },
        schema_overrides={"timestamp": TIME, "available_at": TIME},
    )
    source = Memory({"everything": rows}, catalog_with(text))
    result = list_rows(replay(source, ["everything"], EVERYTHING))
    assert [(row["id"], row["available_at"]) for _, row in result] == [(2, T0), (1, T0 + SECOND)]
