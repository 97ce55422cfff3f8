"""Typed events: every row of a replay once, in order, with the columns of its dataset."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, get_args, get_type_hints

import polars as pl
import pytest

from lake.errors import SchemaError
from lake.model.catalog import builtin
from lake.model.dataset import Column
from lake.model.selection import Selection
from lake.replay import events as module
from lake.replay.events import Bar, Event, Funding, OrderBook, Trade, build_event_class, read_events
from lake.replay.merge import Source, replay
from tests.conftest import MINUTE, SECOND, T0, TIME, bars, funding, trades
from tests.model.everything import TEXT, own_copy
from tests.replay.memory import CATALOG, Memory, catalog_with, list_rows

EVERYTHING = Selection()
START_US = int(T0.timestamp()) * 1_000_000
PYTHON_TYPES = {
    "timestamp": int,
    "string": str,
    "float64": float,
    "int64": int,
    "boolean": bool,
    "list<float64>": list[float],
    "list<string>": list[str],
}
CLASSES: dict[str, Any] = {
    "bars_1m": Bar,
    "trades": Trade,
    "orderbooks": OrderBook,
    "funding": Funding,
}


def events_of(source: Source, *tables: str, **choice: Any) -> list[Any]:
    return list(read_events(replay(source, tables, EVERYTHING, **choice)))


def books(count: int = 2) -> pl.DataFrame:
    times = [T0 + number * SECOND for number in range(count)]
    sides = ("bid_prices", "bid_amounts", "ask_prices", "ask_amounts")
    levels = {side: [[1.5, 1.0], []] * (count // 2) for side in sides}
    return pl.DataFrame(
        {
            "exchange": "binance",
            "symbol": "BTC/USDT",
            "timestamp": times,
            "sequence": range(count),
            "received_at": [time + timedelta(milliseconds=5) for time in times],
            **levels,
        },
        schema_overrides={"timestamp": TIME, "received_at": TIME},
    )


def everything(**columns: Any) -> pl.DataFrame:
    frame = pl.DataFrame({"exchange": "a", "symbol": "X", "timestamp": [T0], "id": [7], **columns})
    return frame.cast({pl.Datetime: TIME})


@pytest.mark.parametrize("table", CLASSES)
def test_the_fields_of_an_event_are_the_columns_of_its_dataset(table: str) -> None:
    def hint(column: Column) -> Any:
        kind: Any = PYTHON_TYPES[column.type]
        return kind | None if column.nullable else kind

    def field(column: Column) -> str:
        return f"{column.name}_us" if column.type == "timestamp" else column.name

    dataset = builtin().dataset(table)
    columns = [column for column in dataset.columns if column.name != "date"]
    expected = {"table": str, "position": int, "available_at_us": int}
    expected |= {field(column): hint(column) for column in columns}
    found = get_type_hints(CLASSES[table])
    assert list(found.items()) == list(expected.items())
    assert build_event_class(dataset) is CLASSES[table]


@pytest.mark.parametrize("table", CLASSES)
def test_every_time_of_an_event_has_a_datetime_property(table: str) -> None:
    for name, kind in get_type_hints(CLASSES[table]).items():
        if name.endswith("_us"):
            fields = dict.fromkeys(CLASSES[table]._fields, None) | {name: START_US + 1}
            event = CLASSES[table](**fields)
            time = getattr(event, name.removesuffix("_us"))
            assert time == T0 + timedelta(microseconds=1)
            assert time.utcoffset() == timedelta(0)
            if type(None) in get_args(kind):
                empty = CLASSES[table](**dict.fromkeys(fields, None))
                assert getattr(empty, name.removesuffix("_us")) is None


def whole_source() -> Memory:
    received = [None if number % 2 else T0 + number * SECOND for number in range(300)]
    return Memory(
        {
            "bars_1m": bars(5),
            "trades": trades(300, received_at=pl.Series(received, dtype=TIME)),
            "orderbooks": books(100),
            "funding": funding([T0, T0 + MINUTE]),
            "everything": everything(later=[None], texts=[["a", None]], flag=[True]),
        }
    )


TABLES = ("bars_1m", "trades", "orderbooks", "funding", "everything")


@pytest.mark.parametrize("slice_rows", [3, 2048])
@pytest.mark.parametrize("batch_rows", [1, 50, 1000])
def test_events_are_the_rows_of_the_batches_in_order(
    batch_rows: int, slice_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SLICE_ROWS", slice_rows)
    source = whole_source()
    found = events_of(source, *TABLES, batch_rows=batch_rows)
    rows = list_rows(replay(source, TABLES, EVERYTHING))
    assert len(found) == len(rows) == 408
    for position, (event, (table, row)) in enumerate(zip(found, rows, strict=True)):
        del row["date"]
        times = {name for name, value in row.items() if isinstance(value, datetime)}
        times |= {"later", "received_at"} & row.keys()
        values = {name: getattr(event, name) for name in row}
        assert (event.table, event.position) == (table, position)
        assert values == row
        assert [f.removesuffix("_us") for f in event._fields[2:]] == list(row)
        assert {name.removesuffix("_us") for name in event._fields if name[-3:] == "_us"} == times


def test_events_are_of_the_class_of_their_table() -> None:
    found = events_of(whole_source(), *TABLES)
    classes = {event.table: type(event) for event in found}
    assert {table: classes[table] for table in CLASSES} == CLASSES
    assert classes["everything"].__name__ == "Everything"


def test_an_event_is_matched_by_its_class() -> None:
    seen = []
    event: Event
    for event in events_of(Memory({"trades": trades(1), "bars_1m": bars(1)}), "bars_1m", "trades"):
        match event:
            case Trade(price=price):
                seen.append(price)
            case Bar(close=close):
                seen.append(-close)
    assert seen == [100.0, -100.0]


def test_books_of_an_event_are_lists() -> None:
    first, second = events_of(Memory({"orderbooks": books()}), "orderbooks")
    assert (first.bid_prices, second.bid_prices) == ([1.5, 1.0], [])
    assert (first.sequence, first.position) == (0, 0)
    assert first.available_at - first.timestamp == timedelta(milliseconds=5)


def test_events_come_as_the_batches_do() -> None:
    source = Memory({"trades": trades(1000)})
    stream = read_events(replay(source, ["trades"], EVERYTHING, batch_rows=10, window_rows=10))
    assert source.reads == []
    next(stream)
    assert len(source.reads) == 1


def test_a_custom_dataset_has_its_own_class_created_once() -> None:
    dataset = CATALOG.dataset("everything")
    event_type: Any = build_event_class(dataset)
    assert build_event_class(catalog_with(TEXT).dataset("everything")) is not event_type
    assert build_event_class(CATALOG.dataset("everything")) is event_type
    source = Memory({"everything": everything(later=[T0 + SECOND])})
    [event] = events_of(source, "everything")
    assert [type(event)] == [event_type]
    assert event.later == T0 + SECOND
    assert event.later_us == START_US + 1_000_000
    assert event.available_at == event.timestamp == T0


def test_a_column_named_by_a_word_of_python_gets_an_underscore() -> None:
    catalog = catalog_with(TEXT.replace("flag =", "class ="))
    source = Memory({"everything": everything(**{"class": [True]})}, catalog)
    [event] = events_of(source, "everything")
    assert event.class_ is True


@pytest.mark.parametrize(("name", "field"), [("later_us", "later_us"), ("table", "table")])
def test_columns_that_would_be_one_field_are_refused(name: str, field: str) -> None:
    catalog = catalog_with(TEXT.replace("count =", f"{name} ="))
    source = Memory({"everything": everything()}, catalog)
    with pytest.raises(SchemaError, match=f"'{field}' would be two fields"):
        events_of(source, "everything")


@pytest.mark.parametrize("event", ['event = "trade"', ""])
def test_event_gives_the_class_of_a_users_own_rows(event: str) -> None:
    text = own_copy("trades", "fills").replace("[columns]", f"{event}\n\n[columns]", 1)
    [first, *_] = events_of(Memory({"fills": trades(2)}, catalog_with(text)), "fills")
    assert (first.table, first.trade_id) == ("fills", "0")
    assert isinstance(first, Trade) == bool(event)


def test_a_dataset_of_the_product_with_other_columns_is_refused() -> None:
    dataset = builtin().dataset("trades")
    fewer = type(dataset)(**{**vars(dataset), "columns": dataset.columns[:-1]})
    with pytest.raises(SchemaError, match="table trades has other columns than Trade"):
        build_event_class(fewer)
