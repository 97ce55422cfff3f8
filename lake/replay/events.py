"""Typed events: the rows of a replay as named tuples, one at a time.

The fields of an event are `table`, `position` (its number in the whole replay), `available_at_us`,
and the columns of its dataset in their order, without `date`. A column of the event that the
dataset of an old bundle lacks is None. A time is an integer in microseconds since 1970 in a field
that ends in `_us`; the property without that ending is a UTC datetime.
"""

from __future__ import annotations

import keyword
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache, partial
from itertools import chain, repeat
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import polars as pl

from lake.errors import SchemaError
from lake.model.dataset import Dataset
from lake.model.event_columns import EventKind, find_absent_columns
from lake.model.time import EPOCH, MICROSECOND
from lake.model.visibility import AVAILABLE_AT
from lake.replay.merge import POSITION, Batch

_SLICE_ROWS = 2048


class Event(Protocol):
    """The fields that every event has."""

    @property
    def table(self) -> str:
        """The table, such as `bars_1m`."""

    @property
    def position(self) -> int:
        """The number in the whole replay, from 0."""

    @property
    def available_at_us(self) -> int:
        """The time from which it could be known, in microseconds since 1970."""

    @property
    def available_at(self) -> datetime:
        """The time from which it could be known, UTC."""

    @property
    def exchange(self) -> str:
        """The exchange's id."""

    @property
    def symbol(self) -> str:
        """The unified symbol."""


class Bar(NamedTuple):
    """A bar; `timestamp` is its open time, `available_at` its end, or its receipt if later."""

    table: str
    position: int
    available_at_us: int
    exchange: str
    symbol: str
    timestamp_us: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float | None
    trade_count: int | None
    taker_buy_volume: float | None
    taker_buy_quote_volume: float | None
    closed: bool
    fill: str | None
    received_at_us: int | None = None

    @property
    def available_at(self) -> datetime:
        return _to_datetime(self.available_at_us)

    @property
    def timestamp(self) -> datetime:
        return _to_datetime(self.timestamp_us)

    @property
    def received_at(self) -> datetime | None:
        return None if self.received_at_us is None else _to_datetime(self.received_at_us)


class Trade(NamedTuple):
    """A trade."""

    table: str
    position: int
    available_at_us: int
    exchange: str
    symbol: str
    timestamp_us: int
    trade_id: str
    price: float
    amount: float
    side: str | None
    first_id: int | None
    last_id: int | None
    received_at_us: int | None

    @property
    def available_at(self) -> datetime:
        return _to_datetime(self.available_at_us)

    @property
    def timestamp(self) -> datetime:
        return _to_datetime(self.timestamp_us)

    @property
    def received_at(self) -> datetime | None:
        return None if self.received_at_us is None else _to_datetime(self.received_at_us)


class OrderBook(NamedTuple):
    """A snapshot of an order book; lists go from the best price outward."""

    table: str
    position: int
    available_at_us: int
    exchange: str
    symbol: str
    timestamp_us: int
    sequence: int
    bid_prices: list[float]
    bid_amounts: list[float]
    ask_prices: list[float]
    ask_amounts: list[float]
    received_at_us: int

    @property
    def available_at(self) -> datetime:
        return _to_datetime(self.available_at_us)

    @property
    def timestamp(self) -> datetime:
        return _to_datetime(self.timestamp_us)

    @property
    def received_at(self) -> datetime:
        return _to_datetime(self.received_at_us)


class Funding(NamedTuple):
    """A funding rate that was applied."""

    table: str
    position: int
    available_at_us: int
    exchange: str
    symbol: str
    timestamp_us: int
    funding_rate: float
    mark_price: float | None
    fill: str | None
    received_at_us: int | None = None

    @property
    def available_at(self) -> datetime:
        return _to_datetime(self.available_at_us)

    @property
    def timestamp(self) -> datetime:
        return _to_datetime(self.timestamp_us)

    @property
    def received_at(self) -> datetime | None:
        return None if self.received_at_us is None else _to_datetime(self.received_at_us)


_CLASSES: Mapping[EventKind, type[Event]] = {
    "bar": Bar,
    "trade": Trade,
    "order_book": OrderBook,
    "funding": Funding,
}


