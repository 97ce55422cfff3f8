"""Kinds of events and their columns: bars, trades, order books, funding.

A dataset file sets `event`. Each kind of event has its own class in a replay, sources can fetch it,
and checks and repairs may use the rows of one table as evidence about another.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Literal

EventKind = Literal["bar", "trade", "order_book", "funding"]

EVENT_COLUMNS: Mapping[EventKind, Mapping[str, str]] = {
    "bar": {
        "timestamp": "timestamp",
        "open": "float64",
        "high": "float64",
        "low": "float64",
        "close": "float64",
        "volume": "float64",
        "quote_volume": "float64",
        "trade_count": "int64",
        "taker_buy_volume": "float64",
        "taker_buy_quote_volume": "float64",
        "closed": "boolean",
        "fill": "string",
        "received_at": "timestamp",
    },
    "trade": {
        "timestamp": "timestamp",
        "trade_id": "string",
        "price": "float64",
        "amount": "float64",
        "side": "string",
        "first_id": "int64",
        "last_id": "int64",
        "received_at": "timestamp",
    },
    "order_book": {
        "timestamp": "timestamp",
        "sequence": "int64",
        "bid_prices": "list<float64>",
        "bid_amounts": "list<float64>",
        "ask_prices": "list<float64>",
        "ask_amounts": "list<float64>",
        "received_at": "timestamp",
    },
    "funding": {
        "timestamp": "timestamp",
        "funding_rate": "float64",
        "mark_price": "float64",
        "fill": "string",
        "received_at": "timestamp",
    },
}
"""By kind of event: names and types of its columns, in order; optional ones are the last."""

_OPTIONAL_COLUMNS: Mapping[EventKind, tuple[str, ...]] = {
    "bar": ("received_at",),
    "funding": ("received_at",),
}


def find_absent_columns(event: EventKind, present: Container[str]) -> dict[str, str]:
    """Find the columns of an event that a dataset lacks and may lack, with their types.

    Those of earlier versions lack them; the event then has no value there.
    """
    columns, optional = EVENT_COLUMNS[event], _OPTIONAL_COLUMNS.get(event, ())
    return {name: columns[name] for name in optional if name not in present}