def read_events(batches: Iterable[Batch]) -> Iterator[Event]:
    """Yield the rows of batches one at a time, in order.

    Yields `Bar`, `Trade`, `OrderBook` and `Funding` by the `event` of each dataset. Rows of a
    dataset without an `event` have a class built from its columns (`build_event_class`).

    Raises
    ------
    SchemaError
        The columns of a dataset cannot be the fields of an event.
    """
    return chain.from_iterable(map(read_batch, batches))


def read_batch(batch: Batch) -> Iterator[Event]:
    """Yield the rows of one batch in order; raise as `read_events` does."""
    tables = np.empty(batch.rows, dtype=np.int64)
    for number, frame in enumerate(batch.frames.values()):
        tables[frame[POSITION].to_numpy() - batch.first] = number
    streams = [_build_events(batch.datasets[table], frame) for table, frame in batch.frames.items()]
    return map(next, map(streams.__getitem__, tables.tolist()))


@lru_cache(maxsize=256)
def build_event_class(dataset: Dataset) -> type[Event]:
    """Return the class of the events of a dataset, a named tuple.

    A column whose name is a Python keyword gets an underscore: `from_`.

    Raises
    ------
    SchemaError
        Two columns would have the same field, or the columns differ from those of the class
        that the dataset's `event` names.
    """
    fields = ["table", *(_name_field(*column) for column in _list_columns(dataset))]
    if duplicates := sorted({name for name in fields if fields.count(name) > 1}):
        raise SchemaError(
            f"table {dataset.name}: {duplicates[0]!r} would be two fields of its events",
            "Replay it in batches, where columns keep their names.",
        )
    if dataset.event is None:
        return _build_class(dataset, fields)
    class_ = _CLASSES[dataset.event]
    absent = {_name_field(*column) for column in _find_absent_columns(dataset).items()}
    if fields != [name for name in getattr(class_, "_fields", ()) if name not in absent]:
        raise SchemaError(
            f"table {dataset.name} has other columns than {class_.__name__}: {', '.join(fields)}",
            "Replay it in batches, or with the version of lake that wrote it.",
        )
    return class_


def _list_columns(dataset: Dataset) -> list[tuple[str, str]]:
    """List the columns of a batch's frame that are fields after `table`, with their types."""
    other = ("date", AVAILABLE_AT)
    own = [(column.name, column.type) for column in dataset.columns if column.name not in other]
    return [(POSITION, "int64"), (AVAILABLE_AT, "timestamp"), *own]


def _find_absent_columns(dataset: Dataset) -> dict[str, str]:
    """Find the columns of the dataset's event that it lacks; their fields are None."""
    return find_absent_columns(dataset.event, dataset.polars_schema) if dataset.event else {}


def _name_field(name: str, kind: str) -> str:
    if kind == "timestamp":
        return f"{name}_us"
    return f"{name}_" if keyword.iskeyword(name) else name


def _build_class(dataset: Dataset, fields: list[str]) -> type[Event]:
    title = "".join(word.capitalize() for word in dataset.name.split("_"))
    base = namedtuple(title, fields)  # type: ignore[misc]
    times = [name for name, kind in _list_columns(dataset) if kind == "timestamp"]
    properties = {name: property(partial(_read_time, f"{name}_us")) for name in times}
    return type(title, (base,), {"__slots__": (), "__doc__": dataset.title, **properties})


def _read_time(field: str, event: tuple[Any, ...]) -> datetime | None:
    microseconds = getattr(event, field)
    return None if microseconds is None else _to_datetime(microseconds)


def _to_datetime(microseconds: int) -> datetime:
    return EPOCH + microseconds * MICROSECOND


def _build_events(dataset: Dataset, frame: pl.DataFrame) -> Iterator[Event]:
    """Yield the events of one table."""
    # Twice as fast as `_make`, which counts the fields of each row again.
    build = cast("Callable[..., Event]", partial(tuple.__new__, build_event_class(dataset)))
    names = [name for name, _ in _list_columns(dataset)]
    nones = [repeat(None)] * len(_find_absent_columns(dataset))
    # In small slices, because garbage collection visits every live tuple.
    return chain.from_iterable(
        map(
            build,
            zip(repeat(dataset.name), *map(_to_values, part.iter_columns()), *nones, strict=False),
        )
        for part in frame.select(names).iter_slices(_SLICE_ROWS)
    )


def _to_values(column: pl.Series) -> list[Any]:
    """Convert a column to Python values; times become integers."""
    return (column.to_physical() if column.dtype == pl.Datetime else column).to_list()
